//! `cargo xtask tidy`: the invariants of ARCHITECTURE.md, checked on the files as they are.
//!
//! | module | what it looks at |
//! |---|---|
//! | [`crates`] | the crate map against the manifests |
//! | [`source`] | Rust files: length, `unsafe`, leftovers, head comments |
//! | [`files`] | every file: size, paths of one machine, links between documents |
//! | [`lexer`] | Rust text without its comments and strings |

mod crates;
mod files;
mod lexer;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    path: String,
    /// 1-based; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A file of the repository.
struct File {
    /// Relative to the root, with `/` between folders.
    path: String,
    bytes: u64,
    /// `None` for binary files.
    text: Option<String>,
}

impl File {
    fn fault(&self, line: usize, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), line, what: what.into() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Line numbers, from 1, and lines.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.as_deref().unwrap_or_default().lines().enumerate().map(|(i, line)| (i + 1, line))
    }
}

/// Prints what is wrong; whether nothing is.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let files = read(root)?;
    let mut faults = crates::check(&shell::metadata(root)?, root, &files)?;
    faults.extend(check(root, &files));
    for fault in &faults {
        println!("{fault}");
    }
    match faults.len() {
        0 => println!("tidy: {} files, nothing to complain of", files.len()),
        n => println!("tidy: {n} to put right in {} files", files.len()),
    }
    Ok(faults.is_empty())
}

/// Every check that needs the files alone.
fn check(root: &Path, files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        files::check(root, file, &mut faults);
        if file.is_rust() {
            source::check(file, &mut faults);
        }
    }
    files::check_golden(files, &mut faults);
    faults
}

/// The files git knows or would add; where there is no git, all but what builds and runs leave behind.
fn read(root: &Path) -> Result<Vec<File>> {
    let mut paths = match listed(root) {
        Some(paths) => paths,
        None => {
            let mut paths = Vec::new();
            walk(root, root, &mut paths)?;
            paths
        }
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let full = root.join(&path);
        // Listed, but deleted since.
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
        files.push(File { path, bytes: bytes.len() as u64, text: String::from_utf8(bytes).ok() });
    }
    Ok(files)
}

fn listed(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let text = shell::output(&mut git).ok()?;
    Some(text.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
}

fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) -> Result<()> {
    const SKIPPED: [&str; 6] = [".git", "target", "results", "datasets/MVTec", "datasets/demo", "benches/history"];
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let full: PathBuf = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let path = full.strip_prefix(root).unwrap_or(&full).to_string_lossy().replace('\\', "/");
        if full.is_symlink() || SKIPPED.contains(&path.as_str()) {
            continue;
        }
        if full.is_dir() {
            walk(root, &full, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
fn rust(path: &str, text: &str) -> File {
    File { path: path.to_owned(), bytes: text.len() as u64, text: Some(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::scratch;

    #[test]
    fn planted_faults_in_a_folder_are_found_with_file_and_line() {
        let root = scratch("tidy");
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        };
        write("crates/a/src/lib.rs", "//! Fine.\npub fn f() { unsafe { g() } }\n");
        write("kernels/src/x/cpu.rs", "#![allow(unsafe_code)]\n\nfn f() {\n    unsafe { g() }\n}\n");
        write("README.md", "See [here](docs/none.md).\n");
        write("target/debug/junk.rs", "unsafe {}\n");
        let faults: Vec<String> = check(&root, &read(&root).unwrap()).iter().map(Fault::to_string).collect();
        std::fs::remove_dir_all(&root).unwrap();
        let starts = ["README.md:1: ", "crates/a/src/lib.rs:2: ", "kernels/src/x/cpu.rs:4: "];
        assert_eq!(faults.len(), starts.len(), "{faults:#?}");
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn this_repository_is_read_without_its_build_folder() {
        let files = read(&shell::root().unwrap()).unwrap();
        assert!(files.iter().any(|f| f.path == "xtask/src/main.rs"));
        assert!(files.iter().all(|f| !f.path.starts_with("target/")));
    }
}
