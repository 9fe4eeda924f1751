//! AUROC of CFlow-AD and FastFlow on the test set of Screw, a folder in MVTec AD's layout:
//! `cargo run --release -p blemish-detect-flow --example screw -- cflow|fastflow DATA WEIGHTS SETTINGS [SEED ..]`
//!
//! MobileNetV2 with the weights given, layers blocks.2, blocks.4 and blocks.6, 256 x 256; all good pictures train for all
//! epochs. SETTINGS change the defaults: `'{"epochs": 3}'`. For choosing settings there is the example `study`.

mod shared;

use std::time::Instant;

use blemish_core::{ImageSource, Session};
use blemish_datasets::{Files, read_mask};
use shared::{Case, Error, aurocs, params, screw};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [which, data, weights, settings, seeds @ ..] = arguments.as_slice() else {
        return Err("cflow|fastflow DATA WEIGHTS SETTINGS [SEED ..]".into());
    };
    let data = screw(data)?;
    let (train, test) = (Files::new(data.train), Files::new(data.test));
    let params = params(which, weights, &serde_json::from_str(settings)?)?;
    let mut seeds = seeds.iter().map(|s| s.parse()).collect::<Result<Vec<u64>, _>>()?;
    if seeds.is_empty() {
        seeds.push(0);
    }
    let mut sum = (0.0, 0.0);
    for seed in &seeds {
        let start = Instant::now();
        let model = params.fit_dyn(&Session::quiet(*seed), &train)?;
        let fit = start.elapsed().as_secs_f64();
        let cases = test.samples().iter().enumerate().map(|(i, sample)| {
            let mask = sample.mask.as_deref().map(read_mask).transpose()?;
            Ok(Case { image: test.get(i)?, bad: sample.good == Some(false), mask })
        });
        let (image, pixel) = aurocs(model.as_ref(), cases)?;
        println!("{which} {settings} seed {seed}: image {image:.4}, pixel {pixel:.4}; learning {fit:.1} s");
        sum = (sum.0 + image, sum.1 + pixel);
    }
    let n = seeds.len() as f64;
    println!("{which} {settings} mean of {n}: image {:.4}, pixel {:.4}", sum.0 / n, sum.1 / n);
    Ok(())
}
