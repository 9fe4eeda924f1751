//! `blemish train` and `blemish config`.

use anyhow::{Context, bail};
use blemish::core::{Progress, ThresholdSource};
use blemish::datasets::{Dataset, Protocol};
use blemish::engine::Pipeline;
use blemish::results::{CHECKPOINT, CURVE_PICTURE, Claim, MODEL, Recorder, Run};
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
    let engine = Engine::new(&config)?;
    let dataset = Dataset::open(&config.data, config.seed)?;
    // Find out before an hour of work that there is no place for the result.
    let claim = claim(args, command, &config, &dataset)?;
    let resumed = claim.resumable();
    let recorder = Recorder::new(claim.run(), progress as &dyn Progress);
    let trained = match engine.train_on(&with_checkpoint(&config, &claim)?, dataset, &recorder) {
        Ok(trained) => trained,
        Err(error) => {
            if claim.resumable() {
                say::warn(&format!(
                    "go on from where it stood: the same command with --resume {}",
                    claim.run().folder().display()
                ));
            }
            claim.discard();
            return Err(error.into());
        }
    };
    let epochs = recorder.finish()?;
    for line in &trained.notes {
        // What was left out is told in any case.
        say::note(args.quiet && !line.starts_with("skipped"), &format!(" note   {line}"));
    }
    let dataset = &trained.dataset;
    let run = claim.run().clone();
    let file = run.folder().join(MODEL);
    let saved = trained
        .model
        .save(&file)
        .and_then(|()| run.write("config.toml", config.to_toml()?.as_bytes()))
        .and_then(|_| run.set_latest());
    if let Err(error) = saved {
        claim.discard();
        return Err(error.into());
    }
    claim.finish();
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
            "epochs": epochs.len(),
            "resumed": resumed,
            "notes": trained.notes,
        });
        say::out(&value.to_string())?;
    } else {
        let picture = run.folder().join(CURVE_PICTURE);
        let curve = if epochs.is_empty() { String::new() } else { format!(" curve  {}\n", picture.display()) };
        say::out(&format!(
            " {}\n learnt from {} good pictures of {} in {:.1} s\n {}\n{} model  {} ({})",
            trained.model.summary(),
            trained.model.learnt_from.train,
            dataset.category,
            trained.time.as_secs_f64(),
            threshold(&trained.model),
            curve,
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
        ThresholdSource::Training { good } => {
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
    set("precision", command.precision.as_ref().map(|v| json!(v)))?;
    set("flow_precision", command.flow_precision.as_ref().map(|v| json!(v)))?;
    let stretch = |s: usize| json!({"stretch": {"height": s, "width": s}});
    set("preprocess.resize", command.image_size.map(stretch))?;
    set("preprocess.crop", command.center_crop.map(|c| json!([c, c])))?;
    set("mode", command.mode.as_ref().map(|v| json!(v)))?;
    set("coreset_ratio", command.coreset_ratio.map(|v| json!(v)))?;
    set("bank", command.bank.as_ref().map(|v| json!(v)))?;
    set("epochs", command.epochs.map(|v| json!(v)))?;
    set("n_features", command.n_features.map(|v| json!(v)))?;
    set("false_reject_rate", command.false_reject_rate.map(|v| json!(v)))?;
    set("output", command.output.as_ref().map(|v| json!(v)))?;
    if command.best_on_test {
        set("best_on_test", Some(json!(true)))?;
    }
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
    if let Some(pipeline) = &args.pipeline {
        config.pipeline = match pipeline.as_str() {
            "latency" => Pipeline::Latency,
            "throughput" => Pipeline::Throughput,
            other => return Err(Error::unknown("pipeline", other, &["latency", "throughput"]).into()),
        };
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

/// The folder of this run: a new one, or that of a training that was interrupted.
fn claim(args: &Args, command: &Train, config: &Config, dataset: &Dataset) -> anyhow::Result<Claim> {
    if let Some(folder) = &command.resume {
        let claim = match folder {
            None => Claim::unfinished(&config.output, &config.model, &dataset.name, &dataset.category)?,
            Some(folder) if folder.join(CHECKPOINT).is_file() => Some(Claim::new(Run::at(folder))?),
            Some(folder) => bail!("{}: there is no {CHECKPOINT} here to go on from", folder.display()),
        };
        if let Some(claim) = claim {
            say::note(args.quiet, &format!(" resume {}", claim.run().folder().display()));
            return Ok(claim);
        }
        say::note(args.quiet, " note   no interrupted training to go on from: starting anew");
    }
    Ok(Claim::new(Run::new(&config.output, &config.model, &dataset.name, &dataset.category)?)?)
}

/// The settings with the run's checkpoint, if the model trains in epochs and the user names no other.
fn with_checkpoint(config: &Config, claim: &Claim) -> anyhow::Result<Config> {
    let (mut config, params) = (config.clone(), config.model_params()?);
    let trains = params.get("checkpoint").is_some();
    if trains && params["checkpoint"].is_null() {
        config.set("checkpoint", json!(claim.checkpoint()))?;
        config.set("resume", json!(claim.resumable()))?;
    }
    Ok(config)
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
