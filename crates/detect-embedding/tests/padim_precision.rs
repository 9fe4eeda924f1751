//! PaDiM in bf16 and int8 on MVTec AD's Screw with ImageNet weights: AUROCs beside those in f32, and the model file.

use std::path::Path;

use blemish_core::{CoreError, Detect, Fit, Image, ImageSource, ModelFile, ModelWriter, Prediction, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, Sample, read_mask};
use blemish_detect_embedding::{Padim, PadimParams};
use blemish_embed::Precision;
use blemish_kernels::resize::antialias_u8;
use blemish_metrics::auroc;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

/// Pictures in memory, shrunk to the network's input once.
struct Shrunk(Vec<Image>);

impl Shrunk {
    fn new(samples: &[Sample]) -> Shrunk {
        let source = Files::new(samples.to_vec());
        let shrink = |i: usize| {
            let small = antialias_u8(source.get(i).unwrap().as_u8().unwrap(), (256, 256)).unwrap();
            Image::from_u8(small.mapv(|x| x.round().clamp(0.0, 255.0) as u8)).unwrap()
        };
        Shrunk((0..samples.len()).map(shrink).collect())
    }
}

impl ImageSource for Shrunk {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn get(&self, index: usize) -> Result<Image, CoreError> {
        Ok(self.0[index].clone())
    }
}

fn predictions(model: &Padim, test: &Shrunk) -> Vec<Prediction> {
    let batches = test.0.chunks(16);
    batches.flat_map(|images| model.predict(images).unwrap()).collect()
}

#[test]
fn aurocs_hardly_change_and_the_file_keeps_the_precision() {
    let weights = Path::new(SHARED).join("weights/mobilenetv2_100.safetensors");
    let data = Path::new(SHARED).join("data/mvtec");
    if !(weights.is_file() && data.join("screw").is_dir()) {
        eprintln!("skipped: no folder `shared` with data and weights beside the repository");
        return;
    }
    let (category, protocol) = (Some("screw".into()), Protocol::Paper);
    let spec = DataSpec { data: Some(data), category, protocol, ..DataSpec::default() };
    let dataset = Dataset::open(&spec, 0).unwrap();
    let (train, test) = (Shrunk::new(&dataset.train), Shrunk::new(&dataset.test));
    let labels: Vec<bool> = dataset.test.iter().map(|s| s.good == Some(false)).collect();
    let mut truth = Vec::new();
    for sample in &dataset.test {
        match sample.mask.as_ref().map(|path| read_mask(path).unwrap()) {
            Some(mask) => {
                let (rows, columns) = mask.dim();
                let at = |i: usize, from: usize| (2 * i + 1) * from / 512;
                truth.extend((0..256 * 256).map(|i| mask[[at(i / 256, rows), at(i % 256, columns)]]));
            }
            None => truth.extend(std::iter::repeat_n(false, 256 * 256)),
        }
    }
    let mut first: Option<(f64, f64)> = None;
    for (precision, most) in [(Precision::F32, 0.0), (Precision::Bf16, 0.002), (Precision::Int8, 0.005)] {
        let params = PadimParams {
            backbone: "mobilenetv2_100".to_owned(),
            layers: ["blocks.2", "blocks.4"].map(str::to_owned).to_vec(),
            weights: Some(weights.clone()),
            precision,
            ..PadimParams::default()
        };
        let model = params.fit(&Session::quiet(0), &train).unwrap();
        let found = predictions(&model, &test);
        let scores: Vec<f32> = found.iter().map(|p| p.score).collect();
        let pixels: Vec<f32> = found.iter().flat_map(|p| p.map.as_ref().unwrap().view().to_owned()).collect();
        let (image, pixel) = (auroc(&scores, &labels).unwrap(), auroc(&pixels, &truth).unwrap());
        let (image_32, pixel_32) = *first.get_or_insert((image, pixel));
        eprintln!("{precision}: image AUROC {image:.4}, pixel {pixel:.4}; {}", model.summary());
        assert!((image - image_32).abs() <= most && (pixel - pixel_32).abs() <= most, "{precision}: {image} {pixel}");

        // What is loaded computes in the same precision, with the same calibration, and predicts the same bits.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut writer = ModelWriter::new(model.kind());
        model.save(&mut writer).unwrap();
        writer.write(&path).unwrap();
        let loaded = Padim::load(&ModelFile::open(&path).unwrap()).unwrap();
        assert_eq!(loaded.summary(), model.summary());
        let again = loaded.predict(&test.0[..2]).unwrap();
        for (a, b) in again.iter().zip(&found) {
            assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map), "{precision}");
        }
    }
}
