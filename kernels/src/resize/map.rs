use ndarray::{Array2, Array4, ArrayView2, ArrayView4, Axis};

use super::check_size;
use crate::{Result, error::shape_error};

/// Where the corners of the two grids meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corners {
    /// The outer edges of the corner pixels coincide (`align_corners=False`).
    #[default]
    Edges,
    /// The centres of the corner pixels coincide (`align_corners=True`).
    Centres,
}

/// Bilinear interpolation without antialiasing, `[n, h, w, c]` to `[n, size.0, size.1, c]`.
///
/// # Errors
/// An empty input, a size of zero or one too large to hold.
pub fn bilinear(input: ArrayView4<'_, f32>, size: (usize, usize)) -> Result<Array4<f32>> {
    bilinear_with(input, size, Corners::Edges)
}

/// As [`bilinear`], saying where the corners meet.
///
/// # Errors
/// As [`bilinear`].
pub fn bilinear_with(input: ArrayView4<'_, f32>, size: (usize, usize), corners: Corners) -> Result<Array4<f32>> {
    let (n, h, w, c) = input.dim();
    check_input("bilinear", h, w)?;
    check_size("bilinear", size, n.saturating_mul(c))?;
    let (rows, columns) = (steps(h, size.0, corners), steps(w, size.1, corners));
    let source = input.as_standard_layout();
    let source = source.as_slice().unwrap_or_default();
    let mut output = vec![0.0; n * size.0 * size.1 * c];
    let mut line = vec![0.0; w * c];
    for (y, out_row) in output.chunks_exact_mut((size.1 * c).max(1)).enumerate() {
        let (image, row) = (y / size.0, rows[y % size.0]);
        let at = |i: usize| &source[(image * h + i) * w * c..][..w * c];
        mix(at(row.low), at(row.high), row.weight, &mut line);
        for (pixel, column) in out_row.chunks_exact_mut(c).zip(&columns) {
            mix(&line[column.low * c..][..c], &line[column.high * c..][..c], column.weight, pixel);
        }
    }
    Array4::from_shape_vec((n, size.0, size.1, c), output).map_err(|e| shape_error("bilinear", "[n, h, w, c]", e))
}

/// Nearest sample, index `floor(i * in / out)`, `[n, h, w, c]` to `[n, size.0, size.1, c]`.
///
/// # Errors
/// As [`bilinear`].
pub fn nearest(input: ArrayView4<'_, f32>, size: (usize, usize)) -> Result<Array4<f32>> {
    let (n, h, w, c) = input.dim();
    check_input("nearest", h, w)?;
    check_size("nearest", size, n.saturating_mul(c))?;
    let source = input.as_standard_layout();
    let source = source.as_slice().unwrap_or_default();
    let columns: Vec<usize> = (0..size.1).map(|x| x * w / size.1).collect();
    let mut output = Vec::with_capacity(n * size.0 * size.1 * c);
    for image in 0..n {
        let mut before = None;
        for y in 0..size.0 {
            let row = y * h / size.0;
            if before == Some(row) {
                output.extend_from_within(output.len() - size.1 * c..);
                continue;
            }
            before = Some(row);
            let line = &source[(image * h + row) * w * c..][..w * c];
            for x in &columns {
                output.extend_from_slice(&line[x * c..][..c]);
            }
        }
    }
    Array4::from_shape_vec((n, size.0, size.1, c), output).map_err(|e| shape_error("nearest", "[n, h, w, c]", e))
}

/// [`bilinear`] of one map, `[h, w]` to `[size.0, size.1]`.
///
/// # Errors
/// As [`bilinear`].
pub fn bilinear_2d(input: ArrayView2<'_, f32>, size: (usize, usize)) -> Result<Array2<f32>> {
    bilinear_2d_with(input, size, Corners::Edges)
}

/// [`bilinear_with`] of one map, `[h, w]` to `[size.0, size.1]`.
///
/// # Errors
/// As [`bilinear`].
pub fn bilinear_2d_with(input: ArrayView2<'_, f32>, size: (usize, usize), corners: Corners) -> Result<Array2<f32>> {
    let output = bilinear_with(input.insert_axis(Axis(0)).insert_axis(Axis(3)), size, corners)?;
    Ok(output.remove_axis(Axis(3)).remove_axis(Axis(0)))
}

/// [`nearest`] of one map, `[h, w]` to `[size.0, size.1]`.
///
/// # Errors
/// As [`bilinear`].
pub fn nearest_2d(input: ArrayView2<'_, f32>, size: (usize, usize)) -> Result<Array2<f32>> {
    let output = nearest(input.insert_axis(Axis(0)).insert_axis(Axis(3)), size)?;
    Ok(output.remove_axis(Axis(3)).remove_axis(Axis(0)))
}

/// Two neighbouring samples and the share of the second.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) weight: f32,
}

pub(super) fn steps(input: usize, output: usize, corners: Corners) -> Vec<Step> {
    let position = |i: usize| match corners {
        Corners::Edges => ((i as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0),
        Corners::Centres if output == 1 => 0.0,
        Corners::Centres => i as f64 * (input - 1) as f64 / (output - 1) as f64,
    };
    (0..output)
        .map(|i| {
            let low = (position(i) as usize).min(input - 1);
            Step { low, high: (low + 1).min(input - 1), weight: (position(i) - low as f64) as f32 }
        })
        .collect()
}

#[inline]
fn mix(low: &[f32], high: &[f32], weight: f32, out: &mut [f32]) {
    let rest = 1.0 - weight;
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = rest * low + weight * high;
    }
}

fn check_input(op: &'static str, h: usize, w: usize) -> Result<()> {
    if h == 0 || w == 0 { Err(shape_error(op, "at least one row and one column", (h, w))) } else { Ok(()) }
}
