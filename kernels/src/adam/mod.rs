//! The step of Adam (Kingma and Ba, ICLR 2015, algorithm 1) on slices, in one pass over the memory.
//!
//! 28 bytes are moved for each value; [`crate::product::panel::update`] saves eight of them by keeping gradients in registers.
//!
//! ```
//! use blemish_kernels::{Par, adam::{AdamStep, adam}};
//! let step = AdamStep::new(0.1, [0.9, 0.999], 1e-8, 0.0, false, 1);
//! let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
//! adam(&step, &mut p, &mut m, &mut v, &[3.0], Par::Serial)?;
//! assert!((p[0] - 0.9f32).abs() < 1e-6);
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

use rayon::prelude::*;

pub(crate) use cpu::step_slice;

use crate::gemm::Isa;
use crate::{Par, Result, error::shape_error};

/// The numbers of one step, the same for all values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Decay rates of the two moments.
    pub betas: [f32; 2],
    /// Learning rate over the first moment's correction.
    pub size: f32,
    /// Root of the second moment's correction.
    pub root: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay added to the gradient, or 0.
    pub l2: f32,
    /// Factor on the value before the step: `1 - lr * decay` of AdamW, or 1.
    pub shrink: f32,
}

impl AdamStep {
    /// The numbers of step `step`, counted from 1. `decoupled` decay shrinks the values, otherwise it is added to the gradient.
    /// As PyTorch: the corrections are computed in f64.
    pub fn new(lr: f32, betas: [f32; 2], eps: f32, decay: f32, decoupled: bool, step: u64) -> AdamStep {
        let power = |b: f32| 1.0 - f64::from(b).powf(step as f64);
        AdamStep {
            betas,
            size: (f64::from(lr) / power(betas[0])) as f32,
            root: power(betas[1]).sqrt() as f32,
            eps,
            l2: if decoupled { 0.0 } else { decay },
            shrink: if decoupled { 1.0 - lr * decay } else { 1.0 },
        }
    }
}

/// Values of one task.
const CHUNK: usize = 1 << 14;

/// Moves `p` against its gradient `g`, and its moments `m` and `v` along.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the lengths differ.
pub fn adam(step: &AdamStep, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], par: Par) -> Result<()> {
    let n = p.len();
    if m.len() != n || v.len() != n || g.len() != n {
        return Err(shape_error("adam", format!("{n} moments and gradients"), (m.len(), v.len(), g.len())));
    }
    let isa = Isa::best();
    if par == Par::Serial || n <= CHUNK {
        cpu::adam(isa, step, p, m, v, g);
        return Ok(());
    }
    let tasks =
        p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK)).zip(g.par_chunks(CHUNK));
    tasks.for_each(|(((p, m), v), g)| cpu::adam(isa, step, p, m, v, g));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bits_on_every_instruction_set_and_thread() {
        let at = |i: usize, k: usize| ((i * k % 1009) as f32 - 504.0) / 300.0;
        let n = 3 * CHUNK + 5;
        let step = AdamStep::new(1e-3, [0.9, 0.999], 1e-8, 1e-2, false, 7);
        let fresh = || {
            let v: Vec<f32> = (0..n).map(|i| at(i, 31).abs()).collect();
            ((0..n).map(|i| at(i, 17)).collect::<Vec<_>>(), (0..n).map(|i| at(i, 71)).collect::<Vec<_>>(), v)
        };
        let g: Vec<f32> = (0..n).map(|i| at(i, 13)).collect();
        let (mut p, mut m, mut v) = fresh();
        for i in 0..n {
            let g = g[i] + step.l2 * p[i];
            m[i] += (1.0 - step.betas[0]) * (g - m[i]);
            v[i] = step.betas[1] * v[i] + (1.0 - step.betas[1]) * g * g;
            p[i] -= step.size * step.root * (m[i] / (v[i].sqrt() + step.eps * step.root));
        }
        let want = (p, m, v);
        for isa in Isa::available() {
            let (mut p, mut m, mut v) = fresh();
            cpu::adam(isa, &step, &mut p, &mut m, &mut v, &g);
            assert_eq!((p, m, v), want, "{isa:?}");
        }
        let (mut p, mut m, mut v) = fresh();
        adam(&step, &mut p, &mut m, &mut v, &g, Par::Rayon).unwrap();
        assert_eq!((p, m, v), want);
        assert!(adam(&step, &mut [0.0], &mut [0.0], &mut [], &[0.0], Par::Serial).is_err());
    }
}
