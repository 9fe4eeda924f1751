//! `cargo xtask tune KERNEL`: variants of the parameters that a kernel's source declares, timed on the GPU or, without one,
//! ranked by what the assembler says of them.
//!
//! A parameter is declared at the head of `kernels/cu/KERNEL.cu` with the values to try; the launch code must not depend on
//! it:
//!
//! ```text
//! #ifndef NEAREST_STAGES  // tune: 2 3 4
//! #define NEAREST_STAGES 4
//! #endif
//! ```
//!
//! What was timed goes to `kernels/tuned.json`, the best of each chip. Nothing reads that file by itself: a value that wins
//! on the chips that matter becomes the default in the source.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::tools::Tools;
use super::{UNITS, Unit, gate, occupancy, translate};
use crate::{bundle, shell};

/// Where the best of each chip is kept.
const TABLE: &str = "kernels/tuned.json";
/// Dynamic shared bytes of kernels at the usual shapes; the others take none.
const SHARED: [(&str, u32); 7] = [
    ("kcenter_greedy", 100_000),
    ("kcenter_threshold", 4096),
    ("kcenter_update", 8192),
    ("mahalanobis_low_rank", 8800),
    ("mahalanobis_triangle", 8928),
    ("nearest_sieve", 98_304),
    ("pairwise_squared", 8192),
];

/// A parameter: its name, the value the source has, the values to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    default: String,
    values: Vec<String>,
}

/// One choice of values.
type Variant = Vec<(String, String)>;

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let arch = shell::option(&mut args, "--arch")?.unwrap_or_else(|| "90".to_owned());
    let import = shell::option(&mut args, "--import")?;
    let root = shell::root()?;
    if let Some(folder) = import {
        shell::nothing_left("tune", &args)?;
        return record(&root, &timings(Path::new(&folder))?);
    }
    let [kernel] = args.as_slice() else {
        bail!("tune wants one kernel: {}", sources(&root)?.join(", "));
    };
    let tools = Tools::open(&root)?;
    let folder = tools.folder().join("tune");
    let variants = write(&root, &tools, kernel, &folder.join(kernel))?;
    rank(&tools, kernel, &arch, &variants)?;
    if !bundle::gpu_is_here() {
        println!(
            "\nNOTHING WAS TIMED: there is no GPU here. The order above is by spills, occupancy and registers alone.\n\
             `cargo xtask bundle` packs these variants; its `run.sh tune` times them elsewhere."
        );
        return Ok(true);
    }
    let bench = bundle::gpu_bench(&root)?;
    let results = folder.join("results");
    if results.exists() {
        std::fs::remove_dir_all(&results).with_context(|| format!("cannot empty {}", results.display()))?;
    }
    std::fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    for (name, _, ptx) in &variants {
        shell::step("tune", name);
        let out = results.join(format!("{kernel}.{name}.json"));
        let mut command = Command::new(&bench);
        command.args(["--size", "real", "--kernel", kernel, "--ptx"]).arg(ptx).arg("--out").arg(&out);
        if !shell::passes(&mut command)? {
            bail!("{name} does not run");
        }
    }
    record(&root, &timings(&results)?)
}

/// Sources that declare parameters.
pub(crate) fn sources(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for unit in UNITS {
        if !found.iter().any(|f| f == unit.name) && !parameters(&source(root, unit)?)?.is_empty() {
            found.push(unit.name.to_owned());
        }
    }
    Ok(found)
}

/// Writes all variants of every source to `FOLDER/KERNEL/VARIANT/*.ptx`; `false` if there is no compiler for it.
pub(crate) fn write_all(root: &Path, folder: &Path) -> Result<bool> {
    let tools = Tools::open(root)?;
    if tools.nvrtc().is_none() {
        return Ok(false);
    }
    for kernel in sources(root)? {
        write(root, &tools, &kernel, &folder.join(&kernel))?;
    }
    Ok(true)
}

fn source(root: &Path, unit: Unit) -> Result<String> {
    let path = unit.source(root);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The parameters that a source declares.
fn parameters(source: &str) -> Result<Vec<Parameter>> {
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

/// Every choice of values, the defaults first.
fn choices(parameters: &[Parameter]) -> Vec<Variant> {
    let mut all: Vec<Variant> = vec![Vec::new()];
    for p in parameters {
        let with = |v: &Variant, value: &String| {
            let mut v = v.clone();
            v.push((p.name.clone(), value.clone()));
            v
        };
        all = all.iter().flat_map(|v| p.values.iter().map(|value| with(v, value))).collect();
    }
    let usual = |v: &Variant| v.iter().zip(parameters).all(|((_, value), p)| *value == p.default);
    all.sort_by_key(|v| !usual(v));
    all
}

/// A name for a choice, fit for a folder.
fn label(variant: &Variant) -> String {
    let words: Vec<String> = variant.iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.join("+")
}

/// Compiles all variants of a kernel's units; label, whether it is the default, and folder of each.
fn write(root: &Path, tools: &Tools, kernel: &str, folder: &Path) -> Result<Vec<(String, bool, PathBuf)>> {
    let units: Vec<Unit> = UNITS.into_iter().filter(|u| u.name == kernel).collect();
    let parameters = match units.first() {
        Some(unit) => parameters(&source(root, *unit)?)?,
        None => Vec::new(),
    };
    if parameters.is_empty() {
        bail!("'{kernel}' declares nothing to tune; these do: {}", sources(root)?.join(", "));
    }
    if tools.nvrtc().is_none() {
        bail!("there is no NVRTC; `cargo xtask fetch-nvrtc` fetches it");
    }
    let mut written = Vec::new();
    for (i, variant) in choices(&parameters).iter().enumerate() {
        let name = label(variant);
        let place = folder.join(&name);
        std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        for unit in &units {
            translate(root, tools, *unit, variant, &place.join(unit.file_name()))?;
        }
        written.push((name, i == 0, place));
    }
    Ok(written)
}

/// Prints what each variant takes on a chip, the most promising first. Of variants that give a kernel the same code one is
/// shown; kernels that no parameter changes are not.
fn rank(tools: &Tools, kernel: &str, arch: &str, variants: &[(String, bool, PathBuf)]) -> Result<()> {
    let chip = occupancy::chip(arch).with_context(|| format!("no such chip: {arch}"))?;
    let Some(ptxas) = tools.ptxas() else {
        println!("SKIPPED: registers and occupancy. There is no ptxas here; `cargo xtask fetch-nvrtc` fetches it.");
        return Ok(());
    };
    let unit = UNITS.into_iter().rev().find(|u| u.name == kernel && u.chips().iter().any(|c| c.to_string() == arch));
    let unit = unit.with_context(|| format!("'{kernel}' is not built for {arch}"))?;
    let mut rows: Vec<(String, gate::Usage, u32, u32, String)> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, usual, folder) in variants {
        let path = folder.join(unit.file_name());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for usage in gate::assemble(&ptxas, &path, arch, Path::new("/dev/null"))? {
            let code = (usage.name.clone(), body(&text, &usage.name).to_owned());
            if seen.contains(&code) {
                continue;
            }
            seen.push(code);
            let shared = SHARED.iter().find(|(k, _)| *k == usage.name).map_or(0, |(_, bytes)| *bytes);
            let (blocks, percent) = occupancy::of(chip, usage.registers, threads(&text, &usage.name), shared);
            let name = if *usual { format!("{name} (as it is)") } else { name.clone() };
            rows.push((usage.name.clone(), usage, blocks, percent, name));
        }
    }
    let varies = |kernel: &str| rows.iter().filter(|r| r.0 == kernel).count() > 1;
    let mut shown: Vec<_> = rows.iter().filter(|r| varies(&r.0)).collect();
    shown.sort_by_key(|r| (r.0.clone(), r.1.local.iter().sum::<u32>(), std::cmp::Reverse(r.3), r.1.registers));
    println!("| kernel on sm_{arch} | variant | registers | local bytes | blocks a multiprocessor | occupancy |");
    println!("|---|---|---:|---:|---:|---:|");
    for (name, usage, blocks, percent, variant) in shown {
        let local = usage.local.iter().sum::<u32>();
        println!("| {name} | {variant} | {} | {local} | {blocks} | {percent} % |", usage.registers);
    }
    println!("\n{} variants compiled; those that change nothing of a kernel are left out.", variants.len());
    Ok(())
}

/// The code of a kernel.
fn body<'a>(ptx: &'a str, kernel: &str) -> &'a str {
    let entry = ptx.split_once(&format!(".entry {kernel}(")).map_or("", |(_, tail)| tail);
    entry.split(".entry ").next().unwrap_or_default()
}

/// Threads of a block, as the PTX has them.
fn threads(ptx: &str, kernel: &str) -> u32 {
    let head = body(ptx, kernel).split('{').next().unwrap_or_default();
    let number = head.split(".maxntid").nth(1).and_then(|t| t.trim().split(',').next()?.trim().parse().ok());
    number.unwrap_or(256)
}

/// Reads `KERNEL.VARIANT.json` files of the GPU benchmark: chip, kernel, variant, milliseconds of the kernel's own parts.
fn timings(folder: &Path) -> Result<Vec<(String, String, String, f64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (Some((kernel, variant)), true) = (stem.split_once('.'), path.extension().is_some_and(|e| e == "json"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let run: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        if run["emulated"] == true {
            bail!("{} comes from the stand-in driver, whose times mean nothing", path.display());
        }
        let chip =
            format!("sm_{} {}", run["chip"].as_str().unwrap_or_default(), run["gpu"].as_str().unwrap_or_default());
        let rows = run["rows"].as_array().into_iter().flatten();
        let parts = rows.flat_map(|r| r["kernels"].as_array().into_iter().flatten());
        let own = parts.filter(|k| k["kernel"].as_str().is_some_and(|k| k.starts_with(kernel)));
        let time: f64 = own.filter_map(|k| k["ms"].as_f64()).sum();
        if time > 0.0 {
            found.push((chip, kernel.to_owned(), variant.to_owned(), time));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)).then_with(|| a.3.total_cmp(&b.3)));
    if found.is_empty() {
        bail!("{} holds no timings", folder.display());
    }
    Ok(found)
}

/// Prints timings, best first, and enters the best of each chip and kernel into the table.
fn record(root: &Path, timings: &[(String, String, String, f64)]) -> Result<bool> {
    let path = root.join(TABLE);
    let mut table: Map<String, Value> = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?,
        Err(_) => Map::new(),
    };
    println!("\n| chip | kernel | variant | time of its kernels, ms |\n|---|---|---|---:|");
    let mut last = None;
    for (chip, kernel, variant, ms) in timings {
        println!("| {chip} | {kernel} | {variant} | {ms:.3} |");
        if last == Some((chip, kernel)) {
            continue;
        }
        last = Some((chip, kernel));
        let values: Map<String, Value> =
            variant.split('+').filter_map(|w| w.split_once('=')).map(|(k, v)| (k.to_owned(), v.into())).collect();
        let entry = table.entry(chip.clone()).or_insert_with(|| json!({}));
        entry[kernel.as_str()] = json!({"best": values, "ms": ms});
    }
    std::fs::write(&path, format!("{:#}\n", Value::Object(table)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    shell::step("tune", &format!("the best of each is in {TABLE}"));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::scratch;

    const SOURCE: &str = "#ifndef A  // tune: 1 2\n#define A 2\n#endif\n#ifndef B_C  // tune: 256 256,4\n#define B_C 256\n#endif\n\
        #ifndef OTHER\n#define OTHER 1\n#endif\n";

    #[test]
    fn parameters_are_read_and_combined_defaults_first() {
        let found = parameters(SOURCE).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].name.as_str(), found[1].default.as_str(), found[1].values.len()), ("B_C", "256", 2));
        let names: Vec<String> = choices(&found).iter().map(label).collect();
        assert_eq!(names, ["A=2+B_C=256", "A=1+B_C=256", "A=1+B_C=256,4", "A=2+B_C=256,4"]);
        assert!(parameters("#ifndef A  // tune: 1 2\n#define A 3\n#endif\n").is_err());
    }

    #[test]
    fn the_sources_declare_parameters_their_code_uses() {
        let root = shell::root().unwrap();
        let names = sources(&root).unwrap();
        assert!(
            ["kcenter", "mahalanobis", "nearest", "pairwise"].iter().all(|n| names.iter().any(|k| k == n)),
            "{names:?}"
        );
        for unit in UNITS {
            let text = source(&root, unit).unwrap();
            for p in parameters(&text).unwrap() {
                assert!(text.matches(&p.name).count() >= 3, "{}: {} is declared and not used", unit.name, p.name);
            }
        }
    }

    #[test]
    fn threads_are_those_of_the_kernel() {
        let ptx = ".entry f(\n.param .u64 a\n)\n.maxntid 128, 1, 1\n{ ret; }\n.entry g(\n)\n.maxntid 1024, 1, 1\n{ }";
        assert_eq!((threads(ptx, "f"), threads(ptx, "g"), threads(ptx, "h")), (128, 1024, 256));
    }

    #[test]
    fn the_best_of_a_chip_is_entered_and_emulated_times_are_refused() {
        let root = scratch("tune");
        std::fs::create_dir_all(root.join("kernels")).unwrap();
        let run = |ms: f64, emulated: bool| {
            json!({"gpu": "X", "chip": "90", "emulated": emulated,
                "rows": [{"kernels": [{"kernel": "nearest_sieve", "ms": ms}, {"kernel": "other", "ms": 9.0}]}]})
        };
        for (name, ms) in [("nearest.A=1+B=2", 3.0), ("nearest.A=2+B=256,4", 2.0)] {
            std::fs::write(root.join(format!("{name}.json")), run(ms, false).to_string()).unwrap();
        }
        let found = timings(&root).unwrap();
        record(&root, &found).unwrap();
        let table: Value = serde_json::from_str(&std::fs::read_to_string(root.join(TABLE)).unwrap()).unwrap();
        std::fs::write(root.join("nearest.A=3+B=2.json"), run(1.0, true).to_string()).unwrap();
        let refused = timings(&root).is_err();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(table["sm_90 X"]["nearest"], json!({"best": {"A": "2", "B": "256,4"}, "ms": 2.0}));
        assert!(refused);
    }
}
