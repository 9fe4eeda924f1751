use rayon::prelude::*;

use crate::Par;
use crate::error::{KernelError, Result, shape_error};
use crate::gemm::{Element, Loops, vectorised};

use super::cpu_channels;

/// The window of a pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSpec {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Steps of the window, down and right.
    pub stride: [usize; 2],
    /// Border around the map: top, left, bottom, right; each smaller than the window.
    pub padding: [usize; 4],
}

impl PoolSpec {
    /// Height and width of the output for a map of `h` by `w`.
    ///
    /// # Errors
    /// Where the padded map is smaller than the window, or the spec is not one.
    pub fn output_size(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let side = |size: usize, axis: usize| {
            let (before, after) = (self.padding[axis], self.padding[axis + 2]);
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            let padded = size.checked_add(before)?.checked_add(after)?;
            let legal = size > 0 && kernel > 0 && stride > 0 && before < kernel && after < kernel && padded >= kernel;
            legal.then(|| (padded - kernel) / stride + 1)
        };
        side(h, 0).zip(side(w, 1)).ok_or_else(|| KernelError::Parameter {
            op: "pool",
            what: format!("a window with padding below its size, within the padded map of {h} x {w}: {self:?}"),
        })
    }
}

/// The largest value of each window, `[n, h, w, c]` to `[n, oh, ow, c]`; the border does not count.
///
/// # Errors
/// Where a length does not fit.
pub fn max_pool<E: Element>(input: &[E], shape: [usize; 4], spec: &PoolSpec, output: &mut [E], par: Par) -> Result<()> {
    let larger = |best: E, x: E| {
        let value = x.widen();
        if value > best.widen() || value.is_nan() { x } else { best }
    };
    pool(input, shape, spec, output, par, E::narrow(f32::NEG_INFINITY), larger, |_| 1.0)
}

/// The mean of each window, `[n, h, w, c]` to `[n, oh, ow, c]`; with `count_include_pad` the border counts as zeros.
///
/// # Errors
/// Where a length does not fit.
pub fn avg_pool(
    input: &[f32],
    shape: [usize; 4],
    spec: &PoolSpec,
    count_include_pad: bool,
    output: &mut [f32],
    par: Par,
) -> Result<()> {
    let all = spec.kernel[0] * spec.kernel[1];
    let scale = move |inside: usize| 1.0 / if count_include_pad { all } else { inside } as f32;
    pool(input, shape, spec, output, par, 0.0f32, |sum, x| sum + x, scale)
}

fn pool<E: Element>(
    input: &[E],
    [n, h, w, c]: [usize; 4],
    spec: &PoolSpec,
    output: &mut [E],
    par: Par,
    start: E,
    fold: impl Fn(E, E) -> E + Copy + Sync,
    scale: impl Fn(usize) -> f32 + Copy + Sync,
) -> Result<()> {
    let (oh, ow) = spec.output_size(h, w)?;
    if c == 0 || Some(input.len()) != product(&[n, h, w, c]) || Some(output.len()) != product(&[n, oh, ow, c]) {
        let got = (input.len(), output.len());
        return Err(shape_error("pool", format!("[{n}, {h}, {w}, {c}] to [{n}, {oh}, {ow}, {c}]"), got));
    }
    let each = |(index, row): (usize, &mut [E])| {
        let image = &input[index / oh * h * w * c..][..h * w * c];
        vectorised(Row { image, w, c, spec, rows: span(index % oh, spec, 0, h), row, start, fold, scale });
    };
    match par {
        Par::Serial => output.chunks_exact_mut(ow * c).enumerate().for_each(each),
        Par::Rayon => output.par_chunks_exact_mut(ow * c).enumerate().for_each(each),
    }
    Ok(())
}

/// One row of the output.
struct Row<'a, E, F, S> {
    image: &'a [E],
    w: usize,
    c: usize,
    spec: &'a PoolSpec,
    rows: std::ops::Range<usize>,
    row: &'a mut [E],
    start: E,
    fold: F,
    scale: S,
}

impl<E: Element, F: Fn(E, E) -> E, S: Fn(usize) -> f32> Loops for Row<'_, E, F, S> {
    #[inline(always)]
    fn run(self) {
        let c = self.c;
        for (ox, out) in self.row.chunks_exact_mut(c).enumerate() {
            let columns = span(ox, self.spec, 1, self.w);
            out.fill(self.start);
            for y in self.rows.clone() {
                for x in columns.clone() {
                    let pixel = &self.image[(y * self.w + x) * c..][..c];
                    out.iter_mut().zip(pixel).for_each(|(a, &b)| *a = (self.fold)(*a, b));
                }
            }
            let factor = (self.scale)(self.rows.len() * columns.len());
            if factor != 1.0 {
                out.iter_mut().for_each(|x| *x = E::narrow(x.widen() * factor));
            }
        }
    }
}

/// The part of the map that window `o` covers along `axis`; never empty, as the padding is below the window.
fn span(o: usize, spec: &PoolSpec, axis: usize, size: usize) -> std::ops::Range<usize> {
    let first = o * spec.stride[axis];
    first.saturating_sub(spec.padding[axis])..(first + spec.kernel[axis]).saturating_sub(spec.padding[axis]).min(size)
}

/// The mean of each channel, `[n, positions, c]` to `[n, c]`.
///
/// # Errors
/// Where a length does not fit.
pub fn global_avg<E: Element>(
    input: &[E],
    n: usize,
    positions: usize,
    c: usize,
    output: &mut [f32],
    par: Par,
) -> Result<()> {
    if c == 0 || positions == 0 || Some(input.len()) != product(&[n, positions, c]) || output.len() != n * c {
        let got = (input.len(), output.len());
        return Err(shape_error("global_avg", format!("[{n}, {positions}, {c}] to [{n}, {c}]"), got));
    }
    // Sums of some pixels each, which are most likely in the cache of the thread that made them; then the sum of these.
    let blocks = positions.div_ceil(PIXELS);
    let mut sums = if blocks > 1 { vec![0.0; blocks * c] } else { Vec::new() };
    for (map, mean) in input.chunks_exact(positions * c).zip(output.chunks_exact_mut(c)) {
        if blocks == 1 {
            cpu_channels::sum(map, mean);
        } else {
            let each = |(sum, pixels): (&mut [f32], &[E])| cpu_channels::sum(pixels, sum);
            match par {
                Par::Rayon => sums.par_chunks_exact_mut(c).zip(map.par_chunks(PIXELS * c)).for_each(each),
                Par::Serial => sums.chunks_exact_mut(c).zip(map.chunks(PIXELS * c)).for_each(each),
            }
            cpu_channels::sum(&sums, mean);
        }
        mean.iter_mut().for_each(|mean| *mean /= positions as f32);
    }
    Ok(())
}

/// `data[n, positions, c] *= gate[n, c]`.
///
/// # Errors
/// Where a length does not fit.
pub fn scale_channels<E: Element>(
    data: &mut [E],
    n: usize,
    positions: usize,
    c: usize,
    gate: &[f32],
    par: Par,
) -> Result<()> {
    if c == 0 || positions == 0 || Some(data.len()) != product(&[n, positions, c]) || gate.len() != n * c {
        let got = (data.len(), gate.len());
        return Err(shape_error("scale_channels", format!("[{n}, {positions}, {c}] by [{n}, {c}]"), got));
    }
    // Several pixels are gated as one where only together they fill vectors.
    let together = (1..=LANES).find(|times| (times * c).is_multiple_of(LANES)).unwrap_or(1);
    let mut tiled = Vec::new();
    for (map, gate) in data.chunks_exact_mut(positions * c).zip(gate.chunks_exact(c)) {
        let gate = if together == 1 {
            gate
        } else {
            tiled.clear();
            (0..together).for_each(|_| tiled.extend_from_slice(gate));
            &tiled
        };
        match par {
            Par::Rayon if positions > PIXELS => {
                map.par_chunks_mut(PIXELS * c).for_each(|pixels| cpu_channels::gate(pixels, gate));
            }
            _ => cpu_channels::gate(map, gate),
        }
    }
    Ok(())
}

/// Numbers of the widest vector; a task's pixels are a multiple of it.
const LANES: usize = 16;

/// Pixels gated or added up by one task.
const PIXELS: usize = 64;

fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b))
}
