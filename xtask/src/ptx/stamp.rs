//! The first line of a PTX file: `// stamp source=<sha256> text=<sha256>`.
//!
//! `source` is of the kernel's source, everything it includes, the flags and the compiler's version; `text` of the rest of
//! the file. So both a changed source and an edited PTX are found where there is no compiler.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Build, tools};

/// The hash of what a file is made from.
pub(super) fn of_source(root: &Path, build: &Build) -> Result<String> {
    let unit = build.unit;
    let define = build.define.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
    let mut parts = vec![format!("nvrtc {} {}{define}", tools::NVRTC, unit.flags().join(" "))];
    let mut names = vec![format!("{}.cu", unit.name)];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let path = root.join("kernels/cu").join(&name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for include in text.lines().filter_map(|l| l.strip_prefix("#include \"")?.strip_suffix('"')) {
            // The emulator's header is not for this compiler.
            if include != "cuda_emu.h" && !names.iter().any(|n| n == include) {
                names.push(include.to_owned());
            }
        }
        parts.push(format!("{name}\n{text}"));
        at += 1;
    }
    Ok(hash(&parts.join("\n")))
}

/// The file of a unit whose source has the hash `source` and compiles to `text`.
pub(super) fn with(source: &str, text: &str) -> String {
    format!("// stamp source={source} text={}\n{text}", hash(text))
}

/// Whether a file is unchanged and made from the source with this hash.
pub(super) fn check(file: &str, source: &str) -> Result<(), String> {
    let (line, text) = file.split_once('\n').unwrap_or((file, ""));
    let Some((made_from, of_text)) = line.strip_prefix("// stamp source=").and_then(|tail| tail.split_once(" text="))
    else {
        return Err("has no stamp".into());
    };
    if of_text != hash(text) {
        return Err("was changed by hand".into());
    }
    if made_from != source { Err("is older than its source".into()) } else { Ok(()) }
}

pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_finds_both_kinds_of_change() {
        let file = with("abc", ".version 8.4\n.entry f()\n");
        assert_eq!(check(&file, "abc"), Ok(()));
        assert!(check(&file, "abd").unwrap_err().contains("older"));
        assert!(check(&file.replace("8.4", "8.5"), "abc").unwrap_err().contains("by hand"));
        assert!(check(".version 8.4\n", "abc").unwrap_err().contains("no stamp"));
    }
}
