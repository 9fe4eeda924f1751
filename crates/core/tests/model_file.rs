//! The model file: what is written comes back, whatever is damaged is refused, nothing is left half-written.

use std::path::Path;

use blemish_core::{CoreError, Detect, FORMAT_VERSION, ModelFile, ModelWriter, Prediction, Preprocess, Result};
use blemish_tensor::Tensor;
use ndarray::{ArrayView4, Axis};

/// Scores a picture by its mean, times a factor.
struct Mean(Preprocess, f32);

impl Detect for Mean {
    fn kind(&self) -> &'static str {
        "mean"
    }
    fn preprocess(&self) -> &Preprocess {
        &self.0
    }
    fn predict_batch(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        Ok(input
            .axis_iter(Axis(0))
            .map(|x| Prediction { score: self.1 * (3.0 + x.mean().unwrap_or(0.0)), map: None })
            .collect())
    }
    fn save(&self, file: &mut ModelWriter) -> Result<()> {
        file.add("factor", Tensor::from_vec(vec![1], vec![self.1])?)
    }
    fn summary(&self) -> String {
        "a mean".to_owned()
    }
}

fn write(path: &Path, model: &Mean) {
    let mut writer = ModelWriter::new(model.kind());
    writer.set("preprocess", &model.0).unwrap();
    model.save(&mut writer).unwrap();
    writer.add_self_test(model).unwrap();
    writer.write(path).unwrap();
}

#[test]
fn what_is_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let model = Mean(Preprocess::default(), 2.0);
    write(&path, &model);
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.kind().unwrap(), "mean");
    assert_eq!(file.get::<Preprocess>("preprocess").unwrap(), model.0);
    assert_eq!(file.tensor::<f32>("factor", &[Some(1)]).unwrap().as_slice::<f32>().unwrap(), [2.0]);
    file.self_test(&model).unwrap();
    let error = file.self_test(&Mean(Preprocess::default(), 2.1)).unwrap_err();
    assert!(error.to_string().contains("self-test"), "{error}");
    assert!(file.tensor::<u8>("factor", &[Some(1)]).is_err());
    assert!(file.tensor::<f32>("factor", &[Some(2)]).is_err());
    assert!(file.tensor::<f32>("factors", &[None]).is_err());
    assert!(file.get::<Preprocess>("nothing").is_err());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["m.safetensors"], "no temporary file stays");
}

#[test]
fn same_content_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    write(&a, &Mean(Preprocess::default(), 2.0));
    write(&b, &Mean(Preprocess::default(), 2.0));
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    write(&path, &Mean(Preprocess::default(), 2.0));
    let whole = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut");
    for length in (0..whole.len()).step_by(whole.len() / 97).chain([7, 8, 9, whole.len() - 1]) {
        std::fs::write(&cut, &whole[..length]).unwrap();
        assert!(ModelFile::open(&cut).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn every_damaged_header_byte_is_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    write(&path, &Mean(Preprocess::default(), 2.0));
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let bad = dir.path().join("bad");
    for at in 0..header {
        for flip in [0x01, 0x20, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(&bad, &bytes).unwrap();
            // Either refused, or opened and asked for what it no longer has: never a panic.
            if let Ok(file) = ModelFile::open(&bad) {
                let _ = (file.kind().is_ok(), file.get::<Preprocess>("preprocess").is_ok());
                let _ = file.self_test(&Mean(Preprocess::default(), 2.0)).is_ok();
            }
        }
    }
}

#[test]
fn later_formats_and_foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut writer = ModelWriter::new("mean");
    writer.set("format", &(FORMAT_VERSION + 1)).unwrap();
    writer.write(&path).unwrap();
    assert!(matches!(ModelFile::open(&path), Err(CoreError::FutureModel { got, .. }) if got == FORMAT_VERSION + 1));

    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[0]).unwrap();
    std::fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    let error = ModelFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("backbone weights"), "{error}");

    std::fs::write(&path, "not a model").unwrap();
    assert!(ModelFile::open(&path).unwrap_err().to_string().contains("not a usable model file"));
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    write(&path, &Mean(Preprocess::default(), 2.0));
    let before = std::fs::read(&path).unwrap();
    let mut writer = ModelWriter::new("mean");
    writer.add("x", Tensor::from_vec(vec![1], vec![1u8]).unwrap()).unwrap();
    assert!(writer.add("x", Tensor::from_vec(vec![1], vec![1u8]).unwrap()).is_err());
    assert!(writer.write(&dir.path().join("no/such/folder/m")).is_err());
    assert!(writer.write(dir.path()).is_err(), "a folder cannot be replaced by a file");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
