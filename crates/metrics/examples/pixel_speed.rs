//! Times the pixel metrics on 160 maps of 256 x 256 (10.5 million pixels), beside a comparison sort of as many floats.
//!
//! `cargo run --release -p blemish-metrics --example pixel_speed`

use std::hint::black_box;
use std::time::{Duration, Instant};

use blemish_metrics::{Aupro, Auroc, Binned, Grid, Metric, MetricError, Scores, label_components};
use ndarray::{Array2, Array3};

const REPEATS: usize = 7;
const LIMITS: [f64; 2] = [0.3, 0.05];

/// The fastest of several runs.
fn best<T>(name: &str, mut run: impl FnMut() -> Result<T, MetricError>) -> Result<T, MetricError> {
    let mut fastest = Duration::MAX;
    let mut value = run()?;
    for _ in 0..REPEATS {
        let start = Instant::now();
        value = black_box(run()?);
        fastest = fastest.min(start.elapsed());
    }
    println!("{name:<44} {:>8.1} ms", fastest.as_secs_f64() * 1e3);
    Ok(value)
}

fn main() -> Result<(), MetricError> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let (images, size) = (160, 256);
    // Two discs in three of four images; distances of the size that detectors give.
    let masks = Array3::from_shape_fn((images, size, size), |(i, y, x)| {
        let disc = |cy: usize, cx: usize, r: usize| y.abs_diff(cy).pow(2) + x.abs_diff(cx).pow(2) < r * r;
        i % 4 != 0 && (disc(60 + i / 2, 70, 9) || disc(150, 190 - i / 3, 14))
    });
    let maps = masks.map(|m| 18.0 + 9.0 * uniform() * uniform() + if *m { 4.0 } else { 0.0 });
    let pairs = || maps.outer_iter().zip(masks.outer_iter());

    best("baseline: copy and sort_unstable_by(total_cmp)", || {
        let mut all = maps.iter().copied().collect::<Vec<f32>>();
        all.sort_unstable_by(f32::total_cmp);
        Ok(all.len())
    })?;
    let auroc = best("Auroc: update and compute", || {
        let mut metric = Auroc::new();
        pairs().try_for_each(|(map, mask)| metric.update_map(map, mask))?;
        metric.compute()
    })?;
    let exact = best("Scores: AUROC, AP and F1-max", || {
        let mut metric = Scores::new();
        pairs().try_for_each(|(map, mask)| metric.update_map(map, mask))?;
        metric.compute()
    })?;
    let summary = best("Aupro: AUPRO 0.3 and 0.05, AUROC, AP, F1-max", || {
        let mut metric = Aupro::default();
        pairs().try_for_each(|(map, mask)| metric.update(map, mask))?;
        metric.summary(&LIMITS)
    })?;
    let binned = best("Binned, 20 bits: AUROC, AP and F1-max", || {
        let mut metric = Binned::new(Grid::default())?;
        pairs().try_for_each(|(map, mask)| metric.update_map(map, mask))?;
        metric.compute()
    })?;
    best("label_components of 160 masks", || {
        Ok(masks.outer_iter().map(|m| label_components(m).1.len()).sum::<usize>())
    })?;
    let noise = Array2::from_shape_fn((2048, 2048), |_| uniform() < 0.4);
    best("label_components of 2048 x 2048 noise", || Ok(label_components(noise.view()).1.len()))?;

    println!("AUROC {auroc}, binned {:?}", binned.auroc);
    println!("AP {}, binned {:?}", exact.average_precision, binned.average_precision);
    println!("F1-max {:?}, binned {:?} to {}", exact.f1_max, binned.f1_max, binned.f1_high);
    println!("AUPRO {:?} over {} regions", summary.aupro, summary.regions);
    Ok(())
}
