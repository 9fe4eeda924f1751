//! bf16 and int8 beside f32: how far they are off, and that nothing else depends on them.

mod support;

use blemish_backbone::catalogue::{NETS, Net};
use blemish_backbone::{Backbone, BackboneError, Precision, Ranges, WeightSet};
use ndarray::{Array4, Axis, s};
use support::{Golden, formula_input, shared};

fn untrained(net: &Net) -> Backbone {
    let layers: Vec<String> = net.default_layers.iter().map(|&l| l.to_owned()).collect();
    Backbone::new(net.id, &layers, &WeightSet::untrained(net.id, 7).unwrap()).unwrap()
}

/// Root mean square of the difference over that of the map.
fn gap(got: &Array4<f32>, want: &Array4<f32>) -> f64 {
    assert!(got.iter().all(|x| x.is_finite()));
    let square = |x: f64| x * x;
    let off: f64 = got.iter().zip(want).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (off / want.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn bits(maps: &[Array4<f32>]) -> Vec<u32> {
    maps.iter().flat_map(|map| map.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn every_network_stays_close_to_single_precision() {
    let input = formula_input([2, 3, 64, 96]);
    for net in NETS {
        let want = untrained(net).features(input.view()).unwrap();
        for (precision, tolerance) in [(Precision::Bf16, BF16), (Precision::Int8, INT8)] {
            let mut backbone = untrained(net).with_precision(precision).unwrap();
            backbone.calibrate(input.view()).unwrap();
            let got = backbone.features(input.view()).unwrap();
            for ((got, want), layer) in got.iter().zip(&want).zip(backbone.layers()) {
                let gap = gap(got, want);
                eprintln!("{} {precision} {}: {gap:.5}", net.id, layer.name);
                assert!(gap < tolerance, "{} {precision} {}: {gap}", net.id, layer.name);
                assert_eq!(gap == 0.0, backbone.computes_in() == Precision::F32);
            }
        }
    }
}

#[test]
fn neither_batch_nor_threads_change_a_bit() {
    for id in ["resnet18", "mobilenetv3_large_100", "efficientnet_b5"] {
        for precision in [Precision::Bf16, Precision::Int8] {
            let input = formula_input([5, 3, 33, 40]);
            let mut backbone = untrained(Net::find(id).unwrap()).with_precision(precision).unwrap();
            backbone.calibrate(input.slice(s![..2, .., .., ..])).unwrap();
            let batch = in_pool(1, || backbone.features(input.view()).unwrap());
            let again = in_pool(3, || backbone.features(input.view()).unwrap());
            assert_eq!(bits(&batch), bits(&again), "{id} {precision}");
            for i in 0..5 {
                let one = input.slice(s![i..i + 1, .., .., ..]);
                let alone = in_pool(1 + i % 3, || backbone.features(one).unwrap());
                for (all, map) in batch.iter().zip(&alone) {
                    assert_eq!(all.index_axis(Axis(0), i), map.index_axis(Axis(0), 0), "{id} {precision}");
                }
            }
        }
    }
}

/// The first layers are those of single precision, and which layers are asked for changes none of them.
#[test]
fn the_first_layers_are_exact() {
    let input = formula_input([3, 3, 40, 33]);
    for net in NETS.iter().filter(|net| net.layers[0].name == "blocks.0") {
        let build = |layers: &[&str], precision| {
            let layers: Vec<String> = layers.iter().map(|&layer| layer.to_owned()).collect();
            let backbone = Backbone::new(net.id, &layers, &WeightSet::untrained(net.id, 7).unwrap()).unwrap();
            backbone.with_precision(precision).unwrap().features(input.view()).unwrap()
        };
        let [first, last] = ["blocks.0", "blocks.2"];
        let exact = build(&[first], Precision::F32);
        assert_eq!(bits(&build(&[first], Precision::Bf16)), bits(&exact), "{}", net.id);
        let (both, alone) = (build(&[last, first], Precision::Bf16), build(&[last], Precision::Bf16));
        assert_eq!(bits(&both[1..]), bits(&exact), "{}", net.id);
        assert_eq!(bits(&both[..1]), bits(&alone), "{}", net.id);
        assert_eq!(bits(&alone) == bits(&build(&[last], Precision::F32)), !Precision::Bf16.is_available());
    }
}

#[test]
fn int8_takes_effect_with_its_calibration() {
    let net = Net::find("mobilenetv2_100").unwrap();
    let input = formula_input([3, 3, 48, 32]);
    let single = untrained(net);
    let want = single.features(input.view()).unwrap();
    let mut backbone = untrained(net).with_precision(Precision::Int8).unwrap();
    assert_eq!((backbone.precision(), backbone.computes_in()), (Precision::Int8, Precision::F32));
    assert_eq!(bits(&backbone.features(input.view()).unwrap()), bits(&want));
    // Ranges do not depend on how the pictures are shared out, nor on the precision of the network they come from.
    let all = single.ranges(input.view()).unwrap();
    let parts = [1..3, 0..1].map(|r| backbone.ranges(input.slice(s![r, .., .., ..])).unwrap());
    assert_eq!(parts.iter().fold(Ranges::default(), Ranges::merge), all);
    backbone.set_calibration(all.clone()).unwrap();
    assert_eq!(backbone.computes_in(), Precision::Int8);
    assert_eq!(backbone.ranges(input.view()).unwrap(), all);
    assert_eq!(backbone.calibration(), Some(&all));
    let got = backbone.features(input.view()).unwrap();
    let text = serde_json::to_string(&all).unwrap();
    let mut copy = untrained(net).with_precision(Precision::Int8).unwrap();
    copy.set_calibration(serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(bits(&copy.features(input.view()).unwrap()), bits(&got));
    let back = copy.with_precision(Precision::F32).unwrap();
    assert_eq!(bits(&back.features(input.view()).unwrap()), bits(&want));
}

#[test]
fn unusable_calibrations_are_refused() {
    let mut backbone = untrained(Net::find("resnet18").unwrap()).with_precision(Precision::Int8).unwrap();
    let other = untrained(Net::find("mobilenetv2_100").unwrap()).ranges(formula_input([1, 3, 32, 32]).view()).unwrap();
    for ranges in [other, Ranges::default()] {
        let error = backbone.set_calibration(ranges).unwrap_err();
        assert!(matches!(error, BackboneError::Calibration { net: "resnet18", .. }), "{error}");
    }
    let mut input = formula_input([1, 3, 32, 32]);
    input[[0, 7, 7, 1]] = f32::NAN;
    assert!(backbone.calibrate(input.view()).is_err());
    assert!(backbone.calibrate(formula_input([1, 3, 8, 8]).view()).is_err());
    assert_eq!(backbone.computes_in(), Precision::F32);
}

#[test]
fn precisions_have_names() {
    for precision in Precision::ALL {
        assert_eq!(precision.name().parse::<Precision>(), Ok(precision));
        assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
    }
    assert!("fp16".parse::<Precision>().unwrap_err().contains("f32, bf16, int8"));
}

#[test]
fn trained_weights_on_a_picture() {
    let weights = shared().join("weights/mobilenetv2_100.safetensors");
    let file = Golden::open(&shared().join("reference/backbones/mobilenetv2_100_imagenet.safetensors"));
    let (Some(file), true) = (file, weights.is_file()) else {
        eprintln!("skipped: no {}", weights.display());
        return;
    };
    let net = Net::find("mobilenetv2_100").unwrap();
    let layers = ["blocks.1", "blocks.2", "blocks.4", "blocks.6"].map(str::to_owned);
    let weights = WeightSet::open(&weights).unwrap();
    let build = |precision| Backbone::new(net.id, &layers, &weights).unwrap().with_precision(precision).unwrap();
    let image = file.tensors["synthetic/image_u8"].as_slice::<u8>().unwrap();
    let input = Array4::from_shape_fn((1, 224, 224, 3), |(_, y, x, c)| {
        (f32::from(image[(c * 224 + y) * 224 + x]) / 255.0 - net.mean[c]) / net.std[c]
    });
    let want = build(Precision::F32).features(input.view()).unwrap();
    for (precision, tolerance) in [(Precision::Bf16, 0.035), (Precision::Int8, 0.055)] {
        let mut backbone = build(precision);
        backbone.calibrate(input.view()).unwrap();
        for ((got, want), layer) in backbone.features(input.view()).unwrap().iter().zip(&want).zip(&layers) {
            let gap = gap(got, want);
            eprintln!("{precision} {layer}: {gap:.5}");
            assert!(gap < tolerance, "{precision} {layer}: {gap}");
        }
    }
}

/// Largest gaps on networks with random weights.
const BF16: f64 = 0.02;
const INT8: f64 = 0.08;
