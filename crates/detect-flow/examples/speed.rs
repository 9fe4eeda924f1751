//! Time and memory of learning and predicting, on made-up pictures with an untrained network:
//! `cargo run --release -p blemish-detect-flow --example speed -- cflow|fastflow BACKBONE PICTURES EPOCHS`
//!
//! All default settings, but no pictures are held out. Memory is the most the process had (`VmHWM`, Linux).

use std::time::Instant;

use blemish_core::{Detect, Fit, Image, ImageSource, Session};
use blemish_detect_flow::{CflowParams, Epoch, FastflowParams};
use ndarray::Array3;
use rand::{Rng, SeedableRng};

type Error = Box<dyn std::error::Error>;

struct Noise(usize);

impl ImageSource for Noise {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("noise {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(index as u64);
        Image::from_u8(Array3::from_shape_simple_fn((256, 256, 3), || rng.random()))
    }
}

/// Peak memory so far, in megabytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024e-6
}

fn run(which: &str, backbone: &str, pictures: usize, epochs: usize) -> Result<(), Error> {
    let (session, source, backbone) = (Session::quiet(0), Noise(pictures), backbone.to_owned());
    let layers = |all: [&str; 3]| all.map(str::to_owned).to_vec();
    let resnet = backbone.contains("resnet");
    let start = Instant::now();
    let (model, curve): (Box<dyn Detect>, Vec<Epoch>) = match which {
        "cflow" => {
            let layers =
                layers(if resnet { ["layer2", "layer3", "layer4"] } else { ["blocks.2", "blocks.4", "blocks.6"] });
            let params = CflowParams { backbone, layers, epochs, validation_share: 0.0, ..CflowParams::default() };
            let model = params.fit(&session, &source)?;
            let curve = model.curve().to_vec();
            (Box::new(model), curve)
        }
        "fastflow" => {
            let layers =
                layers(if resnet { ["layer1", "layer2", "layer3"] } else { ["blocks.2", "blocks.4", "blocks.6"] });
            let params =
                FastflowParams { backbone, layers, epochs, validation_share: 0.0, ..FastflowParams::default() };
            let model = params.fit(&session, &source)?;
            let curve = model.curve().to_vec();
            (Box::new(model), curve)
        }
        other => return Err(format!("{other}: cflow or fastflow").into()),
    };
    let all = start.elapsed().as_secs_f64();
    let best = curve.iter().map(|e| e.seconds).fold(f64::INFINITY, f64::min);
    println!("{}", model.summary());
    println!("an epoch {best:.2} s, {:.1} ms a picture; all of learning {all:.1} s", best * 1e3 / pictures as f64);
    println!("peak memory {:.0} MB", peak());
    let image = source.get(0)?;
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        model.predict(std::slice::from_ref(&image))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("a prediction {:.1} ms at least, {:.1} ms in the median", times[0], times[5]);
    Ok(())
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [which, backbone, pictures, epochs] = arguments.as_slice() else {
        return Err("cflow|fastflow BACKBONE PICTURES EPOCHS".into());
    };
    run(which, backbone, pictures.parse()?, epochs.parse()?)
}
