#![allow(unsafe_code)]
//! The antialiased resize of one picture. Portable code, compiled a second time for AVX2; no fused multiply-add, so both
//! give the same bits.

use super::taps::Taps;

/// Samples summed side by side in registers.
const BLOCK: usize = 32;

/// Resizes `source` `[.., width, C]` to `output` `[rows.start.len(), columns.start.len(), C]`.
pub(super) fn antialias<T: Copy + Into<f32>, const C: usize>(
    source: &[T],
    width: usize,
    rows: &Taps,
    columns: &Taps,
    output: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { antialias_avx2::<T, C>(source, width, rows, columns, output) };
        return;
    }
    antialias_portable::<T, C>(source, width, rows, columns, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn antialias_avx2<T: Copy + Into<f32>, const C: usize>(
    source: &[T],
    width: usize,
    rows: &Taps,
    columns: &Taps,
    output: &mut [f32],
) {
    antialias_portable::<T, C>(source, width, rows, columns, output);
}

/// Vertical first, one output row at a time: the row in between stays in the first-level cache.
#[inline(always)]
pub(super) fn antialias_portable<T: Copy + Into<f32>, const C: usize>(
    source: &[T],
    width: usize,
    rows: &Taps,
    columns: &Taps,
    output: &mut [f32],
) {
    let stride = width * C;
    let weights = columns.interleaved(C);
    // Zeros behind the row: stored taps may reach beyond it, with weight zero.
    let mut row = vec![0.0; stride + columns.width * C];
    for (y, line) in output.chunks_exact_mut(columns.start.len() * C).enumerate() {
        let vertical = &rows.weight[y * rows.width..][..rows.count[y]];
        weigh_rows(&source[rows.start[y] * stride..], stride, vertical, &mut row[..stride]);
        for ((pixel, start), weight) in
            line.chunks_exact_mut(C).zip(&columns.start).zip(weights.chunks_exact(columns.width * C))
        {
            pixel.copy_from_slice(&weigh_line::<C>(&row[start * C..], weight));
        }
    }
}

/// `out[x] = sum over t of weights[t] * source[t * stride + x]`.
#[inline(always)]
fn weigh_rows<T: Copy + Into<f32>>(source: &[T], stride: usize, weights: &[f32], out: &mut [f32]) {
    let whole = stride / BLOCK * BLOCK;
    let (blocks, rest) = out.split_at_mut(whole);
    for (i, block) in blocks.chunks_exact_mut(BLOCK).enumerate() {
        let mut sum = [0.0f32; BLOCK];
        for (t, weight) in weights.iter().enumerate() {
            if let Some(samples) = source[t * stride + i * BLOCK..].first_chunk::<BLOCK>() {
                for (s, v) in sum.iter_mut().zip(samples) {
                    *s += weight * (*v).into();
                }
            }
        }
        block.copy_from_slice(&sum);
    }
    for (x, out) in rest.iter_mut().enumerate() {
        *out = weights.iter().enumerate().map(|(t, w)| w * source[t * stride + whole + x].into()).sum();
    }
}

/// One pixel: `sum over t of weights[t * C + c] * row[t * C + c]`, in four partial sums for each channel.
#[inline(always)]
fn weigh_line<const C: usize>(row: &[f32], weights: &[f32]) -> [f32; C] {
    let mut partial = [[0.0f32; C]; 4];
    for (samples, weights) in row.chunks_exact(4 * C).zip(weights.chunks_exact(4 * C)) {
        for (k, sum) in partial.as_flattened_mut().iter_mut().enumerate() {
            *sum += samples[k] * weights[k];
        }
    }
    std::array::from_fn(|c| (partial[0][c] + partial[1][c]) + (partial[2][c] + partial[3][c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_compilations_agree_to_the_bit() {
        let (h, w) = (61, 97);
        let source: Vec<u8> = (0..h * w * 3).map(|i| (i * 7919 % 251) as u8).collect();
        for size in [(17, 23), (61, 97), (130, 200), (1, 1)] {
            let (rows, columns) = (Taps::new(h, size.0), Taps::new(w, size.1));
            let mut a = vec![0.0; size.0 * size.1 * 3];
            let mut b = a.clone();
            antialias::<u8, 3>(&source, w, &rows, &columns, &mut a);
            antialias_portable::<u8, 3>(&source, w, &rows, &columns, &mut b);
            assert_eq!(a, b);
        }
    }
}
