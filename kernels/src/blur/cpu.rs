#![allow(unsafe_code)]
//! Both passes of the blur. Portable code, compiled a second time for AVX2; no fused multiply-add, so both give the same
//! bits.

/// Pixels summed side by side in registers.
const BLOCK: usize = 32;

/// Blurs `source` `[h, w]`. `rows` and `columns` hold the source index of each position from `-radius` to
/// `len + radius`, `kernel` the weights from the centre outwards (`radius + 1`).
pub(super) fn blur(source: &[f32], w: usize, rows: &[usize], columns: &[usize], kernel: &[f32], output: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { blur_avx2(source, w, rows, columns, kernel, output) };
        return;
    }
    blur_portable(source, w, rows, columns, kernel, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blur_avx2(source: &[f32], w: usize, rows: &[usize], columns: &[usize], kernel: &[f32], output: &mut [f32]) {
    blur_portable(source, w, rows, columns, kernel, output);
}

/// One output row at a time, vertical pass first: the row in between, with its border, stays in the cache.
#[inline(always)]
pub(super) fn blur_portable(
    source: &[f32],
    w: usize,
    rows: &[usize],
    columns: &[usize],
    kernel: &[f32],
    output: &mut [f32],
) {
    let radius = kernel.len() - 1;
    let mut line = vec![0.0f32; w + 2 * radius];
    for (y, out) in output.chunks_exact_mut(w).enumerate() {
        let rows = &rows[y..][..2 * radius + 1];
        weigh(source, kernel, |r| (rows[radius - r] * w, rows[radius + r] * w), &mut line[radius..][..w]);
        for i in 0..radius {
            line[i] = line[radius + columns[i]];
            line[radius + w + i] = line[radius + columns[radius + w + i]];
        }
        weigh(&line, kernel, |r| (radius - r, radius + r), out);
    }
}

/// `out[x] = kernel[0] * source[a(0) + x] + sum over r of kernel[r] * (source[a(r) + x] + source[b(r) + x])` where
/// `(a, b) = pair(r)`.
#[inline(always)]
fn weigh(source: &[f32], kernel: &[f32], pair: impl Fn(usize) -> (usize, usize), out: &mut [f32]) {
    let centre = pair(0).0;
    let whole = out.len() / BLOCK * BLOCK;
    let (blocks, rest) = out.split_at_mut(whole);
    for (i, block) in blocks.chunks_exact_mut(BLOCK).enumerate() {
        let mut sum = [0.0f32; BLOCK];
        if let Some(middle) = source[centre + i * BLOCK..].first_chunk::<BLOCK>() {
            for (s, v) in sum.iter_mut().zip(middle) {
                *s = kernel[0] * v;
            }
        }
        for (r, weight) in kernel.iter().enumerate().skip(1) {
            let (a, b) = pair(r);
            let (a, b) = (&source[a + i * BLOCK..], &source[b + i * BLOCK..]);
            if let (Some(a), Some(b)) = (a.first_chunk::<BLOCK>(), b.first_chunk::<BLOCK>()) {
                for ((s, a), b) in sum.iter_mut().zip(a).zip(b) {
                    *s += weight * (a + b);
                }
            }
        }
        block.copy_from_slice(&sum);
    }
    for (x, out) in (whole..).zip(rest) {
        let mut sum = kernel[0] * source[centre + x];
        for (r, weight) in kernel.iter().enumerate().skip(1) {
            let (a, b) = pair(r);
            sum += weight * (source[a + x] + source[b + x]);
        }
        *out = sum;
    }
}
