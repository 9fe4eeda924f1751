//! Faults ([`super::faults`]) planted in the kernels, one at a time, by replacing text; the tests have to find each.
//!
//! Those of [`KERNELS`] are looked for by the emulated tests. Those of [`LAUNCHES`] swap parameters of the same type in the
//! stand-in driver alone, which is for the Rust code as if it had swapped the arguments.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::faults::{Fault, KERNELS, LAUNCHES};
use super::{Place, Program, fingerprint, parallel};
use crate::shell;

/// How long a faulty test may run; hanging is being found.
const LIMIT: Duration = Duration::from_secs(60);

/// Plants every fault, or those in files whose names have one of the words `only`; whether each was found.
pub(super) fn run(place: &Place, only: &[String]) -> Result<bool> {
    let asked = |fault: &&Fault| only.is_empty() || only.iter().any(|word| fault.file.contains(word.as_str()));
    let numbered =
        |faults: &'static [Fault]| -> Vec<(usize, &Fault)> { faults.iter().filter(asked).enumerate().collect() };
    let (kernels, launches) = (numbered(KERNELS), numbered(LAUNCHES));
    // The tests as they are have to pass, or finding a fault would mean nothing.
    if !unharmed(place, only.is_empty(), &kernels, &launches)? {
        bail!("the tests fail without any planted fault");
    }
    let folder = place.folder.join("mutants");
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
        Ok(report(fault, !outcome.passed, &word))
    })?;
    let caught = parallel(&launches, |(i, fault)| {
        let root = folder.join(format!("launch{i}"));
        plant(place, fault, &root)?;
        let driver = Program::driver(&root, root.join("driver"));
        driver.build(&place.compiler, &fingerprint(&root.join("kernels"))?)?;
        let passed = place.rust_tests(&root.join("driver"), &["blemish-kernels"], Some(fault.test))?;
        Ok(report(fault, !passed, fault.test))
    })?;
    let all = found.len() + caught.len();
    let count = found.iter().chain(&caught).filter(|f| **f).count();
    shell::step("mutate", &format!("{count} of {all} planted faults found"));
    Ok(count == all)
}

/// Whether the tests pass that the faults are looked for by.
fn unharmed(place: &Place, all: bool, kernels: &[(usize, &Fault)], launches: &[(usize, &Fault)]) -> Result<bool> {
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
    let mut launched = true;
    for (_, fault) in launches {
        launched &= place.rust_tests(&place.folder.join("driver"), &["blemish-kernels"], Some(fault.test))?;
    }
    Ok(passed.iter().all(|p| *p) && launched)
}

fn report(fault: &Fault, found: bool, word: &str) -> bool {
    let how = if found { "found:  " } else { "MISSED: " };
    let word: String = word.chars().take(90).collect();
    shell::step("mutate", &format!("{how}{:<20} {:<24} {word}", fault.file, fault.what));
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
        for fault in KERNELS.iter().chain(LAUNCHES) {
            let text = std::fs::read_to_string(kernels.join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.from).count(), 1, "{}: {}", fault.file, fault.from);
            assert_ne!(fault.from, fault.to);
        }
    }
}
