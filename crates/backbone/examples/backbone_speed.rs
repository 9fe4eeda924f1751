//! Time of each network at 256 x 256 up to its deepest default layer.
//!
//! `cargo run --release -p blemish-backbone --example backbone_speed [-- THREADS [NET ...]]`
//!
//! Prints the fastest and the median milliseconds per picture for batches of 1 and 8, on untrained weights.

use std::time::Instant;

use blemish_backbone::catalogue::NETS;
use blemish_backbone::{Backbone, WeightSet};
use ndarray::Array4;

const SIZE: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let only: Vec<String> = arguments.collect();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    println!("{threads} threads, {SIZE} x {SIZE}, ms per picture: fastest (median)");
    for net in NETS.iter().filter(|net| only.is_empty() || only.iter().any(|id| id == net.id)) {
        let layers: Vec<String> = net.default_layers.iter().map(|&layer| layer.to_owned()).collect();
        let backbone = Backbone::new(net.id, &layers, &WeightSet::untrained(net.id, 0)?)?;
        let mut line = format!("{:<22} to {:<9}", net.id, layers.last().map_or("", String::as_str));
        for batch in [1, 8] {
            let input = Array4::from_shape_fn((batch, SIZE, SIZE, 3), |(n, y, x, c)| {
                ((n * 31 + y * 7 + x * 13 + c * 5) % 97) as f32 / 48.0 - 1.0
            });
            let mut times = Vec::new();
            let start = Instant::now();
            while times.len() < 5 || (start.elapsed().as_secs_f64() < 3.0 && times.len() < 200) {
                let begin = Instant::now();
                std::hint::black_box(backbone.features(input.view())?);
                times.push(begin.elapsed().as_secs_f64() * 1e3 / batch as f64);
            }
            times.sort_by(f64::total_cmp);
            line += &format!("  batch {batch}: {:8.2} ({:8.2})", times[0], times[times.len() / 2]);
        }
        println!("{line}");
    }
    Ok(())
}
