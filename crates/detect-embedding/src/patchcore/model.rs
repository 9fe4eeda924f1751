use blemish_core::{Arithmetic, Detect, ModelFile, ModelWriter, Prediction, Preprocess, Stages};
use blemish_embed::Maps;
use blemish_kernels::nearest::{Rows, Storage};
use blemish_tensor::{Device, Tensor};
use half::f16;
use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};

use super::embed::{embed, grid, width};
use super::{BankStorage, KIND, MemoryBank, Scoring};
use crate::device::Patches;
use crate::{Embedder, EmbeddingError, Result};

/// A fitted PatchCore: the network and the memory bank.
pub struct Patchcore {
    embedder: Embedder,
    memory: MemoryBank,
    coreset: Vec<u32>,
    seen: Seen,
    /// Why the coreset was not picked on the GPU asked for.
    note: Option<String>,
}

/// What the model was learned from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    images: usize,
    patches: usize,
}

/// The metadata of a model file.
#[derive(Serialize, Deserialize)]
struct Stored {
    scoring: Scoring,
    seen: Seen,
    /// Absent in files of versions that knew 32 bits only.
    #[serde(default)]
    bank: BankStorage,
}

impl Patchcore {
    pub(super) fn new(
        embedder: Embedder,
        memory: MemoryBank,
        coreset: Vec<u32>,
        images: usize,
        patches: usize,
    ) -> Self {
        Patchcore { embedder, memory, coreset, seen: Seen { images, patches }, note: None }
    }

    pub(super) fn with_note(self, note: Option<String>) -> Self {
        Patchcore { note, ..self }
    }

    /// The memory bank.
    pub fn memory_bank(&self) -> &MemoryBank {
        &self.memory
    }

    /// The same model with its memory bank rounded to `storage`. What a bank of fewer bits lost does not come back.
    ///
    /// # Errors
    /// Values too large for 16 bits.
    pub fn rounded(self, storage: BankStorage) -> Result<Self> {
        let memory = MemoryBank::rounded(self.memory.rows().into_owned(), storage, self.memory.scoring())?;
        Ok(Patchcore { memory, ..self })
    }

    /// Which of all training patches the rows of the memory bank are, in the order picked.
    pub fn coreset(&self) -> &[u32] {
        &self.coreset
    }

    /// The network.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The model of a file; what makes searching fast is made anew.
    ///
    /// # Errors
    /// Missing or damaged entries, or a memory bank that does not fit the network.
    pub fn load(file: &ModelFile) -> Result<Self> {
        let embedder = Embedder::load(file)?;
        let Stored { scoring, seen, bank } = file.get(KIND)?;
        let channels: Vec<usize> = embedder.layers().iter().map(|l| l.channels).collect();
        let columns = width(&channels, scoring.mode);
        let rows = read(file, bank, columns)?;
        let memory = MemoryBank::stored(rows, columns, scoring)?;
        let coreset = file.tensor::<u32>("patchcore.coreset", &[Some(memory.bank().dim().0)])?;
        Ok(Patchcore { embedder, coreset: coreset.as_slice::<u32>()?.to_vec(), memory, seen, note: None })
    }

    fn predictions(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        let (n, height, width, _) = input.dim();
        if n == 0 {
            return Ok(Vec::new());
        }
        let (maps, size) = (self.embedder.maps(input)?, (height, width));
        match self.there(&maps, size) {
            Some(predictions) => predictions,
            None => self.scores(self.embedder.here(maps, input)?, size),
        }
    }

    /// From maps to distances on the GPU that the maps are on.
    fn there(&self, maps: &Maps, size: (usize, usize)) -> Option<Result<Vec<Prediction>>> {
        self.memory.score_there(&Patches::of(maps, self.memory.scoring().mode)?, grid(maps), size)
    }

    fn scores(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> Result<Vec<Prediction>> {
        let patches = embed(&maps, self.memory.scoring().mode)?;
        self.memory.score(patches.view(), grid(&Maps::Host(maps)), size)
    }
}

impl Detect for Patchcore {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn preprocess(&self) -> &Preprocess {
        self.embedder.preprocess()
    }

    fn predict_batch(&self, input: ArrayView4<'_, f32>) -> blemish_core::Result<Vec<Prediction>> {
        self.predictions(input).map_err(|error| error.into_core(KIND))
    }

    fn stages(&self) -> Option<&dyn Stages> {
        // On a GPU features go on to the search without a copy to the CPU between.
        (!self.embedder.on_gpu()).then_some(self)
    }

    fn use_device(&mut self, device: &Device) {
        self.embedder.use_device(device);
        self.memory.use_device(device);
    }

    fn placement(&self) -> String {
        let note = self.note.as_ref().map_or_else(String::new, |why| format!("; coreset picked on the CPU ({why})"));
        format!("network {}; search {}{note}", self.embedder.placement(), self.memory.placement())
    }

    fn arithmetic(&self) -> Arithmetic {
        self.embedder.arithmetic()
    }

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        self.embedder.save(file).map_err(|error| error.into_core(KIND))?;
        let bank = self.memory.bank();
        let (n, columns) = bank.dim();
        let shape = vec![n, columns];
        let (rows, bank) = match bank.as_stored() {
            Rows::F32(values) => (Tensor::from_vec(shape, values.clone())?, BankStorage::F32),
            Rows::F16(values) => (Tensor::from_vec(shape, values.clone())?, BankStorage::F16),
            Rows::Int8 { codes, scale, offset } => {
                file.add("patchcore.memory_scale", Tensor::from_vec(vec![columns], scale.clone())?)?;
                file.add("patchcore.memory_offset", Tensor::from_vec(vec![columns], offset.clone())?)?;
                (Tensor::from_vec(shape, codes.clone())?, BankStorage::Int8)
            }
        };
        file.set(KIND, &Stored { scoring: self.memory.scoring(), seen: self.seen, bank })?;
        file.add("patchcore.memory_bank", rows)?;
        file.add("patchcore.coreset", Tensor::from_vec(vec![self.coreset.len()], self.coreset.clone())?)
    }

    fn summary(&self) -> String {
        let stored = self.memory.bank().as_stored();
        let (m, c) = self.memory.bank().dim();
        let bits = match stored.storage() {
            Storage::F32 => "",
            Storage::F16 => " in 16 bits",
            Storage::Int8 => " in 8 bits",
        };
        let layers: Vec<&str> = self.embedder.layers().iter().map(|l| l.name.as_str()).collect();
        format!(
            "PatchCore on {}, layers {}: {m} of {} patches of {} pictures, {c} numbers each{bits} ({:.1} MB)",
            self.embedder.describe(),
            layers.join(" + "),
            self.seen.patches,
            self.seen.images,
            stored.bytes() as f64 * 1e-6
        )
    }
}

impl Stages for Patchcore {
    fn features(&self, input: ArrayView4<'_, f32>) -> blemish_core::Result<Vec<Array4<f32>>> {
        self.embedder.features(input).map_err(|error| EmbeddingError::from(error).into_core(KIND))
    }

    fn score(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> blemish_core::Result<Vec<Prediction>> {
        self.scores(maps, size).map_err(|error| error.into_core(KIND))
    }
}

/// The memory bank of a file. It is copied out of the mapped file: a model at work must not depend on what becomes of it.
fn read(file: &ModelFile, bank: BankStorage, columns: usize) -> Result<Rows> {
    const NAME: &str = "patchcore.memory_bank";
    let shape = [None, Some(columns)];
    let list = |name: &str| -> Result<Vec<f32>> {
        Ok(file.tensor::<f32>(name, &[Some(columns)])?.as_slice::<f32>()?.to_vec())
    };
    Ok(match bank {
        BankStorage::F32 => Rows::F32(file.tensor::<f32>(NAME, &shape)?.as_slice::<f32>()?.to_vec()),
        BankStorage::F16 => Rows::F16(file.tensor::<f16>(NAME, &shape)?.as_slice::<f16>()?.to_vec()),
        BankStorage::Int8 => Rows::Int8 {
            codes: file.tensor::<i8>(NAME, &shape)?.as_slice::<i8>()?.to_vec(),
            scale: list("patchcore.memory_scale")?,
            offset: list("patchcore.memory_offset")?,
        },
    })
}
