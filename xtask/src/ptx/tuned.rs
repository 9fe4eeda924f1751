//! What tuning changes, and where it goes: the parameters that sources declare, the best values of each chip in
//! `kernels/tuned.json`, and from both the PTX files to make and `kernels/ptx/modules.rs`, which names them to the launch code.
//!
//! A parameter is declared at the head of `kernels/cu/KERNEL.cu` with the values to try:
//!
//! ```text
//! #ifndef NEAREST_STAGES  // tune: 2 3 4
//! #define NEAREST_STAGES 4
//! #endif
//! ```
//!
//! Every PTX file says in a line `// tuned NAME=VALUE ...` what it was made with; the launch code computes grids, blocks and
//! shared memory from that line, and holds none of these numbers itself.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::{UNITS, Unit};

/// Where the best of each chip is kept.
pub(super) const TABLE: &str = "kernels/tuned.json";

/// A parameter: its name, the value the source has, the values to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) default: String,
    pub(super) values: Vec<String>,
}

/// One choice of values.
pub(super) type Variant = Vec<(String, String)>;

/// A PTX file: a unit, for all chips or, with other values, for one.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) unit: Unit,
    pub(super) chip: Option<u32>,
    pub(super) define: Variant,
}

impl Build {
    pub(super) fn file_name(&self) -> String {
        match self.chip {
            None => self.unit.file_name(),
            Some(chip) => format!("{}.{}.sm_{chip}.ptx", self.unit.name, self.unit.target),
        }
    }

    pub(super) fn ptx(&self, root: &Path) -> std::path::PathBuf {
        root.join("kernels/ptx").join(self.file_name())
    }

    /// The chips the gate assembles for.
    pub(super) fn chips(&self) -> Vec<u32> {
        self.chip.map_or_else(|| self.unit.chips().to_vec(), |chip| vec![chip])
    }
}

/// The parameters that a source declares.
pub(super) fn parameters(source: &str) -> Result<Vec<Parameter>> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((name, values)) = line.strip_prefix("#ifndef ").and_then(|l| l.split_once("// tune:")) else {
            continue;
        };
        let name = name.trim().to_owned();
        let values: Vec<String> = values.split_whitespace().map(str::to_owned).collect();
        let default = lines.next().and_then(|l| l.strip_prefix("#define ")?.strip_prefix(name.as_str()));
        let default = default.map(|d| d.trim().to_owned()).filter(|d| values.contains(d));
        let default = default.with_context(|| format!("the default of {name} is none of the values to try"))?;
        found.push(Parameter { name, default, values });
    }
    Ok(found)
}

/// The line of a PTX file that says what it was made with; empty without parameters.
pub(super) fn line(parameters: &[Parameter], define: &Variant) -> String {
    let value = |p: &Parameter| define.iter().find(|(name, _)| *name == p.name).map_or(&p.default, |(_, v)| v).clone();
    let words: Vec<String> = parameters.iter().map(|p| format!("{}={}", p.name, value(p))).collect();
    if words.is_empty() { String::new() } else { format!("// tuned {}\n", words.join(" ")) }
}

pub(super) fn source(root: &Path, unit: Unit) -> Result<String> {
    let path = unit.source(root);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The table: `sm_90`, then a kernel, then `best`.
pub(super) fn table(root: &Path) -> Result<Map<String, Value>> {
    match std::fs::read_to_string(root.join(TABLE)) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{TABLE} is no JSON")),
        Err(_) => Ok(Map::new()),
    }
}

/// Every PTX file to make: all units with the values of their sources, and those of chips for which others are faster.
pub(super) fn builds(root: &Path) -> Result<Vec<Build>> {
    let mut all: Vec<Build> = UNITS.map(|unit| Build { unit, chip: None, define: Vec::new() }).to_vec();
    for (chip, kernels) in table(root)? {
        let number = chip.strip_prefix("sm_").and_then(|n| n.parse::<u32>().ok());
        let number = number.with_context(|| format!("{TABLE}: '{chip}' is no chip, such as sm_90"))?;
        for (kernel, entry) in kernels.as_object().into_iter().flatten() {
            let units = UNITS.into_iter().filter(|u| u.name == kernel && u.chips().contains(&number));
            for unit in units {
                let known = parameters(&source(root, unit)?)?;
                let mut define = Variant::new();
                for (name, value) in entry["best"].as_object().into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default();
                    let Some(p) = known.iter().find(|p| p.name == *name && p.values.iter().any(|v| v == value)) else {
                        bail!("{TABLE}: {kernel} has no {name}={value} any more; tune it again for {chip}");
                    };
                    if p.default != value {
                        define.push((name.clone(), value.to_owned()));
                    }
                }
                if !define.is_empty() {
                    all.push(Build { unit, chip: Some(number), define });
                }
            }
        }
    }
    Ok(all)
}

/// The text of `kernels/ptx/modules.rs`.
pub(super) fn modules(builds: &[Build]) -> String {
    let mut text =
        "// Written by `cargo xtask ptx`: the PTX files, and those for chips on which other parameters are faster.\n"
            .to_owned();
    let include =
        |build: &Build| format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/ptx/{}\"))", build.file_name());
    for unit in UNITS {
        let own = |b: &&Build| (b.unit.name, b.unit.target) == (unit.name, unit.target);
        let Some(usual) = builds.iter().filter(own).find(|b| b.chip.is_none()) else { continue };
        let chips = builds.iter().filter(own).filter_map(|b| Some(format!("({}, {})", b.chip?, include(b))));
        let suffix = match unit.target {
            "compute_75" => "",
            "compute_90a" => "_90",
            _ => "_80",
        };
        text += &format!(
            "pub(crate) const {}{suffix}: Module = Module {{\n    name: \"{}.{}\",\n    text: {},\n    tuned: &[{}],\n}};\n",
            unit.name.to_uppercase(),
            unit.name,
            unit.target,
            include(usual),
            chips.collect::<Vec<_>>().join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn a_file_says_what_it_was_made_with() {
        let source =
            "#ifndef A  // tune: 1 2\n#define A 2\n#endif\n#ifndef B  // tune: 4,4 8,2\n#define B 4,4\n#endif\n";
        let known = parameters(source).unwrap();
        assert_eq!(line(&known, &Vec::new()), "// tuned A=2 B=4,4\n");
        assert_eq!(line(&known, &vec![("B".to_owned(), "8,2".to_owned())]), "// tuned A=2 B=8,2\n");
        assert_eq!(line(&[], &Vec::new()), "");
    }

    #[test]
    fn chips_with_a_better_choice_get_their_own_files() {
        let root = crate::test::scratch("tuned");
        std::fs::create_dir_all(root.join("kernels/cu")).unwrap();
        let real = shell::root().unwrap();
        for unit in UNITS {
            std::fs::copy(unit.source(&real), unit.source(&root)).unwrap();
        }
        let write = |text: &str| std::fs::write(root.join(TABLE), text).unwrap();
        assert_eq!(builds(&root).unwrap().len(), UNITS.len());
        write(
            r#"{"sm_90": {"nearest": {"best": {"NEAREST_STAGES": "3", "NEAREST_ROWS": "128"}}, "pairwise": {"best": {}}}}"#,
        );
        let all = builds(&root).unwrap();
        let names: Vec<String> = all[UNITS.len()..].iter().map(Build::file_name).collect();
        assert_eq!(
            names,
            ["nearest.compute_75.sm_90.ptx", "nearest.compute_80.sm_90.ptx", "nearest.compute_90a.sm_90.ptx"]
        );
        assert_eq!(all.last().unwrap().define, [("NEAREST_STAGES".to_owned(), "3".to_owned())]);
        let text = modules(&all);
        assert!(text.contains("pub(crate) const NEAREST_80: Module") && text.contains("(90, include_str!("), "{text}");
        write(r#"{"sm_90": {"nearest": {"best": {"NEAREST_STAGES": "7"}}}}"#);
        let error = builds(&root).unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("tune it again for sm_90"), "{error}");
    }
}
