//! `cargo xtask emu`: the CUDA kernels without a GPU.
//!
//! 1. Every `kernels/emu/tests/*.cpp`, twice: optimised, and with AddressSanitizer. They run the unmodified kernels in the
//!    emulator and compare them with plain loops, under several schedules. Those named `ptx_*` test the interpreter of the
//!    stand-in driver.
//! 2. The Rust tests of the GPU code, and its benchmarks at toy sizes, on the stand-in driver, which interprets the committed
//!    PTX and checks it as it runs.
//!
//! With `--mutate [FILE]...`, faults are planted ([`mutate`]) and each has to be found.

mod faults;
mod mutate;
mod program;
mod ptx_faults;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::test::CUDA;
use program::{Outcome, Program, fingerprint};

/// How long a test may run before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let mutate = shell::flag(&mut args, "--mutate");
    // With --mutate, parts of the names of the files that get faults; all of them without.
    let only = if mutate { std::mem::take(&mut args) } else { Vec::new() };
    shell::nothing_left("emu", &args)?;
    let root = shell::root()?;
    let Some(compiler) = compiler() else {
        println!("SKIPPED: the emulated CUDA kernels. They need g++ or clang++ with C++20 on x86-64.");
        return Ok(true);
    };
    let place = Place { folder: shell::target_dir(&root)?.join("emu"), root, compiler };
    if mutate { mutate::run(&place, &only) } else { place.all() }
}

/// A C++20 compiler, if there is one for this machine's programs.
fn compiler() -> Option<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return None;
    }
    let works = |name: &String| {
        let mut command = Command::new(name);
        command.args(["-std=c++20", "-fsyntax-only", "-x", "c++", "/dev/null"]);
        shell::output(&mut command).is_ok()
    };
    let named = std::env::var("CXX").ok();
    named.into_iter().chain(["c++", "g++", "clang++"].map(str::to_owned)).find(works)
}

/// The driver's mode in which the chip is a Hopper, and what the names of the tests that want one hold.
const HOPPER: &str = "hopper";

/// Where things are built, and with what.
struct Place {
    root: PathBuf,
    folder: PathBuf,
    compiler: String,
}

impl Place {
    /// Names of the emulated tests.
    fn tests(&self) -> Result<Vec<String>> {
        let folder = self.root.join("kernels/emu/tests");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "cpp") {
                names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn all(&self) -> Result<bool> {
        let print = fingerprint(&self.root.join("kernels"))?;
        let driver = self.folder.join("driver");
        let (interpreter, kernels): (Vec<String>, Vec<String>) =
            self.tests()?.into_iter().partition(|name| name.starts_with("ptx_"));
        let mut jobs = vec![Program::driver(&self.root, driver.clone())];
        for name in kernels {
            for asan in [true, false] {
                jobs.push(Program::test(&self.root, &self.folder, &name, asan));
            }
        }
        let ready = jobs.len();
        jobs.extend(interpreter.iter().map(|n| Program::interpreter(&self.root, &self.folder, n, driver.clone())));
        let work = |program: &Program| {
            let start = Instant::now();
            program.build(&self.compiler, &print)?;
            let built = start.elapsed();
            if program.is_library() {
                shell::step("emu", &format!("{:<22} built in {}", program.name, shell::seconds(built)));
                return Ok(true);
            }
            let start = Instant::now();
            let outcome = program.run(LIMIT)?;
            let times = format!("built in {}, ran {}", shell::seconds(built), shell::seconds(start.elapsed()));
            shell::step("emu", &format!("{:<22} {} ({times})", program.name, outcome.said.trim_end()));
            Ok(outcome.passed)
        };
        // Those of the interpreter once there is a driver.
        let mut passed = parallel(&jobs[..ready], work)?;
        passed.extend(parallel(&jobs[ready..], work)?);
        let passed = passed.iter().all(|p| *p);
        Ok(self.rust_tests(&driver)? && passed)
    }

    /// Runs the Rust tests of the GPU code on the driver in a folder, with benchmarks at toy sizes and the program's `--device`.
    fn rust_tests(&self, driver: &Path) -> Result<bool> {
        let command = |more: &[&str]| {
            let mut command = shell::cargo(&self.root);
            command.args(["test", "--quiet", "--workspace", "--features", CUDA, "--test", "cuda"]).args(more);
            command
        };
        let more = ["--bench", "gpu", "--test", "devices"];
        // So that a failure below is one of the tests.
        if !shell::passes(command(&more).arg("--no-run"))? {
            bail!("the tests of the GPU code do not compile");
        }
        let with = |command: &mut Command| {
            command.env("LD_LIBRARY_PATH", search(driver)).env("BLEMISH_REQUIRE_CUDA", "1");
        };
        let (mut all, mut hopper) = (command(&more), command(&[]));
        with(&mut all);
        // What a chip of 9.0 alone runs.
        with(hopper.env("BLEMISH_DRIVER", HOPPER).args(["--", HOPPER]));
        Ok(shell::passes(&mut all)? & shell::passes(&mut hopper)?)
    }

    /// Runs one test of the kernels; the driver takes the text in `planted` for the PTX file it was made from.
    fn rust_test(&self, driver: &Path, test: &str, planted: Option<&Path>) -> Result<Outcome> {
        let command = || {
            let mut command = shell::cargo(&self.root);
            command.args(["test", "--quiet", "--package", "blemish-kernels", "--features", "cuda", "--test", "cuda"]);
            command
        };
        if !shell::passes(command().arg("--no-run"))? {
            bail!("the tests of the GPU code do not compile");
        }
        let mut command = command();
        command.args(["--", "--exact", test, "--nocapture"]).stdin(Stdio::null());
        command.env("LD_LIBRARY_PATH", search(driver)).env("BLEMISH_REQUIRE_CUDA", "1");
        if test.contains(HOPPER) {
            command.env("BLEMISH_DRIVER", HOPPER);
        }
        if let Some(path) = planted {
            command.env("BLEMISH_PLANTED", path);
        }
        let out = command.output().with_context(|| format!("cannot start {}", shell::shown(&command)))?;
        Ok(Outcome { passed: out.status.success(), said: String::from_utf8_lossy(&out.stderr).into_owned() })
    }
}

/// Where libraries are looked for, a folder first.
fn search(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(old) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(old);
    }
    path
}

/// Does `work` on every item, as many at a time as there are processors; the results in order.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = Mutex::new(0..items.len());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(i) = next.lock().ok().and_then(|mut next| next.next()) {
                    let result = work(&items[i]);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    if done.len() != items.len() {
        bail!("a worker stopped early");
    }
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_the_first_error_is_given() {
        let items: Vec<usize> = (0..20).collect();
        assert_eq!(parallel(&items, |i| Ok(i * 2)).unwrap(), (0..20).map(|i| i * 2).collect::<Vec<_>>());
        let error = parallel(&items, |i| if i % 7 == 3 { bail!("{i}") } else { Ok(()) }).unwrap_err();
        assert_eq!(error.to_string(), "3");
        assert!(parallel(&[0; 0], |_| Ok(())).unwrap().is_empty());
    }
}
