//! The detectors' maps against anomalib's numbers.

#[path = "../../grad/tests/common/mod.rs"]
mod reference;

use blemish_detect_flow::fastflow::MapOf;
use blemish_detect_flow::{cflow, fastflow};
use blemish_flow::{FlowSpec, Latent, MapFlow, Mixing, PackedFlow};
use blemish_grad::Module;
use ndarray::{Array1, Array2, ArrayD, ArrayView2, Axis, Ix1, Ix3, IxDyn};
use reference::{Golden, near, nhwc};

const SIZES: [(usize, usize); 2] = [(64, 64), (50, 75)];

/// The whole file of numbers or, in a clone without it, the maps alone.
fn open(name: &str) -> Option<Golden> {
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    let there = std::path::Path::new(whole).join(name).exists();
    Golden::open(if there { name } else { "detect-flow/maps.safetensors" })
}

/// As anomalib does it: maxima and ceiling over the pictures that are scored together.
fn cflow_maps(layers: &[ArrayD<f32>], pictures: std::ops::Range<usize>, size: (usize, usize)) -> Vec<Array2<f32>> {
    let part = |layer: &ArrayD<f32>| layer.slice_axis(Axis(0), pictures.clone().into()).to_owned();
    let layers: Vec<ArrayD<f32>> = layers.iter().map(part).collect();
    let maxima: Vec<f32> = layers.iter().map(|layer| layer.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    let maps: Vec<Array2<f32>> = (0..pictures.len())
        .map(|i| {
            let grids: Vec<ArrayView2<'_, f32>> =
                layers.iter().map(|l| l.index_axis(Axis(0), i).into_dimensionality().unwrap()).collect();
            cflow::anomaly_map(&grids, &maxima, 0.0, size).unwrap().into_inner()
        })
        .collect();
    let ceiling = maps.iter().flatten().copied().fold(f32::INFINITY, f32::min);
    maps.into_iter().map(|map| map - ceiling).collect()
}

#[test]
fn cflow_maps_in_anomalibs_way() {
    let Some(golden) = open("cflow.safetensors") else { return };
    let layers: Vec<ArrayD<f32>> = (0..3).map(|i| golden.get(&format!("map/log_likelihood_{i}")).clone()).collect();
    let check = |name: &str, pictures: std::ops::Range<usize>, size: (usize, usize)| {
        let (maps, want) = (cflow_maps(&layers, pictures, size), golden.get(name));
        let scores = golden.get(&format!("{name}_score")).clone().into_dimensionality::<Ix1>().unwrap();
        for (i, map) in maps.iter().enumerate() {
            near(name, map.as_slice().unwrap(), &want.index_axis(Axis(0), i).to_owned(), 1e-5, 0.0);
            let score = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!((score - scores[i]).abs() <= 1e-5 * scores[i], "{name}: {score} for {}", scores[i]);
        }
    };
    for size in SIZES {
        let tag = format!("{}x{}", size.0, size.1);
        check(&format!("map/batch2_{tag}"), 0..2, size);
        check(&format!("map/batch1_image0_{tag}"), 0..1, size);
        check(&format!("map/batch1_image1_{tag}"), 1..2, size);
    }
}

#[test]
fn cflow_corners_are_the_corners_of_the_grid() {
    let grid = Array2::from_shape_fn((3, 4), |(y, x)| -((y * 4 + x) as f32));
    let map = cflow::anomaly_map(&[grid.view()], &[0.0], 1.0, (9, 10)).unwrap().into_inner();
    for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let want = 1.0 - grid[[y * 2, x * 3]].exp();
        assert!((map[[y * 8, x * 9]] - want).abs() < 1e-6, "corner {y} {x}");
    }
    // One map for each layer, and a maximum for each.
    assert!(cflow::anomaly_map(&[], &[], 1.0, (9, 10)).is_err());
    assert!(cflow::anomaly_map(&[grid.view()], &[], 1.0, (9, 10)).is_err());
    // More likely than anything learned from counts as most likely; what is no number stays none.
    let map = |l: f32| cflow::anomaly_map(&[Array2::from_elem((1, 2), l).view()], &[0.0], 1.0, (1, 2)).unwrap();
    assert_eq!(map(5.0).view()[[0, 0]], 0.0);
    assert_eq!(map(f32::NEG_INFINITY).view()[[0, 1]], 1.0);
    assert!(map(f32::NAN).view()[[0, 1]].is_nan() && map(f32::NAN).max().is_err());
}

#[test]
fn fastflow_maps() {
    let Some(golden) = open("fastflow.safetensors") else { return };
    let latents: Vec<ArrayD<f32>> = (0..2).map(|i| nhwc(golden.get(&format!("two_layers/z{i}")))).collect();
    check_fastflow(&golden, 1e-5, &|picture| {
        let energy = |z: &ArrayD<f32>| {
            let z = z.index_axis(Axis(0), picture).into_dimensionality::<Ix3>().unwrap().mapv(|z| z * z);
            z.mean_axis(Axis(2)).unwrap()
        };
        latents.iter().map(energy).collect()
    });
    assert!(fastflow::anomaly_map(&[], (4, 4), 0.0).is_err());
}

#[test]
fn fastflow_s_map_is_blurred_at_its_full_size() {
    let layer = Array2::from_shape_fn((3, 4), |(y, x)| (y * 4 + x) as f32);
    let map = |sigma: f32| fastflow::anomaly_map(&[layer.view()], (24, 20), sigma).unwrap().into_inner();
    let wanted = blemish_kernels::blur::gaussian(map(0.0).view(), 1.5).unwrap();
    assert!(map(1.5) == wanted && map(1.5) != map(0.0));
    assert!(fastflow::anomaly_map(&[layer.view()], (24, 20), -1.0).is_err());
}

/// Compares maps and scores; `energies` gives the mean squares of a picture's latents.
fn check_fastflow(golden: &Golden, tolerance: f64, energies: &dyn Fn(usize) -> Vec<Array2<f32>>) {
    for size in SIZES {
        let name = format!("two_layers/map_{}x{}", size.0, size.1);
        let want = golden.get(&name);
        let scores: Array1<f32> = golden.get(&format!("{name}_score")).iter().copied().collect();
        for i in 0..want.shape()[0] {
            let layer = |energy: Array2<f32>| {
                let (dim, energy) = (energy.dim(), energy.into_iter().collect::<Vec<f32>>());
                let latent =
                    Latent { log_dets: vec![f32::NAN; energy.len()], energy, log_det: f64::NAN, loss: f64::NAN };
                Array2::from_shape_vec(dim, MapOf::Latent.anomalies(&latent, 1)).unwrap()
            };
            let layers: Vec<Array2<f32>> = energies(i).into_iter().map(layer).collect();
            let views: Vec<ArrayView2<'_, f32>> = layers.iter().map(|l| l.view()).collect();
            let map = fastflow::anomaly_map(&views, size, 0.0).unwrap();
            let score = map.max().unwrap();
            assert!(f64::from(score - scores[i]).abs() <= tolerance, "{name}: {score} for {}", scores[i]);
            let map = map.into_inner();
            near(&name, map.as_slice().unwrap(), &want.index_axis(Axis(0), i).to_owned(), tolerance, 0.0);
        }
    }
}

#[test]
fn fastflow_from_features_to_maps() {
    let Some(golden) = Golden::open("fastflow.safetensors") else { return };
    let cases = [
        ("steps8", FlowSpec::convolutional(16, 8, 1.0, false), (8, 8), false),
        ("layernorm", FlowSpec::convolutional(6, 2, 0.5, true), (4, 4), true),
    ];
    let mut layers: Vec<Vec<Latent>> = Vec::new();
    for (case, spec, size, norm) in &cases {
        let mut model = MapFlow::new(spec, *size, *norm, 0).unwrap();
        let order = &golden.integers[&format!("{case}/permutation")];
        let channels = order.len() / model.flow().blocks().len();
        for (block, order) in model.flow_mut().blocks_mut().iter_mut().zip(order.chunks_exact(channels)) {
            block.set_mixing(Mixing::Hard(order.iter().map(|i| *i as usize).collect())).unwrap();
        }
        let shapes: std::collections::HashMap<_, _> =
            model.state().into_iter().map(|(name, value)| (name, value.shape().to_vec())).collect();
        let find = |name: &str| {
            let stored = golden.tensors.get(&format!("{case}/state/{name}"))?;
            // The norm's weights are `[c, h, w]` in the file.
            let stored = match name.starts_with("norm.") {
                true => stored.view().permuted_axes(IxDyn(&[1, 2, 0])).as_standard_layout().into_owned(),
                false => stored.clone(),
            };
            stored.into_shape_with_order(shapes[name].clone()).ok()
        };
        model.load(&find).unwrap();
        let (packed, x) = (PackedFlow::new(model).unwrap(), nhwc(golden.get(&format!("{case}/x"))));
        let each = size.0 * size.1 * channels;
        layers.push(x.as_slice().unwrap().chunks_exact(each).map(|x| packed.latent(x).unwrap()).collect());
    }
    let pictures = layers[0].len();
    let loss: f64 = layers.iter().flatten().map(|l| l.loss).sum::<f64>() / pictures as f64;
    near("loss", &[loss as f32], golden.get("two_layers/loss"), 1e-5, 0.0);
    check_fastflow(&golden, 1e-4, &|picture| {
        let cases = layers.iter().zip(&cases);
        cases.map(|(layer, case)| Array2::from_shape_vec(case.2, layer[picture].energy.clone()).unwrap()).collect()
    });
}
