//! How close are the GPU kernels to what the GPU could do?
//!
//! ```text
//! gpu [--size real|tiny] [--kernel] [NAME]... [--repetitions N] [--ptx FOLDER] [--out FILE]
//! ```
//!
//! Prints one JSON object: the GPU, its ceilings (measured first) and a row for each case. Data is larger than the
//! second-level cache wherever memory bounds the time. Times are medians of CUDA events: of a whole call, with its
//! allocations and small uploads, and of each kernel in it. `tiny` is for the stand-in driver, which times nothing. `--ptx`
//! loads `FOLDER/MODULE.compute_NN.ptx` in place of the module built in. NAME is part of a case's name.
//!
//! | module | what it has |
//! |---|---|
//! | [`cases`] | shapes, inputs and the work that is counted |
//! | [`fits`] | what learning takes |
//! | [`flows`] | flows, but for their products |
//! | [`network`] | the layers of networks |
//! | [`products`] | linear layers in training |
//! | [`windows`] | convolutions in training, norms of maps |
//! | [`measure`] | timing and rates |
//!
//! A target of the crate of the kernels, so that nothing but the C library is needed to run it.

mod cases;
mod fits;
mod flows;
mod measure;
mod network;
mod products;
mod windows;

use std::path::PathBuf;

use blemish_kernels::ceiling;
use blemish_kernels::cuda::CudaResult;
use blemish_tensor::cuda::Cuda;
use serde_json::{Value, json};

use measure::Bench;

struct Options {
    tiny: Option<bool>,
    kernels: Vec<String>,
    repetitions: usize,
    ptx: Option<PathBuf>,
    out: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("error: {what}");
            return std::process::ExitCode::from(2);
        }
    };
    let cuda = match Cuda::open(0) {
        Ok(cuda) => cuda,
        Err(why) => {
            eprintln!("SKIPPED: the GPU benchmarks. {why}");
            let text = json!({"skipped": why.to_string(), "rows": []}).to_string();
            return options.write(&text);
        }
    };
    match run(&cuda, &options) {
        Ok(_) if cuda.info().name == "emulated" && options.out.is_none() => {
            println!("the GPU benchmarks run; on the stand-in driver their times mean nothing");
            std::process::ExitCode::SUCCESS
        }
        Ok(text) => options.write(&text),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(cuda: &Cuda, options: &Options) -> CudaResult<String> {
    let mut substituted = Vec::new();
    for (name, text) in options.modules() {
        cuda.substitute(name, &text)?;
        substituted.push(name);
    }
    let emulated = cuda.info().name == "emulated";
    let tiny = options.tiny.unwrap_or(emulated);
    let ceilings =
        if tiny { ceiling::cuda::measure(cuda, 1 << 16, 2)? } else { ceiling::cuda::measure(cuda, 1 << 30, 1 << 12)? };
    let repetitions = if tiny { 1 } else { options.repetitions };
    let info = cuda.info();
    let (major, minor) = info.capability;
    let head = json!({
        "gpu": info.name,
        "chip": format!("{major}{minor}"),
        "multiprocessors": info.multiprocessors,
        "emulated": emulated,
        "size": if tiny { "tiny" } else { "real" },
        "repetitions": repetitions,
        "substituted": substituted,
        "ceilings": {"copy_gbs": ceilings.copy_gbs, "gflops": ceilings.gflops, "tensor_gflops": ceilings.tensor_gflops},
    });
    let outcome = move |rows: &[Value]| {
        let mut whole = head.clone();
        whole["rows"] = rows.into();
        format!("{whole:#}")
    };
    let (out, so_far) = (options.out.clone(), outcome.clone());
    let keep = move |rows: &[Value]| {
        if let Some(path) = &out {
            // The whole is written at the end, and an error told there.
            let _ = std::fs::write(path, so_far(rows));
        }
    };
    let mut bench = Bench::new(cuda.clone(), ceilings, repetitions, options.kernels.clone(), Box::new(keep));
    cases::all(&mut bench, tiny)?;
    fits::all(&mut bench, tiny)?;
    network::all(&mut bench, tiny)?;
    products::all(&mut bench, tiny)?;
    flows::all(&mut bench, tiny)?;
    windows::all(&mut bench, tiny)?;
    Ok(outcome(bench.rows()))
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { tiny: None, kernels: Vec::new(), repetitions: 15, ptx: None, out: None };
        while let Some(word) = args.next() {
            // What `cargo bench` and `cargo test` add.
            if matches!(word.as_str(), "--bench" | "--test" | "--quiet" | "-q") {
                continue;
            }
            if !word.starts_with('-') {
                options.kernels.push(word);
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{word} wants a value, or is unknown"))?;
            match (word.as_str(), value.as_str()) {
                ("--size", "tiny") => options.tiny = Some(true),
                ("--size", "real") => options.tiny = Some(false),
                ("--kernel", _) => options.kernels.push(value),
                ("--repetitions", _) => {
                    options.repetitions = value.parse().ok().filter(|n| *n > 0).ok_or("--repetitions is 1 or more")?;
                }
                ("--ptx", _) => options.ptx = Some(value.into()),
                ("--out", _) => options.out = Some(value.into()),
                _ => return Err(format!("{word} {value} is unknown")),
            }
        }
        Ok(options)
    }

    /// Modules to load in place of those built in. They live as long as the program.
    fn modules(&self) -> Vec<(&'static str, String)> {
        let Some(folder) = &self.ptx else { return Vec::new() };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let ptx = entries.filter(|p| p.extension().is_some_and(|e| e == "ptx"));
        let read = |p: PathBuf| {
            let name: &'static str = p.file_stem()?.to_string_lossy().into_owned().leak();
            Some((name, std::fs::read_to_string(p).ok()?))
        };
        ptx.filter_map(read).collect()
    }

    fn write(&self, text: &str) -> std::process::ExitCode {
        let Some(path) = &self.out else {
            println!("{text}");
            return std::process::ExitCode::SUCCESS;
        };
        match std::fs::write(path, format!("{text}\n")) {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: cannot write {}: {error}", path.display());
                std::process::ExitCode::FAILURE
            }
        }
    }
}
