//! The crate map of ARCHITECTURE.md against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Fault, File};

const MAP: &str = "ARCHITECTURE.md";

/// A row of the map, or what the manifests say instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// The crate's folder.
    path: String,
    /// Crates of this workspace it depends on, other than in its tests.
    depends: BTreeSet<String>,
    /// Where the row stands; 0 for a manifest.
    line: usize,
}

pub(super) fn check(metadata: &Value, root: &Path, files: &[File]) -> Result<Vec<Fault>> {
    let text = files.iter().find(|f| f.path == MAP).and_then(|f| f.text.as_deref());
    let text = text.with_context(|| format!("{MAP} is missing"))?;
    let built = from_metadata(metadata, root)?;
    let mut faults = compare(&from_map(text), &built);
    faults.extend(packages(metadata, root)?);
    Ok(faults)
}

/// Reads the table whose head names `crate`, `folder` and `depends on`.
fn from_map(text: &str) -> BTreeMap<String, Entry> {
    let mut map = BTreeMap::new();
    let mut columns: Option<[usize; 3]> = None;
    for (i, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            columns = None;
        } else if let Some([name, folder, depends]) = columns {
            let cell = |at: usize| quoted(cells.get(at).copied().unwrap_or_default());
            if let (Some(name), Some(path)) = (cell(name).pop(), cell(folder).pop()) {
                let depends = cell(depends).into_iter().collect();
                map.insert(name, Entry { path: path.trim_end_matches('/').to_owned(), depends, line: i + 1 });
            }
        } else {
            let at = |head: &str| cells.iter().position(|cell| *cell == head);
            columns = at("crate").zip(at("folder")).zip(at("depends on")).map(|((a, b), c)| [a, b, c]);
        }
    }
    map
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn from_metadata(metadata: &Value, root: &Path) -> Result<BTreeMap<String, Entry>> {
    let list = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: BTreeSet<&str> = list.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut built = BTreeMap::new();
    for package in list {
        let name = package["name"].as_str().context("a package without a name")?;
        let used = package["dependencies"].as_array().into_iter().flatten();
        let depends = used
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .filter_map(|d| d["name"].as_str())
            .filter(|d| names.contains(d))
            .map(str::to_owned)
            .collect();
        built.insert(name.to_owned(), Entry { path: folder(package, root)?, depends, line: 0 });
    }
    Ok(built)
}

/// A package's folder, relative to the root.
fn folder(package: &Value, root: &Path) -> Result<String> {
    let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
    let folder = Path::new(manifest).parent().context("a manifest without a folder")?;
    Ok(folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().replace('\\', "/"))
}

fn compare(map: &BTreeMap<String, Entry>, built: &BTreeMap<String, Entry>) -> Vec<Fault> {
    let fault = |line: usize, what: String| Fault { path: MAP.to_owned(), line, what };
    let mut faults = Vec::new();
    for (name, row) in map {
        let Some(real) = built.get(name) else {
            faults.push(fault(row.line, format!("the map has `{name}`, which is no crate of this workspace")));
            continue;
        };
        if row.path != real.path {
            faults.push(fault(row.line, format!("`{name}` lies in {}, not in {}", real.path, row.path)));
        }
        for extra in real.depends.difference(&row.depends) {
            faults.push(fault(row.line, format!("`{name}` depends on `{extra}`; the map has no such arrow")));
        }
        for gone in row.depends.difference(&real.depends) {
            faults.push(fault(row.line, format!("the map says that `{name}` depends on `{gone}`; it does not")));
        }
    }
    for name in built.keys().filter(|name| !map.contains_key(*name)) {
        faults.push(fault(0, format!("the map does not show `{name}`")));
    }
    faults
}

/// What a package needs to be shown to anyone.
fn packages(metadata: &Value, root: &Path) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let folder = folder(package, root)?;
        let mut fault = |what: &str| {
            faults.push(Fault { path: format!("{folder}/Cargo.toml"), line: 0, what: what.to_owned() });
        };
        for field in ["description", "license", "rust_version", "repository"] {
            if package[field].as_str().is_none_or(str::is_empty) {
                fault(&format!("has no {}", field.replace('_', "-")));
            }
        }
        if !root.join(&folder).join("README.md").is_file() {
            fault("has no README.md beside it");
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::scratch;
    use serde_json::json;

    const TEXT: &str = "# Map\n\n| crate | folder | what | depends on |\n|---|---|---|---|\n\
        | `a` | `crates/a` | first | |\n| `b` | `crates/b/` | second, not `c` | `a` |\n\nOther `text`.\n";

    fn metadata(root: &Path, b_depends: Value) -> Value {
        let package = |name: &str, depends: Value| {
            json!({"name": name, "manifest_path": root.join("crates").join(name).join("Cargo.toml"), "dependencies": depends,
                "description": "d", "license": "MIT", "rust_version": "1.89", "repository": "r"})
        };
        json!({"packages": [package("a", json!([{"name": "serde", "kind": null}])), package("b", b_depends)]})
    }

    fn said(map: &str, metadata: &Value) -> Vec<String> {
        let built = from_metadata(metadata, Path::new("/r")).unwrap();
        compare(&from_map(map), &built).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn a_true_map_is_accepted() {
        let real = metadata(Path::new("/r"), json!([{"name": "a", "kind": null}, {"name": "b", "kind": "dev"}]));
        assert_eq!(said(TEXT, &real), Vec::<String>::new());
    }

    #[test]
    fn arrows_too_many_and_too_few_are_found() {
        let real = metadata(Path::new("/r"), json!([]));
        assert_eq!(said(TEXT, &real), ["ARCHITECTURE.md:6: the map says that `b` depends on `a`; it does not"]);
        let cycle = TEXT.replace("| first | |", "| first | `b` |");
        let real = metadata(Path::new("/r"), json!([{"name": "a", "kind": "build"}]));
        assert_eq!(said(&cycle, &real), ["ARCHITECTURE.md:5: the map says that `a` depends on `b`; it does not"]);
        let bare = TEXT.replace("| `a` |\n\n", "| |\n\n");
        assert_eq!(said(&bare, &real), ["ARCHITECTURE.md:6: `b` depends on `a`; the map has no such arrow"]);
    }

    #[test]
    fn missing_invented_and_misplaced_crates_are_found() {
        let real = metadata(Path::new("/r"), json!([{"name": "a", "kind": null}]));
        let map = TEXT.replace("`a` | `crates/a`", "`c` | `crates/c`").replace("crates/b/", "b");
        let faults = said(&map, &real);
        assert_eq!(faults.len(), 3, "{faults:#?}");
        assert!(faults.iter().any(|f| f.contains("does not show `a`")));
        assert!(faults.iter().any(|f| f.contains("`c`, which is no crate")));
        assert!(faults.iter().any(|f| f.contains("lies in crates/b, not in b")));
    }

    #[test]
    fn packages_introduce_themselves() {
        let root = scratch("packages");
        std::fs::create_dir_all(root.join("crates/a")).unwrap();
        std::fs::write(root.join("crates/a/README.md"), "a").unwrap();
        let mut real = metadata(&root, json!([]));
        real["packages"][0]["description"] = Value::Null;
        let faults: Vec<String> = packages(&real, &root).unwrap().iter().map(Fault::to_string).collect();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            faults,
            ["crates/a/Cargo.toml: has no description", "crates/b/Cargo.toml: has no README.md beside it"]
        );
    }
}
