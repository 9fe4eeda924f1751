//! Models that train in epochs: their curves, and trainings that are cut short and taken up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use serde_json::Value;

const SMALL: &[&str] =
    &["--backbone", "mobilenetv2_100", "--layers", "blocks.1,blocks.2", "--image-size", "64", "--data", "set/parts"];

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blemish"));
    command.args(args).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).env("HOME", folder);
    command.env_remove("BLEMISH_CACHE").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn train(folder: &Path, extra: &[&str]) -> Output {
    command(folder, &[&["train", "--json"], SMALL, extra].concat()).output().unwrap()
}

fn trained(folder: &Path, extra: &[&str]) -> (PathBuf, Value) {
    let output = train(folder, extra);
    assert!(output.status.success(), "{extra:?}: {}", text(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    (folder.join(value["results"].as_str().unwrap()), value)
}

fn parts(folder: &Path) {
    for i in 0..14u32 {
        let (name, hole) = match i {
            0..10 => (format!("train/good/{i}.png"), false),
            10..12 => (format!("test/good/{i}.png"), false),
            _ => (format!("test/hole/{i}.png"), true),
        };
        let picture = RgbImage::from_fn(72, 64, |x, y| {
            let v = ((x * 7 + y * 13 + i * 29) % 64 + 90) as u8;
            if hole && (30..50).contains(&x) && (20..40).contains(&y) { Rgb([0, 0, 0]) } else { Rgb([v, v + 9, v + 5]) }
        });
        let path = folder.join("set/parts").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    }
}

fn model(run: &Path) -> Vec<u8> {
    fs::read(run.join("model.safetensors")).unwrap()
}

/// Starts a long training and waits for its checkpoint after a few epochs.
fn started(folder: &Path, extra: &[&str], run: &str) -> Child {
    let mut child = command(folder, &[&["train"], SMALL, extra].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let curve = folder.join(run).join("curve.csv");
    let start = Instant::now();
    while fs::read_to_string(&curve).map_or(0, |t| t.lines().count()) < 4 {
        assert!(start.elapsed() < Duration::from_secs(120), "no epoch within two minutes");
        assert!(child.try_wait().unwrap().is_none(), "it is over already");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn curves_are_left_and_holes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    parts(folder.path());
    for (model, epochs) in [("cflow", 2), ("fastflow", 25)] {
        let count = epochs.to_string();
        let (run, value) = trained(folder.path(), &["--model", model, "--epochs", &count, "--quiet"]);
        let table = fs::read_to_string(run.join("curve.csv")).unwrap();
        assert!((2..=epochs + 1).contains(&table.lines().count()), "{table}");
        assert_eq!(value["epochs"].as_u64().unwrap() as usize, table.lines().count() - 1);
        assert!(fs::read_to_string(run.join("curve.svg")).unwrap().contains("<polyline"));
        let names: Vec<String> =
            fs::read_dir(&run).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|n| n.starts_with("events.out.tfevents.")), "{names:?}");
        assert!(!names.iter().any(|n| n.contains("checkpoint") || n.contains("lock")), "{names:?}");
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        assert!(config.contains(&format!("epochs = {epochs}")) && !config.contains("checkpoint"), "{config}");
        let file = run.join("model.safetensors");
        let output =
            command(folder.path(), &["test", "--data", "set/parts", "--json", "--model-file"]).arg(&file).output();
        let output = output.unwrap();
        let tested: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        assert_eq!(tested["image_auroc"], 1.0, "{model}: {tested}");
    }
}

#[test]
fn killed_and_resumed_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    parts(folder.path());
    for (kind, epochs) in [("cflow", "6"), ("fastflow", "40")] {
        let flags = ["--model", kind, "--epochs", epochs, "--set", "patience=null", "--quiet"];
        let (whole, _) = trained(folder.path(), &flags);
        // The folder follows the whole run's number.
        let second = whole.with_file_name("002");
        let relative = second.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        let mut child = started(folder.path(), &flags, &relative);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!second.join("model.safetensors").exists());
        // Another setting is not the same training.
        let output = train(folder.path(), &[flags.as_slice(), &["--resume", "--set", "clamp=1.5"]].concat());
        assert!(!output.status.success() && text(&output).contains("clamp"), "{}", text(&output));
        let (resumed, value) = trained(folder.path(), &[flags.as_slice(), &["--resume", "--threads", "1"]].concat());
        assert_eq!(resumed, second);
        assert_eq!(value["resumed"], true);
        assert!(model(&whole) == model(&resumed), "{kind}: the models differ");
        let curve = |run: &Path| -> Vec<String> {
            let table = fs::read_to_string(run.join("curve.csv")).unwrap();
            table.lines().map(|l| l.rsplit_once(',').unwrap().0.to_owned()).collect()
        };
        assert_eq!(curve(&whole), curve(&resumed));
    }
}

#[test]
#[cfg(unix)]
fn an_interruption_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    parts(folder.path());
    let flags = ["--model", "fastflow", "--epochs", "2000", "--set", "patience=null"];
    let run = "results/fastflow/set/parts/001";
    let child = started(folder.path(), &flags, run);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("--resume") && text(&output).contains("001"), "{}", text(&output));
    assert!(folder.path().join(run).join("checkpoint.safetensors").is_file());
}

#[test]
fn the_epoch_that_is_best_on_the_test_pictures() {
    let folder = tempfile::tempdir().unwrap();
    parts(folder.path());
    let flags = ["--model", "cflow", "--epochs", "3", "--best-on-test"];
    let output = train(folder.path(), &flags);
    assert!(output.status.success() && text(&output).contains("flatter"), "{}", text(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = folder.path().join(value["results"].as_str().unwrap());
    let table = fs::read_to_string(run.join("curve.csv")).unwrap();
    let judged: Vec<f64> = table.lines().skip(1).map(|line| line.split(',').nth(3).unwrap().parse().unwrap()).collect();
    let best = judged.iter().copied().fold(0.0, f64::max);
    // The model kept is the one that was judged best.
    let output = command(folder.path(), &["test", "--data", "set/parts", "--json", "--model-file"])
        .arg(run.join("model.safetensors"))
        .output()
        .unwrap();
    let tested: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(tested["image_auroc"].as_f64().unwrap(), best, "{judged:?}");
    let output = train(folder.path(), &["--model", "padim", "--best-on-test"]);
    assert!(!output.status.success() && text(&output).contains("epochs"), "{}", text(&output));
}

#[test]
fn nothing_to_resume() {
    let folder = tempfile::tempdir().unwrap();
    parts(folder.path());
    let flags = ["--model", "cflow", "--epochs", "1", "--resume"];
    let output = train(folder.path(), &flags);
    assert!(output.status.success() && text(&output).contains("starting anew"), "{}", text(&output));
    let output = train(folder.path(), &[flags.as_slice(), &["parts"]].concat());
    assert!(!output.status.success() && text(&output).contains("checkpoint"), "{}", text(&output));
    let output = train(folder.path(), &["--model", "padim", "--epochs", "3"]);
    assert!(!output.status.success() && text(&output).contains("epochs"), "{}", text(&output));
}
