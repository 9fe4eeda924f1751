use std::sync::Arc;

use blemish_core::{Arithmetic, CoreError, Detect, ModelFile, ModelWriter, Prediction, Preprocess, Stages};
use blemish_embed::{Embedder, Maps, Precision};
use blemish_flow::{Flow, FlowSpec};
use blemish_grad::Module;
use blemish_tensor::{Device, Tensor};
use ndarray::{Array4, ArrayView2, ArrayView4};
use serde::{Deserialize, Serialize};

use super::codes::Kept;
use super::flows::Flows;
use super::{CflowParams, KIND, anomaly_map};
use crate::features::Size;
use crate::scores::predictions;
use crate::store::{bounded, load_mixing, load_weights, put, save_mixing, save_weights};
use crate::{Epoch, Mode, Result};

/// A fitted CFlow-AD: the network and a flow for each layer.
pub struct Cflow {
    embedder: Arc<Embedder>,
    flows: Flows,
    maxima: Vec<f32>,
    codes: Kept,
    stored: Stored,
    /// Why it was trained on the CPU where a GPU was asked for.
    why: Option<String>,
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
        flows: Flows,
        maxima: Vec<f32>,
        params: &CflowParams,
        images: usize,
        curve: Vec<Epoch>,
    ) -> Self {
        let CflowParams { blocks, condition, clamp, soft_mixing, mode, flow_precision, .. } = *params;
        let stored = Stored { blocks, condition, clamp, soft_mixing, mode, flow_precision, images, curve };
        Cflow { embedder, flows, maxima, codes: Kept::default(), stored, why: None }
    }

    pub(super) fn trained_on_cpu_because(self, why: Option<String>) -> Self {
        Cflow { why, ..self }
    }

    /// The network.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The flow of each layer.
    pub fn flows(&self) -> &[Flow] {
        self.flows.all()
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
        let (flows, codes) = (Flows::new(flows, &Device::cpu()), Kept::default());
        Ok(Cflow { embedder: Arc::new(embedder), flows, maxima, codes, stored, why: None })
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
        let (flows, shapes) = (self.flows.all(), maps.shapes());
        if shapes.len() != flows.len() {
            let (wanted, got) = (format!("{} feature maps", flows.len()), shapes.len().to_string());
            return Err(CoreError::Shape { what: "features", wanted, got }.into());
        }
        let sizes: Vec<Size> = shapes.iter().map(|[_, h, w, c]| (*h, *w, *c)).collect();
        let codes = self.codes.get(&sizes, self.stored.condition)?;
        let Some(values) = self.flows.of_maps(maps, &codes.values)? else { return Ok(None) };
        let n = shapes.first().map_or(0, |[n, ..]| *n);
        let map = |grids: &[ArrayView2<'_, f32>]| anomaly_map(grids, &self.maxima, flows.len() as f32, size);
        predictions(n, &values, &sizes, map).map(Some)
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
        // On a GPU features go on to the flows without a copy to the CPU between.
        (!self.embedder.on_gpu()).then_some(self)
    }

    fn save(&self, file: &mut ModelWriter) -> blemish_core::Result<()> {
        let add = |file: &mut ModelWriter| -> Result<()> {
            self.embedder.save(file)?;
            file.set(KIND, &self.stored)?;
            for (l, flow) in self.flows.all().iter().enumerate() {
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
        let count: usize = self.flows.all().iter().map(Module::count).sum();
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
        self.host_scores(maps, size).map_err(|error| error.into_core(KIND))
    }
}
