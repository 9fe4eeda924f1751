//! `cargo xtask ptx`, `sass` and `fetch-nvrtc`: from `kernels/cu/*.cu` to the committed `kernels/ptx/*.ptx`.
//!
//! | module | what it does |
//! |---|---|
//! | [`tools`] | the pinned compiler, assembler and disassembler: where they are, how they are fetched |
//! | [`stamp`] | says of a PTX file what it was made from, so that a stale one is found without a compiler |
//! | [`gate`] | assembles for every chip; registers, spills, local memory |
//! | [`tune`] | variants of a kernel's compile-time parameters, timed or ranked |
//! | [`tuned`] | those parameters, the best values of each chip, the files that follow from them |
//! | [`occupancy`] | how much of a kernel a multiprocessor holds at a time |
//!
//! The compiler is NVRTC of one exact version, so the same source gives the same bytes on every machine; it needs neither
//! a GPU nor a driver. One PTX target serves all later chips: `compute_75` for kernels of plain arithmetic, `compute_80`
//! where tensor cores and asynchronous copies are used; `compute_90a` serves Hopper alone, whose tensor cores no other chip has.

mod gate;
mod occupancy;
mod stamp;
mod tools;
pub(crate) mod tune;
mod tuned;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use tools::Tools;
use tuned::{Build, Variant};

/// What the compiler is told for every kernel. Nothing may be contracted: a fused multiply-add is written as one.
const FLAGS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// The Rust source that names the PTX files.
const MODULES: &str = "modules.rs";

/// What a PTX file is made from.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// Stem of the source.
    name: &'static str,
    /// PTX target.
    target: &'static str,
}

const fn unit(name: &'static str, target: &'static str) -> Unit {
    Unit { name, target }
}

const UNITS: [Unit; 25] = [
    unit("adam", "compute_75"),
    unit("blur", "compute_75"),
    unit("conv", "compute_75"),
    unit("conv", "compute_80"),
    unit("coupling", "compute_75"),
    unit("depthwise", "compute_75"),
    unit("ceiling", "compute_75"),
    unit("ceiling", "compute_80"),
    unit("embed", "compute_75"),
    unit("flow", "compute_75"),
    unit("kcenter", "compute_75"),
    unit("mahalanobis", "compute_75"),
    unit("mahalanobis", "compute_80"),
    unit("moments", "compute_75"),
    unit("nearest", "compute_75"),
    unit("nearest", "compute_80"),
    unit("nearest", "compute_90a"),
    unit("norm", "compute_75"),
    unit("pairwise", "compute_75"),
    unit("pool", "compute_75"),
    unit("product", "compute_75"),
    unit("product", "compute_80"),
    unit("projection", "compute_75"),
    unit("resize", "compute_75"),
    unit("window", "compute_75"),
];

impl Unit {
    fn source(self, root: &Path) -> PathBuf {
        root.join("kernels/cu").join(self.name).with_extension("cu")
    }

    fn file_name(self) -> String {
        format!("{}.{}.ptx", self.name, self.target)
    }

    fn ptx(self, root: &Path) -> PathBuf {
        root.join("kernels/ptx").join(self.file_name())
    }

    /// The chips the gate assembles for.
    fn chips(self) -> &'static [u32] {
        const ALL: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];
        match self.target {
            "compute_75" => &ALL,
            // Features of one architecture alone, which no other chip has.
            "compute_90a" => &ALL[4..5],
            _ => &ALL[1..],
        }
    }

    /// The assembler's name of one of those chips.
    fn assembled(self, chip: u32) -> String {
        format!("{chip}{}", if self.target.ends_with('a') { "a" } else { "" })
    }

    /// The flags, without paths of this machine.
    fn flags(self) -> Vec<String> {
        let target = format!("--gpu-architecture={}", self.target);
        std::iter::once(target).chain(FLAGS.map(str::to_owned)).collect()
    }
}

/// Runs one of this module's tasks.
pub(crate) fn run(task: &str, args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let root = shell::root()?;
    let tools = Tools::open(&root)?;
    match task {
        "fetch-nvrtc" => {
            shell::nothing_left(task, &args)?;
            tools.fetch()?;
            Ok(true)
        }
        "sass" => {
            let chip = shell::option(&mut args, "--sm")?.unwrap_or_else(|| "90".to_owned());
            let [kernel] = args.as_slice() else { bail!("sass wants the name of one kernel") };
            sass(&root, &tools, kernel, &chip)
        }
        _ => {
            let check = shell::flag(&mut args, "--check");
            shell::nothing_left(task, &args)?;
            let passed = if check { verify(&root, &tools)? } else { write(&root, &tools)? };
            Ok(gate::run(&root, &tools, &tuned::builds(&root)?)? && passed)
        }
    }
}

/// Compiles everything and writes what changed.
fn write(root: &Path, tools: &Tools) -> Result<bool> {
    if tools.nvrtc().is_none() {
        bail!("there is no NVRTC {}; `cargo xtask fetch-nvrtc` fetches it", tools::NVRTC);
    }
    let builds = tuned::builds(root)?;
    let files = builds.iter().map(|build| Ok((build.file_name(), compile(root, tools, build)?)));
    let files: Vec<(String, String)> = files.collect::<Result<_>>()?;
    for (name, text) in files.iter().chain([&(MODULES.to_owned(), tuned::modules(&builds))]) {
        let path = root.join("kernels/ptx").join(name);
        if std::fs::read_to_string(&path).unwrap_or_default() == *text {
            shell::step("ptx", &format!("{name:<28} unchanged"));
        } else {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            shell::step("ptx", &format!("{name:<28} written, {} bytes", text.len()));
        }
    }
    // Files of parameters that are not the best any more.
    for name in listed(root)?.into_iter().filter(|name| !builds.iter().any(|b| b.file_name() == *name)) {
        std::fs::remove_file(root.join("kernels/ptx").join(&name)).with_context(|| format!("cannot remove {name}"))?;
        shell::step("ptx", &format!("{name:<28} removed"));
    }
    Ok(true)
}

/// The names of all PTX files there are.
fn listed(root: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(root.join("kernels/ptx")).context("cannot list kernels/ptx")?;
    let names = entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<std::io::Result<_>>().context("cannot list kernels/ptx")?;
    Ok(names.into_iter().filter(|name| name.ends_with(".ptx")).collect())
}

/// Whether every committed file is what its source gives: byte for byte if the compiler is here, else by its stamp.
fn verify(root: &Path, tools: &Tools) -> Result<bool> {
    let rebuild = tools.nvrtc().is_some();
    let builds = tuned::builds(root)?;
    let mut fine = true;
    for build in &builds {
        let path = build.ptx(root);
        let committed = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let fault = match stamp::check(&committed, &stamp::of_source(root, build)?) {
            Err(fault) => Some(fault),
            Ok(()) if rebuild && compile(root, tools, build)? != committed => {
                Some("differs from what it compiles to".into())
            }
            Ok(()) => None,
        };
        if let Some(fault) = &fault {
            fine = false;
            println!("{}: {fault}; run `cargo xtask ptx`", build.file_name());
        }
    }
    for name in listed(root)? {
        if !builds.iter().any(|b| b.file_name() == name) {
            fine = false;
            println!("{name}: comes from no source");
        }
    }
    if std::fs::read_to_string(root.join("kernels/ptx").join(MODULES)).unwrap_or_default() != tuned::modules(&builds) {
        fine = false;
        println!("{MODULES}: does not name the files there are; run `cargo xtask ptx`");
    }
    let how =
        if rebuild { "rebuilt byte for byte" } else { "stamps alone: NVRTC is not here (cargo xtask fetch-nvrtc)" };
    shell::step("ptx", &format!("{} files, {how}", builds.len()));
    Ok(fine)
}

/// One PTX file, stamp included.
fn compile(root: &Path, tools: &Tools, build: &Build) -> Result<String> {
    let out = tools.folder().join(build.file_name());
    let text = translate(root, tools, build.unit, &build.define, &out)?;
    Ok(stamp::with(&stamp::of_source(root, build)?, &text))
}

/// The PTX of a unit with other values of its parameters, without a stamp; also left in the file `out`.
fn translate(root: &Path, tools: &Tools, unit: Unit, define: &Variant, out: &Path) -> Result<String> {
    let nvrtc = tools.nvrtc().context("no NVRTC")?;
    let mut command = Command::new(tools.compiler(root)?);
    command.arg(nvrtc).arg(unit.source(root)).arg(out).args(unit.flags());
    command.arg(format!("--include-path={}", root.join("kernels/cu").display()));
    command.args(define.iter().map(|(name, value)| format!("--define-macro={name}={value}")));
    let version = shell::output(&mut command)?;
    if !tools::NVRTC.starts_with(&format!("{}.", version.trim())) {
        bail!("NVRTC is {}, not {}: it would write other bytes", version.trim(), tools::NVRTC);
    }
    let text = std::fs::read_to_string(out).with_context(|| format!("cannot read {}", out.display()))?;
    let text = tuned::line(&tuned::parameters(&tuned::source(root, unit)?)?, define) + &text;
    std::fs::write(out, &text).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(text)
}

/// Prints registers, shared memory and disassembly of one kernel.
fn sass(root: &Path, tools: &Tools, kernel: &str, chip: &str) -> Result<bool> {
    let (Some(ptxas), Some(nvdisasm)) = (tools.ptxas(), tools.nvdisasm()) else {
        bail!("sass needs ptxas and nvdisasm; `cargo xtask fetch-nvrtc` fetches them");
    };
    let entry = format!(".entry {kernel}(");
    for unit in UNITS.iter().rev() {
        let path = unit.ptx(root);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.contains(&entry) || !unit.chips().iter().any(|c| c.to_string() == chip) {
            continue;
        }
        let cubin = tools.folder().join("sass.cubin");
        let used = gate::assemble(&ptxas, &path, &unit.assembled(chip.parse()?), &cubin)?;
        let listing = shell::output(Command::new(nvdisasm).arg("-c").arg(&cubin))?;
        let start = listing.find(&format!(".text.{kernel}:")).context("the disassembly lacks the kernel")?;
        let body = &listing[start..];
        let end = body[1..].find("\n.text.").map_or(body.len(), |at| at + 1);
        println!("{}", &body[..end]);
        for usage in used.iter().filter(|u| u.name == kernel) {
            println!("{kernel} on sm_{chip}: {usage}");
        }
        return Ok(true);
    }
    bail!("no kernel '{kernel}' for sm_{chip} in kernels/ptx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_ptx_belongs_to_its_source() {
        let root = shell::root().unwrap();
        for build in tuned::builds(&root).unwrap() {
            let (unit, text) = (build.unit, std::fs::read_to_string(build.ptx(&root)).unwrap());
            let fault = stamp::check(&text, &stamp::of_source(&root, &build).unwrap());
            assert_eq!(fault, Ok(()), "{}: run `cargo xtask ptx`", build.file_name());
            assert!(text.contains(&format!(".target sm_{}", unit.target.trim_start_matches("compute_"))));
        }
    }
}
