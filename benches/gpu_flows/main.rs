//! How fast do whole flows train and score on the GPU?
//!
//! ```text
//! gpu-flow [--size real|tiny] [--repetitions N] [--out FILE]
//! ```
//!
//! Prints one JSON object with a row for each flow and precision: the median and least time of CUDA events. `tiny` is for the
//! stand-in driver, which times nothing.
//!
//! | module | what it has |
//! |---|---|
//! | [`linear`] | CFlow-AD's flows |
//! | [`maps`] | FastFlow's flows |

mod linear;
mod maps;

use blemish_flow::FlowError;
use blemish_kernels::cuda::CudaError;
use blemish_tensor::TensorError;
use blemish_tensor::cuda::Cuda;
use serde_json::{Value, json};

/// What is measured, and the rows so far.
struct Bench {
    cuda: Cuda,
    tiny: bool,
    repetitions: usize,
    rows: Vec<Value>,
}

impl Bench {
    /// Times `call`, which does `parts` of what a row is about.
    fn run(
        &mut self,
        op: &str,
        shape: Value,
        parts: usize,
        mut call: impl FnMut() -> Result<(), FlowError>,
    ) -> Result<(), FlowError> {
        let device = |error: TensorError| FlowError::from(CudaError::from(error));
        // Loads kernels and records; then a call as later ones are.
        for _ in 0..2 {
            call()?;
        }
        let mut times = Vec::new();
        for _ in 0..self.repetitions {
            let before = self.cuda.event().map_err(device)?;
            call()?;
            let after = self.cuda.event().map_err(device)?;
            times.push(f64::from(before.milliseconds_to(&after).map_err(device)?) / parts.max(1) as f64);
        }
        times.sort_by(f64::total_cmp);
        let ms = times.get(times.len() / 2).copied().unwrap_or_default();
        eprintln!("{op} {shape}: {ms:.3} ms");
        self.rows.push(json!({"op": op, "shape": shape, "ms": ms, "least_ms": times.first()}));
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    let (mut tiny, mut repetitions, mut out) = (None, 10usize, None);
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
            eprintln!("SKIPPED: flows on the GPU. {why}");
            return write(out.as_deref(), &json!({"skipped": why.to_string(), "rows": []}));
        }
    };
    let emulated = cuda.info().name == "emulated";
    let tiny = tiny.unwrap_or(emulated);
    let repetitions = if tiny { 1 } else { repetitions };
    let mut bench = Bench { cuda, tiny, repetitions, rows: Vec::new() };
    match linear::all(&mut bench).and_then(|()| maps::all(&mut bench)) {
        Ok(()) if emulated && out.is_none() => {
            println!("the flows run; on the stand-in driver their times mean nothing");
            std::process::ExitCode::SUCCESS
        }
        Ok(()) => {
            let value = json!({"gpu": bench.cuda.info().name, "repetitions": repetitions, "rows": bench.rows});
            write(out.as_deref(), &value)
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
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
