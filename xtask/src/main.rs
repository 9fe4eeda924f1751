//! Tasks of the blemish workspace: `cargo xtask demo`, `test`, `bench`, `tidy`, `doctor`.
//!
//! | module | task |
//! |---|---|
//! | [`needs`] | finds what the build needs and installs what is missing |
//! | [`demo`] | the main job from nothing: demo set, training, testing, a table |
//! | [`test`] | everything that has to pass before a change goes in |
//! | [`bench`] | kernel and end-to-end timings beside measured ceilings |
//! | [`bundle`] | GPU tests and benchmarks for a machine without Rust |
//! | [`emu`] | CUDA kernels and the code that launches them, tested without a GPU |
//! | [`ptx`] | CUDA kernels to PTX, what they take of a chip, variants of them |
//! | [`tidy`] | the invariants of ARCHITECTURE.md |
//!
//! This crate links no system library, so that it can start where blemish itself does not build yet.

mod bench;
mod bundle;
mod demo;
mod emu;
mod needs;
mod ptx;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Tasks of the blemish workspace

  cargo xtask demo [--keep] [--quiet]
        Builds the program, writes the demo set to datasets/demo, trains PaDiM and PatchCore on it, tests them and
        prints a table. Everything it makes lies under results/. No network is needed once the crates are fetched.
        --keep    leave an existing demo set as it is
        --quiet   the table alone

  cargo xtask test [FILTER]
        Formatting, tidy, clippy, then every test of the workspace (or those whose name contains FILTER).

  cargo xtask bench [--kernel NAME] [--size small|full] [--save NAME] [--compare NAME] [--json] [--python PATH --peer SCRIPT]
        Benchmarks beside this machine's measured ceilings, as a Markdown table.
        --kernel  conv, nearest, kcenter, mahalanobis, resize, blur, metrics or predict; may be repeated
        --size    small (default, a minute or two) or full (the shapes of real models)
        --save    keep the result as benches/history/NAME.json
        --compare add a column against benches/history/NAME.json
        --json    print JSON instead of the table
        --python  interpreter for --peer
        --peer    a Python script to run after the benchmarks, on the same machine; its output is passed through

  cargo xtask bench --tables [--data FOLDER] [--category NAME] [--model NAME] [--backbone NAME] [--weights FILE]
                    [--layers [MODEL=]A,B] [--set MODEL.KEY=VALUE] [--peer [--python PATH]] [--json]
        Image and pixel AUROC, training time and time a picture of every model (or those named; options may be repeated) on
        Screw and Carpet as far as they are there, else on the demo set: results/tables.md and .json.
        --peer    anomalib's in the same run, if a Python has it

  cargo xtask bundle [--out FOLDER]
        GPU tests and benchmarks as stripped programs with the PTX and a run.sh, for a machine that has an NVIDIA driver
        and neither Rust nor OpenBLAS: target/blemish-gpu, or FOLDER, and the same as .tar.gz.

  cargo xtask emu [--mutate [FILE]...]
        Tests the CUDA kernels in an emulator, and the code that launches them on a stand-in driver, which interprets the PTX.
        Needs g++ or clang++.
        --mutate  plant faults in the kernels as well, or in those whose names hold a word given; each has to be found

  cargo xtask ptx [--check]
        Compiles kernels/cu to kernels/ptx with the pinned NVRTC, then assembles for every chip: registers, no spills.
        --check   write nothing; whether the committed PTX is what its source gives

  cargo xtask sass KERNEL [--sm 90]
        Registers and disassembly of one CUDA kernel.

  cargo xtask tune KERNEL [--arch 90] [--dry-run] | tune --import FOLDER
        Compiles every choice of the parameters that kernels/cu/KERNEL.cu declares, says what each takes of the chip --arch,
        and times them where there is a GPU; the best of each chip goes to kernels/tuned.json.
        --import  takes the timings of a bundle's `run.sh tune` instead

  cargo xtask fetch-nvrtc
        Fetches the pinned compiler, assembler and disassembler with pip into target/cuda-tools (67 MB).

  cargo xtask tidy
        Checks the invariants of ARCHITECTURE.md.

  cargo xtask doctor
        Says what the build needs and what of it is here; changes nothing.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; `false` means that it ran and found fault.
fn dispatch(args: &[String]) -> Result<bool> {
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", args),
    };
    if rest.iter().any(|a| a == "--help" || a == "-h") {
        print!("{HELP}");
        return Ok(true);
    }
    match task {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "bundle" => bundle::run(rest),
        "emu" => emu::run(rest),
        "tune" => ptx::tune::run(rest),
        "ptx" | "sass" | "fetch-nvrtc" => ptx::run(task, rest),
        "tidy" => {
            no_arguments(task, rest)?;
            tidy::run(&shell::root()?)
        }
        "doctor" => {
            no_arguments(task, rest)?;
            needs::doctor()
        }
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(true)
        }
        other => bail!(
            "there is no task '{other}'\n       tasks: demo, test, bench, bundle, emu, ptx, sass, tune, fetch-nvrtc, tidy, doctor, help"
        ),
    }
}

fn no_arguments(task: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        Some(extra) => bail!("{task} takes no arguments, got '{extra}'"),
        None => Ok(()),
    }
}
