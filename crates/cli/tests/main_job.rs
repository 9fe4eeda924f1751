//! The main job from end to end, as a user does it: train, test, predict, measure; what is left behind and with what exit
//! code.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};
use serde_json::Value;

/// Arguments that make training take a moment: a small network on small pictures.
const SMALL: &[&str] = &["--backbone", "mobilenetv2_100", "--layers", "blocks.1", "--image-size", "64"];

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blemish"));
    command.args(args).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).env("HOME", folder);
    command.env_remove("BLEMISH_CACHE");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn all(output: &Output) -> String {
    format!("{}{}", out(output), String::from_utf8_lossy(&output.stderr))
}

/// Stdout of a command that must end with `code`.
fn expect(folder: &Path, args: &[&str], code: i32) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", all(&output));
    out(&output)
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let text = expect(folder, args, 0);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

fn picture(seed: u32, hole: bool) -> RgbImage {
    RgbImage::from_fn(96, 80, |x, y| {
        let v = (x * 7 + y * 13 + seed * 29) % 64 + 90;
        let dark = hole && (30..50).contains(&x) && (20..40).contains(&y);
        if dark { Rgb([0, 0, 0]) } else { Rgb([v as u8, (v + x % 16) as u8, (v + y % 16) as u8]) }
    })
}

fn save(path: &Path, picture: &RgbImage) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(path).unwrap();
}

/// 24 good pictures to learn from, 4 good ones and 4 with a hole and its mask to test, and one that is none.
fn data_set(root: &Path) {
    for i in 0..24 {
        save(&root.join(format!("train/good/{i:03}.png")), &picture(i, false));
    }
    for i in 0..4 {
        save(&root.join(format!("test/good/{i:03}.png")), &picture(100 + i, false));
        save(&root.join(format!("test/hole/{i:03}.png")), &picture(200 + i, true));
        let mask = image::GrayImage::from_fn(96, 80, |x, y| {
            image::Luma([if (30..50).contains(&x) && (20..40).contains(&y) { 255 } else { 0 }])
        });
        let at = root.join(format!("ground_truth/hole/{i:03}_mask.png"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        mask.save(at).unwrap();
    }
}

fn train(folder: &Path, extra: &[&str]) -> Value {
    json(folder, &[&["train", "--data", "parts", "--json", "--quiet"], SMALL, extra].concat())
}

fn path(folder: &Path, value: &Value) -> PathBuf {
    folder.join(value.as_str().unwrap())
}

#[test]
fn train_test_predict() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    for model in ["padim", "patchcore"] {
        let trained = train(f, &["--model", model]);
        let run_folder = path(f, &trained["results"]);
        assert_eq!(run_folder.file_name().unwrap(), "001");
        let latest = run_folder.with_file_name("latest").join("model.safetensors");
        let latest = latest.to_str().unwrap();

        // The model by way of `latest`, twice: the first test belongs to the run, the second is one of its own, and
        // `latest` still leads to the model afterwards.
        let tested = json(f, &["test", "--model-file", latest, "--data", "parts", "--json"]);
        assert_eq!(tested["image_auroc"], 1.0, "{tested}");
        assert!(tested["pixel_auroc"].as_f64().unwrap() > 0.9, "{tested}");
        let report = &tested["report"];
        for key in ["average_precision", "f1_max", "f1_max_threshold", "aupro", "aupro_05"] {
            assert!(report["pixel"][key].is_f64(), "{key}: {report}");
        }
        assert_eq!(report["true_positives"], 4, "{report}");
        let first = fs::read(run_folder.join("metrics.json")).unwrap();
        let again = json(f, &["test", "--model-file", latest, "--data", "parts", "--json"]);
        assert_eq!(path(f, &again["results"]).file_name().unwrap(), "002");
        assert_eq!(fs::read(run_folder.join("metrics.json")).unwrap(), first, "an earlier run is never overwritten");

        let pictures = fs::read_dir(run_folder.join("pictures")).unwrap().count();
        assert_eq!(pictures, 8);
        let lines = fs::read_to_string(run_folder.join("predictions.jsonl")).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 8);
        for line in &lines {
            let (score, raw) = (line["score"].as_f64().unwrap(), line["raw"].as_f64().unwrap());
            let defect = raw >= line["threshold"].as_f64().unwrap();
            assert_eq!(line["verdict"] == "defect", defect, "{line}");
            assert_eq!(score >= 0.5, defect, "{line}");
        }

        let text = expect(f, &["predict", "--model-file", latest, "parts/test/hole"], 0);
        assert_eq!(text.matches("DEFECT").count(), 4, "{text}");
        assert!(text.contains("4 images, 4 defects") && text.contains("threshold") && text.contains("peak"), "{text}");
        expect(f, &["predict", "--model-file", latest, "--image-path", "parts/test/hole", "--fail-on-defect"], 4);
        // The hole is found where it is, in pixels of the picture and not of the network input.
        let line = expect(f, &["predict", "--model-file", latest, "parts/test/hole/000.png", "--json"], 0);
        let region = &serde_json::from_str::<Value>(&line).unwrap()["regions"][0];
        let (x, y) = (region["peak_x"].as_u64().unwrap(), region["peak_y"].as_u64().unwrap());
        assert!((20..60).contains(&x) && (10..50).contains(&y), "{region}");
        expect(f, &["inspect", latest], 0);
    }
}

#[test]
fn the_same_bits_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    for model in ["padim", "patchcore"] {
        let trained = ["1", "2", "7"].map(|n| path(f, &train(f, &["--model", model, "--threads", n])["model_file"]));
        let bits = trained.clone().map(|file| fs::read(file).unwrap());
        assert!(bits[0] == bits[1] && bits[0] == bits[2], "{model}");
        let file = trained[0].to_str().unwrap();
        let say = |n: &str| expect(f, &["predict", "--model-file", file, "parts/test", "--json", "--threads", n], 0);
        assert_eq!(say("1"), say("5"), "{model}");
    }
}

#[test]
fn a_saved_configuration_gives_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let first = train(f, &["--model", "patchcore", "--coreset-ratio", "0.05", "--seed", "7"]);
    let config = path(f, &first["results"]).join("config.toml");
    let config = config.to_str().unwrap();
    let second = json(f, &["train", "--config", config, "--json", "--quiet"]);
    assert_ne!(first["model_file"], second["model_file"]);
    let read = |v: &Value| fs::read(path(f, &v["model_file"])).unwrap();
    assert!(read(&first) == read(&second), "the bits differ");
    let shown = json(f, &["config", "--config", config, "--coreset-ratio", "0.2", "--json"]);
    assert_eq!((&shown["seed"], &shown["patchcore"]["coreset_ratio"]), (&7.into(), &0.2.into()), "flags win: {shown}");
}

#[test]
fn thresholds_say_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let say = |extra: &[&str]| all(&run(f, &[&["train", "--data", "parts"], SMALL, extra].concat()));
    assert!(say(&[]).contains("held out; "));
    let none = say(&["--val-ratio", "0"]);
    assert!(none.contains("training pictures themselves") && !none.contains("pictures held out"), "{none}");
    let paper = say(&["--protocol", "paper"]);
    assert!(paper.contains("of the test set (flatters)"), "{paper}");
    // The protocol asks for test pictures and there are none: it must not claim to have used them.
    fs::remove_dir_all(f.join("parts/test")).unwrap();
    fs::remove_dir_all(f.join("parts/ground_truth")).unwrap();
    let without = say(&["--protocol", "paper"]);
    assert!(without.contains("training pictures themselves"), "{without}");
    assert!(!without.contains("of the test set") && !without.contains("were found on the test"), "{without}");
}

#[test]
fn settings_out_of_range_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    for extra in [["--false-reject-rate", "2"], ["--threads", "1000000"]] {
        let output = run(f, &[&["train", "--data", "parts"], SMALL, &extra].concat());
        let said = all(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("possible") && !said.contains("learnt from"), "{said}");
    }
}

#[test]
fn labels_and_names_never_collide_or_leave_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let model = train(f, &[])["model_file"].as_str().unwrap().to_owned();
    let mut list = "path,label,split\n".to_owned();
    for i in 0..4 {
        list += &format!("parts/train/good/{i:03}.png,good,train\n");
    }
    // The same name in two folders, a label that climbs, and an unreadable picture whose path has a colon.
    for (i, (place, label)) in [("a", "good"), ("b", "good"), ("c", "../../../../../escaped")].iter().enumerate() {
        save(&f.join(place).join("1.png"), &picture(i as u32, false));
        list += &format!("{place}/1.png,{label},test\n");
    }
    fs::create_dir(f.join("d: e")).unwrap();
    fs::write(f.join("d: e/2.png"), "no picture").unwrap();
    list += "d: e/2.png,scratch,test\n";
    fs::write(f.join("list.csv"), list).unwrap();
    let output = run(f, &["test", "--model-file", &model, "--manifest", "list.csv", "--output", "out", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
    let tested: Value = serde_json::from_str(&out(&output)).unwrap();
    let folder = path(f, &tested["results"]);
    assert_eq!(fs::read_dir(folder.join("pictures")).unwrap().count(), 3);
    assert_eq!(escaped(f), Vec::<PathBuf>::new());
    let lines = fs::read_to_string(folder.join("predictions.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[3]["path"].as_str().unwrap().ends_with("d: e/2.png"), "{}", lines[3]);
    assert_eq!((&lines[3]["kind"], &lines[3]["verdict"]), (&"scratch".into(), &"skipped".into()));
}

/// Pictures of that name that are not in a `pictures` folder.
fn escaped(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() && path.file_name().is_some_and(|n| n != "pictures") {
            found.extend(escaped(&path));
        } else if path.is_file() && entry.file_name().to_string_lossy().contains("escaped") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_list_on_stdin_goes_on_without_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let model = train(f, &[])["model_file"].as_str().unwrap().to_owned();
    let mut child = command(f, &["predict", "--model-file", &model, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"parts/test/good/001.png\ngone.png\n\nparts/test/hole/000.png\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = all(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let place = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what} is not in {said}"));
    assert!(place("good/001.png") < place("gone.png") && place("gone.png") < place("hole/000.png"), "{said}");
    assert!(said.contains("3 images") && said.contains("1 skipped") && said.contains("exit code 3"), "{said}");
}

#[test]
fn saved_predictions_and_speed() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let model = train(f, &[])["model_file"].as_str().unwrap().to_owned();
    expect(f, &["predict", "--model-file", &model, "parts/test", "--save", "seen"], 0);
    let names: Vec<String> =
        fs::read_dir(f.join("seen")).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.iter().filter(|n| n.ends_with(".png")).count(), 8, "{names:?}");
    assert!(names.contains(&"predictions.csv".to_owned()) && names.contains(&"predictions.jsonl".to_owned()));
    let given = json(f, &["bench", "--model-file", &model, "parts/test/good", "--count", "5", "--json"]);
    let probes = json(f, &["bench", "--model-file", &model, "--count", "5", "--json"]);
    for (value, stages) in [(given, 6), (probes, 5)] {
        let latency = value["latency"].as_object().unwrap();
        assert_eq!(latency.len(), stages, "{value}");
        assert_eq!(latency.contains_key("decode"), stages == 6, "{value}");
        assert!(latency.contains_key("backbone") && latency.contains_key("all"), "{value}");
        for times in latency.values() {
            let at = |key: &str| times[key].as_f64().unwrap();
            assert!(at("p50_ms") <= at("p95_ms") && at("p95_ms") <= at("p99_ms"), "{times}");
        }
        for times in latency.values().chain(value["pipelines"].as_object().unwrap().values()) {
            assert!(times["images_per_second"].as_f64().unwrap() > 0.0, "{times}");
        }
    }
    // Either pipeline says the same, in the same order.
    let seen = |pipeline: &str| {
        expect(f, &["predict", "--model-file", &model, "parts/test", "--json", "--pipeline", pipeline], 0)
    };
    assert_eq!(seen("latency"), seen("throughput"));
    let wrong = run(f, &["predict", "--model-file", &model, "parts/test", "--pipeline", "latencey"]);
    assert!(all(&wrong).contains("Did you mean 'latency'?"), "{}", all(&wrong));
}

#[test]
fn small_commands() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(expect(f, &["completions", shell], 0).contains("blemish"), "{shell}");
    }
    let doctor = json(f, &["doctor", "--json"]);
    assert!(doctor["models"].as_array().unwrap().contains(&"patchcore".into()));
    assert!(doctor["blas"].as_str().unwrap().starts_with("OpenBLAS"), "{doctor}");
    // A GPU is used if one is found, else the reason is given.
    let none = doctor["gpus"].as_array().unwrap().is_empty();
    assert_eq!(doctor["no_gpu"].is_string(), none);
    assert!(!none || doctor["device"] == "cpu", "{doctor}");
    assert_eq!(json(f, &["doctor", "--json", "--device", "cpu"])["device"], "cpu");
    let weights = json(f, &["weights", "list", "--cache", "kept", "--json"]);
    assert_eq!(weights["folder"], "kept");
    assert!(weights["files"].as_array().unwrap().iter().all(|file| file["present"] == false));
    assert!(!f.join("kept").exists(), "listing makes no folder");
    assert!(expect(f, &["--help"], 0).contains("Exit codes"));
    expect(f, &["predict", "--no-such-flag"], 2);
}

/// Ctrl-C while pictures are scored: the program says so, ends with 130 and leaves no half file.
#[test]
#[cfg(unix)]
fn an_interruption_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let model = train(f, &[])["model_file"].as_str().unwrap().to_owned();
    fs::create_dir(f.join("many")).unwrap();
    for i in 0..1500 {
        fs::hard_link(f.join("parts/test/good/000.png"), f.join(format!("many/{i:05}.png"))).unwrap();
    }
    // Nobody reads on after the first line: with the pipe full (64 kB; 1500 lines are more) the program waits, and so it
    // cannot be done before the signal arrives.
    let mut child = command(f, &["predict", "--model-file", &model, "many", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    // The handler runs on a thread of its own; give it its turn before the pipe is emptied.
    std::thread::sleep(std::time::Duration::from_millis(300));
    lines.read_to_string(&mut String::new()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", all(&output));
    assert!(all(&output).contains("interrupted"));
}

/// A test that fails takes its pictures with it and leaves the model's run as it was.
#[test]
fn a_failed_test_leaves_the_run_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let trained = train(f, &[]);
    let model = trained["model_file"].as_str().unwrap();
    image::GrayImage::new(5, 5).save(f.join("parts/ground_truth/hole/003_mask.png")).unwrap();
    expect(f, &["test", "--model-file", model, "--data", "parts"], 1);
    let mut left: Vec<String> = fs::read_dir(path(f, &trained["results"]))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["config.toml", "model.safetensors"]);
    let runs = path(f, &trained["results"]).parent().unwrap().to_path_buf();
    expect(f, &["test", "--model-file", model, "--data", "parts", "--output", "results"], 1);
    assert!(!runs.join("002").exists(), "a run that came to nothing is gone");
}
