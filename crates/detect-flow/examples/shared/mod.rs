//! What the examples on Screw have in common.

use std::path::PathBuf;

use blemish_core::{Detect, FitDyn, Image};
use blemish_datasets::{DataSpec, Dataset, Protocol};
use blemish_detect_flow::{CflowParams, FastflowParams};
use blemish_metrics::auroc;
use serde_json::{Value, json};

/// What can go wrong here.
pub(crate) type Error = Box<dyn std::error::Error>;

/// Screw, of a folder in MVTec AD's layout.
pub(crate) fn screw(data: &str) -> Result<Dataset, Error> {
    let data = Some(PathBuf::from(data));
    let spec = DataSpec { data, category: Some("screw".to_owned()), protocol: Protocol::Paper, ..DataSpec::default() };
    Ok(Dataset::open(&spec, 0)?)
}

/// Params of `cflow` or `fastflow` on MobileNetV2's blocks 2, 4 and 6 for all epochs, and what `settings`, an object, changes.
pub(crate) fn params(which: &str, weights: &str, settings: &Value) -> Result<Box<dyn FitDyn>, Error> {
    let mut all = json!({
        "backbone": "mobilenetv2_100", "layers": ["blocks.2", "blocks.4", "blocks.6"], "weights": weights,
        "validation_share": 0.0, "patience": null,
    });
    for (key, value) in settings.as_object().ok_or("settings are an object")? {
        all[key] = value.clone();
    }
    Ok(match which {
        "cflow" => Box::new(serde_json::from_value::<CflowParams>(all)?),
        "fastflow" => Box::new(serde_json::from_value::<FastflowParams>(all)?),
        other => return Err(format!("{other}: cflow or fastflow").into()),
    })
}

/// A picture to score, whether it has a defect, and which of its pixels are defective, if any are.
pub(crate) struct Case {
    pub(crate) image: Image,
    pub(crate) bad: bool,
    pub(crate) mask: Option<ndarray::Array2<bool>>,
}

/// Image and pixel AUROC; masks by Pillow's nearest, the middle of each output pixel.
pub(crate) fn aurocs(
    model: &dyn Detect,
    cases: impl Iterator<Item = Result<Case, Error>>,
) -> Result<(f64, f64), Error> {
    let (mut scores, mut labels, mut pixels, mut truth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for case in cases {
        let Case { image, bad, mask } = case?;
        let prediction = model.predict(&[image])?.remove(0);
        scores.push(prediction.score);
        labels.push(bad);
        let Some(map) = &prediction.map else { return Err("no map".into()) };
        let (h, w) = map.dim();
        pixels.extend(map.view().iter().copied());
        match mask {
            Some(mask) => {
                let at = |i: usize, n: usize, of: usize| (2 * i + 1) * of / (2 * n);
                for y in 0..h {
                    truth.extend((0..w).map(|x| mask[[at(y, h, mask.nrows()), at(x, w, mask.ncols())]]));
                }
            }
            None => truth.extend(std::iter::repeat_n(false, h * w)),
        }
    }
    Ok((auroc(&scores, &labels)?, auroc(&pixels, &truth)?))
}
