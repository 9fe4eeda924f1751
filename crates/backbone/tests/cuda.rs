//! Networks on a GPU, or on the stand-in driver of kernels/emu (`cargo xtask emu`), against the CPU.
#![cfg(feature = "cuda")]

use blemish_backbone::catalogue::NETS;
use blemish_backbone::{Backbone, BackboneError, GpuPrecision, WeightSet};
use blemish_tensor::Device;
use blemish_tensor::cuda::Cuda;
use ndarray::{Array4, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn pictures(shape: [usize; 4], seed: u64) -> Array4<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array4::from_shape_simple_fn(shape, || rng.random_range(-2.0..2.0))
}

fn network(id: &str, layers: &[&str]) -> Backbone {
    let layers: Vec<String> = layers.iter().map(|l| (*l).to_owned()).collect();
    Backbone::new(id, &layers, &WeightSet::untrained(id, 7).unwrap()).unwrap()
}

/// Root mean square of the difference over that of the map.
fn distance(got: &Array4<f32>, wanted: &Array4<f32>) -> f64 {
    assert_eq!(got.dim(), wanted.dim());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let lost = squares(&mut got.iter().zip(wanted).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    let size = squares(&mut wanted.iter().map(|v| f64::from(*v)));
    assert!(lost.is_finite() && size > 0.0);
    (lost / size).sqrt()
}

fn precisions(cuda: &Cuda) -> Vec<(GpuPrecision, f64)> {
    let mut all = vec![(GpuPrecision::Single, 2e-5)];
    if cuda.info().capability >= (8, 0) {
        all.push((GpuPrecision::Half, 5e-3));
    }
    all
}

#[test]
fn every_network_has_the_features_of_the_cpu() {
    let Some(cuda) = open() else { return };
    for net in NETS {
        // All kinds of blocks; the deep ones of the large networks take minutes in an emulator.
        let most = match net.id {
            "wide_resnet50_2" => 2,
            "resnet50" | "resnet18" | "efficientnet_b5" => 3,
            _ => 5,
        };
        let layers: Vec<&str> = net.layers.iter().map(|layer| layer.name).take(most).collect();
        let cpu = network(net.id, &layers);
        let input = pictures([1, 32, 33, 3], 1);
        let wanted = cpu.features(input.view()).unwrap();
        for (precision, tolerance) in precisions(&cuda) {
            let gpu = network(net.id, &layers).with_device(&Device::cuda(cuda.clone()), precision).unwrap();
            assert_eq!(gpu.device(), Device::cuda(cuda.clone()));
            let got = gpu.features(input.view()).unwrap();
            for ((got, wanted), layer) in got.iter().zip(&wanted).zip(&layers) {
                let far = distance(got, wanted);
                assert!(far < tolerance, "{} {layer} {precision:?}: {far:e}", net.id);
            }
        }
    }
}

#[test]
fn shapes_come_and_go_and_a_batch_is_its_pictures() {
    let Some(cuda) = open() else { return };
    let used = cuda.memory_used();
    for (precision, tolerance) in precisions(&cuda) {
        let cpu = network("resnet18", &["layer1", "act1"]);
        let gpu = network("resnet18", &["layer1", "act1"]).with_device(&Device::cuda(cuda.clone()), precision);
        let gpu = gpu.unwrap();
        // The first shape twice in a row, then again after it had to make room; each time with other pictures.
        let sides = [[16, 24], [16, 24], [17, 8], [8, 12], [9, 9], [16, 24]];
        for (seed, [h, w]) in sides.into_iter().enumerate() {
            let input = pictures([2, h, w, 3], seed as u64);
            let got = gpu.features(input.view()).unwrap();
            for (got, wanted) in got.iter().zip(cpu.features(input.view()).unwrap()) {
                assert!(distance(got, &wanted) < tolerance, "{h} x {w} {precision:?}");
            }
            let one = gpu.features(input.slice(s![1..2, .., .., ..])).unwrap();
            for (batch, one) in got.iter().zip(one) {
                assert_eq!(batch.slice(s![1..2, .., .., ..]), one, "{h} x {w} {precision:?}");
            }
        }
        // More pictures than go through the network together.
        let input = pictures([35, 8, 8, 3], 5);
        let got = gpu.features(input.view()).unwrap();
        let last = gpu.features(input.slice(s![34.., .., .., ..])).unwrap();
        assert_eq!(got[0].slice(s![34.., .., .., ..]), last[0]);
    }
    assert_eq!(cuda.memory_used(), used);
}

#[test]
fn features_stay_on_the_gpu() {
    let Some(cuda) = open() else { return };
    let device = Device::cuda(cuda.clone());
    let gpu =
        network("mobilenetv3_large_100", &["blocks.2", "blocks.0"]).with_device(&device, GpuPrecision::Single).unwrap();
    let inputs = [pictures([2, 32, 16, 3], 1), pictures([2, 32, 16, 3], 2)];
    let maps: Vec<_> = inputs
        .iter()
        .map(|input| {
            let pixels = cuda.upload(input.as_slice().unwrap()).unwrap();
            gpu.features_on_gpu(&pixels, [2, 32, 16]).unwrap()
        })
        .collect();
    // Maps are the caller's: a later call leaves those of an earlier one alone.
    for (maps, input) in maps.iter().zip(&inputs) {
        for (map, wanted) in maps.iter().zip(gpu.features(input.view()).unwrap()) {
            assert_eq!(map.shape(), <[usize; 4]>::from(wanted.dim()));
            assert_eq!(map.values().len(), wanted.len());
            assert_eq!(map.download().unwrap(), wanted);
        }
    }
    let pixels = cuda.upload(inputs[0].as_slice().unwrap()).unwrap();
    assert!(matches!(gpu.features_on_gpu(&pixels, [2, 32, 17]), Err(BackboneError::Gpu(_))));
    assert!(matches!(gpu.features_on_gpu(&pixels, [0, 32, 16]), Err(BackboneError::Input { .. })));
    assert!(gpu.features(Array4::zeros((0, 32, 16, 3)).view()).unwrap()[0].is_empty());
    assert!(gpu.features(Array4::zeros((1, 32, 16, 4)).view()).is_err());
    // The call after an error is as good as any.
    assert_eq!(
        gpu.features_on_gpu(&pixels, [2, 32, 16]).unwrap()[0].download().unwrap(),
        maps[0][0].download().unwrap()
    );
    let back = gpu.with_device(&Device::cpu(), GpuPrecision::Single).unwrap();
    assert_eq!(back.device(), Device::cpu());
    assert!(matches!(back.features_on_gpu(&pixels, [2, 32, 16]), Err(BackboneError::NoGpu { .. })));
}

#[test]
fn a_budget_too_small_is_an_error() {
    let Some(cuda) = open() else { return };
    let gpu = network("resnet18", &["layer1"]).with_device(&Device::cuda(cuda.clone()), GpuPrecision::Single).unwrap();
    cuda.set_memory_budget(cuda.memory_used() + 20_000);
    let input = pictures([1, 32, 32, 3], 1);
    let error = gpu.features(input.view()).unwrap_err();
    assert!(error.to_string().contains("more bytes on the GPU"), "{error}");
    cuda.set_memory_budget(1 << 28);
    assert!(gpu.features(input.view()).is_ok());
}
