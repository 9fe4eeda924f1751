//! `cargo xtask bench --tables`: the comparison the field knows, through the program a user has.
//!
//! For each category and model: image and pixel AUROC, AUPRO, training time and time a picture; anomalib's beside them, in
//! the same run, where a Python with it is found. All good training pictures train (`--protocol paper`), as in published
//! tables: areas under curves need no threshold, so nothing of the test set is learnt.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::table::render;
use super::{machine, seconds_since_1970};
use crate::demo::{self, number};
use crate::{needs, shell};

/// Data that may lie beside the repository, and what is looked for in it first.
const BESIDE: &str = "../shared/data/mvtec";
const FIRST: [&str; 2] = ["screw", "carpet"];
/// Where the demo set goes, and where the tables do.
const DEMO: &str = "datasets/demo";
const OUT: &str = "results";
const PEER: &str = "benches/peers/anomalib_tables.py";
/// The share of patches anomalib keeps, whose greedy loop takes an hour at the usual tenth.
const PEER_RATIO: &str = "0.01";

struct Options {
    data: Option<PathBuf>,
    categories: Vec<String>,
    models: Vec<String>,
    backbone: Option<String>,
    weights: Option<PathBuf>,
    layers: Vec<(Option<String>, String)>,
    settings: Vec<String>,
    peer: bool,
    python: Option<String>,
    json: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut args = args.to_vec();
        let layers = shell::options(&mut args, "--layers")?.into_iter().map(|text| match text.split_once('=') {
            Some((model, layers)) => (Some(model.to_owned()), layers.to_owned()),
            None => (None, text),
        });
        let options = Options {
            layers: layers.collect(),
            data: shell::option(&mut args, "--data")?.map(PathBuf::from),
            categories: shell::options(&mut args, "--category")?,
            models: shell::options(&mut args, "--model")?,
            backbone: shell::option(&mut args, "--backbone")?,
            weights: shell::option(&mut args, "--weights")?
                .map(std::path::absolute)
                .transpose()
                .context("no such path")?,
            settings: shell::options(&mut args, "--set")?,
            peer: shell::flag(&mut args, "--peer"),
            python: shell::option(&mut args, "--python")?,
            json: shell::flag(&mut args, "--json"),
        };
        shell::nothing_left("bench --tables", &args)?;
        if let Some(bad) = options.settings.iter().find(|s| !s.contains('.') || !s.contains('=')) {
            bail!("--set takes MODEL.KEY=VALUE, not '{bad}'");
        }
        Ok(options)
    }

    /// The layers for a model: those named for it, else those for all.
    fn layers(&self, model: &str) -> Option<&str> {
        let of = |wanted: Option<&str>| self.layers.iter().find(|(m, _)| m.as_deref() == wanted);
        of(Some(model)).or(of(None)).map(|(_, layers)| layers.as_str())
    }

    /// What `blemish train` gets for a model beside the data.
    fn train(&self, model: &str) -> Vec<String> {
        let mut words = vec!["train".to_owned(), "--model".into(), model.into(), "--protocol".into(), "paper".into()];
        let mut add = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        match &self.backbone {
            Some(backbone) => add("--backbone", backbone),
            None => add("--backbone", "resnet18"),
        }
        if let Some(layers) = self.layers(model) {
            add("--layers", layers);
        }
        if let Some(weights) = &self.weights {
            add("--weights", &weights.to_string_lossy());
        }
        let own = |s: &&String| s.split('.').next() == Some(model);
        self.settings.iter().filter(own).for_each(|s| add("--set", s));
        words
    }
}

/// One line of the table.
struct Row {
    who: String,
    category: String,
    image_auroc: f64,
    pixel_auroc: f64,
    aupro: Option<f64>,
    train_seconds: f64,
    ms: f64,
}

impl Row {
    fn to_json(&self) -> Value {
        json!({"model": self.who, "category": self.category, "image_auroc": self.image_auroc,
            "pixel_auroc": self.pixel_auroc, "aupro": self.aupro, "train_seconds": self.train_seconds,
            "ms_per_image": self.ms})
    }
}

pub(super) fn run(args: &[String]) -> Result<bool> {
    let options = Options::parse(args)?;
    let root = shell::root()?;
    needs::ensure(options.json)?;
    let program = demo::build(&root, options.json)?;
    let call = |args: &[String]| -> Result<Value> {
        let out = shell::output(Command::new(&program).args(args).arg("--json").arg("--quiet").current_dir(&root))?;
        demo::object(&out)
    };
    let models = models(&options, &call)?;
    let (data, categories) = data(&root, &options, &call)?;
    let python = if options.peer { python(&options)? } else { None };
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for category in &categories {
        for model in &models {
            shell_step(&options, &format!("{model} on {category}"));
            match ours(&options, &call, model, &data, category) {
                Ok(row) => rows.push(row),
                Err(error) => faults.push(format!("{model} on {category}: {error:#}")),
            }
            // What took so long is not lost if the run is stopped.
            write(&root, "tables.md", &text(&options, &rows))?;
            let Some(python) = &python else { continue };
            shell_step(&options, &format!("anomalib's {model} on {category}"));
            match theirs(&options, &root, python, model, &data.join(category)) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => {}
                Err(error) => faults.push(format!("anomalib's {model} on {category}: {error:#}")),
            }
        }
    }
    let value = json!({
        "machine": machine(),
        "seconds_since_1970": seconds_since_1970(),
        "data": data.display().to_string(),
        "backbone": options.backbone.as_deref().unwrap_or("resnet18"),
        "weights": options.weights.as_ref().and_then(|w| w.file_name()).map(|w| w.to_string_lossy()),
        "layers": models.iter().map(|m| json!([m, options.layers(m)])).collect::<Vec<_>>(),
        "settings": options.settings,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        "failed": faults,
    });
    let text = text(&options, &rows);
    write(&root, "tables.json", &format!("{value:#}\n"))?;
    write(&root, "tables.md", &text)?;
    if options.json {
        println!("{value:#}");
    } else {
        println!("\n{text}");
        shell::step("tables", &format!("{OUT}/tables.md and {OUT}/tables.json"));
    }
    for fault in &faults {
        eprintln!("FAILED: {fault}");
    }
    Ok(faults.is_empty() && !rows.is_empty())
}

fn shell_step(options: &Options, text: &str) {
    if !options.json {
        shell::step("run", text);
    }
}

fn text(options: &Options, rows: &[Row]) -> String {
    format!("{}, weights: {}\n\n{}", machine(), weights(options), markdown(rows))
}

fn weights(options: &Options) -> String {
    let network = options.backbone.as_deref().unwrap_or("resnet18");
    match &options.weights {
        Some(_) => format!("{network}, from the file given"),
        None => format!("{network}, whatever the program finds for it (else untrained: areas then mean little)"),
    }
}

/// The models asked for, or all that the program has.
fn models(options: &Options, call: &dyn Fn(&[String]) -> Result<Value>) -> Result<Vec<String>> {
    let known = call(&["doctor".to_owned()])?;
    let known: Vec<String> =
        known["models"].as_array().into_iter().flatten().filter_map(|m| m.as_str().map(str::to_owned)).collect();
    if let Some(bad) = options.models.iter().find(|m| !known.contains(m)) {
        bail!("there is no model '{bad}'\n       models: {}", known.join(", "));
    }
    Ok(if options.models.is_empty() { known } else { options.models.clone() })
}

/// The folder of categories and those to run; makes the demo set if there is no other.
fn data(root: &Path, options: &Options, call: &dyn Fn(&[String]) -> Result<Value>) -> Result<(PathBuf, Vec<String>)> {
    let beside = root.join(BESIDE);
    let folder = match &options.data {
        Some(folder) => std::path::absolute(folder).context("no such folder")?,
        None if beside.is_dir() => beside,
        None => {
            let demo = root.join(DEMO);
            if !demo.is_dir() {
                call(&["data", "demo", "--out", DEMO].map(str::to_owned))?;
            }
            demo
        }
    };
    let categories = choose(&options.categories, &categories(&folder)?);
    if categories.is_empty() {
        bail!("{} has no folder with train and test in it", folder.display());
    }
    Ok((folder, categories))
}

fn categories(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let found = entries.flatten().map(|e| e.path()).filter(|p| p.join("train").is_dir() && p.join("test").is_dir());
    let mut names: Vec<String> = found.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// Those asked for; else Screw and Carpet as far as they are there; else all.
fn choose(asked: &[String], present: &[String]) -> Vec<String> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    let first: Vec<String> = present.iter().filter(|p| FIRST.contains(&p.as_str())).cloned().collect();
    if first.is_empty() { present.to_vec() } else { first }
}

fn ours(
    options: &Options,
    call: &dyn Fn(&[String]) -> Result<Value>,
    model: &str,
    data: &Path,
    category: &str,
) -> Result<Row> {
    let place = ["--data", &data.to_string_lossy(), "--category", category].map(str::to_owned);
    let trained = call(&[options.train(model), place.to_vec()].concat())?;
    let results = trained["results"].as_str().context("`blemish train --json` names no results")?;
    let file = format!("{}/model.safetensors", results.trim_end_matches('/'));
    let test = ["test", "--model-file", &file].map(str::to_owned);
    let tested = call(&[&test[..], &place].concat())?;
    Ok(Row {
        who: model.to_owned(),
        category: category.to_owned(),
        image_auroc: number(&tested, "image_auroc")?,
        pixel_auroc: number(&tested, "pixel_auroc")?,
        aupro: tested["aupro"].as_f64(),
        train_seconds: number(&trained, "train_seconds")?,
        ms: number(&tested, "latency_p50_ms")?,
    })
}

/// A Python that has anomalib.
fn python(options: &Options) -> Result<Option<String>> {
    let has = |python: &String| shell::output(Command::new(python).args(["-c", "import anomalib"])).is_ok();
    match &options.python {
        Some(python) if has(python) => Ok(Some(python.clone())),
        Some(python) => bail!("{python} has no anomalib"),
        None => {
            let found = ["python3", "python"].map(str::to_owned).into_iter().find(has);
            if found.is_none() {
                eprintln!("SKIPPED: anomalib. No Python in the PATH has it; --python names one.");
            }
            Ok(found)
        }
    }
}

/// anomalib's figures; none for a model that the script does not know.
fn theirs(options: &Options, root: &Path, python: &str, model: &str, category: &Path) -> Result<Option<Row>> {
    let mut command = Command::new(python);
    command.arg(root.join(PEER)).arg(model).arg(category);
    command.args(["--backbone", options.backbone.as_deref().unwrap_or("resnet18")]);
    if let Some(layers) = options.layers(model) {
        command.args(["--layers", layers]);
    }
    if let Some(weights) = &options.weights {
        command.arg("--weights").arg(weights);
    }
    let ratio = options.settings.iter().find_map(|s| s.strip_prefix("patchcore.coreset_ratio="));
    command.args(["--coreset-ratio", ratio.unwrap_or(PEER_RATIO)]);
    let said = demo::object(&shell::output(&mut command)?)?;
    if said["unknown"] == true {
        return Ok(None);
    }
    Ok(Some(Row {
        who: format!("anomalib {}", said["name"].as_str().unwrap_or(model)),
        category: category.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        image_auroc: number(&said, "image_auroc")?,
        pixel_auroc: number(&said, "pixel_auroc")?,
        aupro: None,
        train_seconds: number(&said, "train_seconds")?,
        ms: number(&said, "latency_p50_ms")?,
    }))
}

fn markdown(rows: &[Row]) -> String {
    let head = ["model", "category", "image AUROC", "pixel AUROC", "AUPRO", "training, s", "ms an image"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        table.push(vec![
            row.who.clone(),
            row.category.clone(),
            format!("{:.4}", row.image_auroc),
            format!("{:.4}", row.pixel_auroc),
            row.aupro.map_or(String::new(), |a| format!("{a:.4}")),
            format!("{:.1}", row.train_seconds),
            format!("{:.1}", row.ms),
        ]);
    }
    render(&table)
}

fn write(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(OUT).join(name);
    std::fs::create_dir_all(root.join(OUT)).context("cannot make the folder of results")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn layers_and_settings_go_to_their_model() {
        let options = parse(
            "--backbone b --layers x,y --layers patchcore=z --set patchcore.coreset_ratio=0.01 --set padim.epsilon=1",
        )
        .unwrap();
        assert_eq!((options.layers("padim"), options.layers("patchcore")), (Some("x,y"), Some("z")));
        let words = options.train("patchcore").join(" ");
        assert!(words.contains("--layers z --set patchcore.coreset_ratio=0.01"), "{words}");
        assert!(words.contains("--backbone b") && !words.contains("epsilon"), "{words}");
        assert!(parse("--set ratio=1").is_err() && parse("--kernel conv").is_err());
    }

    #[test]
    fn screw_and_carpet_come_first_and_all_where_they_are_not() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(choose(&[], &names(&["bottle", "carpet", "screw"])), ["carpet", "screw"]);
        assert_eq!(choose(&[], &names(&["bolt", "weave"])), ["bolt", "weave"]);
        assert_eq!(choose(&names(&["tile"]), &names(&["screw"])), ["tile"]);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let row = Row {
            who: "padim".into(),
            category: "screw".into(),
            image_auroc: 0.75,
            pixel_auroc: 0.96,
            aupro: None,
            train_seconds: 3.21,
            ms: 11.84,
        };
        let text = markdown(&[row]);
        let cells: Vec<&str> = text.lines().nth(2).unwrap().trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["padim", "screw", "0.7500", "0.9600", "", "3.2", "11.8"]);
    }
}
