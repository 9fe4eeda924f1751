//! `cargo xtask bench`: timings beside what this machine could do at best.
//!
//! | module | what it does |
//! |---|---|
//! | [`results`] | reads what criterion wrote |
//! | [`table`] | a result beside the ceilings and an earlier run |
//! | [`tables`] | accuracy, training time and speed of whole models, beside anomalib's |

mod results;
mod table;
mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::results::Measured;
use self::table::Ceiling;
use crate::{needs, shell};

/// Groups of benchmarks, and the file each is in.
const KERNELS: [(&str, &str); 8] = [
    ("conv", "conv"),
    ("nearest", "search"),
    ("kcenter", "search"),
    ("mahalanobis", "mahalanobis"),
    ("resize", "imaging"),
    ("blur", "imaging"),
    ("metrics", "metrics"),
    ("predict", "end_to_end"),
];
/// Where results are kept.
const HISTORY: &str = "benches/history";

struct Options {
    kernels: Vec<String>,
    full: bool,
    save: Option<String>,
    compare: Option<String>,
    json: bool,
    python: Option<String>,
    peer: Option<String>,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    if shell::flag(&mut args, "--tables") {
        return tables::run(&args);
    }
    let options = Options::parse(&args)?;
    let root = shell::root()?;
    // Asked for before an hour of measuring rather than after it.
    let earlier = options.compare.as_deref().map(|name| read(&root, name)).transpose()?;
    needs::ensure(options.json)?;
    let ceiling = ceiling(&root)?;
    let measured = measure(&root, &options)?;
    if measured.is_empty() {
        bail!("no benchmark ran");
    }
    let run = json!({
        "machine": machine(),
        "size": if options.full { "full" } else { "small" },
        "seconds_since_1970": seconds_since_1970(),
        "source": fingerprint(&root)?,
        "ceiling": ceiling.to_json(),
        "results": measured.iter().map(Measured::to_json).collect::<Vec<_>>(),
    });
    append(&root, "history", &run)?;
    if let Some(name) = &options.save {
        write(&root, name, &run)?;
    }
    if options.json {
        println!("{run:#}");
    } else {
        println!("\n{} · {}\n", machine(), ceiling.describe());
        print!("{}", table::markdown(&measured, &ceiling, earlier.as_ref()));
    }
    peer(&options)
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut args = args.to_vec();
        let size = shell::option(&mut args, "--size")?;
        let options = Options {
            kernels: shell::options(&mut args, "--kernel")?,
            full: match size.as_deref() {
                None | Some("small") => false,
                Some("full") => true,
                Some(other) => bail!("--size is small or full, not '{other}'"),
            },
            save: shell::option(&mut args, "--save")?,
            compare: shell::option(&mut args, "--compare")?,
            json: shell::flag(&mut args, "--json"),
            python: shell::option(&mut args, "--python")?,
            peer: shell::option(&mut args, "--peer")?,
        };
        shell::nothing_left("bench", &args)?;
        for kernel in &options.kernels {
            if !KERNELS.iter().any(|(name, _)| name == kernel) {
                let known = KERNELS.map(|(name, _)| name).join(", ");
                bail!("there is no benchmark of '{kernel}'\n       known: {known}");
            }
        }
        for name in options.save.iter().chain(&options.compare) {
            if name.is_empty()
                || name == "history"
                || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                bail!("'{name}' is no name for a baseline: letters, digits, '-', '_' and '.', and not 'history'");
            }
        }
        if options.peer.is_some() != options.python.is_some() {
            bail!("--python and --peer belong together: an interpreter, and the script it is to run");
        }
        Ok(options)
    }

    fn wants(&self, kernel: &str) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|k| k == kernel)
    }
}

fn cargo_bench(root: &Path, target: &str, quiet: bool) -> Command {
    let mut command = shell::cargo(root);
    command.args(["bench", "--package", "blemish-benches", "--bench", target]);
    if quiet {
        command.arg("--quiet");
    }
    command
}

fn ceiling(root: &Path) -> Result<Ceiling> {
    let text = shell::output(&mut cargo_bench(root, "ceiling", true))?;
    let value: Value = serde_json::from_str(text.trim()).context("the ceilings are no JSON")?;
    Ceiling::from_json(&value).context("the ceilings lack a number")
}

/// Runs the benchmarks asked for; what each measured.
fn measure(root: &Path, options: &Options) -> Result<Vec<Measured>> {
    let folder = shell::target_dir(root)?.join("criterion");
    let start = SystemTime::now();
    let mut targets: Vec<&str> = Vec::new();
    for (kernel, target) in KERNELS {
        if options.wants(kernel) && !targets.contains(&target) {
            targets.push(target);
        }
    }
    for target in targets {
        let groups: Vec<&str> =
            KERNELS.iter().filter(|(k, t)| *t == target && options.wants(k)).map(|(k, _)| *k).collect();
        let filter = format!("^({})/", groups.join("|"));
        let mut command = cargo_bench(root, target, options.json);
        command.args(["--", "--noplot", &filter]);
        command.env("BLEMISH_BENCH_SIZE", if options.full { "full" } else { "small" });
        if options.json {
            command.stdout(std::process::Stdio::null());
        }
        if !shell::passes(&mut command)? {
            bail!("the benchmarks of {target} failed");
        }
    }
    let mut all = results::read(&folder, start)?;
    all.retain(|m| options.wants(&m.group));
    let rank = |m: &Measured| KERNELS.iter().position(|(k, _)| *k == m.group);
    all.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// Runs a script of someone else's on the same machine.
fn peer(options: &Options) -> Result<bool> {
    let (Some(python), Some(script)) = (&options.python, &options.peer) else { return Ok(true) };
    println!("\n{script}:");
    shell::passes(Command::new(python).arg(script))
}

/// The processor's name and its threads.
fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{name}, {threads} threads")
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A short hash of the kernels' sources: equal hashes, equal code.
fn fingerprint(root: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for path in sources(&root.join("kernels/src"))? {
        hash.update(path.strip_prefix(root).unwrap_or(&path).to_string_lossy().as_bytes());
        hash.update(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn path(root: &Path, name: &str) -> PathBuf {
    root.join(HISTORY).join(format!("{name}.json"))
}

fn read(root: &Path, name: &str) -> Result<Value> {
    let path = path(root, name);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("there is no baseline '{name}' ({}); `--save {name}` makes one", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
}

fn write(root: &Path, name: &str, run: &Value) -> Result<()> {
    let path = path(root, name);
    std::fs::create_dir_all(root.join(HISTORY)).context("cannot make the folder of baselines")?;
    std::fs::write(&path, format!("{run:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("saved {}", path.display());
    Ok(())
}

/// Adds a run as one line.
fn append(root: &Path, name: &str, run: &Value) -> Result<()> {
    use std::io::Write;
    let path = path(root, name);
    std::fs::create_dir_all(root.join(HISTORY)).context("cannot make the folder of baselines")?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
    writeln!(file, "{run}").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::scratch;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_checked() {
        let options = parse("--kernel conv --kernel=blur --size full --save a.1").unwrap();
        assert!(options.wants("conv") && options.wants("blur") && !options.wants("nearest") && options.full);
        assert!(parse("").unwrap().wants("predict"));
        for bad in ["--kernel convolution", "--size big", "--save ../a", "--save history", "--peer x.py", "extra"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_saved_run_is_read_back_and_a_missing_one_explained() {
        let root = scratch("bench");
        let run = json!({"results": [{"group": "conv"}]});
        write(&root, "base", &run).unwrap();
        let back = read(&root, "base").unwrap();
        append(&root, "history", &run).unwrap();
        append(&root, "history", &run).unwrap();
        let lines = std::fs::read_to_string(path(&root, "history")).unwrap().lines().count();
        let missing = read(&root, "other").unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(back, run);
        assert_eq!(lines, 2);
        assert!(missing.contains("--save other"), "{missing}");
    }
}
