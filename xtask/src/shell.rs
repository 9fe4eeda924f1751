//! Running programs and saying so: one line a step, the way `cargo xtask demo` reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The repository's root: the parent of this crate.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(now) => PathBuf::from(now),
        None => here.to_path_buf(),
    };
    let root = root.parent().context("xtask lies in no repository")?.to_path_buf();
    if !root.join("Cargo.toml").is_file() {
        bail!("{} is not the root of the workspace", root.display());
    }
    Ok(root)
}

/// The cargo that runs this program.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The folder cargo builds into, as it says itself.
pub(crate) fn target_dir(root: &Path) -> Result<PathBuf> {
    let meta = metadata(root)?;
    let folder = meta["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(PathBuf::from(folder))
}

/// `cargo metadata` of the workspace members alone.
pub(crate) fn metadata(root: &Path) -> Result<serde_json::Value> {
    let text = output(cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

/// What a program prints, if it succeeds; else an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{} failed ({})\n{}", shown(command), out.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program on this terminal; whether it succeeded.
pub(crate) fn passes(command: &mut Command) -> Result<bool> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", shown(command)))?;
    Ok(status.success())
}

/// A command line as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Prints ` name   text`.
pub(crate) fn step(name: &str, text: &str) {
    println!(" {name:<6} {text}");
}

/// Seconds as a person reads them: `0.42 s`, `12.3 s`, `3 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    match s {
        _ if s < 1.0 => format!("{s:.2} s"),
        _ if s < 100.0 => format!("{s:.1} s"),
        _ => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}

/// Takes `--name` out of `args`; whether it was there.
pub(crate) fn flag(args: &mut Vec<String>, name: &str) -> bool {
    let before = args.len();
    args.retain(|arg| arg != name);
    args.len() != before
}

/// Takes every `--name VALUE` and `--name=VALUE` out of `args`.
pub(crate) fn options(args: &mut Vec<String>, name: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    let mut rest = Vec::new();
    let mut words = std::mem::take(args).into_iter();
    while let Some(word) = words.next() {
        if word == name {
            values.push(words.next().with_context(|| format!("{name} wants a value"))?);
        } else if let Some(value) = word.strip_prefix(name).and_then(|tail| tail.strip_prefix('=')) {
            values.push(value.to_owned());
        } else {
            rest.push(word);
        }
    }
    *args = rest;
    Ok(values)
}

/// As [`options`], for one that may be given once.
pub(crate) fn option(args: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let mut values = options(args, name)?;
    if values.len() > 1 {
        bail!("{name} is given {} times", values.len());
    }
    Ok(values.pop())
}

/// Refuses whatever no option took.
pub(crate) fn nothing_left(task: &str, args: &[String]) -> Result<()> {
    match args.first() {
        Some(extra) => bail!("{task} does not know '{extra}'; `cargo xtask help` lists what it takes"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_take_both_spellings_and_leave_the_rest() {
        let mut args = words("a --kernel conv b --kernel=blur --json");
        assert_eq!(options(&mut args, "--kernel").unwrap(), ["conv", "blur"]);
        assert!(flag(&mut args, "--json"));
        assert!(!flag(&mut args, "--json"));
        assert_eq!(args, ["a", "b"]);
        assert!(nothing_left("bench", &args).is_err());
    }

    #[test]
    fn an_option_without_value_or_given_twice_is_an_error() {
        assert!(option(&mut words("--save"), "--save").is_err());
        assert!(option(&mut words("--save a --save b"), "--save").is_err());
        assert_eq!(option(&mut words("--save a"), "--save").unwrap().as_deref(), Some("a"));
        assert_eq!(option(&mut words("--saved a"), "--save").unwrap(), None);
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_words() {
        let error = output(Command::new("cargo").arg("no-such-subcommand-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-subcommand-here"), "{error}");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
