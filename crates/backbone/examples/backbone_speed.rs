//! Time of each network at 256 x 256 up to its deepest default layer.
//!
//! `cargo run --release -p blemish-backbone --example backbone_speed [-- THREADS [PRECISION] [NET[:LAYER] ...]]`
//!
//! Prints the fastest and the median milliseconds per picture for batches of 1 and 8, on untrained weights. `PRECISION` is
//! `f32`, `bf16` or `int8`.

use std::time::Instant;

use blemish_backbone::catalogue::NETS;
use blemish_backbone::{Backbone, Precision, WeightSet};
use ndarray::Array4;

const SIZE: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let threads = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let precision =
        arguments.next_if(|text| text.parse::<Precision>().is_ok()).map_or(Ok(Precision::F32), |p| p.parse())?;
    let mut only: Vec<String> = arguments.collect();
    if only.is_empty() {
        only = NETS.iter().map(|net| net.id.to_owned()).collect();
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    println!("{threads} threads, {SIZE} x {SIZE}, {precision}, ms per picture: fastest (median)");
    for name in &only {
        let (id, layer) = name.split_once(':').map_or((name.as_str(), None), |(id, layer)| (id, Some(layer)));
        let Some(net) = NETS.iter().find(|net| net.id == id) else { continue };
        let mut layers: Vec<String> = net.default_layers.iter().map(|&layer| layer.to_owned()).collect();
        if let Some(layer) = layer.filter(|layer| !net.default_layers.contains(layer)) {
            layers.push(layer.to_owned());
        }
        let weights = WeightSet::untrained(net.id, 0)?;
        let mut backbone = Backbone::new(net.id, &layers, &weights)?.with_precision(precision)?;
        let mut line = format!("{:<22} to {:<9}", net.id, layers.last().map_or("", String::as_str));
        for batch in [1, 8] {
            let input = Array4::from_shape_fn((batch, SIZE, SIZE, 3), |(n, y, x, c)| {
                ((n * 31 + y * 7 + x * 13 + c * 5) % 97) as f32 / 48.0 - 1.0
            });
            if batch == 1 && precision == Precision::Int8 {
                backbone.calibrate(input.view())?;
            }
            let (mut times, mut maps) = (Vec::new(), Vec::new());
            let start = Instant::now();
            while times.len() < 5 || (start.elapsed().as_secs_f64() < 2.0 && times.len() < 200) {
                let begin = Instant::now();
                backbone.features_into(input.view(), &mut maps)?;
                std::hint::black_box(&maps);
                times.push(begin.elapsed().as_secs_f64() * 1e3 / batch as f64);
            }
            times.sort_by(f64::total_cmp);
            line += &format!("  batch {batch}: {:8.2} ({:8.2})", times[0], times[times.len() / 2]);
        }
        if backbone.computes_in() != precision {
            line += &format!("  (in {})", backbone.computes_in());
        }
        println!("{line}");
    }
    Ok(())
}
