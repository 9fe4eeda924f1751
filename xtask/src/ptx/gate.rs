//! Assembling for every chip, which alone checks the inline assembly, and what each kernel takes there.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools::Tools;
use super::tune::{Bounds, bounds};
use super::{Build, shell};

/// What a kernel takes on a chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) name: String,
    pub(super) registers: u32,
    /// Bytes of local memory: stack frame, spill stores, spill loads.
    pub(super) local: [u32; 3],
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stack, stores, loads] = self.local;
        write!(f, "{} registers, stack {stack}, spills {stores} + {loads} bytes", self.registers)
    }
}

/// The most registers a kernel may take: what lets as many blocks run side by side as its source asks for, or else 512 threads.
fn budget(bounds: Bounds) -> u32 {
    const REGISTERS: u32 = 65_536;
    let threads = bounds.blocks.map_or(512, |blocks| blocks * bounds.threads).max(bounds.threads);
    255.min(REGISTERS / threads.max(1))
}

/// Whether a kernel stays within its registers, without spills and local memory.
pub(super) fn allows(usage: &Usage, bounds: Bounds) -> bool {
    usage.local == [0; 3] && usage.registers <= budget(bounds)
}

/// Assembles everything and prints a table; whether all is within the budget.
pub(super) fn run(root: &Path, tools: &Tools, builds: &[Build]) -> Result<bool> {
    let Some(ptxas) = tools.ptxas() else {
        println!("SKIPPED: the register gate. There is no ptxas here; `cargo xtask fetch-nvrtc` fetches it.");
        return Ok(true);
    };
    let mut fine = true;
    for build in builds {
        let path = build.ptx(root);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut table: Vec<(Usage, Vec<String>)> = Vec::new();
        for chip in build.chips() {
            let chip = build.unit.assembled(chip);
            for usage in assemble(&ptxas, &path, &chip, Path::new("/dev/null"))? {
                let bounds = bounds(&text, &usage.name);
                if !allows(&usage, bounds) {
                    fine = false;
                    println!("{} on sm_{chip}: {usage}; allowed: {} and none", usage.name, budget(bounds));
                }
                let cell = format!("{chip}:{}", usage.registers);
                match table.iter_mut().find(|(u, _)| u.name == usage.name) {
                    Some((_, cells)) => cells.push(cell),
                    None => table.push((usage, vec![cell])),
                }
            }
        }
        for (usage, cells) in table {
            shell::step("ptxas", &format!("{:<22} {} registers on {}", usage.name, build.unit.target, cells.join(" ")));
        }
    }
    shell::step("ptxas", if fine { "no spills, no local memory, within budget" } else { "over budget" });
    Ok(fine)
}

/// Assembles a PTX file for a chip.
pub(super) fn assemble(ptxas: &Path, ptx: &Path, chip: &str, cubin: &Path) -> Result<Vec<Usage>> {
    let mut command = Command::new(ptxas);
    command.arg("--verbose").arg(format!("--gpu-name=sm_{chip}")).arg("--output-file").arg(cubin).arg(ptx);
    let out = command.output().with_context(|| format!("cannot start {}", shell::shown(&command)))?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        anyhow::bail!("{} failed\n{}", shell::shown(&command), said.trim_end());
    }
    // A register read too early, by what the compiler moved: right, but several times slower.
    if let Some(line) = said.lines().find(|line| line.contains("wgmma.mma_async instructions are serialized")) {
        anyhow::bail!("{}: {line}", ptx.display());
    }
    Ok(parse(&said))
}

/// Reads what `ptxas --verbose` prints.
fn parse(said: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    let number = |text: &str| text.split_whitespace().next_back().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
    for line in said.lines() {
        if let Some((_, tail)) = line.split_once("Compiling entry function '") {
            let name = tail.split('\'').next().unwrap_or_default().to_owned();
            // What is never said counts as too much.
            found.push(Usage { name, registers: u32::MAX, local: [u32::MAX; 3] });
        } else if let Some(usage) = found.last_mut() {
            if line.contains("bytes stack frame") {
                let mut parts = line.split(" bytes ");
                usage.local = std::array::from_fn(|_| number(parts.next().unwrap_or_default()));
            } else if let Some((_, tail)) = line.split_once("Used ") {
                usage.registers = number(tail.split(" registers").next().unwrap_or_default());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_leave_room_for_the_blocks_asked_for() {
        let of = |threads, blocks| budget(Bounds { threads, blocks });
        assert_eq!([of(256, Some(1)), of(256, Some(2)), of(128, Some(4))], [255, 128, 128]);
        // Nothing asked for: 512 threads, or all of a larger block.
        assert_eq!([of(64, None), of(256, None), of(1024, None)], [128, 128, 64]);
        let usage = |registers, spills| Usage { name: "f".to_owned(), registers, local: [0, spills, 0] };
        let bounds = Bounds { threads: 256, blocks: Some(2) };
        assert_eq!([usage(128, 0), usage(129, 0), usage(10, 4)].map(|u| allows(&u, bounds)), [true, false, false]);
    }

    #[test]
    fn the_assemblers_words_are_read() {
        let said = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'f' for 'sm_80'\n\
            ptxas info    : Function properties for f\n    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 95 registers, used 1 barriers, 400 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'g' for 'sm_80'\n";
        let used = parse(said);
        assert_eq!(used[0], Usage { name: "f".into(), registers: 95, local: [8, 4, 12] });
        assert_eq!((used[1].name.as_str(), used[1].registers), ("g", u32::MAX));
    }
}
