//! `blemish train` and `blemish config`.

use anyhow::Context;
use blemish::core::{Progress, ThresholdSource};
use blemish::datasets::Protocol;
use blemish::results::{MODEL, Run};
use blemish::store::Store;
use blemish::{Config, Engine, Error, Model};
use serde_json::{Value, json};

use crate::args::{Args, DataArgs, Train};
use crate::{progress::Bars, say};

pub(crate) fn run(args: &Args, command: &Train, progress: &Bars) -> anyhow::Result<u8> {
    let mut config = config(args, command)?;
    let told = choose_weights(args, &mut config)?;
    if let Some(warning) = told {
        say::warn(&warning);
    }
    // Find out before an hour of work that there is no place for the result.
    probe(&config)?;
    let engine = Engine::new(&config)?;
    let trained = engine.train(&config, progress as &dyn Progress)?;
    for line in &trained.notes {
        // What was left out is told in any case.
        say::note(args.quiet && !line.starts_with("skipped"), &format!(" note   {line}"));
    }
    let dataset = &trained.dataset;
    let run = Run::new(&config.output, &config.model, &dataset.name, &dataset.category)?;
    let file = run.folder().join(MODEL);
    let saved = trained
        .model
        .save(&file)
        .and_then(|()| run.write("config.toml", config.to_toml()?.as_bytes()))
        .and_then(|_| run.set_latest());
    if let Err(error) = saved {
        run.discard();
        return Err(error.into());
    }
    let bytes = std::fs::metadata(&file).map_or(0, |m| m.len());
    let decision = &trained.model.decision;
    if args.json {
        let value = json!({
            "model": config.model,
            "category": dataset.category,
            "results": run.folder().display().to_string(),
            "model_file": file.display().to_string(),
            "model_bytes": bytes,
            "train_seconds": trained.time.as_secs_f64(),
            "train_images": trained.model.learnt_from.train,
            "threshold": decision.image.threshold,
            "threshold_source": decision.image_source,
            "notes": trained.notes,
        });
        say::out(&value.to_string())?;
    } else {
        say::out(&format!(
            " {}\n learnt from {} good pictures of {} in {:.1} s\n {}\n model  {} ({})",
            trained.model.summary(),
            trained.model.learnt_from.train,
            dataset.category,
            trained.time.as_secs_f64(),
            threshold(&trained.model),
            file.display(),
            say::size(bytes)
        ))?;
    }
    Ok(say::OK)
}

/// The threshold and where it came from, in words.
pub(crate) fn threshold(model: &Model) -> String {
    let decision = &model.decision;
    let from = match &decision.image_source {
        ThresholdSource::F1Max { good, bad, from_test } => {
            let test = if *from_test { " of the test set (flatters)" } else { "" };
            format!("best F1 on {good} good and {bad} bad pictures{test}")
        }
        // What a picture that was learnt from scores says little of new ones: no rate can be promised.
        ThresholdSource::Normal { good, .. } if model.learnt_from.val == 0 => {
            format!("the {good} training pictures themselves; too low, and no rate is promised")
        }
        ThresholdSource::Normal { good, false_reject_rate } => format!(
            "{good} good picture{} held out; {:.1} % of good parts expected above it",
            if *good == 1 { "" } else { "s" },
            false_reject_rate * 100.0
        ),
        ThresholdSource::Given => "given".to_owned(),
    };
    format!("threshold {:.4} (raw): {from}", decision.image.threshold)
}

/// Weights from the cache if none are given; a warning if there are none at all.
pub(crate) fn choose_weights(args: &Args, config: &mut Config) -> anyhow::Result<Option<String>> {
    let params = config.model_params()?;
    let Some(backbone) = params["backbone"].as_str().map(str::to_owned) else { return Ok(None) };
    if !params["weights"].is_null() {
        return Ok(None);
    }
    if let Some(path) = store(args).find(&backbone) {
        config.set("weights", json!(path))?;
        return Ok(None);
    }
    Ok(Some(format!(
        "warning: no weights for {backbone}: it runs untrained, which costs much of the accuracy on real parts.\n         \
         Get them with `blemish weights pull {backbone}`, or give a file with --weights."
    )))
}

pub(crate) fn store(args: &Args) -> Store {
    args.cache.clone().map_or_else(Store::platform, Store::new)
}

/// The configuration file, then the flags.
pub(crate) fn config(args: &Args, command: &Train) -> anyhow::Result<Config> {
    let mut config = base(args)?;
    if let Some(model) = &command.model {
        blemish::registry::find(model)?;
        config.model.clone_from(model);
    }
    blemish::registry::find(&config.model)?;
    data(&mut config, &command.data)?;
    let mut set = |key: &str, value: Option<Value>| -> anyhow::Result<()> {
        if let Some(value) = value {
            config.set(key, value)?;
        }
        Ok(())
    };
    set("backbone", command.backbone.as_ref().map(|v| json!(v)))?;
    set("layers", (!command.layers.is_empty()).then(|| json!(command.layers)))?;
    set("weights", command.weights.as_ref().map(|v| json!(v)))?;
    let stretch = |s: usize| json!({"stretch": {"height": s, "width": s}});
    set("preprocess.resize", command.image_size.map(stretch))?;
    set("preprocess.crop", command.center_crop.map(|c| json!([c, c])))?;
    set("mode", command.mode.as_ref().map(|v| json!(v)))?;
    set("coreset_ratio", command.coreset_ratio.map(|v| json!(v)))?;
    set("n_features", command.n_features.map(|v| json!(v)))?;
    set("false_reject_rate", command.false_reject_rate.map(|v| json!(v)))?;
    set("output", command.output.as_ref().map(|v| json!(v)))?;
    if command.skip_unreadable {
        set("skip_unreadable", Some(json!(true)))?;
    }
    for text in &command.set {
        let (key, value) = text.split_once('=').with_context(|| format!("'{text}' is not KEY=VALUE"))?;
        // Numbers, lists and tables as JSON; everything else is a word.
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        set(key, Some(value))?;
    }
    Ok(config)
}

/// The configuration file and the global flags.
pub(crate) fn base(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config.seed = args.seed.unwrap_or(config.seed);
    config.threads = args.threads.unwrap_or(config.threads);
    if let Some(device) = &args.device {
        config.device.clone_from(device);
    }
    Ok(config)
}

pub(crate) fn data(config: &mut Config, args: &DataArgs) -> anyhow::Result<()> {
    let spec = &mut config.data;
    let replace = |to: &mut Option<std::path::PathBuf>, from: &Option<std::path::PathBuf>| {
        if from.is_some() {
            to.clone_from(from);
        }
    };
    replace(&mut spec.data, &args.data);
    replace(&mut spec.masks, &args.masks);
    replace(&mut spec.manifest, &args.manifest);
    if args.category.is_some() {
        spec.category.clone_from(&args.category);
    }
    if !args.good.is_empty() {
        spec.good.clone_from(&args.good);
    }
    if !args.bad.is_empty() {
        spec.bad.clone_from(&args.bad);
    }
    spec.val_ratio = args.val_ratio.unwrap_or(spec.val_ratio);
    match args.protocol.as_deref() {
        None => {}
        Some("leak_free") => spec.protocol = Protocol::LeakFree,
        Some("paper") => spec.protocol = Protocol::Paper,
        Some(other) => return Err(Error::unknown("protocol", other, &["leak_free", "paper"]).into()),
    }
    Ok(())
}

/// Whether results can be written at all.
fn probe(config: &Config) -> Result<(), Error> {
    let folder = &config.output;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    tempfile::Builder::new().prefix(".blemish-").tempfile_in(folder).map(drop).map_err(Error::io(folder))
}

pub(crate) fn print_config(args: &Args, command: &Train) -> anyhow::Result<u8> {
    let config = config(args, command)?;
    if args.json {
        say::out(&Value::Object(config.complete()?).to_string())?;
    } else {
        say::out(&config.to_toml()?)?;
    }
    Ok(say::OK)
}
