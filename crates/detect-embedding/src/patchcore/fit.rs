use blemish_core::{CoreError, Fit, ImageSource, Session};
use blemish_kernels::kcenter::SparseProjection;
use rand::{Rng, SeedableRng};

use super::collect::Collected;
use super::{KIND, MemoryBank, Patchcore, PatchcoreParams};
use crate::{Embedder, EmbeddingError, Result};

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
    let patches = Collected::new(params, &embedder, session, normal)?;
    let (coreset, why) = choose(params, session, &patches)?;
    let mut memory = MemoryBank::rounded(patches.select(&coreset)?, params.bank, params.scoring())?;
    memory.use_device(&session.device);
    Ok(Patchcore::new(embedder, memory, coreset, normal.len(), patches.dim().0).with_note(why))
}

/// The rows of the coreset, in the order picked, and why they were not picked on the GPU asked for.
fn choose(params: &PatchcoreParams, session: &Session<'_>, patches: &Collected) -> Result<(Vec<u32>, Option<String>)> {
    let (n, columns) = patches.dim();
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
        Some(dim) => Some(SparseProjection::new(columns, dim, session.seed)?),
        None => None,
    };
    let task = session.task("coreset", count);
    let (mut told, mut stopped) = (0, None);
    let (found, why) = patches.coreset(&session.device, projection.as_ref(), count, start, &mut |done| {
        stopped = task.step(done - told).err();
        told = done;
        stopped.is_none()
    })?;
    match stopped {
        Some(error) => Err(error.into()),
        None => Ok((found.picks.iter().map(|&i| i as u32).collect(), why)),
    }
}
