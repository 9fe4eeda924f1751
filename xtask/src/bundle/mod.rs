//! `cargo xtask bundle`: GPU tests and benchmarks for a machine that has an NVIDIA driver, but neither Rust nor OpenBLAS.
//!
//! Every test target whose name begins with `cuda`, of a package with the feature `cuda`, and every benchmark `gpu`, as
//! stripped release programs; the committed PTX and the variants to tune; the formulas of PyTorch to compare with; `run.sh`, which
//! runs them; what is to be measured with it; a manifest. Nothing but the C library may be needed, and the archive, which is what is
//! carried, has to stay below a limit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{ptx, shell};

/// The most bytes of the archive.
const LIMIT: u64 = 64 << 20;
const RUN: &str = include_str!("run.sh");
/// What the programs may be linked to: parts of glibc, and GCC's unwinder, which is wherever glibc is.
const SYSTEM: [&str; 8] =
    ["linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libgcc_s.so"];

/// A program to put in: the name in the bundle, the package and the cargo option that selects it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    name: String,
    package: String,
    target: String,
    bench: bool,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let out = shell::option(&mut args, "--out")?;
    shell::nothing_left("bundle", &args)?;
    let root = shell::root()?;
    let folder = match out {
        Some(out) => std::path::absolute(&out).with_context(|| format!("no such path: {out}"))?,
        None => shell::target_dir(&root)?.join("blemish-gpu"),
    };
    let programs = programs(&shell::metadata(&root)?);
    if programs.is_empty() {
        bail!("no package has GPU tests");
    }
    prepare(&folder)?;
    let built = build(&root, &programs)?;
    let mut glibc = (0, 0);
    for program in &programs {
        let key = (program.package.clone(), program.target.clone());
        let from = built.get(&key).with_context(|| format!("cargo built no {}", program.target))?;
        let to = folder.join("bin").join(&program.name);
        copy(from, &to)?;
        strip(&to);
        needs_only_the_system(&to)?;
        glibc = glibc.max(newest_glibc(&std::fs::read(&to).with_context(|| format!("cannot read {}", to.display()))?));
        shell::step("bundle", &format!("bin/{:<28} {}", program.name, size(std::fs::metadata(&to)?.len())));
    }
    for (from, to) in [("kernels/ptx", "ptx"), ("benches/peers", "peers")] {
        copy_files(&root.join(from), &folder.join(to))?;
    }
    copy(&root.join("benches/gpu/README.md"), &folder.join("README.md"))?;
    if ptx::tune::write_all(&root, &folder.join("variants"))? {
        // They are nine tenths of the text and rarely needed: packed they leave room for programs.
        archive(&folder.join("variants"))?;
        std::fs::remove_dir_all(folder.join("variants")).context("cannot remove the variants that are packed")?;
    } else {
        println!("SKIPPED: variants to tune. There is no NVRTC here; `cargo xtask fetch-nvrtc` fetches it.");
    }
    let script = folder.join("run.sh");
    std::fs::write(&script, RUN).with_context(|| format!("cannot write {}", script.display()))?;
    executable(&script)?;
    manifest(&root, &folder, glibc)?;
    let files = files(&folder)?;
    let total = files.iter().map(|f| Ok(std::fs::metadata(folder.join(f))?.len())).sum::<Result<u64>>()?;
    let archive = archive(&folder)?;
    let packed = std::fs::metadata(&archive).with_context(|| format!("cannot read {}", archive.display()))?.len();
    shell::step("bundle", &format!("{} files, {}: {}", files.len(), size(total), folder.display()));
    shell::step("bundle", &format!("{}: {}", size(packed), archive.display()));
    if packed > LIMIT {
        bail!("the bundle has {} as it is carried, more than {}", size(packed), size(LIMIT));
    }
    Ok(true)
}

/// Whether this machine seems to have an NVIDIA GPU; `run.sh` asks the same.
pub(crate) fn gpu_is_here() -> bool {
    let device = ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists());
    device || shell::output(Command::new("nvidia-smi").arg("-L")).is_ok()
}

/// Builds the GPU benchmarks alone.
pub(crate) fn gpu_bench(root: &Path) -> Result<PathBuf> {
    let programs: Vec<Program> =
        programs(&shell::metadata(root)?).into_iter().filter(|p| p.bench && p.name == "gpu").collect();
    build(root, &programs)?.into_values().next().context("no package has GPU benchmarks")
}

/// Packages whose tests stay behind for want of room: the facade's tests do the same with whole models.
const COVERED: [&str; 2] = ["blemish-detect-embedding", "blemish-detect-flow"];

/// The targets that belong into a bundle.
fn programs(metadata: &Value) -> Vec<Program> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if package["features"]["cuda"].is_null() || COVERED.contains(&name) {
            continue;
        }
        for target in package["targets"].as_array().into_iter().flatten() {
            let (word, kind) = (target["name"].as_str().unwrap_or_default(), target["kind"][0].as_str());
            let short = name.trim_start_matches("blemish-");
            let (bundled, bench) = match kind {
                Some("test") if word.starts_with("cuda") => (format!("test-{short}-{word}"), false),
                Some("bench") if word == "gpu" && short == "kernels" => ("gpu".to_owned(), true),
                Some("bench") if word == "gpu" => (format!("gpu-{short}"), true),
                _ => continue,
            };
            found.push(Program { name: bundled, package: name.to_owned(), target: word.to_owned(), bench });
        }
    }
    found
}

/// Builds all programs; the executable of each package and target.
fn build(root: &Path, programs: &[Program]) -> Result<BTreeMap<(String, String), PathBuf>> {
    let mut built = BTreeMap::new();
    // One package at a time: features of several would add up, and with them what is linked.
    let mut packages: Vec<&str> = programs.iter().map(|p| p.package.as_str()).collect();
    packages.dedup();
    for package in packages {
        let mut command = shell::cargo(root);
        command.args(["test", "--release", "--no-run", "--quiet", "--message-format", "json-render-diagnostics"]);
        command.args(["--package", package, "--features", &format!("{package}/cuda")]);
        for program in programs.iter().filter(|p| p.package == package) {
            command.args([if program.bench { "--bench" } else { "--test" }, &program.target]);
        }
        let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let out = out.with_context(|| format!("cannot start {}", shell::shown(&command)))?;
        if !out.status.success() {
            bail!("{} failed", shell::shown(&command));
        }
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            if let (Some(path), Some(target)) = (message["executable"].as_str(), message["target"]["name"].as_str()) {
                built.insert((package.to_owned(), target.to_owned()), PathBuf::from(path));
            }
        }
    }
    Ok(built)
}

/// Empties a folder that is a bundle, or makes it; refuses any other that holds something.
fn prepare(folder: &Path) -> Result<()> {
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !folder.join("MANIFEST.json").is_file() {
        bail!("{} holds something that is no bundle; name another folder", folder.display());
    }
    if occupied {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder.join("bin")).with_context(|| format!("cannot make {}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for name in files(from)? {
        if !name.contains("__pycache__") {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Takes symbols and line tables off; without the program for it the file stays as it is.
fn strip(program: &Path) {
    if let Err(error) = shell::output(Command::new("strip").arg("--strip-all").arg(program)) {
        eprintln!("{} is not stripped: {error:#}", program.display());
    }
}

/// Refuses a program that is linked to anything else, OpenBLAS above all.
fn needs_only_the_system(program: &Path) -> Result<()> {
    let said = shell::output(Command::new("ldd").arg(program))?;
    match foreign(&said).as_slice() {
        [] => Ok(()),
        some => bail!("{} needs {}, which a bare machine lacks", program.display(), some.join(", ")),
    }
}

/// The libraries that `ldd` lists beyond the C library.
fn foreign(said: &str) -> Vec<String> {
    let name = |line: &str| line.split_whitespace().next().map(|n| n.rsplit('/').next().unwrap_or(n).to_owned());
    let names = said.lines().filter(|l| !l.contains("statically linked")).filter_map(name);
    names.filter(|n| !SYSTEM.iter().any(|s| n.starts_with(s))).collect()
}

/// The newest version of glibc that a program asks for, from the names of the symbols' versions.
fn newest_glibc(program: &[u8]) -> (u32, u32) {
    const WORD: &[u8] = b"GLIBC_";
    let mut newest = (0, 0);
    for at in program.windows(WORD.len()).enumerate().filter(|(_, w)| *w == WORD).map(|(at, _)| at + WORD.len()) {
        let text = program[at..].split(|b| !b.is_ascii_digit() && *b != b'.').next().unwrap_or_default();
        let mut numbers = text.split(|b| *b == b'.').map(|n| std::str::from_utf8(n).ok().and_then(|n| n.parse().ok()));
        if let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) {
            newest = newest.max((major, minor));
        }
    }
    newest
}

/// Names of all files below a folder, sorted.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes `SHA256SUMS` and `MANIFEST.json` over everything that is there.
fn manifest(root: &Path, folder: &Path, glibc: (u32, u32)) -> Result<()> {
    let mut sums = String::new();
    let mut all = serde_json::Map::new();
    for name in files(folder)? {
        let bytes = std::fs::read(folder.join(&name)).with_context(|| format!("cannot read {name}"))?;
        let sum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        writeln!(sums, "{sum}  {name}")?;
        all.insert(name, sum.into());
    }
    let git = |words: &[&str]| shell::output(Command::new("git").current_dir(root).args(words)).ok();
    let rustc = shell::output(Command::new("rustc").arg("-vV")).unwrap_or_default();
    let line = |start: &str| rustc.lines().find_map(|l| l.strip_prefix(start)).unwrap_or_default().trim().to_owned();
    let value = json!({
        "commit": git(&["rev-parse", "HEAD"]).map(|c| c.trim().to_owned()),
        "changed_since": git(&["status", "--porcelain", "--untracked-files=no"]).map(|s| !s.trim().is_empty()),
        "target": line("host:"),
        "rustc": line("release:"),
        "glibc": format!("{}.{}", glibc.0, glibc.1),
        "sha256": all,
    });
    std::fs::write(folder.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")?;
    std::fs::write(folder.join("MANIFEST.json"), format!("{value:#}\n")).context("cannot write MANIFEST.json")
}

/// Packs the folder into a file beside it.
fn archive(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().context("the folder has no name")?;
    let parent = folder.parent().context("the folder lies nowhere")?;
    let archive = parent.join(format!("{}.tar.gz", name.to_string_lossy()));
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--create",
        "--gzip",
        "--file",
    ]);
    shell::output(tar.arg(&archive).arg("--directory").arg(parent).arg(name))?;
    Ok(archive)
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).with_context(|| format!("cannot make {} executable", path.display()))
}

#[cfg(not(unix))]
fn executable(_path: &Path) -> Result<()> {
    Ok(())
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;
