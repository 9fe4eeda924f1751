//! How fast do whole networks run on the GPU?
//!
//! ```text
//! gpu-backbone [--size real|tiny] [--repetitions N] [--out FILE]
//! ```
//!
//! Prints one JSON object with a row for each network, batch and precision: the median and least time of CUDA events over a
//! whole pass, from pictures in the GPU's memory to feature maps there, launches replayed as one graph. `tiny` is for the
//! stand-in driver, which times nothing.

use blemish_backbone::{Backbone, BackboneError, GpuPrecision, WeightSet};
use blemish_tensor::Device;
use blemish_tensor::cuda::Cuda;
use serde_json::{Value, json};

/// Network, layers, pictures, side: what PatchCore and PaDiM run by default.
type Case = (&'static str, &'static [&'static str], usize, usize);

const REAL: [Case; 5] = [
    ("wide_resnet50_2", &["layer2", "layer3"], 32, 224),
    ("wide_resnet50_2", &["layer2", "layer3"], 1, 224),
    ("wide_resnet50_2", &["layer2", "layer3"], 32, 256),
    ("resnet18", &["layer1", "layer2", "layer3"], 32, 256),
    ("resnet18", &["layer1", "layer2", "layer3"], 1, 256),
];
const TINY: [Case; 1] = [("resnet18", &["layer1"], 1, 32)];

fn main() -> std::process::ExitCode {
    let (mut tiny, mut repetitions, mut out) = (None, 30usize, None);
    let mut args = std::env::args().skip(1);
    while let Some(word) = args.next() {
        // What `cargo bench` and `cargo test` add.
        if matches!(word.as_str(), "--bench" | "--test" | "--quiet" | "-q") {
            continue;
        }
        let value = args.next().unwrap_or_default();
        match (word.as_str(), value.as_str(), value.parse::<usize>()) {
            ("--size", "tiny", _) => tiny = Some(true),
            ("--size", "real", _) => tiny = Some(false),
            ("--repetitions", _, Ok(n)) if n > 0 => repetitions = n,
            ("--out", path, _) if !path.is_empty() => out = Some(value),
            _ => {
                eprintln!("error: {word} {value} is unknown");
                return std::process::ExitCode::from(2);
            }
        }
    }
    let cuda = match Cuda::open(0) {
        Ok(cuda) => cuda,
        Err(why) => {
            eprintln!("SKIPPED: networks on the GPU. {why}");
            return write(out.as_deref(), &json!({"skipped": why.to_string(), "rows": []}));
        }
    };
    let emulated = cuda.info().name == "emulated";
    let tiny = tiny.unwrap_or(emulated);
    match run(&cuda, tiny, if tiny { 1 } else { repetitions }) {
        Ok(_) if emulated && out.is_none() => {
            println!("the networks run; on the stand-in driver their times mean nothing");
            std::process::ExitCode::SUCCESS
        }
        Ok(rows) => write(out.as_deref(), &json!({"gpu": cuda.info().name, "repetitions": repetitions, "rows": rows})),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(cuda: &Cuda, tiny: bool, repetitions: usize) -> Result<Vec<Value>, BackboneError> {
    let mut rows = Vec::new();
    for &(id, layers, n, side) in if tiny { &TINY[..] } else { &REAL[..] } {
        for (precision, word) in [(GpuPrecision::Half, "fp16"), (GpuPrecision::Single, "f32")] {
            if precision == GpuPrecision::Half && cuda.info().capability < (8, 0) {
                eprintln!("SKIPPED: {id} in fp16, which wants compute capability 8.0");
                continue;
            }
            let layers: Vec<String> = layers.iter().map(|l| (*l).to_owned()).collect();
            let network = Backbone::new(id, &layers, &WeightSet::untrained(id, 1)?)?;
            let network = network.with_device(&Device::cuda(cuda.clone()), precision)?;
            let pixels: Vec<f32> = (0..n * side * side * 3).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
            let pixels = cuda.upload(&pixels)?;
            // Loads kernels, plans buffers, records; then a pass as later ones are.
            for _ in 0..2 {
                network.features_on_gpu(&pixels, [n, side, side])?;
            }
            let mut times = Vec::new();
            for _ in 0..repetitions {
                let before = cuda.event()?;
                let maps = network.features_on_gpu(&pixels, [n, side, side])?;
                let after = cuda.event()?;
                times.push(f64::from(before.milliseconds_to(&after)?));
                drop(maps);
            }
            times.sort_by(f64::total_cmp);
            let ms = times[times.len() / 2];
            eprintln!("{id} n={n} side={side} {word}: {ms:.3} ms");
            rows.push(json!({
                "op": "network",
                "shape": {"net": id, "layers": layers.last(), "n": n, "side": side, "precision": word},
                "ms": ms,
                "least_ms": times[0],
                "pictures_per_second": n as f64 / ms.max(1e-9) * 1e3,
            }));
        }
    }
    Ok(rows)
}

fn write(out: Option<&str>, value: &Value) -> std::process::ExitCode {
    let Some(path) = out else {
        println!("{value:#}");
        return std::process::ExitCode::SUCCESS;
    };
    match std::fs::write(path, format!("{value:#}\n")) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write {path}: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
