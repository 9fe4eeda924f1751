use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blemish_tensor::{DType, Element, MappedFile, Tensor};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Arithmetic, CoreError, Detect, Image, Result};

/// The model format written by this version, and the newest it reads.
pub const FORMAT_VERSION: u64 = 1;

/// The single metadata key; one key keeps the file's bytes reproducible.
const KEY: &str = "blemish";
/// Metadata entry with the arithmetic of the self-test's scores.
const ARITHMETIC: &str = "arithmetic";

/// Collects tensors and metadata, then writes them as one safetensors file.
///
/// Metadata is one JSON object under the key `blemish`: `format`, `kind`, `version`, and whatever [`set`](Self::set) adds.
pub struct ModelWriter {
    meta: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl ModelWriter {
    /// An empty file for a detector of this kind.
    pub fn new(kind: &str) -> Self {
        let mut meta = Map::new();
        meta.insert("format".to_owned(), json!(FORMAT_VERSION));
        meta.insert("kind".to_owned(), json!(kind));
        meta.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        ModelWriter { meta, tensors: BTreeMap::new() }
    }

    /// Sets a metadata entry, replacing an earlier one.
    ///
    /// # Errors
    /// [`CoreError::Params`] if the value cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<()> {
        let value = serde_json::to_value(value)
            .map_err(|e| CoreError::Params { name: "metadata", why: format!("{key}: {e}") })?;
        self.meta.insert(key.to_owned(), value);
        Ok(())
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// [`CoreError::Params`] if the name is taken.
    pub fn add(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        match self.tensors.insert(name.to_owned(), tensor) {
            None => Ok(()),
            Some(_) => Err(CoreError::Params { name: "tensor", why: format!("'{name}' was added twice") }),
        }
    }

    /// Adds probe pictures and the scores `model` gives them now; [`ModelFile::self_test`] compares them after loading.
    ///
    /// # Errors
    /// Whatever `model` says of the probes.
    pub fn add_self_test(&mut self, model: &dyn Detect) -> Result<()> {
        self.set(ARITHMETIC, &model.arithmetic())?;
        let probes = probes();
        let scores: Vec<f32> = model.predict(&probes)?.iter().map(|p| p.score).collect();
        for (i, probe) in probes.iter().enumerate() {
            if let Some(pixels) = probe.as_u8() {
                self.add(&format!("self_test.{i}"), Tensor::from_array(&pixels))?;
            }
        }
        self.add("self_test.scores", Tensor::from_vec(vec![scores.len()], scores)?)
    }

    /// Writes the file: to a temporary one beside it, which then takes its name. On an error nothing is left behind.
    ///
    /// # Errors
    /// [`CoreError::Io`], a full disk for instance.
    pub fn write(&self, path: &Path) -> Result<()> {
        let io = |source| CoreError::Io { path: path.to_path_buf(), source };
        let header = Value::Object(self.meta.clone()).to_string();
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let view = TensorView::new(to_safetensors(tensor.dtype()), tensor.shape().to_vec(), tensor.bytes())
                .map_err(|e| CoreError::Params { name: "tensor", why: format!("'{name}': {e}") })?;
            views.push((name.as_str(), view));
        }
        let meta = std::collections::HashMap::from([(KEY.to_owned(), header)]);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let part = tempfile::Builder::new().prefix(".blemish-").suffix(".part").tempfile_in(folder).map_err(io)?;
        safetensors::serialize_to_file(views, Some(meta), part.path()).map_err(|e| match e {
            SafeTensorError::IoError(source) => io(source),
            other => io(std::io::Error::other(other)),
        })?;
        finish(part, path).map_err(io)
    }
}

/// Gives a completely written temporary file its name.
fn finish(part: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    part.as_file().sync_all()?;
    // A temporary file is private; a result should be as readable as any other file of the user.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        part.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    part.persist(path)?;
    Ok(())
}

/// An opened model file, memory-mapped. Nothing in it is executed.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    meta: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl ModelFile {
    /// Opens and checks the file's structure.
    ///
    /// # Errors
    /// [`CoreError::ModelFile`] for anything but a whole blemish model, [`CoreError::FutureModel`] for a later format,
    /// [`CoreError::Tensor`] if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |why: String| CoreError::ModelFile { path: path.to_path_buf(), why };
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(e.to_string()))?;
        let text = header.metadata().as_ref().and_then(|m| m.get(KEY));
        let text =
            text.ok_or_else(|| bad("it holds tensors, but no blemish model (backbone weights, perhaps)".into()))?;
        let meta: Map<String, Value> = serde_json::from_str(text).map_err(|e| bad(format!("its metadata: {e}")))?;
        match meta.get("format").and_then(Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(got) if got > FORMAT_VERSION => {
                return Err(CoreError::FutureModel { path: path.to_path_buf(), got, newest: FORMAT_VERSION });
            }
            got => return Err(bad(format!("its format version is {got:?}"))),
        }
        let whole = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
        let start = bytes.as_ptr() as usize;
        let mut tensors = BTreeMap::new();
        for (name, view) in whole.iter() {
            let dtype = from_safetensors(view.dtype()).ok_or_else(|| {
                bad(format!("tensor '{name}' has type {:?}, which blemish never writes", view.dtype()))
            })?;
            let at = view.data().as_ptr() as usize - start;
            let tensor = Tensor::from_mapped(&file, at..at + view.data().len(), dtype, view.shape().to_vec())?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(ModelFile { path: path.to_path_buf(), meta, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The detector's kind.
    ///
    /// # Errors
    /// [`CoreError::ModelFile`] if it is missing.
    pub fn kind(&self) -> Result<&str> {
        self.meta.get("kind").and_then(Value::as_str).ok_or_else(|| self.bad("it does not say of what kind it is"))
    }

    /// A metadata entry.
    ///
    /// # Errors
    /// [`CoreError::ModelFile`] if it is missing or of another form.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.meta.get(key).ok_or_else(|| self.bad(format!("its metadata has no '{key}'")))?;
        T::deserialize(value).map_err(|e| self.bad(format!("its metadata '{key}': {e}")))
    }

    /// All metadata, for showing.
    pub fn meta(&self) -> &Map<String, Value> {
        &self.meta
    }

    /// Names and tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A tensor of a given type and shape; `None` in `shape` fits any size.
    ///
    /// # Errors
    /// [`CoreError::ModelFile`] if it is missing or of another type or shape.
    pub fn tensor<T: Element>(&self, name: &str, shape: &[Option<usize>]) -> Result<&Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.bad(format!("tensor '{name}' is missing")))?;
        let fits = tensor.shape().len() == shape.len()
            && tensor.shape().iter().zip(shape).all(|(got, want)| want.is_none_or(|want| want == *got));
        if tensor.dtype() != T::DTYPE || !fits {
            return Err(self.bad(format!(
                "tensor '{name}' is {} {:?}, wanted {} {shape:?}",
                tensor.dtype(),
                tensor.shape(),
                T::DTYPE
            )));
        }
        Ok(tensor)
    }

    /// Scores the probe pictures again and compares.
    ///
    /// # Errors
    /// [`CoreError::ModelFile`] if a score differs by more than a thousandth, or by more than
    /// [`Arithmetic::tolerance`] where the network computes with other numbers than when the file was written: the file is
    /// damaged, or this build computes something else than the one that wrote it.
    pub fn self_test(&self, model: &dyn Detect) -> Result<()> {
        let expected = self.tensor::<f32>("self_test.scores", &[None])?.as_slice::<f32>()?;
        let here = model.arithmetic();
        // Files of versions that knew one arithmetic for each precision do not say it.
        let there: Arithmetic = if self.meta.contains_key(ARITHMETIC) { self.get(ARITHMETIC)? } else { here };
        let mut images = Vec::with_capacity(expected.len());
        for i in 0..expected.len() {
            let probe = self.tensor::<u8>(&format!("self_test.{i}"), &[None, None, None])?;
            images.push(Image::from_u8(probe.view::<u8, ndarray::Ix3>()?.to_owned())?);
        }
        for (got, want) in model.predict(&images)?.iter().zip(expected) {
            // Asked again: a GPU that failed meanwhile left the work to the CPU.
            let tolerance = there.tolerance(here).max(there.tolerance(model.arithmetic()));
            let near = (got.score - want).abs() <= tolerance * want.abs().max(1e-3);
            if !near {
                return Err(self.bad(format!("its self-test gives {} instead of {want}", got.score)));
            }
        }
        Ok(())
    }

    /// A [`CoreError::ModelFile`] about this file.
    pub fn bad(&self, why: impl Into<String>) -> CoreError {
        CoreError::ModelFile { path: self.path.clone(), why: why.into() }
    }
}

/// Two small pictures with edges and gradients, by formula.
fn probes() -> Vec<Image> {
    let picture = |seed: usize| {
        ndarray::Array3::from_shape_fn((48, 64, 3), |(y, x, c)| {
            let wave = (x * (3 + seed) + y * (2 + c)) % 97 + (y * x / (7 + seed)) % 61;
            let block = if (x / 8 + y / 6 + seed).is_multiple_of(3) { 90 } else { 0 };
            (wave + block).min(255) as u8
        })
    };
    (0..2).filter_map(|seed| Image::from_u8(picture(seed)).ok()).collect()
}

fn to_safetensors(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::U32 => Dtype::U32,
        DType::I64 => Dtype::I64,
        _ => Dtype::F32,
    }
}

fn from_safetensors(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}
