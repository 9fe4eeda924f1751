use std::sync::Arc;

use blemish_core::{Arithmetic, CoreError, Detect, ModelFile, ModelWriter, Prediction, Preprocess, Stages};
use blemish_embed::{Embedder, Maps};
use blemish_flow::{FlowSpec, MapFlow};
use blemish_grad::Module;
use blemish_tensor::Device;
use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};

use super::flows::Flows;
use super::{FastflowParams, KIND, MapOf, anomaly_map};
use crate::features::Size;
use crate::scores::predictions;
use crate::store::{bounded, load_mixing, load_weights, put, save_mixing, save_weights};
use crate::{Epoch, Mode, Result};

/// Most pixels of a side of a feature map in a model file.
const MOST: usize = 16_384;

/// A fitted FastFlow: the network and a flow for each layer.
pub struct Fastflow {
    embedder: Arc<Embedder>,
    flows: Flows,
    stored: Stored,
    /// Why it was trained on the CPU where a GPU was asked for.
    why: Option<String>,
}

/// The metadata of a model file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    steps: usize,
    conv3x3_only: bool,
    hidden_ratio: f64,
    clamp: f32,
    #[serde(default = "before")]
    map: MapOf,
    #[serde(default)]
    sigma: f32,
    mode: Mode,
    sizes: Vec<Size>,
    images: usize,
    curve: Vec<Epoch>,
}

/// What the maps of files show that do not say it.
fn before() -> MapOf {
    MapOf::Latent
}

impl Fastflow {
    pub(super) fn new(
        embedder: Arc<Embedder>,
        flows: Flows,
        params: &FastflowParams,
        images: usize,
        curve: Vec<Epoch>,
    ) -> Self {
        let FastflowParams { steps, conv3x3_only, hidden_ratio, clamp, map, sigma, mode, .. } = *params;
        let sizes = flows.models().map(MapFlow::dim).collect();
        let stored = Stored { steps, conv3x3_only, hidden_ratio, clamp, map, sigma, mode, sizes, images, curve };
        Fastflow { embedder, flows, stored, why: None }
    }

    pub(super) fn trained_on_cpu_because(self, why: Option<String>) -> Self {
        Fastflow { why, ..self }
    }

    /// The network.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The flow of each layer.
    pub fn flows(&self) -> impl Iterator<Item = &MapFlow> {
        self.flows.models()
    }

    /// How the training went.
    pub fn curve(&self) -> &[Epoch] {
        &self.stored.curve
    }

    /// The model of a file.
    ///
    /// # Errors
    /// Missing or damaged entries, or flows that do not fit the network.
    pub fn load(file: &ModelFile) -> Result<Self> {
        let embedder = Embedder::load(file)?;
        let stored: Stored = file.get(KIND)?;
        bounded(file, "number of steps", stored.steps, 64)?;
        if !(stored.hidden_ratio > 0.0 && stored.hidden_ratio <= 8.0) {
            return Err(file.bad(format!("its hidden ratio is {}", stored.hidden_ratio)).into());
        }
        if !(0.0..=1000.0).contains(&stored.sigma) {
            return Err(file.bad(format!("its sigma is {}", stored.sigma)).into());
        }
        let channels: Vec<usize> = embedder.layers().iter().map(|l| l.channels).collect();
        if channels != stored.sizes.iter().map(|s| s.2).collect::<Vec<_>>() {
            return Err(file.bad(format!("its maps are {:?}, its network has {channels:?}", stored.sizes)).into());
        }
        let mut flows = Vec::new();
        for (l, &(h, w, c)) in stored.sizes.iter().enumerate() {
            bounded(file, "map height", h, MOST)?;
            bounded(file, "map width", w, MOST)?;
            let spec = FlowSpec {
                clamp: stored.clamp,
                ..FlowSpec::convolutional(c, stored.steps, stored.hidden_ratio, stored.conv3x3_only)
            };
            // The file must hold the norm's weights before room for them is asked for.
            let (prefix, norm) = (format!("fastflow.{l}"), stored.mode == Mode::Anomalib);
            if norm {
                file.tensor::<f32>(&format!("{prefix}.norm.weight"), &[Some(h), Some(w), Some(c)])?;
            }
            let mut model = MapFlow::new(&spec, (h, w), norm, 0).map_err(|e| file.bad(e.to_string()))?;
            let weights = load_weights(file, &prefix, &model)?;
            put(&mut model, weights)?;
            load_mixing(file, &prefix, model.flow_mut(), false)?;
            flows.push(model);
        }
        let flows = Flows::new(flows, &Device::cpu())?;
        Ok(Fastflow { embedder: Arc::new(embedder), flows, stored, why: None })
    }

    fn predictions(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        let (n, height, width, _) = input.dim();
        if n == 0 {
            return Ok(Vec::new());
        }
        let (maps, size) = (self.embedder.maps(input)?, (height, width));
        match self.scores(&maps, size)? {
            Some(predictions) => Ok(predictions),
            None => self.host_scores(self.embedder.here(maps, input)?, size),
        }
    }

    fn host_scores(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> Result<Vec<Prediction>> {
        Ok(self.scores(&Maps::Host(maps), size)?.unwrap_or_default())
    }

    /// Nothing only where the maps are on a GPU that does not score them.
    fn scores(&self, maps: &Maps, size: (usize, usize)) -> Result<Option<Vec<Prediction>>> {
        let shapes = maps.shapes();
        let sizes: Vec<Size> = shapes.iter().map(|[_, h, w, c]| (*h, *w, *c)).collect();
        if sizes != self.stored.sizes {
            let got = format!("{} x {}, which gives {sizes:?}", size.0, size.1);
            let wanted = format!("pictures of the size learned from, with feature maps {:?}", self.stored.sizes);
            return Err(CoreError::Shape { what: "network input", wanted, got }.into());
        }
        let Some(latents) = self.flows.latents(maps)? else { return Ok(None) };
        let n = shapes.first().map_or(0, |[n, ..]| *n);
        let of = |of: MapOf| {
            let layers = latents.iter().zip(&sizes);
            let values = layers.map(|(latents, (_, _, c))| latents.iter().flat_map(|l| of.anomalies(l, *c)).collect());
            let values: Vec<Vec<f32>> = values.collect();
            predictions(n, &values, &sizes, |grids| anomaly_map(grids, size, self.stored.sigma))
        };
        let mut found = of(MapOf::Latent)?;
        if self.stored.map == MapOf::Likelihood {
            for (prediction, shown) in found.iter_mut().zip(of(MapOf::Likelihood)?) {
                prediction.map = shown.map;
            }
        }
        Ok(Some(found))
    }
}

impl Detect for Fastflow {
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
        // On a GPU features go on to the flows without a copy to the CPU between.
        (!self.embedder.on_gpu()).then_some(self)
    }

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        let add = |file: &mut ModelWriter| -> Result<()> {
            self.embedder.save(file)?;
            file.set(KIND, &self.stored)?;
            for (l, model) in self.flows().enumerate() {
                let prefix = format!("fastflow.{l}");
                save_weights(file, &prefix, &model.state())?;
                save_mixing(file, &prefix, model.flow())?;
            }
            Ok(())
        };
        add(file).map_err(|error| error.into_core(KIND))
    }

    fn use_device(&mut self, device: &Device) {
        // While a training shares the network it stays where it is.
        if let Some(embedder) = Arc::get_mut(&mut self.embedder) {
            embedder.use_device(device);
        }
        self.flows.use_device(device);
    }

    fn placement(&self) -> String {
        let trained = self.why.as_ref().map_or_else(String::new, |why| format!("; trained on the CPU ({why})"));
        format!("network {}; flows {}{trained}", self.embedder.placement(), self.flows.placement())
    }

    fn arithmetic(&self) -> Arithmetic {
        self.embedder.arithmetic()
    }

    fn summary(&self) -> String {
        let layers: Vec<&str> = self.embedder.layers().iter().map(|l| l.name.as_str()).collect();
        let count: usize = self.flows().map(Module::count).sum();
        format!(
            "FastFlow on {}, layers {}: {} pictures, {} epochs, {:.1} million parameters ({:.1} MB)",
            self.embedder.describe(),
            layers.join(" + "),
            self.stored.images,
            self.stored.curve.len(),
            count as f64 * 1e-6,
            count as f64 * 4e-6
        )
    }
}

impl Stages for Fastflow {
    fn features(&self, input: ArrayView4<'_, f32>) -> blemish_core::Result<Vec<Array4<f32>>> {
        self.embedder.features(input).map_err(|error| error.into_core(KIND))
    }

    fn score(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> blemish_core::Result<Vec<Prediction>> {
        self.host_scores(maps, size).map_err(|error| error.into_core(KIND))
    }
}
