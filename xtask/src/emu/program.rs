//! Building and running one C++ program or library.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::shell;

/// Something to build from `kernels/emu`.
pub(super) struct Program {
    pub(super) name: String,
    source: PathBuf,
    output: PathBuf,
    flags: Vec<String>,
    /// The folder of the stand-in driver, if it runs on that.
    driver: Option<PathBuf>,
}

/// What a run gave.
pub(super) struct Outcome {
    pub(super) passed: bool,
    /// Everything it printed.
    pub(super) said: String,
}

/// No contraction, as for the GPU; the emulated sources have pragmas for their own compiler.
const FLAGS: [&str; 4] = ["-std=c++20", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"];

impl Program {
    fn new(root: &Path, name: String, source: &str, output: PathBuf, special: &[&str]) -> Self {
        let include = |folder: &str| format!("-I{}", root.join("kernels").join(folder).display());
        let flags = FLAGS.iter().chain(special).map(|f| (*f).to_owned());
        let flags = flags.chain([include("cu"), include("emu")]).collect();
        Program { name, source: root.join("kernels/emu").join(source), output, flags, driver: None }
    }

    /// The test of a kernel family, for the kernels below `root`.
    pub(super) fn test(root: &Path, folder: &Path, name: &str, asan: bool) -> Self {
        let special: &[&str] =
            if asan { &["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"] } else { &["-O2"] };
        let full = if asan { format!("{name} (ASan)") } else { name.to_owned() };
        let output = folder.join(if asan { format!("{name}.asan") } else { name.to_owned() });
        Program::new(root, full, &format!("tests/{name}.cpp"), output, special)
    }

    /// The same, compiled in a hurry.
    pub(super) fn quick(root: &Path, folder: &Path, name: &str) -> Self {
        Program::new(root, name.to_owned(), &format!("tests/{name}.cpp"), folder.join(name), &["-O1"])
    }

    /// A test of the interpreter, on the stand-in driver in a folder.
    pub(super) fn interpreter(root: &Path, folder: &Path, name: &str, driver: PathBuf) -> Self {
        let program = Program::new(root, name.to_owned(), &format!("tests/{name}.cpp"), folder.join(name), &["-O1"]);
        Program { driver: Some(driver), ..program }
    }

    /// The stand-in driver, for this machine's processor: it works on the 32 lanes of a warp at a time.
    pub(super) fn driver(root: &Path, folder: PathBuf) -> Self {
        let special = ["-O2", "-march=native", "-shared", "-fPIC"];
        Program::new(root, "stand-in driver".to_owned(), "driver.cpp", folder.join("libcuda.so"), &special)
    }

    pub(super) fn is_library(&self) -> bool {
        self.output.extension().is_some_and(|e| e == "so")
    }

    /// Compiles, unless what is there was made from files with the same fingerprint in the same way.
    pub(super) fn build(&self, compiler: &str, print: &str) -> Result<()> {
        let mut command = Command::new(compiler);
        command.args(&self.flags).arg("-o").arg(&self.output).arg(&self.source);
        let stamp = format!("{print} {}", shell::shown(&command));
        let note = self.output.with_extension("stamp");
        if self.output.is_file() && std::fs::read_to_string(&note).is_ok_and(|old| old == stamp) {
            return Ok(());
        }
        if let Some(folder) = self.output.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        shell::output(&mut command)?;
        std::fs::write(&note, stamp).with_context(|| format!("cannot write {}", note.display()))
    }

    /// Runs the program; one that does not end within the limit is stopped and has failed.
    pub(super) fn run(&self, limit: Duration) -> Result<Outcome> {
        let log = self.output.with_extension("log");
        let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let copy = file.try_clone().context("cannot share a log")?;
        let mut command = Command::new(&self.output);
        if let Some(folder) = &self.driver {
            command.env("LD_LIBRARY_PATH", folder);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            // Fibers have stacks of their own, so use after return cannot be tracked.
            .env("ASAN_OPTIONS", "detect_stack_use_after_return=0:detect_leaks=0")
            .spawn()
            .with_context(|| format!("cannot start {}", shell::shown(&command)))?;
        let start = Instant::now();
        let passed = loop {
            if let Some(status) = child.try_wait().context("cannot wait for a test")? {
                break status.success();
            }
            if start.elapsed() > limit {
                child.kill().context("cannot stop a test")?;
                child.wait().context("cannot wait for a test")?;
                break false;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = std::fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Outcome { passed, said: String::from_utf8_lossy(&said).into_owned() })
    }
}

/// A hash of all kernels and all of the emulator.
pub(super) fn fingerprint(kernels: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in ["cu", "cu/common", "emu", "emu/ptx", "emu/tests"] {
        let folder = kernels.join(folder);
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        hash.update(path.to_string_lossy().as_bytes());
        hash.update(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
