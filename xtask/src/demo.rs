//! `cargo xtask demo`: the main job from nothing, through the program a user has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{needs, shell};

/// What the demo trains; picked by measuring which backbone and layers do best on the demo set without weights.
const BACKBONE: &str = "resnet18";
const LAYERS: &str = "layer1,layer2";
const MODELS: [&str; 2] = ["padim", "patchcore"];
/// The models that train in epochs, with layers and epochs that suit the demo set; with `--all`.
const TRAINED: [(&str, &str, &[&str]); 2] =
    [("cflow", LAYERS, &["--epochs", "4"]), ("fastflow", "layer1,layer2,layer3", &["--epochs", "15"])];
const CATEGORIES: [&str; 2] = ["weave", "bolt"];
/// Where the demo set goes.
const DATA: &str = "datasets/demo";

/// What one model did on one category, as the program reports it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    model: String,
    category: String,
    image_auroc: f64,
    pixel_auroc: f64,
    aupro: f64,
    train: Duration,
    p50_ms: f64,
    p99_ms: f64,
    results: String,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let mut args = args.to_vec();
    let keep = shell::flag(&mut args, "--keep");
    let quiet = shell::flag(&mut args, "--quiet");
    let all = shell::flag(&mut args, "--all");
    shell::nothing_left("demo", &args)?;
    let root = shell::root()?;
    needs::ensure(quiet)?;
    let program = build(&root, quiet)?;
    let start = Instant::now();
    let demo = Demo { root, program, quiet };
    demo.write_data(keep)?;
    let mut rows = Vec::new();
    for category in CATEGORIES {
        let trained = if all { TRAINED.as_slice() } else { &[] };
        for (model, layers, more) in MODELS.map(|model| (model, LAYERS, [].as_slice())).iter().chain(trained) {
            rows.push(demo.train_and_test(model, layers, more, category)?);
        }
    }
    print!("\n{}", table(&rows));
    if let Some(best) = rows.last() {
        println!();
        shell::step("look at", &format!("{}/ (pictures/, predictions.csv, metrics.json)", best.results));
        shell::step("next", "blemish train --model patchcore --data YOUR_FOLDER");
    }
    if !quiet {
        shell::step("time", &format!("{} after the build", shell::seconds(start.elapsed())));
        shell::step("program", &demo.program.display().to_string());
    }
    Ok(true)
}

/// Builds the program in release; its path.
pub(crate) fn build(root: &Path, quiet: bool) -> Result<PathBuf> {
    let start = Instant::now();
    let mut command = shell::cargo(root);
    command.args(["build", "--release", "--package", "blemish-cli"]);
    if quiet {
        command.arg("--quiet");
    }
    if !shell::passes(&mut command)? {
        bail!("the program does not build; what cargo says stands above");
    }
    let name = format!("blemish{}", std::env::consts::EXE_SUFFIX);
    let program = shell::target_dir(root)?.join("release").join(name);
    let bytes = program.metadata().with_context(|| format!("{} was not built", program.display()))?.len();
    if !quiet {
        let time = shell::seconds(start.elapsed());
        shell::step("build", &format!("blemish (release) … ok, {:.0} MB, {time}", bytes as f64 / 1e6));
    }
    Ok(program)
}

struct Demo {
    root: PathBuf,
    program: PathBuf,
    quiet: bool,
}

impl Demo {
    fn write_data(&self, keep: bool) -> Result<()> {
        let present = CATEGORIES.iter().all(|c| self.root.join(DATA).join(c).is_dir());
        if !(keep && present) {
            self.call(&["data", "demo", "--out", DATA])?;
        }
        if !self.quiet {
            let counts = CATEGORIES.map(|c| self.counts(c));
            shell::step("data", &format!("demo set: {} → {DATA}", counts.join(", ")));
        }
        Ok(())
    }

    /// `weave (60 good / 40 test)`.
    fn counts(&self, category: &str) -> String {
        let folder = self.root.join(DATA).join(category);
        format!("{category} ({} good / {} test)", files(&folder.join("train")), files(&folder.join("test")))
    }

    fn train_and_test(&self, model: &str, layers: &str, more: &[&str], category: &str) -> Result<Row> {
        let flags = ["--data", DATA, "--category", category, "--json"];
        let train = ["train", "--model", model, "--backbone", BACKBONE, "--layers", layers];
        let trained = object(&self.call(&[&train, more, flags.as_slice()].concat())?)?;
        let folder = trained["results"].as_str().context("`blemish train --json` names no results")?;
        let file = format!("{folder}/model.safetensors");
        let size = std::fs::metadata(self.root.join(&file)).map_or(0, |m| m.len());
        if !self.quiet {
            let time = number(&trained, "train_seconds")?;
            shell::step("train", &format!("{model:<10} {category:<6} {time:.1} s   model {:.1} MB", size as f64 / 1e6));
        }
        let test = ["test", "--model-file", &file];
        let tested = object(&self.call(&[&test, flags.as_slice()].concat())?)?;
        Row::new(model, category, &trained, &tested)
    }

    /// Runs the program; what it printed. Its progress goes to this terminal.
    fn call(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if self.quiet { Stdio::null() } else { Stdio::inherit() });
        let out = command.output().with_context(|| format!("cannot start {}", self.program.display()))?;
        if !out.status.success() {
            bail!("`blemish {}` failed ({})", args.join(" "), out.status);
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// Files at any depth below `folder`.
fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 }).sum()
}

/// The last JSON object the program printed.
pub(crate) fn object(text: &str) -> Result<Value> {
    let start = text.find('{').context("the program printed no JSON object")?;
    let value = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>().last();
    value.context("the program printed no JSON object")?.context("the program's JSON")
}

pub(crate) fn number(value: &Value, field: &str) -> Result<f64> {
    value[field].as_f64().with_context(|| format!("the program's JSON has no number '{field}'"))
}

impl Row {
    fn new(model: &str, category: &str, trained: &Value, tested: &Value) -> Result<Row> {
        let results = tested["results"].as_str().or(trained["results"].as_str()).unwrap_or("results");
        Ok(Row {
            model: model.to_owned(),
            category: category.to_owned(),
            image_auroc: number(tested, "image_auroc")?,
            pixel_auroc: number(tested, "pixel_auroc")?,
            aupro: number(tested, "aupro")?,
            train: Duration::from_secs_f64(number(trained, "train_seconds")?.max(0.0)),
            p50_ms: number(tested, "latency_p50_ms")?,
            p99_ms: number(tested, "latency_p99_ms")?,
            results: results.trim_end_matches('/').to_owned(),
        })
    }
}

/// The result table.
fn table(rows: &[Row]) -> String {
    let mut text = format!(
        " {:<10} {:<8} {:>11} {:>13} {:>7} {:>9}   per image (p50/p99)\n",
        "", "", "image AUROC", "pixel AUROC", "AUPRO", "train"
    );
    for row in rows {
        text += &format!(
            " {:<10} {:<8} {:>11.3} {:>13.3} {:>7.3} {:>9}   {:.1} / {:.1} ms\n",
            row.model,
            row.category,
            row.image_auroc,
            row.pixel_auroc,
            row.aupro,
            shell::seconds(row.train),
            row.p50_ms,
            row.p99_ms
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trained() -> Value {
        json!({"train_seconds": 3.1, "results": "results/padim/demo/weave/1/"})
    }

    #[test]
    fn a_row_takes_its_numbers_from_both_reports() {
        let tested = json!({"image_auroc": 0.981, "pixel_auroc": 0.972, "aupro": 0.913, "latency_p50_ms": 11.84,
            "latency_p99_ms": 14.0});
        let row = Row::new("padim", "weave", &trained(), &tested).unwrap();
        assert_eq!(row.results, "results/padim/demo/weave/1");
        let text = table(&[row]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["padim", "weave", "0.981", "0.972", "0.913", "3.1", "s", "11.8", "/", "14.0", "ms"]);
    }

    #[test]
    fn a_missing_number_is_named() {
        let tested = json!({"image_auroc": 0.9, "pixel_auroc": null});
        let error = Row::new("padim", "weave", &trained(), &tested).unwrap_err();
        assert!(error.to_string().contains("pixel_auroc"), "{error}");
    }

    #[test]
    fn the_last_object_counts() {
        assert_eq!(object("{\"a\": 1}\n{\"a\": 2}\n").unwrap()["a"], 2);
        assert!(object("nothing").is_err());
        assert!(object("{\"a\": ").is_err());
    }
}
