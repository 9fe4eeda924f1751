use blemish_core::{AnomalyMap, Arithmetic, CoreError, Detect, ModelFile, ModelWriter, Prediction, Preprocess, Stages};
use blemish_embed::Maps;
use blemish_kernels::{blur, resize};
use blemish_tensor::Device;
use ndarray::{Array4, ArrayView2, ArrayView4};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Form, Gaussians, KIND};
use crate::device::Upsampled;
use crate::{Embedder, EmbeddingError, Mode, Result};

/// A fitted PaDiM: the network and a Gaussian for each position.
pub struct Padim {
    embedder: Embedder,
    gaussians: Gaussians,
    settings: Settings,
}

/// The metadata of a model file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Settings {
    sigma: f32,
    mode: Mode,
    images: usize,
}

impl Padim {
    pub(super) fn new(embedder: Embedder, gaussians: Gaussians, sigma: f32, mode: Mode, images: usize) -> Self {
        Padim { embedder, gaussians, settings: Settings { sigma, mode, images } }
    }

    /// The Gaussians.
    pub fn gaussians(&self) -> &Gaussians {
        &self.gaussians
    }

    /// The network.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The model of a file.
    ///
    /// # Errors
    /// Missing or damaged entries, or Gaussians that do not fit the network.
    pub fn load(file: &ModelFile) -> Result<Self> {
        let (embedder, settings) = (Embedder::load(file)?, file.get::<Settings>(KIND)?);
        let gaussians = Gaussians::load(file)?;
        let layers: Vec<usize> = embedder.layers().iter().map(|l| l.channels).collect();
        let maps: Vec<usize> = gaussians.maps().iter().map(|m| m[2]).collect();
        if layers != maps {
            return Err(file.bad(format!("its maps have {maps:?} channels, its network {layers:?}")).into());
        }
        if !(0.0..=1000.0).contains(&settings.sigma) {
            return Err(file.bad(format!("its sigma is {}", settings.sigma)).into());
        }
        Ok(Padim { embedder, gaussians, settings })
    }

    fn predictions(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        let (n, height, width, _) = input.dim();
        if n == 0 {
            return Ok(Vec::new());
        }
        let maps = self.embedder.maps(input)?;
        match self.there(&maps, (height, width))? {
            Some(predictions) => Ok(predictions),
            None => match maps {
                Maps::Host(maps) => self.scores(&maps, (height, width)),
                // Once more on the CPU's side, which says what is wrong, if something is.
                #[cfg(feature = "cuda")]
                Maps::Gpu(_) => self.scores(&self.embedder.features(input)?, (height, width)),
            },
        }
    }

    /// All of it on the GPU that the maps are on, down to the finished map.
    fn there(&self, maps: &Maps, size: (usize, usize)) -> Result<Option<Vec<Prediction>>> {
        let sizes = maps.shapes().into_iter().map(|[_, h, w, c]| [h, w, c]);
        if matches!(maps, Maps::Host(_)) || !sizes.eq(self.gaussians.maps().iter().copied()) {
            return Ok(None);
        }
        let border = match self.settings.mode {
            Mode::Anomalib => blur::Border::Reflect,
            Mode::Paper => blur::Border::Symmetric,
        };
        let Some(all) = self.gaussians.upsampled(maps, &Upsampled { size, sigma: self.settings.sigma, border })? else {
            return Ok(None);
        };
        let finished = |map: ArrayView2<'_, f32>| {
            let map = AnomalyMap::new(map.to_owned());
            Ok(Prediction { score: map.max()?, map: Some(map) })
        };
        Ok(Some(all.outer_iter().map(finished).collect::<Result<_>>()?))
    }

    fn scores(&self, maps: &[Array4<f32>], (height, width): (usize, usize)) -> Result<Vec<Prediction>> {
        let sizes: Vec<[usize; 3]> = maps.iter().map(|m| [m.dim().1, m.dim().2, m.dim().3]).collect();
        if sizes != self.gaussians.maps() {
            let got = format!("{height} x {width}, which gives {sizes:?}");
            let wanted = format!("pictures of the size learned from, with feature maps {:?}", self.gaussians.maps());
            return Err(CoreError::Shape { what: "network input", wanted, got }.into());
        }
        let distance = self.gaussians.distance(maps)?;
        let grids: Vec<ArrayView2<'_, f32>> = distance.outer_iter().collect();
        grids.into_par_iter().map(|grid| self.prediction(grid, (height, width))).collect()
    }

    /// Map and score of one picture's distances.
    fn prediction(&self, grid: ArrayView2<'_, f32>, size: (usize, usize)) -> Result<Prediction> {
        let sigma = self.settings.sigma;
        let map = match self.settings.mode {
            Mode::Anomalib => AnomalyMap::from_patches(grid, size, false, sigma)?,
            Mode::Paper => {
                let up = resize::bilinear_2d(grid, size)?;
                AnomalyMap::new(blur::gaussian_with(up.view(), sigma, blur::Border::Symmetric)?)
            }
        };
        Ok(Prediction { score: map.max()?, map: Some(map) })
    }
}

impl Detect for Padim {
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
        // On a GPU features go on to the distances without a copy to the CPU between.
        (!self.embedder.on_gpu()).then_some(self)
    }

    fn use_device(&mut self, device: &Device) {
        self.embedder.use_device(device);
        self.gaussians.use_device(device);
    }

    fn placement(&self) -> String {
        format!("network {}; distances {}", self.embedder.placement(), self.gaussians.placement())
    }

    fn arithmetic(&self) -> Arithmetic {
        self.embedder.arithmetic()
    }

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        let add = |file: &mut ModelWriter| -> Result<()> {
            self.embedder.save(file)?;
            file.set(KIND, &self.settings)?;
            self.gaussians.save(file)
        };
        add(file).map_err(|error| error.into_core(KIND))
    }

    fn summary(&self) -> String {
        let (height, width) = self.gaussians.grid();
        let layers: Vec<&str> = self.embedder.layers().iter().map(|l| l.name.as_str()).collect();
        let form = match self.gaussians.form() {
            Form::LowRank => "low rank",
            Form::Nested => "nested triangles",
            Form::Triangle | Form::Auto => "triangles",
        };
        let floats = self.gaussians.floats_per_position();
        format!(
            "PaDiM on {}, layers {}: {} pictures, {} channels, grid {height} x {width}, {form}, {floats:.0} floats a \
             position ({:.1} MB)",
            self.embedder.describe(),
            layers.join(" + "),
            self.settings.images,
            self.gaussians.channels().len(),
            floats * (height * width) as f64 * 4e-6
        )
    }
}

impl Stages for Padim {
    fn features(&self, input: ArrayView4<'_, f32>) -> blemish_core::Result<Vec<Array4<f32>>> {
        self.embedder.features(input).map_err(|error| EmbeddingError::from(error).into_core(KIND))
    }

    fn score(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> blemish_core::Result<Vec<Prediction>> {
        self.scores(&maps, size).map_err(|error| error.into_core(KIND))
    }
}
