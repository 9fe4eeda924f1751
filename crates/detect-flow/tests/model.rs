//! The fitted detectors: files, batches, threads, caches.

mod common;

use blemish_core::{CoreError, Detect, Image, ImageSource, ModelFile};
use blemish_core::{Fit, Session};
use blemish_detect_flow::fastflow::MapOf;
use blemish_detect_flow::{CflowParams, FastflowParams, Mode};
use common::{Common, KINDS, SIZE, bytes, curve, fit, load, noise, write};

fn images(count: usize) -> Vec<Image> {
    (100..100 + count).map(|i| noise(200).get(i).unwrap()).collect()
}

fn check_round_trip(model: &dyn Detect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write(model, &path);
    let file = ModelFile::open(&path).unwrap();
    let loaded = load(model.kind(), &file).unwrap();
    file.self_test(loaded.as_ref()).unwrap();
    assert_eq!(loaded.summary(), model.summary());
    let images = images(3);
    for (a, b) in model.predict(&images).unwrap().iter().zip(loaded.predict(&images).unwrap()) {
        assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
        let map = a.map.as_ref().unwrap();
        assert_eq!(map.dim(), SIZE);
        // FastFlow's score is that of its latents, whatever the map shows.
        assert!(model.kind() == "fastflow" || map.max().unwrap() == a.score);
        assert!(map.view().iter().all(|v| v.is_finite()));
    }
    assert!(bytes(loaded.as_ref()) == bytes(model), "a model that was loaded is written as it was");
}

#[test]
fn files_give_back_the_model() {
    for kind in KINDS {
        check_round_trip(fit(kind, &Common::default(), 8).unwrap().as_ref());
    }
    let session = Session::quiet(1);
    let soft = CflowParams { soft_mixing: true, mode: Mode::Paper, ..common::cflow() };
    check_round_trip(&soft.fit(&session, &noise(6)).unwrap());
    for only in [false, true] {
        let paper = FastflowParams { mode: Mode::Paper, conv3x3_only: only, hidden_ratio: 0.5, ..common::fastflow() };
        check_round_trip(&paper.fit(&session, &noise(6)).unwrap());
    }
}

#[test]
fn the_same_bits_for_any_threads() {
    for kind in KINDS {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = fit(kind, &Common::default(), 8).unwrap();
                let scores: Vec<u32> = model.predict(&images(3)).unwrap().iter().map(|p| p.score.to_bits()).collect();
                (bytes(model.as_ref()), scores)
            })
        };
        let one = run(1);
        assert!(one == run(2), "{kind}, 2 threads");
        assert!(one == run(7), "{kind}, 7 threads");
    }
}

#[test]
fn a_score_does_not_depend_on_the_batch() {
    for kind in KINDS {
        let model = fit(kind, &Common::default(), 8).unwrap();
        let images = images(5);
        let input = model.preprocess().batch(&images).unwrap();
        let together = model.predict_batch(input.view()).unwrap();
        assert_eq!(together.len(), 5);
        for (i, a) in together.iter().enumerate() {
            let alone = model.predict_batch(input.slice(ndarray::s![i..i + 1, .., .., ..])).unwrap();
            assert_eq!((a.score.to_bits(), &a.map), (alone[0].score.to_bits(), &alone[0].map), "{kind}, picture {i}");
        }
        let backwards = model.predict_batch(input.slice(ndarray::s![..;-1, .., .., ..])).unwrap();
        for (a, b) in together.iter().zip(backwards.iter().rev()) {
            assert_eq!(a.score.to_bits(), b.score.to_bits(), "{kind}");
        }
        assert!(model.predict_batch(input.slice(ndarray::s![..0, .., .., ..])).unwrap().is_empty());
    }
}

#[test]
fn without_a_cache_the_same_bits() {
    for kind in KINDS {
        let with = bytes(fit(kind, &Common::default(), 8).unwrap().as_ref());
        let without = Common { cache_gigabytes: 0.0, ..Common::default() };
        assert!(with == bytes(fit(kind, &without, 8).unwrap().as_ref()), "{kind}");
    }
}

/// A fixed pattern under a little noise; with a `defect`, a square of it is white.
fn pattern(index: usize, defect: bool) -> Image {
    let noise = noise(1000).get(index).unwrap();
    let noise = noise.as_u8().unwrap();
    let value = |(y, x, c): (usize, usize, usize)| {
        let wave = 110.0 + 50.0 * (y as f64 / 2.5).sin() * (x as f64 / 3.5 + c as f64).cos();
        let white = defect && (8..20).contains(&y) && (18..30).contains(&x);
        if white { 255 } else { wave as u8 + noise[[y, x, c]] / 12 }
    };
    Image::from_u8(ndarray::Array3::from_shape_fn((40, 40, 3), value)).unwrap()
}

struct Patterns(usize);

impl ImageSource for Patterns {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("pattern {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        Ok(pattern(index, false))
    }
}

#[test]
fn training_lowers_the_loss_and_defects_are_found() {
    for kind in KINDS {
        let common = Common { epochs: 15, patience: None, lr: 3e-3, ..Common::default() };
        let model = common::params(kind, &common).fit_dyn(&Session::quiet(3), &Patterns(10)).unwrap();
        let curve = curve(model.as_ref());
        assert_eq!(curve.len(), 15);
        assert!(curve[14].train_loss < curve[0].train_loss, "{kind}: {curve:?}");
        let held_out = |i: usize| curve[i].validation_loss.unwrap();
        assert!(held_out(14) < held_out(0), "{kind}: {curve:?}");
        let scores = |defect: bool| {
            let images: Vec<Image> = (50..54).map(|i| pattern(i, defect)).collect();
            model.predict(&images).unwrap()
        };
        let best = scores(false).iter().map(|p| p.score).fold(f32::NEG_INFINITY, f32::max);
        for prediction in scores(true) {
            assert!(prediction.score > best, "{kind}: {} for a defect, {best} without", prediction.score);
            // In the middle of the square, which the network sees 36 wide, it is more anomalous than on the whole.
            let map = prediction.map.unwrap().into_inner();
            let inside = map.slice(ndarray::s![10..18, 18..25]).mean().unwrap();
            assert!(inside > map.mean().unwrap(), "{kind}: {inside} inside");
        }
    }
}

#[test]
fn fastflow_shows_likelihoods_and_scores_by_latents() {
    let session = Session::quiet(3);
    let [shown, latent] = [MapOf::Likelihood, MapOf::Latent].map(|map| {
        let params = FastflowParams { map, ..common::fastflow() };
        (params.fit(&session, &Patterns(6)).unwrap(), map)
    });
    assert_eq!(FastflowParams::default().map, MapOf::Likelihood);
    let images: Vec<Image> = (50..53).map(|i| pattern(i, i == 51)).collect();
    let of = |model: &dyn Detect| model.predict(&images).unwrap();
    let maps = |found: &[blemish_core::Prediction]| found.iter().map(|p| p.map.clone().unwrap()).collect::<Vec<_>>();
    let (first, second) = (of(&shown.0), of(&latent.0));
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.score, b.score);
        assert_eq!(b.map.as_ref().unwrap().max().unwrap(), b.score);
        assert_ne!(a.map, b.map);
    }
    // Files that do not say what is shown are of a time when it was latents.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let mut content = bytes(&shown.0);
    let header = u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&content[8..8 + header]).unwrap().to_owned();
    let before = text.replace(r#"\"map\":\"likelihood\""#, r#"\"age\":\"likelihood\""#);
    assert_ne!(before, text);
    content[8..8 + header].copy_from_slice(before.as_bytes());
    std::fs::write(&path, content).unwrap();
    let old = load("fastflow", &ModelFile::open(&path).unwrap()).unwrap();
    assert_eq!(maps(&of(old.as_ref())), maps(&second));
}

#[test]
fn another_size_of_picture() {
    // CFlow's flows look at single positions; FastFlow's norm has weights for each.
    let input = ndarray::Array4::zeros((1, 64, 64, 3));
    let cflow = fit("cflow", &Common::default(), 4).unwrap();
    assert_eq!(cflow.predict_batch(input.view()).unwrap()[0].map.as_ref().unwrap().dim(), (64, 64));
    let fastflow = fit("fastflow", &Common::default(), 4).unwrap();
    let error = fastflow.predict_batch(input.view()).unwrap_err();
    assert!(matches!(error, CoreError::Shape { .. }), "{error}");
}
