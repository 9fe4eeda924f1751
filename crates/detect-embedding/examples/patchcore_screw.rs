//! Learns PatchCore on a category of MVTec AD and prints times and AUROCs.
//!
//! ```text
//! cargo run --release -p blemish-detect-embedding --example patchcore_screw -- MVTEC_FOLDER MOBILENETV2_FILE [RATIO] [CATEGORY]
//! ```
//!
//! The settings are those of the reference run: MobileNetV2 (`blocks.2`, `blocks.4`), 256 x 256, centre 224 x 224.

use std::path::PathBuf;
use std::time::Instant;

use blemish_core::{Detect, Fit, ImageSource, Preprocess, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, read_mask};
use blemish_detect_embedding::PatchcoreParams;
use blemish_metrics::auroc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, weights, rest @ ..] = &arguments[..] else {
        return Err("MVTEC_FOLDER MOBILENETV2_FILE [RATIO] [CATEGORY]".into());
    };
    let ratio = rest.first().map_or(Ok(0.01), |r| r.parse())?;
    let category = rest.get(1).map_or("screw", String::as_str).to_owned();
    let data = Some(PathBuf::from(data));
    let spec = DataSpec { data, category: Some(category), protocol: Protocol::Paper, ..DataSpec::default() };
    let data = Dataset::open(&spec, 0)?;
    let (train, test) = (Files::new(data.train), Files::new(data.test));

    let params = PatchcoreParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: vec!["blocks.2".to_owned(), "blocks.4".to_owned()],
        weights: Some(PathBuf::from(weights)),
        coreset_ratio: ratio,
        coreset_start: Some(12_345),
        preprocess: Preprocess { crop: Some([224, 224]), ..Preprocess::default() },
        ..PatchcoreParams::default()
    };
    let start = Instant::now();
    let model = params.fit(&Session::quiet(0), &train)?;
    println!("{}\nlearned in {:.1} s", model.summary(), start.elapsed().as_secs_f64());

    let start = Instant::now();
    let (mut scores, mut labels, mut pixels, mut truth) = (vec![], vec![], vec![], vec![]);
    for (i, sample) in test.samples().iter().enumerate() {
        let prediction = model.predict(&[test.get(i)?])?.remove(0);
        scores.push(prediction.score);
        labels.push(sample.good == Some(false));
        if let Some(map) = prediction.map {
            pixels.extend(map.view().iter().copied());
            match &sample.mask {
                Some(path) => truth.extend(model.preprocess().apply_mask(read_mask(path)?.view())?),
                None => truth.extend(std::iter::repeat_n(false, map.view().len())),
            }
        }
    }
    println!("{:.1} ms a picture, file to map", start.elapsed().as_secs_f64() * 1e3 / test.len().max(1) as f64);
    println!("AUROC of pictures {:.4}, of pixels {:.4}", auroc(&scores, &labels)?, auroc(&pixels, &truth)?);
    Ok(())
}
