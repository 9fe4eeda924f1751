//! Memory while training stays within what the README states: features of all pictures only where `cache_gigabytes` allows it.
//!
//! One test, since the most a process had is never less again.

mod common;

use blemish_core::{Fit, Image, ImageSource, Preprocess, Resize, Session};
use blemish_detect_flow::CflowParams;
use ndarray::Array3;

const PICTURES: usize = 160;
const SIDE: usize = 192;

/// Pictures made as they are asked for.
struct Ramps;

impl ImageSource for Ramps {
    fn len(&self) -> usize {
        PICTURES
    }

    fn name(&self, index: usize) -> String {
        format!("ramp {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        Image::from_u8(Array3::from_shape_fn((SIDE, SIDE, 3), |(y, x, c)| {
            ((y * (index + 1) + x * (c + 2)) % 251) as u8
        }))
    }
}

/// The most memory this process had so far, in megabytes; none where the system does not say.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024e-6)
}

#[test]
fn features_are_kept_within_the_cache_alone() {
    if peak().is_none() {
        eprintln!("skipped: this system does not say how much memory a process had");
        return;
    }
    // blocks.1 has 24 channels at a quarter of the side.
    let features = (PICTURES * (SIDE / 4) * (SIDE / 4) * 24 * 4) as f64 / 1e6;
    let train = |cache_gigabytes: f64| {
        let params = CflowParams {
            layers: vec!["blocks.1".to_owned()],
            blocks: 1,
            fibre_batch: 1024,
            image_batch: 4,
            epochs: 1,
            validation_share: 0.0,
            patience: None,
            cache_gigabytes,
            preprocess: Preprocess { resize: Resize::Stretch { height: SIDE, width: SIDE }, ..Preprocess::default() },
            ..common::cflow()
        };
        let model = params.fit(&Session::quiet(1), &Ramps).unwrap();
        (model.curve()[0].train_loss, peak().unwrap())
    };
    // The allocator keeps some of what was freed: a first run settles that.
    let (loss, before) = train(0.0);
    let (again, without) = train(features * 0.99e-3);
    let (kept, with) = train(features * 1.01e-3);
    println!("{features:.1} MB of features; most memory {before:.1}, {without:.1} and with them {with:.1} MB");
    assert!(without - before < 0.25 * features, "{} MB more, though the cache is too small", without - before);
    let more = with - without;
    assert!(more > 0.5 * features && more < 1.25 * features, "{more} MB more for {features} MB of features");
    assert_eq!((loss, loss), (again, kept));
}
