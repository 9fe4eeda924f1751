//! Rust files: length, `unsafe`, leftovers, head comments.

use super::lexer::{code, has_word};
use super::{Fault, File};

/// The most lines a file may have besides its tests.
const LONGEST: usize = 500;
/// How far above an `unsafe` its `SAFETY:` comment may begin.
const NEAR: usize = 8;

pub(super) fn check(file: &File, faults: &mut Vec<Fault>) {
    let Some(text) = file.text.as_deref() else {
        faults.push(file.fault(0, "is not UTF-8"));
        return;
    };
    let code = code(text);
    length(file, text, faults);
    unsafety(file, text, &code, faults);
    leftovers(file, &code, faults);
    if (file.path.ends_with("/src/lib.rs") || file.path.ends_with("/src/main.rs")) && !text.starts_with("//!") {
        faults.push(file.fault(1, "does not begin with a `//!` comment saying what the crate is"));
    }
}

/// Whether the whole file is tests.
fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "tests.rs" || name.ends_with("_tests.rs") || path.starts_with("tests/") || path.contains("/tests/")
}

/// Lines outside `#[cfg(test)] mod … { … }`.
fn untested_lines(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let block = line == "#[cfg(test)]" && lines.peek().is_some_and(|l| l.starts_with("mod ") && l.ends_with('{'));
        if block {
            // Formatted code closes a block of the outermost level with a brace in the first column.
            for inner in lines.by_ref() {
                if inner == "}" {
                    break;
                }
            }
        } else {
            count += 1;
        }
    }
    count
}

fn length(file: &File, text: &str, faults: &mut Vec<Fault>) {
    let lines = untested_lines(text);
    if lines > LONGEST && !is_test(&file.path) {
        faults.push(file.fault(0, format!("has {lines} lines besides its tests; {LONGEST} are allowed")));
    }
}

/// Whether ARCHITECTURE.md lets this file hold `unsafe`.
fn may_be_unsafe(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let device = name.starts_with("cpu") || name.starts_with("cuda") || path.contains("/cuda/");
    path.starts_with("crates/tensor/src/") || (path.starts_with("kernels/src/") && device)
}

fn unsafety(file: &File, text: &str, code: &str, faults: &mut Vec<Fault>) {
    let allowed = may_be_unsafe(&file.path);
    let lines: Vec<&str> = text.lines().collect();
    let code: Vec<&str> = code.lines().collect();
    for (i, line) in code.iter().enumerate() {
        let lets = line.contains("allow(") || line.contains("expect(");
        if !allowed && lets && has_word(line, "unsafe_code") {
            faults.push(file.fault(
                i + 1,
                "allows unsafe code, which has its place in kernels' cpu*.rs and cuda*.rs and in tensor",
            ));
        }
        if !has_word(line, "unsafe") {
            continue;
        }
        if !allowed {
            faults.push(
                file.fault(i + 1, "holds `unsafe`, which has its place in kernels' cpu*.rs and cuda*.rs and in tensor"),
            );
        } else if opens_block(line, code.get(i + 1).copied().unwrap_or_default()) {
            let argued = lines[i.saturating_sub(NEAR)..=i].iter().any(|l| l.contains("SAFETY:"));
            if !argued {
                faults.push(file.fault(i + 1, "has no `// SAFETY:` comment just above"));
            }
        }
    }
}

/// Whether the `unsafe` of this line begins a block or an implementation, rather than declaring a function.
fn opens_block(line: &str, next: &str) -> bool {
    let after = line.split_once("unsafe").map_or("", |(_, tail)| tail.trim_start());
    let after = if after.is_empty() { next.trim_start() } else { after };
    after.starts_with('{') || after.starts_with("impl")
}

fn leftovers(file: &File, code: &str, faults: &mut Vec<Fault>) {
    for (i, line) in code.lines().enumerate() {
        for name in ["todo!", "unimplemented!", "dbg!"] {
            let word = name.trim_end_matches('!');
            if line.contains(name) && has_word(line, word) {
                faults.push(file.fault(i + 1, format!("holds `{name}`")));
            }
        }
        if line.contains("#[ignore") {
            faults.push(file.fault(i + 1, "a test that never runs says nothing"));
        }
        if has_word(line, "cudarc") && !file.path.starts_with("kernels/") && !file.path.starts_with("crates/tensor/") {
            faults.push(file.fault(i + 1, "names cudarc, which only tensor and kernels may"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rust;
    use super::*;

    /// The faults of one file, as `line: what`.
    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check(&rust(path, text), &mut found);
        found.iter().map(|f| format!("{}: {}", f.line, f.what)).collect()
    }

    #[test]
    fn a_clean_file_has_no_fault() {
        let text = "//! Head.\n// unsafe, todo!, cudarc: in a comment all is allowed\nlet s = \"#[ignore] unsafe\";\n";
        assert_eq!(faults("crates/core/src/lib.rs", text), Vec::<String>::new());
    }

    #[test]
    fn unsafe_code_has_its_places() {
        let text = "// SAFETY: fine.\nunsafe { f() }\n";
        assert!(faults("kernels/src/conv/cpu_avx512.rs", text).is_empty());
        assert!(faults("crates/tensor/src/mapped.rs", text).is_empty());
        for path in ["kernels/src/conv/mod.rs", "crates/core/src/image.rs", "xtask/src/shell.rs", "datasets/src/cpu.rs"]
        {
            assert_eq!(faults(path, text).len(), 1, "{path}");
        }
        assert_eq!(faults("crates/core/src/image.rs", "#![allow(unsafe_code)]\n").len(), 1);
        assert!(faults("crates/core/src/image.rs", "#![deny(unsafe_code)]\n").is_empty());
    }

    #[test]
    fn an_unsafe_block_is_argued_for() {
        let path = "kernels/src/conv/cpu.rs";
        assert_eq!(faults(path, "fn f() {\n    unsafe { g() }\n}\n").len(), 1);
        assert_eq!(faults(path, "unsafe\n{ g() }\n").len(), 1);
        assert_eq!(faults(path, "unsafe impl Send for A {}\n").len(), 1);
        assert!(faults(path, "/// # Safety\n/// Of the caller.\nunsafe fn g() {}\n").is_empty());
        let far = format!("// SAFETY: far away.\n{}unsafe {{ g() }}\n", "\n".repeat(NEAR + 1));
        assert_eq!(faults(path, &far).len(), 1);
    }

    #[test]
    fn leftovers_are_found() {
        for text in [
            "fn f() { todo!() }",
            "unimplemented!()",
            "dbg!(x)",
            "#[ignore]",
            "#[ignore = \"slow\"]",
            "use cudarc::driver;",
        ] {
            assert_eq!(faults("crates/core/src/image.rs", text).len(), 1, "{text}");
        }
        assert!(faults("kernels/src/conv/cuda.rs", "use cudarc::driver;").is_empty());
    }

    #[test]
    fn long_files_are_refused_but_tests_do_not_count() {
        let long = "let a = 1;\n".repeat(LONGEST + 1);
        assert_eq!(faults("crates/core/src/image.rs", &long).len(), 1);
        assert!(faults("crates/core/src/tests.rs", &long).is_empty());
        assert!(faults("crates/core/tests/all.rs", &long).is_empty());
        let tested = format!("fn a() {{}}\n\n#[cfg(test)]\nmod tests {{\n{long}}}\nfn b() {{}}\n");
        assert!(faults("crates/core/src/image.rs", &tested).is_empty());
        assert_eq!(untested_lines(&tested), 3);
    }

    #[test]
    fn a_crate_says_what_it_is() {
        assert_eq!(faults("crates/core/src/lib.rs", "mod a;\n").len(), 1);
        assert_eq!(faults("crates/cli/src/main.rs", "fn main() {}\n").len(), 1);
        assert!(faults("crates/core/src/a.rs", "mod b;\n").is_empty());
    }
}
