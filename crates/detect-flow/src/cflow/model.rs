use std::sync::Arc;

use blemish_core::{Arithmetic, CoreError, Detect, ModelFile, ModelWriter, Prediction, Preprocess, Stages};
use blemish_embed::{Embedder, Precision};
use blemish_flow::{Flow, FlowSpec};
use blemish_grad::Module;
use blemish_tensor::{Device, Tensor};
use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};

use super::codes::Kept;
use super::{CflowParams, KIND, anomaly_map};
use crate::features::sizes;
use crate::scores::predictions;
use crate::store::{bounded, load_mixing, load_weights, put, save_mixing, save_weights};
use crate::{Epoch, Mode, Result};

/// A fitted CFlow-AD: the network and a flow for each layer.
pub struct Cflow {
    embedder: Arc<Embedder>,
    flows: Vec<Flow>,
    maxima: Vec<f32>,
    codes: Kept,
    stored: Stored,
}

/// The metadata of a model file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    blocks: usize,
    condition: usize,
    clamp: f32,
    soft_mixing: bool,
    mode: Mode,
    /// What it was trained in; no part in its scores.
    #[serde(default)]
    flow_precision: Precision,
    images: usize,
    curve: Vec<Epoch>,
}

impl Cflow {
    pub(super) fn new(
        embedder: Arc<Embedder>,
        flows: Vec<Flow>,
        maxima: Vec<f32>,
        params: &CflowParams,
        images: usize,
        curve: Vec<Epoch>,
    ) -> Self {
        let CflowParams { blocks, condition, clamp, soft_mixing, mode, flow_precision, .. } = *params;
        let stored = Stored { blocks, condition, clamp, soft_mixing, mode, flow_precision, images, curve };
        Cflow { embedder, flows, maxima, codes: Kept::default(), stored }
    }

    /// The network.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The flow of each layer.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
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
        bounded(file, "number of blocks", stored.blocks, 64)?;
        bounded(file, "condition", stored.condition, 4096)?;
        let mut flows = Vec::new();
        for (l, layer) in embedder.layers().iter().enumerate() {
            let spec = FlowSpec {
                clamp: stored.clamp,
                soft_mixing: false,
                ..FlowSpec::linear(layer.channels, stored.condition, stored.blocks)
            };
            let mut flow = Flow::new(&spec, 0).map_err(|e| file.bad(e.to_string()))?;
            let prefix = format!("cflow.{l}");
            let weights = load_weights(file, &prefix, &flow)?;
            put(&mut flow, weights)?;
            load_mixing(file, &prefix, &mut flow, stored.soft_mixing)?;
            flows.push(flow);
        }
        let maxima = file.tensor::<f32>("cflow.maxima", &[Some(flows.len())])?.as_slice::<f32>()?.to_vec();
        if maxima.iter().any(|m| !m.is_finite()) {
            return Err(file.bad("its maxima are not finite numbers").into());
        }
        Ok(Cflow { embedder: Arc::new(embedder), flows, maxima, codes: Kept::default(), stored })
    }

    fn predictions(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>> {
        let (n, height, width, _) = input.dim();
        if n == 0 {
            return Ok(Vec::new());
        }
        self.scores(&self.embedder.features(input)?, (height, width))
    }

    fn scores(&self, maps: &[Array4<f32>], size: (usize, usize)) -> Result<Vec<Prediction>> {
        if maps.len() != self.flows.len() {
            let (wanted, got) = (format!("{} feature maps", self.flows.len()), maps.len().to_string());
            return Err(CoreError::Shape { what: "features", wanted, got }.into());
        }
        let codes = self.codes.get(&sizes(maps), self.stored.condition)?;
        let layers: Vec<(&Flow, &Vec<f32>)> = self.flows.iter().zip(&codes.values).collect();
        predictions(
            maps,
            |l, x| Ok(layers[l].0.log_likelihoods(x, layers[l].1)?),
            |grids| anomaly_map(grids, &self.maxima, self.flows.len() as f32, size),
        )
    }
}

impl Detect for Cflow {
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
        Some(self)
    }

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        let add = |file: &mut ModelWriter| -> Result<()> {
            self.embedder.save(file)?;
            file.set(KIND, &self.stored)?;
            for (l, flow) in self.flows.iter().enumerate() {
                let prefix = format!("cflow.{l}");
                save_weights(file, &prefix, &flow.state())?;
                save_mixing(file, &prefix, flow)?;
            }
            Ok(file.add("cflow.maxima", Tensor::from_vec(vec![self.maxima.len()], self.maxima.clone())?)?)
        };
        add(file).map_err(|error| error.into_core(KIND))
    }

    fn use_device(&mut self, device: &Device) {
        // While a training shares the network it stays where it is.
        if let Some(embedder) = Arc::get_mut(&mut self.embedder) {
            embedder.use_device(device);
        }
    }

    fn placement(&self) -> String {
        format!("network {}; flow on the CPU", self.embedder.placement())
    }

    fn arithmetic(&self) -> Arithmetic {
        self.embedder.arithmetic()
    }

    fn summary(&self) -> String {
        let layers: Vec<&str> = self.embedder.layers().iter().map(|l| l.name.as_str()).collect();
        let count: usize = self.flows.iter().map(Module::count).sum();
        format!(
            "CFlow-AD on {}, layers {}: {} pictures, {} epochs, {:.1} million parameters ({:.1} MB)",
            self.embedder.describe(),
            layers.join(" + "),
            self.stored.images,
            self.stored.curve.len(),
            count as f64 * 1e-6,
            count as f64 * 4e-6
        )
    }
}

impl Stages for Cflow {
    fn features(&self, input: ArrayView4<'_, f32>) -> blemish_core::Result<Vec<Array4<f32>>> {
        self.embedder.features(input).map_err(|error| error.into_core(KIND))
    }

    fn score(&self, maps: Vec<Array4<f32>>, size: (usize, usize)) -> blemish_core::Result<Vec<Prediction>> {
        self.scores(&maps, size).map_err(|error| error.into_core(KIND))
    }
}
