//! `cargo xtask test`: everything that has to pass, all of it reported, in one go.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{needs, shell, tidy};

/// The features that turn on all GPU code. Whatever compiles tests takes the whole workspace with these, so that it is compiled once.
pub(crate) const CUDA: &str = "blemish-cli/cuda";

/// Tests counted over all test binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let filter = match args {
        [] => None,
        [one] if !one.starts_with('-') => Some(one.as_str()),
        _ => bail!("test takes at most one word, part of a test's name"),
    };
    let root = shell::root()?;
    let mut stages = Stages::default();
    heading("needs");
    needs::ensure(false)?;
    let mut skipped = Vec::new();
    if !gpu() {
        skipped.push("GPU: none here; kernels run in the emulator and on a stand-in driver only".to_owned());
    }
    let mut beside = Vec::new();
    if filter.is_none() {
        // Neither uses all processors from beginning to end, no more than compiling and testing do.
        beside.push(Beside::start("CUDA kernels, emulated", &["emu"])?);
        beside.push(Beside::start("PTX", &["ptx", "--check"])?);
        stages.run("tidy", || tidy::run(&root));
        // Nothing else compiles the workspace without GPU code: the tests below are compiled with it.
        let all = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        let cuda = ["clippy", "--workspace", "--all-targets", "--features", CUDA, "--quiet", "--", "-D", "warnings"];
        let checks = [
            ("format", "rustfmt", &["fmt", "--all", "--check"][..]),
            ("clippy", "clippy", &all),
            ("clippy, GPU code", "clippy", &cuda),
        ];
        for (name, component, words) in checks {
            if shell::output(shell::cargo(&root).args([words[0], "--version"])).is_ok() {
                stages.run(name, || shell::passes(shell::cargo(&root).args(words)));
            } else {
                skipped.push(format!("{name}: install it with `rustup component add {component}`"));
            }
        }
    }
    let mut count = Count::default();
    stages.run("tests", || {
        let mut command = shell::cargo(&root);
        command.args(["test", "--workspace", "--features", CUDA, "--no-fail-fast", "--quiet"]);
        command.args(["--lib", "--bins", "--tests"]);
        tests(command, filter, &mut count)
    });
    stages.run("examples in the documentation", || {
        let mut command = shell::cargo(&root);
        command.args(["test", "--workspace", "--features", CUDA, "--no-fail-fast", "--doc", "--quiet"]);
        tests(command, filter, &mut count)
    });
    for task in beside {
        stages.join(task);
    }
    heading("summary");
    print!("{}", stages.table());
    for what in skipped {
        println!(" SKIPPED {what}");
    }
    println!();
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(stages.passed() && count.failed == 0)
}

/// Whether this system has a GPU's driver running: under Linux, or Windows' Linux.
fn gpu() -> bool {
    ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists())
}

/// Runs `cargo test`, passing its words through, and adds up what each binary reports.
fn tests(mut command: Command, filter: Option<&str>, count: &mut Count) -> Result<bool> {
    if let Some(word) = filter {
        command.args(["--", word]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shell::shown(&command)))?;
    let pipe = child.stdout.take().context("cargo test has no output")?;
    let mut terminal = std::io::stdout();
    for line in BufReader::new(pipe).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let text = String::from_utf8_lossy(&line);
        // A terminal that went away is no reason to stop counting.
        let _ = writeln!(terminal, "{text}");
        if let Some(one) = outcome(&text) {
            count.passed += one.passed;
            count.failed += one.failed;
        }
    }
    Ok(child.wait().context("cargo test")?.success())
}

/// Reads `test result: ok. 3 passed; 1 failed; 0 ignored; …`.
fn outcome(line: &str) -> Option<Count> {
    let tail = line.trim().strip_prefix("test result: ")?;
    let of = |word: &str| -> Option<u64> {
        let before = tail.split(word).next()?.trim_end();
        before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Count { passed: of(" passed")?, failed: of(" failed")? })
}

fn heading(name: &str) {
    println!("\n── {name} {}", "─".repeat(60_usize.saturating_sub(name.chars().count())));
}

/// A task of this program that runs while stages do.
struct Beside {
    name: &'static str,
    start: Instant,
    work: JoinHandle<Result<Done>>,
}

/// How a task beside the stages ended: whether it passed, what it printed, and when.
struct Done {
    passed: bool,
    said: Vec<u8>,
    end: Instant,
}

impl Beside {
    /// Starts `cargo xtask` with these words.
    fn start(name: &'static str, words: &[&str]) -> Result<Beside> {
        let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
        command.args(words);
        Ok(Beside::of(name, command))
    }

    /// A program that cannot be started is a task that fails.
    fn of(name: &'static str, mut command: Command) -> Beside {
        let work = move || {
            let (mut from, into) = std::io::pipe().context("no pipe")?;
            command.stdin(Stdio::null()).stdout(into.try_clone().context("no pipe")?).stderr(into);
            let mut child = command.spawn().with_context(|| format!("cannot start {}", shell::shown(&command)))?;
            // It holds the ends to write to; what is read ends with the child's.
            drop(command);
            let mut said = Vec::new();
            from.read_to_end(&mut said).context("cannot read what it prints")?;
            let passed = child.wait().context("cannot wait for it")?.success();
            Ok(Done { passed, said, end: Instant::now() })
        };
        Beside { name, start: Instant::now(), work: std::thread::spawn(work) }
    }
}

/// What ran so far.
#[derive(Default)]
struct Stages {
    done: Vec<(String, bool, Duration)>,
}

impl Stages {
    /// Runs a stage and notes its outcome; the next one runs in any case.
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<bool>) {
        heading(name);
        let start = Instant::now();
        let passed = work().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        self.done.push((name.to_owned(), passed, start.elapsed()));
    }

    /// Waits for a task and notes its outcome; its time is that from its start to its end.
    fn join(&mut self, task: Beside) {
        let Beside { name, start, work } = task;
        let mut end = None;
        self.run(name, || {
            let done = work.join().map_err(|_| anyhow::anyhow!("its watcher broke off"))??;
            std::io::stdout().write_all(&done.said).context("cannot print")?;
            end = Some(done.end);
            Ok(done.passed)
        });
        if let (Some(end), Some((_, _, time))) = (end, self.done.last_mut()) {
            *time = end - start;
        }
    }

    fn passed(&self) -> bool {
        self.done.iter().all(|(_, passed, _)| *passed)
    }

    fn table(&self) -> String {
        let line = |(name, passed, time): &(String, bool, Duration)| {
            format!(" {} {name:<32} {:>12}\n", if *passed { "ok    " } else { "FAILED" }, shell::seconds(*time))
        };
        self.done.iter().map(line).collect()
    }
}

/// The name of a folder for a test's files, made empty.
#[cfg(test)]
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("blemish-xtask-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_lines_of_the_test_harness() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.02s";
        assert_eq!(outcome(line), Some(Count { passed: 12, failed: 3 }));
        assert_eq!(outcome("test result: ok. 7 passed; 0 failed; 0 ignored"), Some(Count { passed: 7, failed: 0 }));
        assert_eq!(outcome("test outcome ... ok"), None);
        assert_eq!(outcome("running 3 tests"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_task_beside_the_stages_counts_as_one() {
        let mut stages = Stages::default();
        for (name, script) in [("a", "echo out; echo error >&2"), ("b", "sleep 0.2; exit 3")] {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let task = Beside::of(name, command);
            if name == "a" {
                // What it says on either stream is kept, and ends with it.
                let done = task.work.join().unwrap().unwrap();
                assert!(done.passed);
                assert_eq!(done.said, b"out\nerror\n");
            } else {
                stages.join(task);
            }
        }
        stages.join(Beside::of("c", Command::new("there is no such program")));
        let [(name, passed, time), (_, started, _)] = stages.done.as_slice() else { panic!("two stages") };
        assert!(name == "b" && !passed && !started && *time >= Duration::from_millis(200), "{time:?}");
    }

    #[test]
    fn one_failing_stage_fails_the_whole_but_not_the_rest() {
        let mut stages = Stages::default();
        stages.run("a", || bail!("broken"));
        stages.run("b", || Ok(true));
        assert!(!stages.passed());
        let table = stages.table();
        assert!(table.lines().next().unwrap().starts_with(" FAILED a"), "{table}");
        assert!(table.lines().nth(1).unwrap().starts_with(" ok     b"), "{table}");
    }
}
