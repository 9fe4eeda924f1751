use blemish_embed::Maps;
use blemish_kernels::pool::{PoolSpec, avg_pool};
use blemish_kernels::{Par, resize};
use ndarray::{Array2, Array4, ArrayView4};
use rayon::prelude::*;

use super::locally_aware;
use crate::{EmbeddingError, Mode, Result};

/// The mean of the 3 x 3 neighbourhood of each patch; the border counts as zeros.
const NEIGHBOURHOOD: PoolSpec = PoolSpec { kernel: [3, 3], stride: [1, 1], padding: [1, 1, 1, 1] };

/// Coordinates of a patch embedding from layers of these channels.
pub fn width(channels: &[usize], mode: Mode) -> usize {
    match mode {
        Mode::Anomalib => channels.iter().sum(),
        Mode::Paper => locally_aware::WIDTH,
    }
}

/// Patch embeddings `[n h w, c]` (section 3.1), in the order picture, row, column, from one map `[n, h_i, w_i, c_i]` for
/// each layer; `h` and `w` are the first layer's.
///
/// - [`Mode::Anomalib`]: 3 x 3 means, brought to the first layer's grid (bilinear), put side by side.
/// - [`Mode::Paper`]: the authors' code, 1024 coordinates; see this detector's README.
///
/// # Errors
/// [`EmbeddingError::Core`] without maps, or if they hold different numbers of pictures.
pub fn embed(maps: &[Array4<f32>], mode: Mode) -> Result<Array2<f32>> {
    let wrong = |got: String| {
        let wanted = "at least one map [n, h >= 1, w >= 1, c >= 1], all with the same n".to_owned();
        EmbeddingError::Core(blemish_core::CoreError::Shape { what: "feature maps", wanted, got })
    };
    let Some(first) = maps.first() else { return Err(wrong("none".to_owned())) };
    let (n, h, w, _) = first.dim();
    if maps.iter().any(|m| m.dim().0 != n || m.shape()[1..].contains(&0)) {
        return Err(wrong(format!("{:?}", maps.iter().map(|m| m.shape()).collect::<Vec<_>>())));
    }
    let channels: Vec<usize> = maps.iter().map(|m| m.dim().3).collect();
    let width = width(&channels, mode);
    let mut rows = Array2::zeros((n * h * w, width));
    let Some(out) = rows.as_slice_mut() else { return Ok(rows) };
    let mut first = 0;
    for (layer, map) in maps.iter().enumerate() {
        let (columns, local) = match mode {
            Mode::Anomalib => {
                let columns = first..first + channels[layer];
                first = columns.end;
                (columns, neighbourhood_mean(map.view())?)
            }
            Mode::Paper => locally_aware::layer(map.view(), layer, maps.len()),
        };
        let local =
            if local.dim() == (n, h, w, columns.len()) { local } else { resize::bilinear(local.view(), (h, w))? };
        let Some(local) = local.as_slice() else { continue };
        out.par_chunks_mut(width).zip(local.par_chunks(columns.len())).for_each(|(out, local)| {
            // Added, since in paper mode a coordinate may lie across two layers.
            out[columns.clone()].iter_mut().zip(local).for_each(|(out, v)| *out += v);
        });
    }
    Ok(rows)
}

fn neighbourhood_mean(map: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
    let (n, h, w, c) = map.dim();
    let source = map.as_standard_layout();
    let mut out = Array4::zeros(map.dim());
    if let (Some(source), Some(out)) = (source.as_slice(), out.as_slice_mut()) {
        avg_pool(source, [n, h, w, c], &NEIGHBOURHOOD, true, out, Par::Rayon)?;
    }
    Ok(out)
}

/// Height and width of the patch grid.
pub(super) fn grid(maps: &Maps) -> (usize, usize) {
    maps.shapes().first().map_or((0, 0), |&[_, h, w, _]| (h, w))
}
