//! AUROC of CFlow-AD and FastFlow on a folder in MVTec AD's layout:
//! `cargo run --release -p blemish-detect-flow --example screw -- cflow|fastflow DATA WEIGHTS EPOCHS [SEED ..]`
//!
//! MobileNetV2 with the weights given, layers blocks.2, blocks.4 and blocks.6, 256 x 256; all good pictures train.

use std::path::PathBuf;
use std::time::Instant;

use blemish_core::{Detect, Fit, ImageSource, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, read_mask};
use blemish_detect_flow::{CflowParams, FastflowParams};
use blemish_metrics::auroc;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [which, data, weights, epochs, seeds @ ..] = arguments.as_slice() else {
        return Err("cflow|fastflow DATA WEIGHTS EPOCHS [SEED ..]".into());
    };
    let spec = DataSpec {
        data: Some(PathBuf::from(data)),
        category: Some("screw".to_owned()),
        protocol: Protocol::Paper,
        ..DataSpec::default()
    };
    let data = Dataset::open(&spec, 0)?;
    let (train, test) = (Files::new(data.train), Files::new(data.test));
    let epochs: usize = epochs.parse()?;
    let seeds: Vec<u64> =
        if seeds.is_empty() { vec![0] } else { seeds.iter().map(|s| s.parse()).collect::<Result<_, _>>()? };
    for seed in seeds {
        let start = Instant::now();
        let (model, seconds): (Box<dyn Detect>, f64) = match which.as_str() {
            "cflow" => {
                let model = CflowParams {
                    backbone: "mobilenetv2_100".to_owned(),
                    layers: layers(),
                    weights: Some(PathBuf::from(weights)),
                    epochs,
                    validation_share: 0.0,
                    patience: None,
                    ..CflowParams::default()
                }
                .fit(&Session::quiet(seed), &train)?;
                let seconds = model.curve().iter().map(|e| e.seconds).sum();
                (Box::new(model), seconds)
            }
            "fastflow" => {
                let model = FastflowParams {
                    backbone: "mobilenetv2_100".to_owned(),
                    layers: layers(),
                    weights: Some(PathBuf::from(weights)),
                    epochs,
                    validation_share: 0.0,
                    patience: None,
                    ..FastflowParams::default()
                }
                .fit(&Session::quiet(seed), &train)?;
                let seconds = model.curve().iter().map(|e| e.seconds).sum();
                (Box::new(model), seconds)
            }
            other => return Err(format!("{other}: cflow or fastflow").into()),
        };
        let fit = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let (image, pixel) = aurocs(model.as_ref(), &test)?;
        println!(
            "{which} seed {seed}, {epochs} epochs: image {image:.4}, pixel {pixel:.4}; training {seconds:.1} s, all of \
             learning {fit:.1} s, {} test pictures {:.1} s",
            test.len(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn layers() -> Vec<String> {
    ["blocks.2", "blocks.4", "blocks.6"].map(str::to_owned).to_vec()
}

/// Image and pixel AUROC; masks by Pillow's nearest, the middle of each output pixel.
fn aurocs(model: &dyn Detect, test: &Files) -> Result<(f64, f64), Error> {
    let (mut scores, mut labels, mut pixels, mut truth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for i in 0..test.len() {
        let prediction = model.predict(&[test.get(i)?])?.remove(0);
        let sample = &test.samples()[i];
        scores.push(prediction.score);
        labels.push(sample.good == Some(false));
        let Some(map) = &prediction.map else { return Err("no map".into()) };
        let (h, w) = map.dim();
        pixels.extend(map.view().iter().copied());
        match &sample.mask {
            Some(path) => {
                let mask = read_mask(path)?;
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
