//! Which settings find made-up defects, without a look at a test set:
//! `cargo run --release -p blemish-detect-flow --example study -- cflow|fastflow DATA WEIGHTS EVERY SEED SETTINGS ..`
//!
//! Good training pictures of Screw are split by SEED: 60 are held out, the others train. Into each of the 60 a defect is
//! pasted, a patch or a scar of the same picture (CutPaste, Li et al., CVPR 2021) or a small dark or bright spot, somewhere on
//! the part. For each of the SETTINGS (`'{"lr": 2e-4, "epochs": 12}'`) image and pixel AUROC of the 60 with defects beside the 60
//! without are printed after every EVERY epochs.

mod shared;

use std::sync::Mutex;

use blemish_core::{CoreError, Detect, Image, ImageSource, Judge, Session};
use blemish_datasets::Files;
use ndarray::{Array2, Array3};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shared::{Case, Error, aurocs, params, screw};

/// Pictures held out.
const HELD: usize = 60;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [which, data, weights, every, seed, settings @ ..] = arguments.as_slice() else {
        return Err("cflow|fastflow DATA WEIGHTS EVERY SEED SETTINGS ..".into());
    };
    let (every, seed): (usize, u64) = (every.parse()?, seed.parse()?);
    let mut samples = screw(data)?.train;
    samples.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let train = Files::new(samples.split_off(HELD.min(samples.len() / 2)));
    let held = Files::new(samples);
    for text in settings {
        let params = params(which, weights, &serde_json::from_str(text)?)?;
        let name = format!("{which} {text} seed {seed}");
        let study = Study { held: &held, every, name, epoch: Mutex::new(0) };
        params.fit_dyn(&Session { judge: Some(&study), ..Session::quiet(seed) }, &train)?;
    }
    Ok(())
}

struct Study<'a> {
    held: &'a Files,
    every: usize,
    name: String,
    epoch: Mutex<usize>,
}

impl Judge for Study<'_> {
    fn judge(&self, model: &dyn Detect) -> blemish_core::Result<f64> {
        let mut epoch = self.epoch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *epoch += 1;
        if epoch.is_multiple_of(self.every) {
            let cases = (0..2 * self.held.len()).map(|i| {
                let image = self.held.get(i / 2)?;
                if i % 2 == 0 { Ok(Case { image, bad: false, mask: None }) } else { spoil(&image, i as u64) }
            });
            let (image, pixel) = aurocs(model, cases)
                .map_err(|e| CoreError::Detector { kind: "study", source: e.to_string().into() })?;
            println!("{} epoch {epoch}: image {image:.4}, pixel {pixel:.4}", self.name);
        }
        // No opinion: the epochs are only watched.
        Ok(f64::NAN)
    }
}

/// The picture with a defect on the part, and where it is.
fn spoil(image: &Image, seed: u64) -> Result<Case, Error> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pixels: Array3<u8> = image.as_u8().ok_or("8 bits wanted")?.to_owned();
    let (h, w, channels) = pixels.dim();
    let bright = |p: &Array3<u8>, y: usize, x: usize| f32::from(p[[y, x, 0]]);
    // The part is what differs from the frame of the picture.
    let mut frame: Vec<f32> = (0..w).map(|x| bright(&pixels, 2, x)).collect();
    frame.sort_by(f32::total_cmp);
    let ground = frame[w / 2];
    let place = |rng: &mut ChaCha8Rng| {
        let mut at = (h / 2, w / 2);
        for _ in 0..10_000 {
            at = (rng.random_range(h / 16..h - h / 16), rng.random_range(w / 16..w - w / 16));
            if (bright(&pixels, at.0, at.1) - ground).abs() > 40.0 {
                break;
            }
        }
        at
    };
    let (to, from) = (place(&mut rng), place(&mut rng));
    let unit = h.min(w) as f32 / 256.0;
    // Half axes: of a patch, a scar or a spot.
    let kind = rng.random_range(0..3);
    let (a, b) = match kind {
        0 => (rng.random_range(3.0..8.0), rng.random_range(3.0..8.0)),
        1 => (rng.random_range(5.0..12.0), rng.random_range(0.75..2.0)),
        _ => (rng.random_range(1.5..4.0), rng.random_range(1.5..4.0)),
    };
    let (a, b, turn) = (a * unit, b * unit, rng.random_range(0.0..std::f32::consts::PI));
    let shift: f32 = rng.random_range(35.0..90.0) * if rng.random() { 1.0 } else { -1.0 };
    let (before, mut mask, reach) = (pixels.clone(), Array2::from_elem((h, w), false), (a + b).ceil() as isize);
    for dy in -reach..=reach {
        for dx in -reach..=reach {
            let (u, v) =
                (dx as f32 * turn.cos() + dy as f32 * turn.sin(), dy as f32 * turn.cos() - dx as f32 * turn.sin());
            let round = (u / a).powi(2) + (v / b).powi(2);
            let inside = if kind == 2 { round <= 1.0 } else { u.abs() <= a && v.abs() <= b };
            let within = |at: (usize, usize)| {
                let (y, x) = (at.0 as isize + dy, at.1 as isize + dx);
                let fits = y >= 0 && x >= 0 && (y as usize) < h && (x as usize) < w;
                fits.then_some((y as usize, x as usize))
            };
            let (Some((y, x)), Some((v, u))) = (within(to), within(from)) else { continue };
            if !inside {
                continue;
            }
            mask[[y, x]] = true;
            for c in 0..channels {
                pixels[[y, x, c]] = if kind == 2 {
                    (f32::from(before[[y, x, c]]) + shift * (1.0 - round).sqrt()).clamp(0.0, 255.0) as u8
                } else {
                    before[[v, u, c]]
                };
            }
        }
    }
    Ok(Case { image: Image::from_u8(pixels)?, bad: true, mask: Some(mask) })
}
