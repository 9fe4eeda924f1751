//! Smooth random fields, a function of their seed and the place alone.

/// A well-mixed number from three.
fn hash(seed: u32, x: i32, y: i32) -> u32 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// From -1 to 1, independent for each `index`.
pub(super) fn each(seed: u32, index: i32) -> f32 {
    lattice(seed, index, 0x51ed)
}

fn lattice(seed: u32, x: i32, y: i32) -> f32 {
    (hash(seed, x, y) >> 8) as f32 * (2.0 / (1 << 24) as f32) - 1.0
}

/// The largest whole number not above `x`; `f32::floor` is a call on processors without SSE 4.1.
pub(super) fn whole(x: f32) -> i32 {
    let towards_zero = x as i32;
    towards_zero - i32::from(x < towards_zero as f32)
}

/// From -1 to 1, smooth, with features of about one unit.
pub(super) fn value(seed: u32, x: f32, y: f32) -> f32 {
    let (ix, iy) = (whole(x), whole(y));
    let (fx, fy) = (ix as f32, iy as f32);
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - fx), ease(y - fy));
    let row = |y| {
        let (a, b) = (lattice(seed, ix, y), lattice(seed, ix + 1, y));
        a + (b - a) * tx
    };
    let (a, b) = (row(iy), row(iy + 1));
    a + (b - a) * ty
}

/// Three octaves of [`value`], about -1 to 1.
pub(super) fn cloud(seed: u32, x: f32, y: f32) -> f32 {
    (value(seed, x, y) + 0.5 * value(seed ^ 0xa5a5, 2.0 * x, 2.0 * y) + 0.25 * value(seed ^ 0x5a5a, 4.0 * x, 4.0 * y))
        / 1.4
}
