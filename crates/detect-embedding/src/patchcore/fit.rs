use blemish_core::{CoreError, Fit, ImageSource, Session};
use blemish_kernels::kcenter::SparseProjection;
use ndarray::{Array2, ArrayView2, Axis};
use rand::{Rng, SeedableRng};

use super::embed::{embed, grid};
use super::{KIND, MemoryBank, Patchcore, PatchcoreParams};
use crate::device::{self, Patches};
use crate::{Embedder, EmbeddingError, Mode, Result};

impl Fit for PatchcoreParams {
    type Model = Patchcore;

    fn fit(&self, session: &Session<'_>, normal: &dyn ImageSource) -> blemish_core::Result<Patchcore> {
        fit(self, session, normal).map_err(|error| error.into_core(KIND))
    }
}

fn fit(params: &PatchcoreParams, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Patchcore> {
    params.validate()?;
    if normal.is_empty() {
        return Err(CoreError::TooFewImages { wanted: "one good picture or more".to_owned(), got: 0 }.into());
    }
    let weights = params.weights.as_deref();
    let preprocess = params.preprocess.clone();
    let embedder = Embedder::new(&params.backbone, &params.layers, weights, session.seed, preprocess)?;
    let embedder = embedder.with_precision(params.precision, session, normal)?.with_device(&session.device);
    let patches = collect(params, &embedder, session, normal)?;
    let (coreset, why) = choose(params, session, patches.view())?;
    let rows: Vec<usize> = coreset.iter().map(|&i| i as usize).collect();
    let mut memory = MemoryBank::rounded(patches.select(Axis(0), &rows), params.bank, params.scoring())?;
    memory.use_device(&session.device);
    Ok(Patchcore::new(embedder, memory, coreset, normal.len(), patches.nrows()).with_note(why))
}

/// The embeddings of all patches of all pictures, `[n h w, c]`.
fn collect(
    params: &PatchcoreParams,
    embedder: &Embedder,
    session: &Session<'_>,
    normal: &dyn ImageSource,
) -> Result<Array2<f32>> {
    let mut all: Vec<f32> = Vec::new();
    let mut width = 0;
    embedder.stream_maps(session, "features", normal, params.batch_size, &mut |first, maps| -> Result<()> {
        let (h, w) = grid(&maps);
        let there = if params.mode == Mode::Anomalib { Patches::of(&maps) } else { None };
        let rows = match there.and_then(|patches| patches.all()) {
            Some(rows) => rows,
            None => embed(&maps.into_host()?, params.mode)?,
        };
        if first == 0 {
            width = rows.ncols();
            let floats = normal.len().saturating_mul(h * w * width);
            // Asked for once: growing would take up to three times as much.
            all.try_reserve_exact(floats).map_err(|_| EmbeddingError::Params {
                name: "layers",
                why: format!(
                    "the embeddings of {} pictures ({h} x {w} patches of {width}) need {:.1} GB; take fewer or smaller \
                     pictures, or layers with fewer channels",
                    normal.len(),
                    floats as f64 * 4e-9
                ),
            })?;
        }
        all.extend(rows.iter());
        Ok(())
    })?;
    let shape = (all.len() / width.max(1), width);
    let wrong = |e: ndarray::ShapeError| CoreError::Shape {
        what: "patch embeddings",
        wanted: format!("{shape:?}"),
        got: e.to_string(),
    };
    Ok(Array2::from_shape_vec(shape, all).map_err(wrong)?)
}

/// The rows of the coreset, in the order picked, and why they were not picked on the GPU asked for.
fn choose(
    params: &PatchcoreParams,
    session: &Session<'_>,
    patches: ArrayView2<'_, f32>,
) -> Result<(Vec<u32>, Option<String>)> {
    let n = patches.nrows();
    let count = params.coreset_size(n)?;
    if count == n {
        return Ok(((0..n as u32).collect(), None));
    }
    let start = match params.coreset_start {
        Some(start) if start >= n => {
            let why = format!("{start} of {n} patches; they are counted from 0");
            return Err(EmbeddingError::Params { name: "coreset_start", why });
        }
        Some(start) => start,
        None => rand_chacha::ChaCha8Rng::seed_from_u64(session.seed).random_range(0..n),
    };
    let projection = match params.projection {
        Some(dim) => Some(SparseProjection::new(patches.ncols(), dim, session.seed)?),
        None => None,
    };
    let task = session.task("coreset", count);
    let (mut told, mut stopped) = (0, None);
    let (found, why) = device::coreset(&session.device, patches, projection.as_ref(), count, start, &mut |done| {
        stopped = task.step(done - told).err();
        told = done;
        stopped.is_none()
    })?;
    match stopped {
        Some(error) => Err(error.into()),
        None => Ok((found.picks.iter().map(|&i| i as u32).collect(), why)),
    }
}
