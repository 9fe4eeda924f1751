//! Feature maps of timm on torch: every network, every layer, at the tolerances stated with the vectors.

mod support;

use blemish_backbone::catalogue::Net;
use blemish_backbone::{Backbone, WeightSet};
use ndarray::Array4;
use support::{Golden, error, formula_input, formula_state, golden, nchw, shared, splitmix64, unit};

const SHAPES: [[usize; 4]; 3] = [[1, 3, 64, 64], [1, 3, 224, 224], [2, 3, 75, 101]];

fn tag([n, c, h, w]: [usize; 4]) -> String {
    format!("{n}x{c}x{h}x{w}")
}

/// Compares one map with what the file holds of it.
fn compare(file: &Golden, name: &str, map: &Array4<f32>, tolerance: f64) {
    let got = nchw(map.view());
    if let Some(whole) = file.tensors.get(name) {
        let gap = error(&got, whole.as_slice().unwrap());
        assert!(gap <= tolerance, "{name}: {gap:e}");
        return;
    }
    let (n, h, w, c) = map.dim();
    assert_eq!(file.i64(&format!("{name}.shape")), [n, c, h, w], "{name}");
    let step = file.i64(&format!("{name}.stride"))[0];
    let sample: Vec<f32> = got.iter().copied().step_by(step).collect();
    let gap = error(&sample, file.f32(&format!("{name}.sample")));
    assert!(gap <= tolerance, "{name}: {gap:e}");
    let count = got.len() as f64;
    let mean = got.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let std = (got.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count).sqrt();
    let extremes = got.iter().fold((f64::MAX, f64::MIN), |(lo, hi), &x| (lo.min(x.into()), hi.max(x.into())));
    let summary = file.f64(&format!("{name}.summary"));
    for (a, b) in [mean, std, extremes.0, extremes.1].into_iter().zip(summary) {
        assert!((a - b).abs() <= tolerance * (summary[1] + summary[0].abs()), "{name}: {a} for {b}");
    }
}

fn formula(id: &str) {
    let small = golden().join(format!("{id}.safetensors"));
    let full = shared().join(format!("reference/backbones/{id}.safetensors"));
    let files: Vec<Golden> = [small, full].iter().filter_map(|path| Golden::open(path)).collect();
    if files.is_empty() {
        return;
    }
    let (state, sum) = formula_state(id);
    for file in &files {
        assert_eq!(file.info["state_checksum"], format!("{sum:#018x}"), "{id}");
    }
    let layers: Vec<String> = match id.contains("net5") || id == "resnet18" {
        true => (1..=4).map(|i| format!("layer{i}")).collect(),
        false => ["blocks.1", "blocks.2", "blocks.4", "blocks.6"].map(str::to_owned).to_vec(),
    };
    let backbone = Backbone::new(id, &layers, &WeightSet::from_tensors(state).unwrap()).unwrap();
    for shape in SHAPES {
        let tag = tag(shape);
        let has = |file: &&Golden| file.tensors.keys().any(|name| name.starts_with(&tag));
        let files: Vec<&Golden> = files.iter().filter(has).collect();
        if files.is_empty() {
            continue;
        }
        let maps = backbone.features(formula_input(shape).view()).unwrap();
        for (layer, map) in layers.iter().zip(&maps) {
            // The reference itself is 2.3e-5 away from its own f64 result there.
            let loose = id == "efficientnet_b5" && tag == "1x3x224x224" && layer == "blocks.6";
            let tolerance = if loose { 3e-4 } else { 1e-4 };
            files.iter().for_each(|file| compare(file, &format!("{tag}/{layer}"), map, tolerance));
        }
    }
}

#[test]
fn known_answers_of_the_formula() {
    assert_eq!(support::fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
    let key = support::fnv1a64("layer1.0.conv1.weight");
    assert_eq!([0, 1, 2].map(|i| unit(key, i)), [0.682_886_36, 0.989_774_47, -0.379_249_33]);
}

#[test]
fn resnet18() {
    formula("resnet18");
}

#[test]
fn resnet50() {
    formula("resnet50");
}

#[test]
fn wide_resnet50_2() {
    formula("wide_resnet50_2");
}

#[test]
fn mobilenetv2_100() {
    formula("mobilenetv2_100");
}

#[test]
fn mobilenetv3_large_100() {
    formula("mobilenetv3_large_100");
}

#[test]
fn efficientnet_b5() {
    formula("efficientnet_b5");
}

#[test]
fn mobilenetv2_100_with_real_weights() {
    let weights = shared().join("weights/mobilenetv2_100.safetensors");
    let Some(file) = Golden::open(&shared().join("reference/backbones/mobilenetv2_100_imagenet.safetensors")) else {
        return;
    };
    if !weights.is_file() {
        eprintln!("skipped: no {}", weights.display());
        return;
    }
    let net = Net::find("mobilenetv2_100").unwrap();
    let layers = ["blocks.1", "blocks.2", "blocks.4", "blocks.6"].map(str::to_owned);
    let weights = WeightSet::open(&weights).unwrap();
    assert_eq!(weights.fits(), ["mobilenetv2_100"]);
    let backbone = Backbone::new(net.id, &layers, &weights).unwrap();
    let image = file.tensors["synthetic/image_u8"].as_slice::<u8>().unwrap();
    let input = Array4::from_shape_fn((1, 224, 224, 3), |(_, y, x, c)| {
        (f32::from(image[(c * 224 + y) * 224 + x]) / 255.0 - net.mean[c]) / net.std[c]
    });
    for (layer, map) in layers.iter().zip(&backbone.features(input.view()).unwrap()) {
        compare(&file, &format!("synthetic/{layer}"), map, 2e-4);
    }
}
