//! Weight files: formats, names, and everything that can be wrong with them.

mod support;

use std::path::Path;

use blemish_backbone::catalogue::{NETS, Net};
use blemish_backbone::{Backbone, Naming, Origin, WeightSet};
use blemish_tensor::{DType, Tensor};
use proptest::prelude::*;
use support::{formula_input, formula_state, golden, pth};

fn open(bytes: &[u8]) -> Result<WeightSet, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, bytes).unwrap();
    WeightSet::open(&path).map_err(|e| e.to_string())
}

fn values(weights: &WeightSet, name: &str) -> (DType, Vec<usize>, Vec<f64>) {
    let (_, t) = weights.tensors().find(|(n, _)| *n == name).unwrap();
    let values = match t.dtype() {
        DType::F32 => t.as_slice::<f32>().unwrap().iter().map(|&x| x.into()).collect(),
        DType::F64 => t.as_slice::<f64>().unwrap().to_vec(),
        DType::F16 => t.as_slice::<half::f16>().unwrap().iter().map(|x| x.to_f64()).collect(),
        DType::BF16 => t.as_slice::<half::bf16>().unwrap().iter().map(|x| x.to_f64()).collect(),
        _ => t.as_slice::<i64>().unwrap().iter().map(|&x| x as f64).collect(),
    };
    (t.dtype(), t.shape().to_vec(), values)
}

#[test]
fn pytorch_files_of_all_three_kinds() {
    for name in ["zip.pth", "deflated.pth", "legacy.pth"] {
        let path = golden().join(name);
        let weights = WeightSet::open(&path).unwrap();
        assert_eq!(weights.origin(), &Origin::File { path });
        assert_eq!(weights.tensors().count(), 7, "{name}");
        let counting: Vec<f64> = (0..24).map(f64::from).collect();
        assert_eq!(values(&weights, "whole"), (DType::F32, vec![2, 3, 4], counting));
        assert_eq!(values(&weights, "offset"), (DType::F32, vec![5], vec![4.0, 5.0, 6.0, 7.0, 8.0]));
        let transposed = (0..4).flat_map(|i| (0..6).map(move |j| f64::from(i + 4 * j))).collect();
        assert_eq!(values(&weights, "transposed"), (DType::F32, vec![4, 6], transposed));
        for (key, dtype) in [("f64", DType::F64), ("f16", DType::F16), ("bf16", DType::BF16)] {
            assert_eq!(values(&weights, key), (dtype, vec![3], vec![0.5, -1.5, 2.0]), "{name}");
        }
        assert_eq!(values(&weights, "scalar"), (DType::I64, vec![], vec![7.0]));
    }
}

#[test]
fn files_that_are_refused() {
    for (name, part) in [
        ("evil.pth", "system, which is neither a tensor nor a plain container"),
        ("beyond.pth", "x: needs elements 20..26 of its storage, which has 24"),
        ("wide.pth", "x: needs elements 0..1 of its storage, which has 24"),
        ("missing.pth", "x: its storage 0 is missing"),
        ("none.pth", "none.pth"),
        ("make_pth.py", "neither a PyTorch file nor a whole safetensors file"),
        ("", "is a folder"),
    ] {
        let error = WeightSet::open(&golden().join(name)).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
    assert!(!Path::new("pwned").exists());
    for (pickle, part) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"\x80\x02ctorch\nloads\n.", "torch.loads"),
        (b"\x80\x02}.", "holds no tensors"),
        (b"\x80\x02].", "no dictionary"),
        (b"\x80\x09}.", "protocol 9"),
        (b"\x80\x02(i", "opcode 'i'"),
        (b"\x80\x02", "ends in the middle"),
        (b"\x80\x02R.", "damaged"),
    ] {
        let error = open(&support::zip(&[("a/data.pkl", pickle)])).unwrap_err();
        assert!(error.contains(part), "{error} for {part}");
    }
    for (bytes, part) in [
        (&b""[..], "is empty"),
        (b"\x80\x02K\x01.", "not one that torch.save wrote"),
        (b"PK\x03\x04", "truncated or damaged"),
        (&support::zip(&[("readme", b"x")]), "without data.pkl"),
        (&support::zip(&[("a/data.pkl", b""), ("a/constants.pkl", b"")]), "TorchScript"),
        (&support::zip(&[("a/data.pkl", b""), ("a/byteorder", b"big")]), "big-endian"),
    ] {
        let error = open(bytes).unwrap_err();
        assert!(error.contains(part), "{error} for {part}");
    }
}

#[test]
fn truncated_files_are_told_at_every_length() {
    for name in ["zip.pth", "legacy.pth"] {
        let whole = std::fs::read(golden().join(name)).unwrap();
        for length in 0..whole.len() {
            assert!(open(&whole[..length]).is_err(), "{name} cut to {length}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_files_do_not_panic(name in 0usize..3, places in prop::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let name = ["zip.pth", "legacy.pth", "deflated.pth"][name];
        let mut bytes = std::fs::read(golden().join(name)).unwrap();
        let length = bytes.len();
        places.iter().for_each(|&(at, value)| bytes[at as usize % length] = value);
        if let Ok(weights) = open(&bytes) {
            prop_assert!(weights.tensors().count() <= 7);
        }
    }

    #[test]
    fn any_pickle_is_read_or_refused(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&support::zip(&[("a/data.pkl", &pickle)])).is_err());
    }
}

/// The formula weights of `id`, renamed to torchvision's names.
fn torchvision(id: &str) -> Vec<(String, Tensor)> {
    let graph = (Net::find(id).unwrap().graph)();
    let all = graph.tensors(graph.nodes.len() - 1);
    let state = formula_state(id).0;
    all.iter()
        .map(|spec| (spec.torchvision.clone(), state.iter().find(|(n, _)| *n == spec.timm).unwrap().1.clone()))
        .collect()
}

fn blocks() -> [String; 2] {
    ["blocks.1".to_owned(), "blocks.3".to_owned()]
}

#[test]
fn torchvision_names_are_these() {
    for (id, timm, name) in [
        ("mobilenetv2_100", "conv_stem.weight", "features.0.0.weight"),
        ("mobilenetv2_100", "blocks.0.0.conv_pw.weight", "features.1.conv.1.weight"),
        ("mobilenetv2_100", "blocks.2.0.conv_pw.weight", "features.4.conv.0.0.weight"),
        ("mobilenetv2_100", "blocks.2.0.bn3.running_var", "features.4.conv.3.running_var"),
        ("mobilenetv2_100", "blocks.6.0.conv_pwl.weight", "features.17.conv.2.weight"),
        ("mobilenetv3_large_100", "blocks.0.0.conv_pw.weight", "features.1.block.1.0.weight"),
        ("mobilenetv3_large_100", "blocks.2.0.se.conv_reduce.bias", "features.4.block.2.fc1.bias"),
        ("mobilenetv3_large_100", "blocks.2.0.se.conv_expand.weight", "features.4.block.2.fc2.weight"),
        ("mobilenetv3_large_100", "blocks.2.0.bn3.bias", "features.4.block.3.1.bias"),
        ("mobilenetv3_large_100", "blocks.5.2.conv_pwl.weight", "features.15.block.3.0.weight"),
        ("mobilenetv3_large_100", "blocks.6.0.conv.weight", "features.16.0.weight"),
        ("efficientnet_b5", "blocks.0.0.se.conv_reduce.weight", "features.1.0.block.1.fc1.weight"),
        ("efficientnet_b5", "blocks.2.0.conv_dw.weight", "features.3.0.block.1.0.weight"),
        ("efficientnet_b5", "blocks.6.2.bn3.weight", "features.7.2.block.3.1.weight"),
        ("wide_resnet50_2", "layer1.0.downsample.1.bias", "layer1.0.downsample.1.bias"),
    ] {
        let graph = (Net::find(id).unwrap().graph)();
        let all = graph.tensors(graph.nodes.len() - 1);
        let spec = all.iter().find(|spec| spec.timm == timm).unwrap();
        assert_eq!(spec.torchvision, name, "{id}");
    }
}

#[test]
fn parameters_are_as_many_as_published() {
    let head = [
        ("resnet18", 11_689_512, 512 * 1000 + 1000),
        ("resnet50", 25_557_032, 2048 * 1000 + 1000),
        ("wide_resnet50_2", 68_883_240, 2048 * 1000 + 1000),
        ("mobilenetv2_100", 3_504_872, 320 * 1280 + 2 * 1280 + 1281 * 1000),
        ("mobilenetv3_large_100", 5_483_032, 961 * 1280 + 1281 * 1000),
        ("efficientnet_b5", 30_389_784, 512 * 2048 + 2 * 2048 + 2049 * 1000),
    ];
    for (id, published, head) in head {
        let graph = (Net::find(id).unwrap().graph)();
        let all = graph.tensors(graph.nodes.len() - 1);
        let learned = all.iter().filter(|spec| !spec.timm.contains("running"));
        let count: usize = learned.map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count + head, published, "{id}");
    }
}

#[test]
fn torchvision_archives_give_the_same_network() {
    for id in ["mobilenetv2_100", "mobilenetv3_large_100"] {
        let mut renamed = torchvision(id);
        renamed.push(("classifier.1.weight".into(), Tensor::from_vec(vec![1], vec![0f32]).unwrap()));
        renamed.push(("features.0.1.num_batches_tracked".into(), Tensor::from_vec(vec![], vec![0i64]).unwrap()));
        let written: Vec<_> = renamed.iter().filter(|(_, t)| t.dtype() == DType::F32).cloned().collect();
        let weights = open(&pth(&written)).unwrap();
        assert_eq!((weights.naming(), weights.fits()), (Naming::Torchvision, vec![id]));
        let read = Backbone::new(id, &blocks(), &weights).unwrap();
        let memory = Backbone::new(id, &blocks(), &WeightSet::from_tensors(renamed).unwrap()).unwrap();
        assert_eq!(read.fingerprint(), memory.fingerprint());
        // timm's names go with an epsilon of 1e-5; torchvision's MobileNetV3 has 1e-3.
        let epsilon = (Net::find(id).unwrap().graph)().torchvision_epsilon;
        let shifted = formula_state(id).0.into_iter().map(|(name, t)| match name.ends_with("running_var") {
            true => {
                let v = t.as_slice::<f32>().unwrap().iter().map(|&x| (f64::from(x) + epsilon - 1e-5) as f32).collect();
                (name, Tensor::from_vec(t.shape().to_vec(), v).unwrap())
            }
            false => (name, t),
        });
        let timm = Backbone::new(id, &blocks(), &WeightSet::from_tensors(shifted).unwrap()).unwrap();
        assert_eq!(timm.fingerprint(), read.fingerprint(), "{id}");
        assert_eq!(epsilon, if id == "mobilenetv2_100" { 1e-5 } else { 1e-3 });
    }
}

#[test]
fn kept_weights_make_the_same_network_to_the_bit() {
    for (id, tensors) in
        [("mobilenetv3_large_100", torchvision("mobilenetv3_large_100")), ("resnet18", formula_state("resnet18").0)]
    {
        let layers: Vec<String> = Net::find(id).unwrap().default_layers[..2].iter().map(|&l| l.into()).collect();
        let tensors = tensors.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor));
        let first = Backbone::new(id, &layers, &WeightSet::from_tensors(tensors).unwrap()).unwrap();
        let kept = WeightSet::from_tensors(first.weights().to_vec()).unwrap();
        let second = Backbone::new(id, &layers, &kept).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        let input = formula_input([1, 3, 40, 40]);
        assert_eq!(first.features(input.view()).unwrap(), second.features(input.view()).unwrap());
        assert!(kept.fits().is_empty(), "only up to the deepest layer");
    }
}

#[test]
fn half_precision_and_double_weights() {
    let state = formula_state("mobilenetv2_100").0;
    let reference =
        Backbone::new("mobilenetv2_100", &blocks(), &WeightSet::from_tensors(state.clone()).unwrap()).unwrap();
    let cast = |f: &dyn Fn(&[f32], Vec<usize>) -> Tensor| {
        let tensors = state.iter().map(|(name, t)| (name.clone(), f(t.as_slice().unwrap(), t.shape().to_vec())));
        Backbone::new("mobilenetv2_100", &blocks(), &WeightSet::from_tensors(tensors).unwrap()).unwrap()
    };
    let double = cast(&|v, shape| Tensor::from_vec(shape, v.iter().map(|&x| f64::from(x)).collect()).unwrap());
    assert_eq!(double.fingerprint(), reference.fingerprint());
    let input = formula_input([1, 3, 48, 48]);
    let wanted = reference.features(input.view()).unwrap();
    for (halved, tolerance) in [
        (cast(&|v, s| Tensor::from_vec(s, v.iter().map(|&x| half::f16::from_f32(x)).collect()).unwrap()), 0.01),
        (cast(&|v, s| Tensor::from_vec(s, v.iter().map(|&x| half::bf16::from_f32(x)).collect()).unwrap()), 0.1),
    ] {
        let got = halved.features(input.view()).unwrap();
        let gap = support::error(got[0].as_slice().unwrap(), wanted[0].as_slice().unwrap());
        assert!(gap > 0.0 && gap < tolerance, "{gap}");
    }
}

#[test]
fn every_tensor_that_does_not_fit_is_named() {
    let id = "mobilenetv2_100";
    let mut state = formula_state(id).0;
    let tensor = |n: usize, v: f32| Tensor::from_vec(vec![n], vec![v; n]).unwrap();
    let mut put = |name: &str, value: Option<Tensor>| {
        state.retain(|(n, _)| n != name);
        state.extend(value.map(|v| (name.to_owned(), v)));
    };
    put("bn1.weight", None);
    put("blocks.0.0.bn1.bias", Some(tensor(31, 0.0)));
    put("blocks.6.0.bn3.bias", Some(tensor(5, 0.0)));
    put("bn1.running_mean", Some(tensor(32, f32::NAN)));
    put("blocks.0.0.bn1.running_mean", Some(tensor(32, f32::INFINITY)));
    put("bn1.running_var", Some(tensor(32, -1.0)));
    put("bn1.bias", Some(Tensor::from_vec(vec![32], vec![0i64; 32]).unwrap()));
    put("surprise.weight", Some(tensor(3, 0.0)));
    put("blocks.6.0.bn3.weight", None);
    let error = Backbone::new(id, &blocks(), &WeightSet::from_tensors(state).unwrap()).unwrap_err().to_string();
    for line in [
        "\n  bn1.weight [32] is missing",
        "\n  blocks.0.0.bn1.bias should have shape [32] and has [31]",
        "\n  blocks.6.0.bn3.bias should have shape [320] and has [5]",
        "\n  bn1.running_mean holds a value that is not finite at index 0",
        "\n  blocks.0.0.bn1.running_mean holds a value that is not finite at index 0",
        "\n  bn1.running_var holds a negative variance at index 0",
        "\n  bn1.bias holds i64, not floating-point numbers",
        "\n  surprise.weight [3] is not part of it",
    ] {
        assert!(error.contains(line), "{line} in {error}");
    }
    // Behind the deepest layer nothing is needed.
    assert!(!error.contains("blocks.6.0.bn3.weight"), "{error}");
}

#[test]
fn weights_of_another_network() {
    let weights = WeightSet::from_tensors(formula_state("mobilenetv2_100").0).unwrap();
    let error = Backbone::new("resnet18", &["layer1".into()], &weights).unwrap_err().to_string();
    assert!(error.contains("they are weights for mobilenetv2_100"), "{error}");
    assert!(error.lines().count() <= 22 && error.contains("more"), "{error}");
    let weights = WeightSet::untrained("resnet18", 0).unwrap();
    let error = Backbone::new("resnet50", &["layer1".into()], &weights).unwrap_err().to_string();
    assert!(error.contains("untrained weights for resnet18"), "{error}");
    for net in NETS {
        assert_eq!(WeightSet::untrained(net.id, 0).unwrap().fits(), [net.id]);
    }
    let twice = [("a", 1.0f32), ("a", 2.0)].map(|(n, v)| (n.to_owned(), Tensor::from_vec(vec![1], vec![v]).unwrap()));
    assert!(WeightSet::from_tensors(twice).unwrap_err().to_string().contains("two tensors are called a"));
}

#[test]
fn weights_that_overflow_when_folded() {
    let mut state = formula_state("resnet18").0;
    for (name, tensor) in &mut state {
        if name == "bn1.weight" || name == "conv1.weight" {
            *tensor = Tensor::from_vec(tensor.shape().to_vec(), vec![1e30f32; tensor.len()]).unwrap();
        }
    }
    let weights = WeightSet::from_tensors(state).unwrap();
    let error = Backbone::new("resnet18", &["layer1".into()], &weights).unwrap_err().to_string();
    assert!(error.contains("conv1.weight overflows"), "{error}");
}
