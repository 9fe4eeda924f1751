//! The affine coupling of invertible blocks, pointwise: `s = clamp * tanh(0.1 a1)`, `y = x * e^s + 0.1 a2`, and back.
//!
//! One layout covers images and panels: `rows` rows of `width` values; the two halves of `a` of a row lie `gap` apart, and
//! rows of `a` begin every `stride` values. An image `[pixels, 2 c]` has stride `2 c` and gap `c`; a panel `[2 c, 64]` has rows
//! of 64, stride 64 and gap `64 c`.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;

use crate::gemm::Isa;
use crate::{Result, error::shape_error};

/// Where a row's two halves of `a` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of rows.
    pub rows: usize,
    /// Values of a row of `x`.
    pub width: usize,
    /// From one row of `a` to the next.
    pub stride: usize,
    /// From `a1` to `a2`.
    pub gap: usize,
}

impl Layout {
    /// Pixels or samples in rows: `a` is `[rows, 2 width]`.
    pub fn rows(rows: usize, width: usize) -> Layout {
        Layout { rows, width, stride: 2 * width, gap: width }
    }

    /// A panel of samples: `a` is `[2 channels, width]`.
    pub fn panel(channels: usize, width: usize) -> Layout {
        Layout { rows: channels, width, stride: width, gap: channels * width }
    }

    fn check(&self, op: &'static str, a: usize, others: &[usize], line: usize) -> Result<()> {
        let values = self.rows.checked_mul(self.width);
        let before = self.rows.saturating_sub(1).checked_mul(self.stride);
        let last = before.and_then(|n| n.checked_add(self.gap)?.checked_add(self.width));
        let fits = last.is_some_and(|last| self.rows == 0 || last <= a)
            && others.iter().all(|n| Some(*n) == values)
            && line == self.width;
        if fits { Ok(()) } else { Err(shape_error(op, format!("{self:?}"), (a, others, line))) }
    }
}

/// The subnet's output is scaled by this before it is used, so that a fresh block is near the identity.
pub const DAMPING: f32 = 0.1;

/// `s = clamp * tanh(0.1 a1)`; `x` becomes `x * e^s + 0.1 a2`; `sums[width]` grows by the sums of `s` over the rows.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit.
pub fn forward(layout: Layout, clamp: f32, a: &[f32], x: &mut [f32], s: &mut [f32], sums: &mut [f32]) -> Result<()> {
    layout.check("coupling", a.len(), &[x.len(), s.len()], sums.len())?;
    cpu::forward(Isa::best(), layout, clamp, a, x, s, sums);
    Ok(())
}

/// The way back: `y` becomes `x = (y - 0.1 a2) * e^-s` with `s` from `a1`.
///
/// # Errors
/// As [`forward`].
pub fn inverse(layout: Layout, clamp: f32, a: &[f32], y: &mut [f32]) -> Result<()> {
    layout.check("coupling", a.len(), &[y.len()], layout.width)?;
    cpu::inverse(Isa::best(), layout, clamp, a, y);
    Ok(())
}

/// Gradients: `g` holds those of `y` and becomes those of `x`; `a`, whose values are no longer needed, becomes its own
/// gradient. `log_det[width]` is the gradient of the sums of `s`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    layout: Layout,
    clamp: f32,
    x: &[f32],
    s: &[f32],
    log_det: &[f32],
    g: &mut [f32],
    a: &mut [f32],
) -> Result<()> {
    layout.check("coupling", a.len(), &[x.len(), s.len(), g.len()], log_det.len())?;
    cpu::backward(Isa::best(), layout, clamp, x, s, log_det, g, a);
    Ok(())
}

/// Mixes the channels of pixels kept in two halves: `out = in[order] * scale + offset`, where `in` is `[x1; x2]` and the first
/// channels of `out` go to `y1`, the others to `y2`. Halves are `[pixels, c1]` and `[pixels, c2]`; `order`, `scale` and `offset`
/// have a number for each channel of the result.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit, or a channel of `order` does not exist.
pub fn mix(
    order: &[u32],
    scale: &[f32],
    offset: &[f32],
    (x1, x2): (&[f32], &[f32]),
    (y1, y2): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let c = order.len();
    let (c1, c2) = (c - c / 2, c / 2);
    let pixels = x1.len() / c1.max(1);
    let halves = [x1.len(), y1.len()].iter().all(|n| *n == pixels * c1)
        && [x2.len(), y2.len()].iter().all(|n| *n == pixels * c2);
    let numbers = scale.len() == c && offset.len() == c && order.iter().all(|i| (*i as usize) < c);
    if c < 2 || !halves || !numbers {
        let got = (c, x1.len(), x2.len(), y1.len(), y2.len(), scale.len(), offset.len());
        return Err(shape_error("mix", "channels below their number, halves of the same pixels", got));
    }
    cpu::mix(Isa::best(), order, scale, offset, (x1, x2), (y1, y2));
    Ok(())
}

/// Sums over the pixels of `a` and of `a * b`, both `[pixels, sums.len()]`, added to `sums` and `products`. Blocks of 64 pixels
/// are added up in f32, the blocks in f64.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit.
pub fn channel_sums(a: &[f32], b: &[f32], sums: &mut [f64], products: &mut [f64]) -> Result<()> {
    let c = sums.len();
    if c == 0 || products.len() != c || a.len() != b.len() || !a.len().is_multiple_of(c) {
        return Err(shape_error("channel sums", format!("[pixels, {c}]"), (a.len(), b.len(), products.len())));
    }
    cpu::channel_sums(Isa::best(), a, b, sums, products);
    Ok(())
}
