//! What holds for every network and input.

mod support;

use blemish_backbone::catalogue::{NETS, Net};
use blemish_backbone::{Backbone, BackboneError, WeightSet};
use ndarray::{Array4, Axis, s};
use proptest::prelude::*;
use support::formula_input;

fn untrained(net: &Net, layers: &[&str]) -> Backbone {
    let layers: Vec<String> = layers.iter().map(|&l| l.to_owned()).collect();
    Backbone::new(net.id, &layers, &WeightSet::untrained(net.id, 7).unwrap()).unwrap()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn bits(maps: &[Array4<f32>]) -> Vec<u32> {
    maps.iter().flat_map(|map| map.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn neither_batch_nor_threads_change_a_bit() {
    for net in NETS {
        let backbone = untrained(net, net.default_layers);
        let input = formula_input([5, 3, 33, 40]);
        let batch = in_pool(1, || backbone.features(input.view()).unwrap());
        for threads in [2, 7] {
            let again = in_pool(threads, || backbone.features(input.view()).unwrap());
            assert_eq!(bits(&batch), bits(&again), "{} with {threads} threads", net.id);
        }
        for i in 0..5 {
            let one = input.slice(s![i..i + 1, .., .., ..]);
            let alone = in_pool(1 + i % 3, || backbone.features(one).unwrap());
            for (all, map) in batch.iter().zip(&alone) {
                assert_eq!(all.index_axis(Axis(0), i), map.index_axis(Axis(0), 0), "{}", net.id);
            }
        }
    }
}

#[test]
fn calls_at_once_and_at_changing_sizes_do_not_disturb_each_other() {
    let net = Net::find("mobilenetv2_100").unwrap();
    let backbone = untrained(net, net.default_layers);
    let inputs: Vec<Array4<f32>> =
        [[1, 3, 32, 48], [3, 3, 64, 32], [2, 3, 33, 35]].into_iter().map(formula_input).collect();
    let wanted: Vec<Vec<u32>> = inputs.iter().map(|x| bits(&backbone.features(x.view()).unwrap())).collect();
    std::thread::scope(|scope| {
        for shift in 0..3 {
            let (backbone, inputs, wanted) = (&backbone, &inputs, &wanted);
            scope.spawn(move || {
                for k in 0..6 {
                    let i = (k + shift) % 3;
                    assert_eq!(bits(&backbone.features(inputs[i].view()).unwrap()), wanted[i]);
                }
            });
        }
    });
}

#[test]
fn layers_come_in_the_order_asked_for_and_do_not_depend_on_each_other() {
    for net in NETS {
        let all: Vec<&str> = net.layers.iter().map(|l| l.name).collect();
        let input = formula_input([1, 3, 64, 33]);
        let together = untrained(net, &all).features(input.view()).unwrap();
        let (first, last) = (all[0], all[3]);
        let swapped = untrained(net, &[last, first]);
        assert_eq!(swapped.layers()[0].name, last);
        let maps = swapped.features(input.view()).unwrap();
        assert_eq!((&maps[0], &maps[1]), (&together[3], &together[0]), "{}", net.id);
        for (map, layer) in together.iter().zip(net.layers) {
            let side = |n: usize| n.div_ceil(layer.stride);
            assert_eq!(map.dim(), (1, side(64), side(33), layer.channels), "{} {}", net.id, layer.name);
        }
        // Weights are kept up to the deepest layer only.
        assert!(untrained(net, &[first]).weights().len() < swapped.weights().len());
    }
}

#[test]
fn maps_of_an_earlier_call_are_used_again() {
    let backbone = untrained(&NETS[3], &["blocks.1", "blocks.0"]);
    let picture = |seed: usize, size| {
        Array4::from_shape_fn((2, size, size, 3), |(n, y, x, c)| {
            ((n * 31 + y * 7 + x * 13 + c * 5 + seed) % 97) as f32 / 48.0 - 1.0
        })
    };
    let mut maps = Vec::new();
    for (seed, size) in [(1, 64), (2, 64), (3, 48), (4, 80)] {
        let input = picture(seed, size);
        let before: Vec<_> = maps.iter().map(Array4::as_ptr).collect();
        backbone.features_into(input.view(), &mut maps).unwrap();
        assert_eq!(bits(&maps), bits(&backbone.features(input.view()).unwrap()), "{size}");
        if seed == 2 {
            assert_eq!(before, maps.iter().map(Array4::as_ptr).collect::<Vec<_>>());
        }
    }
    assert!(backbone.features_into(Array4::zeros((1, 1, 1, 3)).view(), &mut maps).is_err());
}

#[test]
fn a_view_in_another_layout_gives_the_same() {
    let net = Net::find("resnet18").unwrap();
    let backbone = untrained(net, &["layer1"]);
    let input = formula_input([2, 3, 40, 33]);
    let nchw = input.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().to_owned();
    let back = nchw.view().permuted_axes([0, 2, 3, 1]);
    assert_eq!(backbone.features(input.view()).unwrap(), backbone.features(back).unwrap());
}

#[test]
fn untrained_activations_keep_their_size() {
    for net in NETS {
        let backbone = untrained(net, net.default_layers);
        for (layer, map) in
            net.default_layers.iter().zip(backbone.features(formula_input([1, 3, 96, 96]).view()).unwrap())
        {
            let rms = (map.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / map.len() as f64).sqrt();
            // Single draws wander by an order of size; what must not happen is growth without end.
            assert!((0.05..20.0).contains(&rms), "{} {layer}: {rms}", net.id);
        }
    }
}

#[test]
fn untrained_weights_depend_on_their_seed_alone() {
    let make = |seed, layers: &[&str]| {
        let layers: Vec<String> = layers.iter().map(|&l| l.to_owned()).collect();
        Backbone::new("resnet18", &layers, &WeightSet::untrained("resnet18", seed).unwrap()).unwrap()
    };
    assert_eq!(make(1, &["layer2"]).fingerprint(), make(1, &["layer1", "layer2"]).fingerprint());
    assert_ne!(make(1, &["layer2"]).fingerprint(), make(2, &["layer2"]).fingerprint());
    assert_eq!(make(1, &["layer2"]).fingerprint().len(), 64);
}

#[test]
fn inputs_that_cannot_be_taken() {
    let backbone = untrained(Net::find("resnet18").unwrap(), &["layer1", "layer3"]);
    for shape in [(1, 15, 64, 3), (1, 64, 15, 3), (1, 0, 0, 3), (1, 64, 64, 1), (1, 64, 64, 4), (0, 64, 64, 0)] {
        let result = backbone.features(Array4::zeros(shape).view());
        assert!(matches!(result, Err(BackboneError::Input { .. })), "{shape:?}");
    }
    let none = backbone.features(Array4::zeros((0, 64, 64, 3)).view()).unwrap();
    assert_eq!([none[0].dim(), none[1].dim()], [(0, 16, 16, 64), (0, 4, 4, 256)]);
    assert_eq!(backbone.features(Array4::zeros((1, 16, 16, 3)).view()).unwrap()[1].dim(), (1, 1, 1, 256));
}

#[test]
fn values_that_are_not_finite_do_not_panic() {
    for net in NETS {
        let backbone = untrained(net, net.default_layers);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let mut input = formula_input([1, 3, 32, 32]);
            input[[0, 3, 3, 1]] = value;
            let maps = backbone.features(input.view()).unwrap();
            assert_eq!(maps.len(), 3);
        }
    }
}

#[test]
fn layers_that_are_not_there() {
    let weights = WeightSet::untrained("resnet18", 0).unwrap();
    let make = |layers: &[&str]| {
        let layers: Vec<String> = layers.iter().map(|&l| l.to_owned()).collect();
        Backbone::new("resnet18", &layers, &weights).unwrap_err().to_string()
    };
    for (layers, part) in [
        (&["layer9"][..], "there is no layer 'layer9'; the layers are act1, layer1"),
        (&[], "no layer is given"),
        (&["layer1", "layer1"], "'layer1' is given twice"),
    ] {
        let error = make(layers);
        assert!(error.contains(part), "{error}");
    }
    assert!(WeightSet::untrained("alexnet", 0).unwrap_err().to_string().contains("alexnet"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_size_gives_maps_of_the_stated_size(h in 8usize..90, w in 8usize..90, n in 1usize..4, net in 3usize..6) {
        let net = &NETS[net];
        let backbone = untrained(net, &["blocks.2", "blocks.0"]);
        let maps = backbone.features(formula_input([n, 3, h, w]).view()).unwrap();
        prop_assert_eq!(maps[0].dim(), (n, h.div_ceil(8), w.div_ceil(8), net.layers[2].channels));
        prop_assert_eq!(maps[1].dim(), (n, h.div_ceil(2), w.div_ceil(2), net.layers[0].channels));
        prop_assert!(maps.iter().all(|map| map.iter().all(|x| x.is_finite())));
    }
}
