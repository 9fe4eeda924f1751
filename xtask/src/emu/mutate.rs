//! Faults planted in the kernels, one at a time; the tests have to find each.
//!
//! Those of [`KERNELS`] are in the sources, and the emulated tests look for them. Those of [`PTX`] are in the committed PTX, and
//! the Rust tests look for them on the stand-in driver, which is given the faulty text for the one that the program brings.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::faults::{Fault, KERNELS};
use super::ptx_faults::{PTX, PtxFault};
use super::{Place, Program, fingerprint, parallel};
use crate::shell;

/// How the stand-in driver begins what it says.
const DRIVER: &str = "stand-in driver: ";

/// How long a faulty test may run; hanging is being found.
const LIMIT: Duration = Duration::from_secs(60);

/// Plants every fault, or those in files whose names have one of the words `only`; whether each was found.
pub(super) fn run(place: &Place, only: &[String]) -> Result<bool> {
    let asked = |fault: &&Fault| only.is_empty() || only.iter().any(|word| fault.file.contains(word.as_str()));
    let kernels: Vec<(usize, &Fault)> = KERNELS.iter().filter(asked).enumerate().collect();
    let of_ptx = |fault: &&PtxFault| {
        let name = format!("{}.ptx", fault.file);
        only.is_empty() || only.iter().any(|word| name.contains(word.as_str()))
    };
    let ptx: Vec<(usize, &PtxFault)> = PTX.iter().filter(of_ptx).enumerate().collect();
    // The tests as they are have to pass, or finding a fault would mean nothing.
    if !unharmed(place, only.is_empty(), &kernels, &ptx)? {
        bail!("the tests fail without any planted fault");
    }
    let folder = place.folder.join("mutants");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let found = parallel(&kernels, |(i, fault)| {
        let root = folder.join(i.to_string());
        plant(place, fault, &root)?;
        let print = fingerprint(&root.join("kernels"))?;
        let attempt = |program: Program| {
            program.build(&place.compiler, &print)?;
            program.run(LIMIT)
        };
        let mut outcome = attempt(Program::quick(&root, &root, fault.test))?;
        // A read beyond a buffer whose value is not used is seen by AddressSanitizer alone.
        if outcome.passed {
            outcome = attempt(Program::test(&root, &root, fault.test, true))?;
        }
        let word = outcome
            .said
            .lines()
            .find(|l| !l.trim().is_empty() && !l.starts_with("====="))
            .unwrap_or("stopped")
            .to_owned();
        Ok(report(fault.file, fault.what, !outcome.passed, &word))
    })?;
    let caught = parallel(&ptx, |(i, fault)| {
        let path = place.root.join(format!("kernels/ptx/{}.ptx", fault.file));
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(planted) = fault.plant.planted_in(&text, fault.kernel) else {
            bail!("'{}' cannot be planted in {} of {}", fault.what, fault.kernel, fault.file);
        };
        let path = folder.join(format!("{i}.ptx"));
        std::fs::write(&path, planted).with_context(|| format!("cannot write {}", path.display()))?;
        let outcome = place.rust_test(&place.folder.join("driver"), fault.test, Some(&path))?;
        // What the driver says of it; without that, the test itself has to have noticed.
        let said = outcome.said.lines().find_map(|line| line.trim_start_matches('.').strip_prefix(DRIVER));
        let said = said.filter(|line| !line.contains(" buffers left")).unwrap_or("wrong numbers");
        let found =
            !outcome.passed && (fault.said.is_empty() || fault.said.split('|').any(|words| said.contains(words)));
        Ok(report(&format!("{}: {}", fault.file, fault.kernel), fault.what, found, said))
    })?;
    let all = found.len() + caught.len();
    let count = found.iter().chain(&caught).filter(|f| **f).count();
    shell::step("mutate", &format!("{count} of {all} planted faults found"));
    Ok(count == all)
}

/// Whether the tests pass that the faults are looked for by.
fn unharmed(place: &Place, all: bool, kernels: &[(usize, &Fault)], ptx: &[(usize, &PtxFault)]) -> Result<bool> {
    if all {
        return place.all();
    }
    let print = fingerprint(&place.root.join("kernels"))?;
    let mut tests: Vec<&str> = kernels.iter().map(|(_, fault)| fault.test).collect();
    tests.sort_unstable();
    tests.dedup();
    let passed = parallel(&tests, |test| {
        let program = Program::quick(&place.root, &place.folder.join("mutants/none"), test);
        program.build(&place.compiler, &print)?;
        Ok(program.run(LIMIT)?.passed)
    })?;
    let driver = Program::driver(&place.root, place.folder.join("driver"));
    driver.build(&place.compiler, &print)?;
    let mut tests: Vec<&str> = ptx.iter().map(|(_, fault)| fault.test).collect();
    tests.sort_unstable();
    tests.dedup();
    let folder = place.folder.join("driver");
    let launched = parallel(&tests, |test| Ok(place.rust_test(&folder, test, None)?.passed))?;
    Ok(passed.iter().chain(&launched).all(|p| *p))
}

fn report(place: &str, what: &str, found: bool, word: &str) -> bool {
    let how = if found { "found:  " } else { "MISSED: " };
    let word: String = word.chars().take(150).collect();
    shell::step("mutate", &format!("{how}{place:<20} {what:<24} {word}"));
    found
}

/// A copy of kernels and emulator below `root`, with the fault.
fn plant(place: &Place, fault: &Fault, root: &Path) -> Result<()> {
    let to = root.join("kernels");
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let from = place.root.join("kernels");
    shell::output(Command::new("cp").arg("-R").args([from.join("cu"), from.join("emu")]).arg(&to))?;
    let path = to.join("cu").join(fault.file);
    let text = std::fs::read_to_string(from.join("cu").join(fault.file))?;
    if text.matches(fault.from).count() != 1 {
        bail!("{} does not hold once what '{}' replaces: {}", fault.file, fault.what, fault.from);
    }
    std::fs::write(&path, text.replace(fault.from, fault.to))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted_once() {
        let kernels = shell::root().unwrap().join("kernels/cu");
        for fault in KERNELS {
            let text = std::fs::read_to_string(kernels.join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.from).count(), 1, "{}: {}", fault.file, fault.from);
            assert_ne!(fault.from, fault.to);
        }
    }
}
