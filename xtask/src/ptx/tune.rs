//! `cargo xtask tune KERNEL [--dry-run]`: every choice of the parameters that a kernel's source declares ([`tuned`]), compiled,
//! ranked by what the assembler says of it and, on a GPU, checked against the CPU and timed beside the committed one.
//!
//! Choices that spill, or that take more registers or shared memory than the gate or the chip allows, are dropped. The best of
//! each chip goes to `kernels/tuned.json`; `cargo xtask ptx` then makes a PTX file with these values for that chip, and the
//! launch code takes it there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::tools::Tools;
use super::tuned::{Parameter, TABLE, Variant, parameters, source, table};
use super::{UNITS, Unit, gate, occupancy, translate};
use crate::{bundle, shell};

/// A choice, compiled.
struct Compiled {
    name: String,
    /// Whether it is the committed one.
    usual: bool,
    folder: PathBuf,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let arch = shell::option(&mut args, "--arch")?.unwrap_or_else(|| "90".to_owned());
    let import = shell::option(&mut args, "--import")?;
    let root = shell::root()?;
    if let Some(folder) = import {
        shell::nothing_left("tune", &args)?;
        return record(&root, &timings(Path::new(&folder))?);
    }
    let dry = shell::flag(&mut args, "--dry-run");
    let [kernel] = args.as_slice() else {
        bail!("tune wants one kernel: {}", sources(&root)?.join(", "));
    };
    let tools = Tools::open(&root)?;
    let folder = tools.folder().join("tune");
    let variants = write(&root, &tools, kernel, &folder.join(kernel))?;
    let variants = rank(&tools, kernel, &arch, variants)?;
    if dry || !bundle::gpu_is_here() {
        let why = if dry { "as asked" } else { "there is no GPU here" };
        println!(
            "\nNOTHING WAS TIMED, {why}. The order above is by spills, occupancy and registers alone.\n\
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
    for Compiled { name, folder, .. } in &variants {
        let mut test = shell::cargo(&root);
        test.args([
            "test",
            "--quiet",
            "--release",
            "--package",
            "blemish-kernels",
            "--features",
            "cuda",
            "--test",
            "cuda",
        ]);
        // The tests load what lies there in place of the committed PTX.
        if !shell::passes(test.env("BLEMISH_PTX", folder).env("BLEMISH_REQUIRE_CUDA", "1"))? {
            println!("{name}: left out, its results are wrong");
            continue;
        }
        shell::step("tune", name);
        let out = results.join(format!("{kernel}.{name}.json"));
        let mut command = Command::new(&bench);
        command.args(["--size", "real", "--kernel", kernel, "--ptx"]).arg(folder).arg("--out").arg(&out);
        if !shell::passes(&mut command)? {
            println!("{name}: left out, it does not run");
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

/// Choices of all parameters that are tried together; with more of them one parameter is changed at a time.
const MOST: usize = 48;

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
    let changed = |v: &Variant| v.iter().zip(parameters).filter(|((_, value), p)| *value != p.default).count();
    if all.len() > MOST {
        all.retain(|v| changed(v) < 2);
    }
    all.sort_by_key(|v| changed(v) > 0);
    all
}

/// A name for a choice, fit for a folder.
fn label(variant: &Variant) -> String {
    let words: Vec<String> = variant.iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.join("+")
}

/// Compiles all variants of a kernel's units, the committed one first.
fn write(root: &Path, tools: &Tools, kernel: &str, folder: &Path) -> Result<Vec<Compiled>> {
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
    let (mut written, mut refused) = (Vec::new(), 0);
    for (i, variant) in choices(&parameters).iter().enumerate() {
        let name = label(variant);
        let place = folder.join(&name);
        std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let made = units
            .iter()
            .try_for_each(|unit| translate(root, tools, *unit, variant, &place.join(unit.file_name())).map(drop));
        match made {
            // The source itself says which values do not go together.
            Err(error) if i > 0 && format!("{error:#}").contains("static assertion failed") => {
                std::fs::remove_dir_all(&place).with_context(|| format!("cannot empty {}", place.display()))?;
                refused += 1;
                continue;
            }
            made => made?,
        }
        written.push(Compiled { name, usual: i == 0, folder: place });
    }
    if refused > 0 {
        shell::step("tune", &format!("{kernel}: {refused} choices left out, whose values the source refuses together"));
    }
    Ok(written)
}

/// Prints what each variant takes on a chip, the most promising first, and gives those that may be used. Of variants that give
/// a kernel the same code one is shown; kernels that no parameter changes are not.
fn rank(tools: &Tools, kernel: &str, arch: &str, variants: Vec<Compiled>) -> Result<Vec<Compiled>> {
    let chip = occupancy::chip(arch).with_context(|| format!("no such chip: {arch}"))?;
    let Some(ptxas) = tools.ptxas() else {
        println!("SKIPPED: registers and occupancy. There is no ptxas here; `cargo xtask fetch-nvrtc` fetches it.");
        return Ok(variants);
    };
    let units = UNITS.into_iter().filter(|u| u.name == kernel && u.chips().iter().any(|c| c.to_string() == arch));
    let units: Vec<Unit> = units.collect();
    let mut rows: Vec<Row> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    let (mut fit, all) = (Vec::new(), variants.len());
    for variant in variants {
        let (mut fits, mut kernels) = (true, Vec::new());
        // Of a kernel that is in several files the one for the newest chips is used.
        for unit in units.iter().rev() {
            let path = variant.folder.join(unit.file_name());
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if !launched(*unit, &text) {
                continue;
            }
            for usage in gate::assemble(&ptxas, &path, &unit.assembled(arch.parse()?), Path::new("/dev/null"))? {
                if kernels.contains(&usage.name) {
                    continue;
                }
                kernels.push(usage.name.clone());
                let (bounds, shared) = (bounds(&text, &usage.name), shared(&text, &usage.name));
                let (blocks, percent) = occupancy::of(chip, usage.registers, bounds.threads, shared);
                let good = gate::allows(&usage, bounds) && blocks > 0;
                fits &= good;
                let code = (usage.name.clone(), format!("{shared} {}", body(&text, &usage.name)));
                if !seen.contains(&code) {
                    seen.push(code);
                    let mark = if !good {
                        " (dropped)"
                    } else if variant.usual {
                        " (as it is)"
                    } else {
                        ""
                    };
                    rows.push(Row { usage, shared, blocks, percent, variant: format!("{}{mark}", variant.name) });
                }
            }
        }
        if fits || variant.usual {
            fit.push(variant);
        }
    }
    let varies = |kernel: &str| rows.iter().filter(|r| r.usage.name == kernel).count() > 1;
    let mut shown: Vec<_> = rows.iter().filter(|r| varies(&r.usage.name)).collect();
    shown.sort_by_key(|r| {
        let u = &r.usage;
        (u.name.clone(), u.local.iter().sum::<u32>(), std::cmp::Reverse(r.percent), u.registers)
    });
    println!("| kernel on sm_{arch} | variant | registers | local bytes | shared bytes | blocks | occupancy |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for Row { usage, shared, blocks, percent, variant } in shown {
        let local = usage.local.iter().sum::<u32>();
        println!("| {} | {variant} | {} | {local} | {shared} | {blocks} | {percent} % |", usage.name, usage.registers);
    }
    println!(
        "\n{all} variants compiled, {} within the budget of registers, local and shared memory. Variants that give a kernel \
         the same code are shown once; blocks are those of a multiprocessor.",
        fit.len()
    );
    Ok(fit)
}

/// What a kernel of a variant takes.
struct Row {
    usage: gate::Usage,
    shared: u32,
    blocks: u32,
    percent: u32,
    variant: String,
}

/// Whether the launch code takes a unit's kernels with the parameters of its text: a form for one chip only where it is chosen.
fn launched(unit: Unit, ptx: &str) -> bool {
    !unit.target.ends_with('a') || ptx.lines().take(4).any(|line| line.split(' ').any(|word| word == "NEAREST_WIDE=1"))
}

/// Dynamic shared bytes of a kernel at the usual shapes, from the parameters its file was made with.
fn shared(ptx: &str, kernel: &str) -> u32 {
    let number = |name: &str| -> Vec<u32> {
        let value = ptx.split_once(&format!(" {name}=")).map_or("", |(_, tail)| tail);
        let value = value.split([' ', '\n']).next().unwrap_or_default();
        value.split(',').filter_map(|n| n.parse().ok()).collect()
    };
    let one = |name: &str| number(name).first().copied().unwrap_or(0);
    let cores = |name: &str| match number(name)[..] {
        [down, across, high, wide] => one("CONV_STAGES") * (down * high * 16 + across * wide * 8) * 64,
        _ => 0,
    };
    let triangle =
        |pictures: u32| one("MAHALANOBIS_WARPS") * (1024 * one("MAHALANOBIS_STAGES") + 4 * pictures) + 2220 * pictures;
    let low_rank = |pictures: u32, tiles: &str| 2232 * pictures + 800 + one(tiles) * 17_616;
    match kernel {
        "conv_f32_128" | "conv_f32_64" => 16_896,
        "conv_f16_128" | "conv_f16_point_128" => cores("CONV_LARGE"),
        "conv_f16_64" | "conv_f16_point_64" => cores("CONV_SMALL"),
        "kcenter_greedy" => 100_000,
        "kcenter_threshold" => 4096,
        "kcenter_update" => 20_480,
        "pairwise_squared" => 16_384,
        // Of 550 channels and a rank of 199.
        "mahalanobis_triangle_4" => triangle(4),
        "mahalanobis_triangle_8" => triangle(8),
        "mahalanobis_triangle_16" => triangle(16),
        "mahalanobis_triangle_32" => triangle(32),
        "mahalanobis_low_rank_1" => low_rank(1, "MAHALANOBIS_TILES"),
        "mahalanobis_low_rank_4" => low_rank(16, "MAHALANOBIS_TILES"),
        "mahalanobis_low_rank_8" => low_rank(32, "MAHALANOBIS_TILES"),
        "mahalanobis_low_rank_wide" => low_rank(32, ""),
        // Of 550 channels and four pictures.
        "moments_add_f32" | "moments_add_f64" => 8800,
        "moments_factor" => 34_816,
        "moments_pack" => 4160,
        "nearest_sieve" if ptx.contains(".target sm_90a") => 196_608,
        "nearest_sieve" => one("NEAREST_STAGES") * (one("NEAREST_ROWS") + 256) * 64,
        "nearest_rerank" => 6496,
        // Of 1536 inputs.
        "projection_apply" => 4 * 1536 * one("PROJECTION_ROWS"),
        _ => 0,
    }
}

/// The code of a kernel.
fn body<'a>(ptx: &'a str, kernel: &str) -> &'a str {
    let entry = ptx.split_once(&format!(".entry {kernel}(")).map_or("", |(_, tail)| tail);
    entry.split(".entry ").next().unwrap_or_default()
}

/// The bounds of a kernel's launches, as the PTX has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Threads of a block.
    pub(super) threads: u32,
    /// Blocks that are to run side by side on a multiprocessor, where the source says it.
    pub(super) blocks: Option<u32>,
}

pub(super) fn bounds(ptx: &str, kernel: &str) -> Bounds {
    let head = body(ptx, kernel).split('{').next().unwrap_or_default();
    let number = |name: &str| {
        let tail = head.split(name).nth(1)?.trim_start();
        tail.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Bounds { threads: number(".maxntid").unwrap_or(256), blocks: number(".minnctapersm") }
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
        let chip = format!("sm_{}", run["chip"].as_str().unwrap_or_default());
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
    let mut table = table(root)?;
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
    shell::step("tune", &format!("the best of each is in {TABLE}; `cargo xtask ptx` makes their files"));
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
    fn many_parameters_are_changed_one_at_a_time() {
        let one = |name: &str| format!("#ifndef {name}  // tune: 1 2 3 4 5\n#define {name} 3\n#endif\n");
        let found = parameters(&["A", "B", "C"].map(one).concat()).unwrap();
        let all = choices(&found);
        assert_eq!((all.len(), label(&all[0])), (13, "A=3+B=3+C=3".to_owned()));
        let other = |v: &Variant| v.iter().filter(|(_, value)| value != "3").count();
        assert!(all[1..].iter().all(|v| other(v) == 1));
    }

    #[test]
    fn the_sources_declare_parameters_their_code_uses() {
        let root = shell::root().unwrap();
        let names = sources(&root).unwrap();
        assert!(
            ["conv", "kcenter", "mahalanobis", "moments", "nearest", "pairwise", "projection"]
                .iter()
                .all(|n| names.iter().any(|k| k == n)),
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
    fn shared_memory_follows_from_the_parameters() {
        let ptx = "// tuned NEAREST_STAGES=3 NEAREST_ROWS=64\n.version 8.4\n";
        assert_eq!(shared(ptx, "nearest_sieve"), 3 * 320 * 64);
        assert_eq!(shared(".target sm_90a\n", "nearest_sieve"), 196_608);
        let ptx = "// tuned CONV_LARGE=2,4,4,4 CONV_SMALL=2,2,2,4 CONV_STAGES=4\n";
        assert_eq!((shared(ptx, "conv_f16_128"), shared(ptx, "conv_f16_64"), shared(ptx, "x")), (65_536, 32_768, 0));
    }

    #[test]
    fn a_form_for_one_chip_ranks_where_it_is_launched() {
        let of = |target: &str| UNITS.into_iter().find(|u| u.name == "nearest" && u.target == target).unwrap();
        let text = |wide: u32| format!("// tuned NEAREST_STAGES=4 NEAREST_WIDE={wide}\n");
        assert!(launched(of("compute_80"), &text(0)) && launched(of("compute_80"), &text(1)));
        assert!(!launched(of("compute_90a"), &text(0)) && launched(of("compute_90a"), &text(1)));
    }

    #[test]
    fn bounds_are_those_of_the_kernel() {
        let ptx = ".entry f(\n.param .u64 a\n)\n.maxntid 128, 1, 1\n.minnctapersm 4\n{ ret; }\n.entry g(\n)\n.maxntid 1024, 1, 1\n{ }";
        let found = ["f", "g", "h"].map(|kernel| bounds(ptx, kernel)).map(|b| (b.threads, b.blocks));
        assert_eq!(found, [(128, Some(4)), (1024, None), (256, None)]);
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
        assert_eq!(table["sm_90"]["nearest"], json!({"best": {"A": "2", "B": "256,4"}, "ms": 2.0}));
        assert!(refused);
    }
}
