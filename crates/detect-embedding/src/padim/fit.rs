use blemish_core::{CoreError, Fit, ImageSource, Session};

use super::{KIND, Learner, Padim, PadimParams};
use crate::{Embedder, Result};

impl Fit for PadimParams {
    type Model = Padim;

    fn fit(&self, session: &Session<'_>, normal: &dyn ImageSource) -> blemish_core::Result<Padim> {
        fit(self, session, normal).map_err(|error| error.into_core(KIND))
    }
}

fn fit(params: &PadimParams, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Padim> {
    params.validate()?;
    let images = normal.len();
    let too_few = || CoreError::TooFewImages { wanted: "two good pictures or more".to_owned(), got: images };
    if images < 2 {
        return Err(too_few().into());
    }
    let weights = params.weights.as_deref();
    let preprocess = params.preprocess.clone();
    let embedder = Embedder::new(&params.backbone, &params.layers, weights, session.seed, preprocess)?;
    let embedder = embedder.with_precision(params.precision, session, normal)?.with_device(&session.device);
    let channels = params.select(embedder.layers().iter().map(|l| l.channels).sum(), session.seed)?;
    let mut learner = None;
    embedder.stream_maps(session, "features", normal, params.batch_size, &mut |_, maps| {
        let learner = match &mut learner {
            Some(learner) => learner,
            none => {
                let sizes: Vec<[usize; 3]> = maps.shapes().iter().map(|&[_, h, w, c]| [h, w, c]).collect();
                none.insert(Learner::on(
                    &session.device,
                    &sizes,
                    &channels,
                    images,
                    params.regularisation(),
                    params.form,
                )?)
            }
        };
        learner.add((&maps).into())
    })?;
    let mut gaussians = learner.ok_or_else(too_few)?.finish()?;
    gaussians.use_device(&session.device);
    Ok(Padim::new(embedder, gaussians, params.sigma, params.mode, images))
}
