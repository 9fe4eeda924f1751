//! The outlines of defects. Lengths are in 1/256 of the picture's side.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::f32::consts::TAU;

use super::noise;

/// A round patch with a rough outline.
pub(super) struct Blob {
    centre: (f32, f32),
    radius: f32,
    /// Long to short axis.
    aspect: f32,
    turn: (f32, f32),
    rough: f32,
    seed: u32,
}

impl Blob {
    pub(super) fn new(centre: (f32, f32), radius: f32, rough: f32, rng: &mut ChaCha8Rng) -> Blob {
        let angle = rng.random_range(0.0..TAU);
        let aspect = rng.random_range(1.0..1.6);
        Blob { centre, radius, aspect, turn: angle.sin_cos(), rough, seed: rng.random() }
    }

    /// About the distance to the outline, positive inside.
    pub(super) fn depth(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        if dx.abs().max(dy.abs()) > 3.0 * self.radius {
            return -self.radius;
        }
        let (sin, cos) = self.turn;
        let (a, b) = ((dx * cos + dy * sin) / self.aspect, (dy * cos - dx * sin) * self.aspect.sqrt());
        let distance = (a * a + b * b).sqrt();
        let scale = 1.3 / self.radius;
        self.radius * (1.0 + self.rough * noise::cloud(self.seed, dx * scale, dy * scale)) - distance
    }
}

/// A curved line.
pub(super) struct Curve {
    points: Vec<(f32, f32)>,
    low: (f32, f32),
    high: (f32, f32),
}

impl Curve {
    /// A walk from `start` that turns by up to `bend` radians for each 1/256.
    pub(super) fn walk(start: (f32, f32), heading: f32, length: f32, bend: f32, rng: &mut ChaCha8Rng) -> Curve {
        const STEP: f32 = 2.5;
        let steps = (length / STEP).ceil().max(1.0) as usize;
        let (mut at, mut heading) = (start, heading);
        let mut turn = rng.random_range(-bend..=bend);
        let mut points = vec![at];
        for _ in 0..steps {
            turn = (turn + rng.random_range(-0.4..=0.4) * bend).clamp(-bend, bend);
            heading += turn * STEP;
            at = (at.0 + STEP * heading.cos(), at.1 + STEP * heading.sin());
            points.push(at);
        }
        let fold = |f: fn(f32, f32) -> f32| points.iter().fold(start, |m, p| (f(m.0, p.0), f(m.1, p.1)));
        let (low, high) = (fold(f32::min), fold(f32::max));
        Curve { points, low, high }
    }

    /// Distance to the line, its side (the sign), and where along it (0 to 1); `None` beyond `reach`.
    pub(super) fn near(&self, x: f32, y: f32, reach: f32) -> Option<(f32, f32)> {
        let outside =
            x < self.low.0 - reach || x > self.high.0 + reach || y < self.low.1 - reach || y > self.high.1 + reach;
        if outside {
            return None;
        }
        let mut best = (f32::INFINITY, 0.0, 1.0);
        for (i, pair) in self.points.windows(2).enumerate() {
            let &[(ax, ay), (bx, by)] = pair else { continue };
            let (ux, uy, px, py) = (bx - ax, by - ay, x - ax, y - ay);
            let t = ((px * ux + py * uy) / (ux * ux + uy * uy)).clamp(0.0, 1.0);
            let (dx, dy) = (px - t * ux, py - t * uy);
            let squared = dx * dx + dy * dy;
            if squared < best.0 {
                best = (squared, i as f32 + t, (ux * py - uy * px).signum());
            }
        }
        let distance = best.0.sqrt();
        (distance <= reach).then(|| (distance * best.2, best.1 / (self.points.len() - 1).max(1) as f32))
    }
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
