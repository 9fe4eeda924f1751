#![allow(unsafe_code)]
//! Patch embeddings of PatchCore from feature maps that stay on the GPU, and rows picked out of them.
//!
//! | item | what it makes |
//! |---|---|
//! | [`embed`] | 3 x 3 means of all layers, side by side |
//! | [`embed_terms`] | weighted sums over neighbourhoods ([`Terms`]), added up over the layers |
//! | [`select`] | some rows |

use blemish_tensor::cuda::{Buffer, Cuda};

use super::{CudaResult, EMBED, THREADS, check, grid, strips};
use crate::KernelError;
use crate::error::shape_error;
use crate::resize::cuda::{Columns, bilinear, bilinear_into};

/// Rows `[n h w, c]` of the 3 x 3 means of each map (the border counts as zeros), brought to the first map's grid and put
/// side by side; `maps` holds for each layer the values `[n, h_i, w_i, c_i]` and `[h_i, w_i, c_i]`.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) without maps or for a buffer of another length; the device's.
pub fn embed(cuda: &Cuda, n: usize, maps: &[(&Buffer<f32>, [usize; 3])]) -> CudaResult<Buffer<f32>> {
    const OP: &str = "embed";
    let Some((_, [h, w, _])) = maps.first() else { return Err(shape_error(OP, "at least one map", 0).into()) };
    for (map, [h, w, c]) in maps {
        if n == 0 || [*h, *w, *c].contains(&0) {
            return Err(shape_error(OP, "sizes of at least 1", (n, h, w, c)).into());
        }
        check(OP, &[n, *h, *w, *c], map.len())?;
    }
    let pitch = maps.iter().fold(0usize, |sum, (_, [_, _, c])| sum.saturating_add(*c));
    let values = n.saturating_mul(*h).saturating_mul(*w).saturating_mul(pitch);
    check(OP, &[values], values)?;
    let mut rows = cuda.scratch(values)?;
    let mut offset = 0;
    for (map, size) in maps {
        let columns = Columns { pitch, offset };
        if size[..2] == [*h, *w] {
            mean3(cuda, map, n, *size, &mut rows, columns)?;
        } else {
            let mut own = cuda.scratch::<f32>(map.len())?;
            mean3(cuda, map, n, *size, &mut own, Columns { pitch: size[2], offset: 0 })?;
            bilinear_into(cuda, &own, n, *size, (*h, *w), &mut rows, columns)?;
        }
        offset += size[2];
    }
    Ok(rows)
}

/// `map` `[n, h, w, c]`, lengths checked by the caller, into columns of `out` `[n h w, pitch]`.
fn mean3(
    cuda: &Cuda,
    map: &Buffer<f32>,
    n: usize,
    [h, w, c]: [usize; 3],
    out: &mut Buffer<f32>,
    columns: Columns,
) -> CudaResult<()> {
    let launch = cuda.launch(EMBED, "embed_mean3")?.input(map).output(out).int(n).int(h).int(w).int(c);
    let launch = launch.int(columns.pitch).int(columns.offset);
    let [most] = cuda.parameter(EMBED, "EMBED_ROWS")?;
    let each = h.div_ceil(h.div_ceil(most));
    let wide = [c, columns.pitch, columns.offset].iter().all(|n| n % 4 == 0);
    let pieces = if wide { c / 4 } else { c };
    // A block has `slab` pieces of channels of each of its columns.
    let slab = pieces.min(32);
    let blocks = pieces.div_ceil(slab).saturating_mul(w.div_ceil(THREADS as usize / slab));
    // SAFETY: a thread for each piece of channels and column of `map`, which walks down `each` rows, in rows of the grid that kernels
    // walk over; values are written inside `out`, since c + offset is at most the pitch and `out` has n h w times that.
    unsafe { launch.int(each).run((grid(blocks, 1), strips(n * h.div_ceil(each))), THREADS, 0) }?;
    Ok(())
}

/// The terms of a column: channel, neighbour (0 to 8, in row order) and weight of each.
pub type Column = Vec<(usize, usize, f32)>;

/// What each column of an embedding is made of: channels of the 3 x 3 neighbourhood of a patch, each with a weight.
#[derive(Debug)]
pub struct Terms {
    channels: usize,
    columns: usize,
    starts: Buffer<u32>,
    places: Buffer<u32>,
    weights: Buffer<f32>,
}

impl Terms {
    /// Columns for maps of `channels` channels.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for a channel or neighbour that does not exist, [`KernelError::Shape`] for none or too many; the
    /// device's.
    pub fn new(cuda: &Cuda, channels: usize, columns: &[Column]) -> CudaResult<Terms> {
        const OP: &str = "terms of an embedding";
        let (mut starts, mut places, mut weights) = (vec![0u32], Vec::new(), Vec::new());
        for &(channel, tap, weight) in columns.iter().flatten() {
            if channel >= channels || tap > 8 {
                let what = format!("channel {channel} of {channels}, neighbour {tap} of 9");
                return Err(KernelError::Parameter { op: OP, what }.into());
            }
            places.push((channel << 4 | tap) as u32);
            weights.push(weight);
        }
        if columns.is_empty() || channels >= 1 << 27 || places.len() > i32::MAX as usize {
            return Err(shape_error(OP, "at least one column, below 2^27 channels", (columns.len(), channels)).into());
        }
        let mut end = 0;
        starts.extend(columns.iter().map(|terms| {
            end += terms.len() as u32;
            end
        }));
        let (starts, places, weights) = (cuda.upload(&starts)?, cuda.upload(&places)?, cuda.upload(&weights)?);
        Ok(Terms { channels, columns: columns.len(), starts, places, weights })
    }

    /// Columns of the result.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of `map` `[n, h, w, c]`, on its own grid.
    fn apply(&self, map: &Buffer<f32>, n: usize, [h, w, c]: [usize; 3]) -> CudaResult<Buffer<f32>> {
        const OP: &str = "terms of an embedding";
        if c != self.channels {
            return Err(shape_error(OP, format!("{} channels", self.channels), c).into());
        }
        let values = n.saturating_mul(h).saturating_mul(w).saturating_mul(self.columns);
        check(OP, &[values], values)?;
        let cuda = map.cuda();
        let mut out = cuda.scratch(values)?;
        let launch = cuda.launch(EMBED, "embed_terms")?.input(map).input(&self.starts).input(&self.places);
        let launch = launch.input(&self.weights).output(&mut out).int(n).int(h).int(w).int(c).int(self.columns);
        // SAFETY: one thread for each value of `out`; terms are of channels below c, neighbours outside the map are not read.
        unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }?;
        Ok(out)
    }
}

/// A layer of an embedding: its map `[n, h, w, c]` with `[h, w, c]`, its terms, and the column their first one is added to.
pub type Layer<'a> = (&'a Buffer<f32>, [usize; 3], &'a Terms, usize);

/// Rows `[n h w, width]`, to which each layer adds its columns, brought to the first map's grid (bilinear).
///
/// # Errors
/// [`KernelError::Shape`] without layers, for a buffer of another length or columns beyond the width; the device's.
pub fn embed_terms(cuda: &Cuda, n: usize, layers: &[Layer<'_>], width: usize) -> CudaResult<Buffer<f32>> {
    const OP: &str = "embedding";
    let Some((_, [h, w, _], ..)) = layers.first() else { return Err(shape_error(OP, "at least one map", 0).into()) };
    for (map, [h, w, c], terms, offset) in layers {
        if n == 0 || [*h, *w, *c].contains(&0) || offset.saturating_add(terms.columns) > width {
            let got = ((n, h, w, c), (offset, terms.columns));
            return Err(shape_error(OP, format!("sizes of at least 1, columns within {width}"), got).into());
        }
        check(OP, &[n, *h, *w, *c], map.len())?;
    }
    let pixels = n.saturating_mul(*h).saturating_mul(*w);
    let values = pixels.saturating_mul(width);
    check(OP, &[values], values)?;
    let mut rows = cuda.zeros(values)?;
    for (map, size, terms, offset) in layers {
        let mut own = terms.apply(map, n, *size)?;
        if size[..2] != [*h, *w] {
            own = bilinear(cuda, &own, n, [size[0], size[1], terms.columns], (*h, *w))?;
        }
        let launch = cuda.launch(EMBED, "embed_add")?.input(&own).output(&mut rows);
        let launch = launch.int(pixels).int(terms.columns).int(width).int(*offset);
        // SAFETY: one thread for each value of `own`, which has the pixels of `rows`; its columns end within the width.
        unsafe { launch.run((grid(own.len(), THREADS as usize), 1), THREADS, 0) }?;
    }
    Ok(rows)
}

/// Copies row `from` of `rows` `[.., width]` to row `to` of `out` `[.., width]`, for each of `pairs` `(from, to)`.
///
/// # Errors
/// [`KernelError::Shape`] for a row that does not exist; the device's.
pub fn select(rows: &Buffer<f32>, width: usize, pairs: &[(u32, u32)], out: &mut Buffer<f32>) -> CudaResult<()> {
    const OP: &str = "rows picked";
    let (n, m) = (rows.len() / width.max(1), out.len() / width.max(1));
    let inside = pairs.iter().all(|(from, to)| (*from as usize) < n && (*to as usize) < m);
    let values = pairs.len().saturating_mul(width);
    if width == 0 || !inside || pairs.len() > i32::MAX as usize / 2 || values > i32::MAX as usize * 256 {
        return Err(shape_error(OP, format!("rows below {n}, to rows below {m}"), pairs.len()).into());
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let cuda = rows.cuda();
    let list = cuda.upload(&pairs.iter().flat_map(|(from, to)| [*from, *to]).collect::<Vec<u32>>())?;
    let launch = cuda.launch(EMBED, "embed_select")?.input(rows).input(&list).output(out);
    let launch = launch.int(pairs.len()).int(width);
    // SAFETY: one thread for each number copied; all rows exist.
    unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}
