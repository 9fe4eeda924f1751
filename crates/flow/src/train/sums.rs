//! Sums over samples, in sixteen lanes.

use blemish_kernels::product::panel::PANEL;

/// Sums of the rows of panels `[panels, rows, 64]`.
pub(super) fn row_sums(values: &[f32], rows: usize) -> Vec<f32> {
    let mut sums = vec![0.0; rows];
    for panel in values.chunks_exact(rows * PANEL) {
        sums.iter_mut().zip(panel.chunks_exact(PANEL)).for_each(|(s, row)| *s += sum(row));
    }
    sums
}

/// The sum of a row, in sixteen lanes and what is left.
pub(super) fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let parts = row.chunks_exact(16);
    let left = parts.remainder().iter().fold(0.0, |sum, v| sum + v);
    for part in parts {
        lanes.iter_mut().zip(part).for_each(|(l, v)| *l += v);
    }
    lanes.iter().sum::<f32>() + left
}

/// The sum of the products of two rows of 64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum()
}
