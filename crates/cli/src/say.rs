//! What goes to the terminal: results to stdout, everything else to stderr, and the exit code.

use std::io::{ErrorKind, Write};

use blemish::{Engine, Error, Model};

/// All is well.
pub(crate) const OK: u8 = 0;
/// Something went wrong.
pub(crate) const FAILED: u8 = 1;
/// Some pictures could not be read.
pub(crate) const SKIPPED: u8 = 3;
/// `--fail-on-defect`, and there was one.
pub(crate) const DEFECT: u8 = 4;
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Prints to stdout.
///
/// # Errors
/// A closed pipe or a full disk.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(())
}

/// Prints to stderr unless the program is to be quiet.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        warn(text);
    }
}

/// Where a model computes, as a note, if a GPU is to be used; what [`Model::placement`] says now.
pub(crate) fn placement(quiet: bool, engine: &Engine, model: &Model, when: &str) -> String {
    let placement = model.placement();
    if !engine.device().is_cpu() {
        note(quiet, &format!(" device {when}{}: {placement}", engine.device()));
    }
    placement
}

/// Prints to stderr in any case.
pub(crate) fn warn(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The exit code of a command, after saying what went wrong.
pub(crate) fn finish(done: anyhow::Result<u8>) -> u8 {
    let error = match done {
        Ok(code) => return code,
        Err(error) => error,
    };
    // A reader that has seen enough is no failure.
    if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) {
        return OK;
    }
    if error.downcast_ref::<Error>().is_some_and(Error::is_interruption) {
        warn("interrupted; nothing half-written was left");
        return INTERRUPTED;
    }
    let text = format!("{error:#}");
    let mut lines = text.lines();
    warn(&format!("error: {}", lines.next().unwrap_or_default()));
    for line in lines {
        warn(&format!("       {line}"));
    }
    FAILED
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}
