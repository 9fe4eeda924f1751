#![allow(unsafe_code)]
//! Patch embeddings of PatchCore from feature maps that stay on the GPU.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::{CudaResult, EMBED, THREADS, check, grid};
use crate::error::shape_error;
use crate::resize::cuda::{Columns, bilinear_into};

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
    // SAFETY: one thread for each of the n h w c values of `map`; each writes one value inside `out`, since c + offset is at
    // most the pitch and `out` has n h w times that.
    unsafe { launch.run((grid(map.len(), THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}
