//! Times of PaDiM's own arithmetic on synthetic feature maps: `padim_speed [resnet18|wide|wide_few|all] [threads]`.

use std::time::{Duration, Instant};

use blemish_detect_embedding::padim::{Form, Learner};
use ndarray::Array4;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let case = arguments.first().map_or("resnet18", String::as_str);
    let threads = arguments.get(1).map_or(Ok(2), |t| t.parse())?;
    let (widths, d, images, form) = match case {
        "wide" => ([256, 512, 1024], 550, 320, Form::Nested),
        "wide_few" => ([256, 512, 1024], 550, 16, Form::Auto),
        "all" => ([64, 128, 256], 448, 320, Form::Nested),
        "triangle" => ([64, 128, 256], 100, 320, Form::Triangle),
        "few" => ([64, 128, 256], 100, 16, Form::LowRank),
        _ => ([64, 128, 256], 100, 320, Form::Nested),
    };
    let maps = [[64, 64, widths[0]], [32, 32, widths[1]], [16, 16, widths[2]]];
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut channels: Vec<usize> = (0..widths.iter().sum()).collect();
    channels.shuffle(&mut rng);
    channels.truncate(d);
    let mut batch = |n: usize| -> Vec<Array4<f32>> {
        maps.iter()
            .map(|m| Array4::from_shape_simple_fn((n, m[0], m[1], m[2]), || rng.random_range(0.0..1.0)))
            .collect()
    };
    // Two batches in turn; a third would cost more time than it adds.
    let batches = [batch(16), batch(16)];
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| {
        let mut learner = Learner::new(&maps, &channels, images, 0.01001, form)?;
        let before = peak();
        let start = Instant::now();
        for i in 0..images / 16 {
            learner.push(&batches[i % 2])?;
        }
        let pushed = start.elapsed();
        let model = learner.finish()?;
        let finished = start.elapsed() - pushed;
        println!(
            "{case}, {threads} threads, {:?}, {:.0} floats a position: {images} pictures added in {pushed:.2?}, factored in \
             {finished:.2?}; peak memory {} MB, {before} MB of it before",
            model.form(),
            model.floats_per_position(),
            peak()
        );
        for n in [1usize, 8, 16] {
            let part: Vec<Array4<f32>> =
                batches[0].iter().map(|m| m.slice(ndarray::s![..n, .., .., ..]).to_owned()).collect();
            let mut best = Duration::MAX;
            for _ in 0..7 {
                let start = Instant::now();
                model.distance(&part)?;
                best = best.min(start.elapsed());
            }
            println!("  distances of {n}: {:.2?} a picture", best / n as u32);
        }
        Ok(())
    })
}

/// Peak resident memory in MB, where the system tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1000)
}
