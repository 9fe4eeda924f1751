#![allow(unsafe_code)]
//! Resizing on a GPU: the bits of the CPU.

use blemish_tensor::cuda::{Buffer, Cuda, Plain};
use ndarray::ArrayView3;

use super::map::{Corners, steps};
use super::{Taps, check_size};
use crate::cuda::{CudaResult, RESIZE, THREADS, check, grid, ints, strips};
use crate::error::shape_error;

/// Pixels that a thread makes side by side, at most.
const RUN: usize = 16;

/// Which columns of wider rows a result goes to: from `offset` on, in rows of `pitch` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Numbers in a row of the output.
    pub pitch: usize,
    /// First column written.
    pub offset: usize,
}

/// [`antialias_u8`](super::antialias_u8) to `[size.0, size.1, c]` on the GPU, for any number of channels.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) for an empty picture,
/// [`KernelError::Parameter`](crate::KernelError::Parameter) for a size of zero or one too large to hold; the device's.
pub fn antialias_u8(cuda: &Cuda, picture: ArrayView3<'_, u8>, size: (usize, usize)) -> CudaResult<Buffer<f32>> {
    antialias(cuda, picture, size, "resize_down_u8")
}

/// [`antialias_u16`](super::antialias_u16) on the GPU.
///
/// # Errors
/// As [`antialias_u8`].
pub fn antialias_u16(cuda: &Cuda, picture: ArrayView3<'_, u16>, size: (usize, usize)) -> CudaResult<Buffer<f32>> {
    antialias(cuda, picture, size, "resize_down_u16")
}

fn antialias<T: Plain>(
    cuda: &Cuda,
    picture: ArrayView3<'_, T>,
    size: (usize, usize),
    kernel: &'static str,
) -> CudaResult<Buffer<f32>> {
    const OP: &str = "antialiased resize";
    let (h, w, c) = picture.dim();
    if h == 0 || w == 0 || c == 0 {
        return Err(shape_error(OP, "[h >= 1, w >= 1, c >= 1]", picture.shape()).into());
    }
    check_size(OP, size, c)?;
    check(OP, &[h, w, c], picture.len())?;
    let between = size.0.saturating_mul(w).saturating_mul(c);
    check(OP, &[between], between)?;
    let (rows, columns) = (Taps::new(h, size.0), Taps::new(w, size.1));
    let source = cuda.upload(picture.as_standard_layout().as_slice().unwrap_or_default())?;
    // All tables at once: weights, which stay aligned to four, then whole numbers.
    let weights = rows.weight.iter().chain(&columns.weight).map(|weight| weight.to_bits());
    let starts = rows.start.into_iter().chain(rows.count).chain(columns.start);
    let starts = ints(OP, starts)?.into_iter().map(i32::cast_unsigned);
    let tables = cuda.upload(&weights.chain(starts).collect::<Vec<u32>>())?;
    let places = [0, rows.weight.len(), rows.weight.len() + columns.weight.len()];
    let mut mid = cuda.scratch::<f32>(between)?;
    let launch = cuda.launch(RESIZE, kernel)?.input(&source).output(&mut mid).input(&tables);
    let launch = launch.int(places[0]).int(places[2]).int(rows.width).int(size.0).int(w * c);
    let wide = if (w * c) % 4 == 0 { 4 } else { 1 };
    let blocks = (grid(w * c, wide * THREADS as usize), strips(size.0));
    // SAFETY: `Taps` stay inside the h rows of the source; a thread for `wide` values of rows of `mid` that the grid walks over.
    unsafe { launch.run(blocks, THREADS, 0) }?;
    let mut out = cuda.scratch(size.0 * size.1 * c)?;
    let launch = cuda.launch(RESIZE, "resize_across")?.input(&mid).output(&mut out).input(&tables);
    let launch = launch.int(places[1]).int(places[2] + 2 * size.0).int(columns.width);
    let launch = launch.int(size.0).int(w).int(size.1).int(c);
    // SAFETY: taps beyond a row of `mid` are not read; a thread for each value of rows of `out` that the grid walks over.
    unsafe { launch.run((grid(size.1 * c, THREADS as usize), strips(size.0)), THREADS, 0) }?;
    Ok(out)
}

/// [`bilinear`](super::bilinear) of maps `[n, h, w, c]` that are on the GPU, to `[n, size.0, size.1, c]`.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) for a buffer of another length,
/// [`KernelError::Parameter`](crate::KernelError::Parameter) for a size of zero or one too large to hold; the device's.
pub fn bilinear(
    cuda: &Cuda,
    maps: &Buffer<f32>,
    n: usize,
    shape: [usize; 3],
    size: (usize, usize),
) -> CudaResult<Buffer<f32>> {
    check_size("bilinear", size, n.saturating_mul(shape[2]))?;
    let mut out = cuda.scratch(n * size.0 * size.1 * shape[2])?;
    bilinear_into(cuda, maps, n, shape, size, &mut out, Columns { pitch: shape[2], offset: 0 })?;
    Ok(out)
}

/// As [`bilinear`], into some columns of `out` `[n size.0 size.1, pitch]`.
///
/// # Errors
/// As [`bilinear`].
pub fn bilinear_into(
    cuda: &Cuda,
    maps: &Buffer<f32>,
    n: usize,
    [h, w, c]: [usize; 3],
    size: (usize, usize),
    out: &mut Buffer<f32>,
    columns: Columns,
) -> CudaResult<()> {
    const OP: &str = "bilinear";
    if [n, h, w, c].contains(&0) || columns.offset.saturating_add(c) > columns.pitch {
        let got = ([n, h, w, c], columns);
        return Err(shape_error(OP, "sizes of at least 1, columns within the pitch", got).into());
    }
    check_size(OP, size, n.saturating_mul(c))?;
    check(OP, &[n, h, w, c], maps.len())?;
    check(OP, &[n, size.0, size.1, columns.pitch], out.len())?;
    let table = |input, output| -> CudaResult<(Buffer<i32>, Buffer<i32>, Buffer<f32>)> {
        let steps = steps(input, output, Corners::Edges);
        let low = ints(OP, steps.iter().map(|s| s.low))?;
        let high = ints(OP, steps.iter().map(|s| s.high))?;
        let weight: Vec<f32> = steps.iter().map(|s| s.weight).collect();
        Ok((cuda.upload(&low)?, cuda.upload(&high)?, cuda.upload(&weight)?))
    };
    let (rows, across) = (table(h, size.0)?, table(w, size.1)?);
    let [each] = cuda.parameter(RESIZE, "RESIZE_ROWS")?;
    let wide = [c, columns.pitch, columns.offset].iter().all(|n| n % 4 == 0);
    let pieces = if wide { c / 4 } else { c };
    // Pixels side by side share columns, which a thread then reads once; with few channels they are what lies side by side.
    let run = if pieces < 32 { 1 } else { size.1.div_ceil(size.1.div_ceil(RUN)) };
    let launch = cuda.launch(RESIZE, "resize_bilinear")?.input(maps).output(out);
    let launch = launch.input(&rows.0).input(&rows.1).input(&rows.2).input(&across.0).input(&across.1).input(&across.2);
    let launch = launch.int(n).int(h).int(w).int(c).int(size.0).int(size.1).int(columns.pitch).int(columns.offset);
    let blocks = (grid(pieces * size.1.div_ceil(run), THREADS as usize), strips(n * size.0.div_ceil(each)));
    // SAFETY: steps stay inside the h rows and w columns of a map; a thread for each piece of channels and `run` pixels, in rows of
    // the grid that kernels walk over; written inside `out`, which has n size.0 size.1 rows of the pitch.
    unsafe { launch.int(run).run(blocks, THREADS, 0) }?;
    Ok(())
}
