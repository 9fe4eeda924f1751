use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The learning rate over time, as a factor of the base rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Schedule {
    /// Always the base rate.
    #[default]
    Constant,
    /// Times `factor` after every `every` steps.
    Step {
        /// Steps between two reductions.
        every: u64,
        /// The reduction.
        factor: f64,
    },
    /// Half a cosine from the base rate to `floor` times it over `total` steps, after a linear rise over `warm_up` steps
    /// from `start` times the rate.
    Cosine {
        /// Steps of the whole run.
        total: u64,
        /// Last rate, as a factor.
        floor: f64,
        /// Steps of the rise.
        warm_up: u64,
        /// First rate of the rise, as a factor.
        start: f64,
    },
}

impl Schedule {
    /// The factor at `step` (from 0). Beyond `total` a cosine stays at its floor (PyTorch's climbs again).
    pub fn factor(&self, step: u64) -> f64 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Step { every, factor } => factor.powf((step / every.max(1)) as f64),
            Schedule::Cosine { total, floor, warm_up, start } => {
                let at = |s: u64| {
                    let part = s.min(total) as f64 / total.max(1) as f64;
                    floor + (1.0 - floor) * 0.5 * (1.0 + (PI * part).cos())
                };
                if step < warm_up {
                    let part = step as f64 / warm_up as f64;
                    return start + (at(warm_up) - start) * part;
                }
                at(step)
            }
        }
    }
}
