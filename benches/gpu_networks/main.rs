//! How fast do whole networks run on the GPU?
//!
//! ```text
//! gpu-backbone [--size real|tiny] [--repetitions N] [--out FILE]
//! ```
//!
//! Prints one JSON object with a row for each network, batch and precision: the median and least time of CUDA events over a
//! whole pass, from pictures in the GPU's memory to feature maps there, launches replayed as one graph. `tiny` is for the
//! stand-in driver, which times nothing.

#[path = "../gpu_program.rs"]
mod program;

use blemish_backbone::{Backbone, BackboneError, GpuPrecision, WeightSet};
use blemish_tensor::Device;
use program::Program;
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
    program::run("networks", 30, rows)
}

fn rows(program: &Program) -> Result<Vec<Value>, BackboneError> {
    let (cuda, mut rows) = (&program.cuda, Vec::new());
    for &(id, layers, n, side) in if program.tiny { &TINY[..] } else { &REAL[..] } {
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
            let (ms, least) =
                program.time(BackboneError::from, || network.features_on_gpu(&pixels, [n, side, side]))?;
            eprintln!("{id} n={n} side={side} {word}: {ms:.3} ms");
            rows.push(json!({
                "op": "network",
                "shape": {"net": id, "layers": layers.last(), "n": n, "side": side, "precision": word},
                "ms": ms,
                "least_ms": least,
                "pictures_per_second": n as f64 / ms.max(1e-9) * 1e3,
            }));
            program.keep(&rows);
        }
    }
    Ok(rows)
}
