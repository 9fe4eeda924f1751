//! How long does a picture take from pixels to a verdict? Decoding is not in it: pictures are in memory.

use std::time::Duration;

use blemish_benches::cases;
use blemish_core::{Detect, Fit, Image, ImageSource, Session};
use blemish_detect_embedding::{PadimParams, PatchcoreParams};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::Array3;

/// Pictures that a model learns from here; the time of a prediction depends on them through the coreset alone.
const GOOD: usize = 12;

/// Striped pictures, each shifted.
struct Stripes;

impl ImageSource for Stripes {
    fn len(&self) -> usize {
        GOOD
    }

    fn name(&self, index: usize) -> String {
        format!("stripes {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        Image::from_u8(Array3::from_shape_fn((256, 256, 3), |(y, x, c)| {
            let noise = (y * 31 + x * 17 + c * 7 + index * 101) % 23;
            ((((x + index) / 8 + y / 8) % 2) * 120 + 60 + noise) as u8
        }))
    }
}

fn predict(c: &mut Criterion) {
    let mut group = c.benchmark_group("predict");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let padim = ["layer1", "layer2", "layer3"].as_slice();
    let patchcore = ["layer2", "layer3"].as_slice();
    for (backbone, batch) in cases(&[("resnet18", 1)], &[("resnet18", 8), ("wide_resnet50_2", 1)]) {
        let models: [(&str, Box<dyn Detect>); 2] = [
            (
                "padim",
                Box::new(fit(&PadimParams { backbone: backbone.into(), layers: owned(padim), ..Default::default() })),
            ),
            (
                "patchcore",
                Box::new(fit(&PatchcoreParams {
                    backbone: backbone.into(),
                    layers: owned(patchcore),
                    ..Default::default()
                })),
            ),
        ];
        let images: Vec<Image> = (0..batch).map(|i| Stripes.get(i).expect("a picture")).collect();
        for (name, model) in &models {
            group.bench_function(BenchmarkId::new(*name, format!("{backbone}_batch{batch}")), |b| {
                b.iter(|| model.predict(&images).expect("a prediction"));
            });
        }
    }
    group.finish();
}

fn fit<P: Fit>(params: &P) -> P::Model {
    params.fit(&Session::quiet(0), &Stripes).expect("a model")
}

fn owned(layers: &[&str]) -> Vec<String> {
    layers.iter().map(|layer| (*layer).to_owned()).collect()
}

criterion_group!(benches, predict);
criterion_main!(benches);
