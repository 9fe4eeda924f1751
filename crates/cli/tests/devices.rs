//! `--device` in a program with GPU code: on a machine without a GPU, with one, or on the stand-in driver of kernels/emu.
#![cfg(feature = "cuda")]

use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};

fn run(folder: &Path, args: &[&str], driver: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blemish"));
    command.args(args).current_dir(folder).env("HOME", folder).env("BLEMISH_CACHE", folder);
    if let Some(mode) = driver {
        command.env("BLEMISH_DRIVER", mode);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether the driver finds a GPU, and whether it is the stand-in's.
fn gpu(folder: &Path) -> (bool, bool) {
    let text = said(&run(folder, &["doctor"], None));
    (text.contains("cuda:0:"), text.contains("cuda:0: emulated"))
}

#[test]
fn doctor_says_what_was_found_and_what_will_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["doctor"], None);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let (there, emulated) = gpu(folder.path());
    if there {
        assert!(text.contains("will be used for networks") && text.contains("bf16 as fp16"), "{text}");
    } else {
        assert!(text.contains("gpu       none: ") && text.contains("--device cpu"), "{text}");
        assert!(!text.contains("without the feature"), "{text}");
        assert!(text.contains("device    cpu (chosen by 'auto')"), "{text}");
    }
    if emulated {
        let ways = [("old", "speaks CUDA 11.8"), ("broken", "did not start"), ("none", "finds no GPU")];
        for (mode, words) in ways {
            let text = said(&run(folder.path(), &["doctor"], Some(mode)));
            assert!(text.contains(words) && text.contains("device    cpu"), "{mode}: {text}");
        }
    }
    // A device that is not there is told, and the rest is shown all the same.
    let output = run(folder.path(), &["doctor", "--device", "cuda:999"], None);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("device 'cuda:999' is not available"), "{}", said(&output));
}

fn data(root: &Path) {
    for i in 0..12u32 {
        let picture = RgbImage::from_fn(72, 64, |x, y| {
            let v = ((x * 7 + y * 13 + i * 29) % 64 + 90) as u8;
            Rgb([v, v + (x % 16) as u8, v + (y % 16) as u8])
        });
        let folder = root.join("train/good");
        std::fs::create_dir_all(&folder).unwrap();
        picture.save(folder.join(format!("{i:03}.png"))).unwrap();
    }
}

fn scores(output: &Output) -> Vec<f64> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["raw"].as_f64().unwrap();
    text.lines().map(line).collect()
}

#[test]
fn predict_runs_where_it_is_told_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data(&f.join("parts"));
    let (there, _) = gpu(f);
    let small = ["--backbone", "mobilenetv2_100", "--layers", "blocks.1", "--image-size", "32"];
    for precision in ["f32", "bf16", "int8"] {
        let train =
            [&["train", "--data", "parts", "--quiet", "--model", "padim", "--device", "cpu", "-o", precision][..]];
        let words = [train[0], &small[..], &["--precision", precision, "--set", "n_features=8"]].concat();
        let output = run(f, &words, None);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let model = find(&f.join(precision)).expect("a model file");
        let model = model.to_str().unwrap();
        let predict = |device: &[&str]| {
            run(
                f,
                &[&["predict", "parts/train/good/000.png", "--model-file", model, "--json"][..], device].concat(),
                None,
            )
        };
        let cpu = predict(&["--device", "cpu"]);
        assert_eq!(cpu.status.code(), Some(0), "{}", said(&cpu));
        let auto = predict(&[]);
        assert_eq!(auto.status.code(), Some(0), "{}", said(&auto));
        let tolerance = if precision == "bf16" { 0.2 } else { 2e-3 };
        for (a, c) in scores(&auto).iter().zip(scores(&cpu)) {
            assert!((a - c).abs() <= tolerance * c, "{precision}: {a} {c}");
        }
        let cuda = predict(&["--device", "cuda"]);
        if there {
            assert_eq!(cuda.status.code(), Some(0), "{}", said(&cuda));
            let words = match precision {
                "f32" => "network on cuda:0 in f32; distances on cuda:0",
                "bf16" => "network on cuda:0 in fp16; distances on cuda:0",
                _ => "network on the CPU in int8 (int8 has no form for GPUs); distances on cuda:0",
            };
            assert!(said(&cuda).contains(words), "{}", said(&cuda));
        } else {
            assert_eq!(cuda.status.code(), Some(1));
            assert!(said(&cuda).starts_with("error: device 'cuda' is not available: "), "{}", said(&cuda));
            assert!(said(&cuda).contains("--device cpu"), "{}", said(&cuda));
        }
        for (word, words) in
            [("cuda:7", "device 'cuda:7' is not available"), ("gpu", "the choices are auto, cpu, cuda")]
        {
            let wrong = predict(&["--device", word]);
            assert_eq!(wrong.status.code(), Some(1), "{word}");
            assert!(said(&wrong).contains(words) && wrong.stdout.is_empty(), "{word}: {}", said(&wrong));
        }
    }
}

#[test]
fn flows_train_where_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data(&f.join("parts"));
    let (there, _) = gpu(f);
    let device = if there { "cuda" } else { "cpu" };
    let words = "train --data parts --model cflow --backbone mobilenetv2_100 --layers blocks.1 --image-size 32 --epochs 1 \
                 --set blocks=2 --set condition=4 --set checkpoint=run.checkpoint -o trained --device";
    let words: Vec<&str> = words.split_whitespace().chain([device]).collect();
    let output = run(f, &words, None);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    if there {
        let words = "network on cuda:0 in f32; flows on cuda:0";
        assert!(said(&output).contains(words) && !said(&output).contains("trained on the CPU"), "{}", said(&output));
    }
    let model = find(&f.join("trained")).expect("a model file");
    let predict = |device: &str| {
        let model = model.to_str().unwrap();
        let words = ["predict", "parts/train/good/000.png", "--model-file", model, "--json", "--device", device];
        let output = run(f, &words, None);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        scores(&output)[0]
    };
    let (here, there) = (predict("cpu"), predict(device));
    assert!((here - there).abs() <= 1e-3 * here, "{here} {there}");
}

#[test]
fn a_gpu_that_fails_in_an_epoch_leaves_the_rest_to_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data(&f.join("parts"));
    if !gpu(f).1 {
        eprintln!("SKIPPED: only the stand-in driver fails when it is told to");
        return;
    }
    for model in ["cflow --set blocks=2 --set condition=4 --set flow_precision=f32", "fastflow --set steps=2"] {
        let train = |out: &str, driver: Option<&str>| {
            let words = format!(
                "train --data parts --backbone mobilenetv2_100 --layers blocks.1 --image-size 32 --epochs 3 --set patience=null \
                 --device cuda -o {out} --model {model}"
            );
            let output = run(f, &words.split_whitespace().collect::<Vec<_>>(), driver);
            assert_eq!(output.status.code(), Some(0), "{model}: {}", said(&output));
            let trained = find(&f.join(out)).expect("a model file");
            let words = [
                "predict",
                "parts/train/good/000.png",
                "--model-file",
                trained.to_str().unwrap(),
                "--json",
                "--device",
                "cpu",
            ];
            let predicted = run(f, &words, None);
            assert_eq!(predicted.status.code(), Some(0), "{model}: {}", said(&predicted));
            (said(&output), scores(&predicted)[0])
        };
        let (text, wanted) = train("whole", None);
        let launches = text.split("stand-in driver: ").nth(1).and_then(|t| t.split(' ').next()?.parse::<usize>().ok());
        let launches = launches.unwrap_or_else(|| panic!("how many launches: {text}"));
        let (text, got) = train("failed", Some(&format!("fails:{}", launches / 2)));
        assert!(text.contains("trained on the CPU (cuda:0, from epoch "), "{model}: {text}");
        assert!((got - wanted).abs() <= 1e-3 * wanted.abs(), "{model}: {got}, without a failure {wanted}");
    }
}

/// The model below a folder.
fn find(folder: &Path) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|n| n == "model.safetensors") {
            return Some(path);
        }
    }
    None
}
