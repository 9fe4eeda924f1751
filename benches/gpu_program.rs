//! What the GPU benchmarks of whole networks and of whole flows have in common: arguments, a GPU or a loud skip, timing, the outcome.
//!
//! ```text
//! PROGRAM [--size real|tiny] [--repetitions N] [--out FILE]
//! ```
//!
//! Prints one JSON object with the rows that the program finds. `tiny` is for the stand-in driver, which times nothing.

use std::process::ExitCode;

use blemish_tensor::TensorError;
use blemish_tensor::cuda::Cuda;
use serde_json::{Value, json};

/// A GPU and how it is to be measured.
pub(crate) struct Program {
    pub(crate) cuda: Cuda,
    pub(crate) tiny: bool,
    repetitions: usize,
    out: Option<String>,
}

/// Opens the GPU, has `rows` measure and writes what it found; `what` is measured, `usually` so many times.
pub(crate) fn run<E: std::fmt::Display>(
    what: &str,
    usually: usize,
    rows: impl FnOnce(&Program) -> Result<Vec<Value>, E>,
) -> ExitCode {
    let (mut tiny, mut repetitions, mut out) = (None, usually, None);
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
                return ExitCode::from(2);
            }
        }
    }
    let cuda = match Cuda::open(0) {
        Ok(cuda) => cuda,
        Err(why) => {
            eprintln!("SKIPPED: {what} on the GPU. {why}");
            return write(out.as_deref(), &json!({"skipped": why.to_string(), "rows": []}));
        }
    };
    let emulated = cuda.info().name == "emulated";
    let tiny = tiny.unwrap_or(emulated);
    let program = Program { cuda, tiny, repetitions: if tiny { 1 } else { repetitions }, out };
    match rows(&program) {
        Ok(_) if emulated && program.out.is_none() => {
            println!("the {what} run; on the stand-in driver their times mean nothing");
            ExitCode::SUCCESS
        }
        Ok(rows) => write(program.out.as_deref(), &program.outcome(&rows)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Program {
    fn outcome(&self, rows: &[Value]) -> Value {
        json!({"gpu": self.cuda.info().name, "repetitions": self.repetitions, "rows": rows})
    }

    /// Writes the rows so far where the outcome goes, so that a run that is stopped leaves what it had.
    pub(crate) fn keep(&self, rows: &[Value]) {
        if self.out.is_some() {
            write(self.out.as_deref(), &self.outcome(rows));
        }
    }

    /// The median and the least milliseconds of `call` by CUDA events; `device` makes an error of the GPU's.
    pub(crate) fn time<T, E>(
        &self,
        device: impl Fn(TensorError) -> E,
        mut call: impl FnMut() -> Result<T, E>,
    ) -> Result<(f64, f64), E> {
        // Loads kernels, plans buffers, records; then a call as later ones are.
        for _ in 0..2 {
            call()?;
        }
        let mut times = Vec::new();
        for _ in 0..self.repetitions {
            let before = self.cuda.event().map_err(&device)?;
            let result = call()?;
            let after = self.cuda.event().map_err(&device)?;
            times.push(f64::from(before.milliseconds_to(&after).map_err(&device)?));
            drop(result);
        }
        times.sort_by(f64::total_cmp);
        Ok((times.get(times.len() / 2).copied().unwrap_or_default(), times.first().copied().unwrap_or_default()))
    }
}

fn write(out: Option<&str>, value: &Value) -> ExitCode {
    let Some(path) = out else {
        println!("{value:#}");
        return ExitCode::SUCCESS;
    };
    match std::fs::write(path, format!("{value:#}\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
