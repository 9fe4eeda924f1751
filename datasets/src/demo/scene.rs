//! From a fine grid of colours to the picture a camera would take.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

/// Fine samples for each pixel, each way.
pub(super) const FINE: usize = 2;

/// What is drawn: `side * side` fine samples.
pub(super) struct Scene {
    /// Fine samples each way.
    pub(super) side: usize,
    /// Linear, 0 to 1.
    pub(super) colour: Vec<[f32; 3]>,
    /// Whether the sample is part of the defect.
    pub(super) defect: Vec<bool>,
}

/// 8-bit samples of a finished picture.
pub(super) struct Picture {
    /// `[size, size, 3]`.
    pub(super) rgb: Vec<u8>,
    /// `[size, size]`, 255 where the part is defective.
    pub(super) mask: Vec<u8>,
}

/// The camera.
pub(super) struct Camera {
    /// Brightness to the left and right, top and bottom edge, relative.
    pub(super) slope: (f32, f32),
    /// Darkening of the corners.
    pub(super) vignette: f32,
    /// Standard deviation of the noise in 8-bit levels.
    pub(super) noise: f32,
}

impl Scene {
    /// An empty scene for a picture of `size`.
    pub(super) fn new(size: usize) -> Scene {
        let side = size * FINE;
        Scene { side, colour: vec![[0.0; 3]; side * side], defect: vec![false; side * side] }
    }

    /// Calls `f` with the place of each fine sample, in 1/256 of the side, row by row.
    pub(super) fn fill<T>(side: usize, mut f: impl FnMut(f32, f32) -> T) -> Vec<T> {
        let unit = 256.0 / side as f32;
        let mut out = Vec::with_capacity(side * side);
        for y in 0..side {
            for x in 0..side {
                out.push(f((x as f32 + 0.5) * unit, (y as f32 + 0.5) * unit));
            }
        }
        out
    }

    /// Slope of a height field at a fine sample, in heights for each 1/256.
    pub(super) fn slope(height: &[f32], side: usize, index: usize) -> (f32, f32) {
        let (y, x) = (index / side, index % side);
        let unit = 256.0 / side as f32;
        let (left, right) = (index - usize::from(x > 0), index + usize::from(x + 1 < side));
        let up = index - if y > 0 { side } else { 0 };
        let down = index + if y + 1 < side { side } else { 0 };
        let across = |a: usize, b: usize, steps: usize| (height[b] - height[a]) / (steps.max(1) as f32 * unit);
        (across(left, right, right - left), across(up, down, (down - up) / side))
    }

    /// The picture: averaged to pixels, lightly blurred by the lens, lit unevenly, noisy, gamma 2.2.
    pub(super) fn shoot(&self, camera: &Camera, rng: &mut ChaCha8Rng) -> Picture {
        let size = self.side / FINE;
        let mut pixels = vec![[0.0f32; 3]; size * size];
        let mut mask = vec![0u8; size * size];
        for y in 0..size {
            for x in 0..size {
                let fine = (0..FINE * FINE).map(|k| (y * FINE + k / FINE) * self.side + x * FINE + k % FINE);
                let mut hits = 0;
                for i in fine {
                    hits += usize::from(self.defect[i]);
                    for c in 0..3 {
                        pixels[y * size + x][c] += self.colour[i][c] / (FINE * FINE) as f32;
                    }
                }
                mask[y * size + x] = if 2 * hits >= FINE * FINE { 255 } else { 0 };
            }
        }
        let pixels = lens(&lens(&pixels, size, 1), size, size);
        let mut rgb = Vec::with_capacity(size * size * 3);
        for (i, pixel) in pixels.iter().enumerate() {
            let (v, u) = ((i / size) as f32 / size as f32 - 0.5, (i % size) as f32 / size as f32 - 0.5);
            let light = 1.0 + camera.slope.0 * u + camera.slope.1 * v - camera.vignette * 2.0 * (u * u + v * v);
            let common = gaussian(rng);
            for c in pixel {
                let level = 255.0 * (c * light).clamp(0.0, 1.0).powf(1.0 / 2.2);
                // Most of a camera's noise is in the brightness.
                let noise = camera.noise * (0.85 * common + 0.5 * gaussian(rng));
                rgb.push((level + noise).round().clamp(0.0, 255.0) as u8);
            }
        }
        Picture { rgb, mask }
    }
}

/// A blur of three pixels along one axis.
fn lens(pixels: &[[f32; 3]], size: usize, stride: usize) -> Vec<[f32; 3]> {
    const SIDE: f32 = 0.12;
    let at = |i: usize, back: bool| {
        let place = if stride == 1 { i % size } else { i / size };
        match back {
            true if place > 0 => i - stride,
            false if place + 1 < size => i + stride,
            _ => i,
        }
    };
    (0..pixels.len())
        .map(|i| {
            let (a, b) = (pixels[at(i, true)], pixels[at(i, false)]);
            std::array::from_fn(|c| (1.0 - 2.0 * SIDE) * pixels[i][c] + SIDE * (a[c] + b[c]))
        })
        .collect()
}

/// About a standard normal number: the sum of four bytes.
fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let sum: u32 = rng.next_u32().to_le_bytes().iter().map(|b| u32::from(*b)).sum();
    (sum as f32 - 510.0) / 147.8
}

/// A vector of length one.
pub(super) fn unit(v: [f32; 3]) -> [f32; 3] {
    let length = dot(v, v).sqrt();
    v.map(|x| x / length)
}

pub(super) fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
