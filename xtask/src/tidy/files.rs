//! Every file: size, leftovers, paths of one machine, links between documents.

use std::path::Path;

use super::lexer::has_word;
use super::{Fault, File};

const LARGEST: u64 = 2 << 20;
const GOLDEN: &str = "tests/golden/";
const GOLDEN_LARGEST: u64 = 5 << 20;

pub(super) fn check(root: &Path, file: &File, faults: &mut Vec<Fault>) {
    if file.bytes > LARGEST {
        faults.push(file.fault(0, format!("has {} bytes; {LARGEST} are allowed", file.bytes)));
    }
    if file.text.is_none() {
        return;
    }
    // Written in pieces, so that this file passes its own check.
    let marks = [["FIX", "ME"].concat(), "X".repeat(3), ["TO", "DO"].concat()];
    for (number, line) in file.lines() {
        if let Some(mark) = marks.iter().find(|mark| has_word(line, mark)) {
            faults.push(file.fault(number, format!("holds `{mark}`: say what is so, or do it")));
        }
        if let Some(place) = private_place(line) {
            faults.push(file.fault(number, format!("names a place of one machine, {place}")));
        }
    }
    if file.path.ends_with(".md") {
        links(root, file, faults);
    }
    if file.path.ends_with("Cargo.toml")
        && !["crates/tensor/Cargo.toml", "kernels/Cargo.toml", "Cargo.toml"].contains(&file.path.as_str())
    {
        for (number, line) in file.lines().filter(|(_, line)| has_word(line, "cudarc")) {
            faults.push(file.fault(number, format!("only tensor and kernels may name cudarc: {}", line.trim())));
        }
    }
}

/// The golden vectors together.
pub(super) fn check_golden(files: &[File], faults: &mut Vec<Fault>) {
    let bytes: u64 = files.iter().filter(|f| f.path.starts_with(GOLDEN)).map(|f| f.bytes).sum();
    if bytes > GOLDEN_LARGEST {
        let what = format!("holds {bytes} bytes in all; {GOLDEN_LARGEST} are allowed");
        faults.push(Fault { path: GOLDEN.to_owned(), line: 0, what });
    }
}

/// An absolute path below someone's home or workplace.
fn private_place(line: &str) -> Option<String> {
    let places = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    places.into_iter().find(|place| {
        line.match_indices(place.as_str()).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-~/}*)".contains(c))
        })
    })
}

/// Relative links have to lead to a file.
fn links(root: &Path, file: &File, faults: &mut Vec<Fault>) {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut fenced = false;
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !root.join(folder).join(path).exists() {
                faults.push(file.fault(number, format!("links to {path}, which is not there")));
            }
        }
    }
}

/// What stands in the parentheses of `[text](target)`, outside of `code`.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut code = false;
    for (at, c) in line.char_indices() {
        match c {
            '`' => code = !code,
            ']' if !code => {
                if let Some((target, _)) = line[at + 1..].strip_prefix('(').and_then(|tail| tail.split_once(')')) {
                    found.push(target);
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::rust;
    use super::*;
    use crate::shell;

    fn faults(path: &str, text: &str) -> Vec<Fault> {
        let mut found = Vec::new();
        check(&shell::root().unwrap(), &rust(path, text), &mut found);
        found
    }

    #[test]
    fn leftovers_and_private_places_are_found() {
        let home = ["/ho", "me/someone/x"].concat();
        for text in ["// FIX".to_owned() + "ME", "X".repeat(3), format!("\"{home}\""), format!("path={home}")] {
            assert_eq!(faults("a.rs", &text).len(), 1, "{text}");
        }
        for text in ["$HOME/x", "a/work/b", "../work/b", "networks", "~/root/x"] {
            assert!(faults("a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn links_lead_somewhere() {
        assert_eq!(faults("README.md", "[a](nowhere.md) and [b](also/nowhere.rs#L1)").len(), 2);
        let fine = "[a](Cargo.toml), [b](https://example.org/x), [c](#part), [d](xtask/src/main.rs#L1), `[e](none)`";
        assert!(faults("README.md", fine).is_empty());
        assert!(faults("xtask/README.md", "[a](../Cargo.toml)").is_empty());
        assert!(faults("README.md", "```text\n[a](nowhere.md)\n```\n").is_empty());
    }

    #[test]
    fn sizes_are_bounded() {
        let big = File { path: "a.bin".into(), bytes: LARGEST + 1, text: None };
        let mut found = Vec::new();
        check(Path::new("."), &big, &mut found);
        assert_eq!(found.len(), 1);
        let golden = |i: u64| File { path: format!("{GOLDEN}{i}"), bytes: GOLDEN_LARGEST / 4, text: None };
        found.clear();
        check_golden(&(0..4).map(golden).collect::<Vec<_>>(), &mut found);
        assert!(found.is_empty());
        check_golden(&(0..5).map(golden).collect::<Vec<_>>(), &mut found);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn cudarc_stays_below() {
        assert_eq!(faults("crates/core/Cargo.toml", "cudarc = \"0.19\"\n").len(), 1);
        assert!(faults("kernels/Cargo.toml", "cudarc = \"0.19\"\n").is_empty());
    }
}
