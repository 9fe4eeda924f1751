use blemish_core::{Detect, ModelFile, ModelWriter, Prediction, Preprocess};
use blemish_tensor::Tensor;
use ndarray::ArrayView4;
use serde::{Deserialize, Serialize};

use super::embed::{embed, grid, width};
use super::{KIND, MemoryBank, Scoring};
use crate::{Embedder, Result};

/// A fitted PatchCore: the network and the memory bank.
pub struct Patchcore {
    embedder: Embedder,
    memory: MemoryBank,
    coreset: Vec<u32>,
    seen: Seen,
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
}

impl Patchcore {
    pub(super) fn new(
        embedder: Embedder,
        memory: MemoryBank,
        coreset: Vec<u32>,
        images: usize,
        patches: usize,
    ) -> Self {
        Patchcore { embedder, memory, coreset, seen: Seen { images, patches } }
    }

    /// The memory bank.
    pub fn memory_bank(&self) -> &MemoryBank {
        &self.memory
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
        let Stored { scoring, seen } = file.get(KIND)?;
        let channels: Vec<usize> = embedder.layers().iter().map(|l| l.channels).collect();
        let columns = width(&channels, scoring.mode);
        let rows = file.tensor::<f32>("patchcore.memory_bank", &[None, Some(columns)])?;
        let rows = rows.view::<f32, ndarray::Ix2>()?.to_owned();
        let coreset = file.tensor::<u32>("patchcore.coreset", &[Some(rows.nrows())])?.as_slice::<u32>()?.to_vec();
        Ok(Patchcore { embedder, memory: MemoryBank::new(rows, scoring)?, coreset, seen })
    }

    fn predictions(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        let (n, height, width, _) = input.dim();
        if n == 0 {
            return Ok(Vec::new());
        }
        let maps = self.embedder.features(input)?;
        let patches = embed(&maps, self.memory.scoring().mode)?;
        self.memory.score(patches.view(), grid(&maps), (height, width))
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

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        self.embedder.save(file).map_err(|error| error.into_core(KIND))?;
        file.set(KIND, &Stored { scoring: self.memory.scoring(), seen: self.seen })?;
        file.add("patchcore.memory_bank", Tensor::from_array(&self.memory.rows()))?;
        file.add("patchcore.coreset", Tensor::from_vec(vec![self.coreset.len()], self.coreset.clone())?)
    }

    fn summary(&self) -> String {
        let (m, c) = self.memory.rows().dim();
        let layers: Vec<&str> = self.embedder.layers().iter().map(|l| l.name.as_str()).collect();
        format!(
            "PatchCore on {}, layers {}: {m} of {} patches of {} pictures, {c} numbers each ({:.1} MB)",
            self.embedder.describe(),
            layers.join(" + "),
            self.seen.patches,
            self.seen.images,
            (m * c * 4) as f64 * 1e-6
        )
    }
}
