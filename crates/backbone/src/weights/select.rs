//! From a set of weights to the tensors of one network.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use blemish_tensor::{DType, Tensor};

use super::{Naming, Source, WeightSet, untrained};
use crate::catalogue::Net;
use crate::spec::{Graph, NodeId, TIMM_EPSILON, TensorSpec};
use crate::{BackboneError, Result};

impl WeightSet {
    /// The tensors of nodes `..= deepest` in `f32`, under timm's names and epsilon.
    pub(crate) fn select(&self, net: &'static Net, graph: &Graph, deepest: NodeId) -> Result<Vec<(String, Tensor)>> {
        let (tensors, naming) = match &self.source {
            Source::Tensors { tensors, naming } => (tensors, *naming),
            Source::Untrained { net: drawn, seed } if drawn.id == net.id => {
                return untrained::tensors(graph, deepest, *seed);
            }
            Source::Untrained { net: drawn, .. } => {
                let problems = vec![format!("they are untrained weights for {}", drawn.id)];
                return Err(BackboneError::Weights { net: net.id, problems });
            }
        };
        let all = graph.tensors(graph.nodes.len() - 1);
        let needed = graph.tensors(deepest).len();
        let known: HashMap<&str, &TensorSpec> = all.iter().map(|spec| (naming.name(spec), spec)).collect();
        let mut problems = Vec::new();
        let mut selected = Vec::with_capacity(needed);
        for (index, spec) in all.iter().enumerate() {
            let name = naming.name(spec);
            match tensors.get(name) {
                None if index < needed => problems.push(format!("{name} {:?} is missing", spec.shape)),
                None => {}
                Some(tensor) if tensor.shape() != spec.shape => {
                    problems.push(format!("{name} should have shape {:?} and has {:?}", spec.shape, tensor.shape()));
                }
                Some(tensor) if index < needed => {
                    let shift = match naming {
                        Naming::Torchvision if spec.variance => graph.torchvision_epsilon - TIMM_EPSILON,
                        _ => 0.0,
                    };
                    match convert(tensor, spec.variance, shift) {
                        Ok(tensor) => selected.push((spec.timm.clone(), tensor)),
                        Err(what) => problems.push(format!("{name} {what}")),
                    }
                }
                Some(_) => {}
            }
        }
        let head = |name: &str| graph.head.iter().any(|prefix| name.starts_with(prefix));
        for (name, tensor) in tensors {
            if !known.contains_key(name.as_str()) && !name.ends_with("num_batches_tracked") && !head(name) {
                problems.push(format!("{name} {:?} is not part of it", tensor.shape()));
            }
        }
        if problems.is_empty() {
            return Ok(selected);
        }
        if let Some(other) = self.fits().first() {
            problems.insert(0, format!("they are weights for {other}"));
        }
        Err(BackboneError::Weights { net: net.id, problems })
    }
}

impl Naming {
    fn name(self, spec: &TensorSpec) -> &str {
        match self {
            Naming::Timm => &spec.timm,
            Naming::Torchvision => &spec.torchvision,
        }
    }
}

/// Whether all tensors of `net` are there with their shapes.
pub(super) fn fits(net: &Net, tensors: &BTreeMap<String, Tensor>, naming: Naming) -> bool {
    let graph = (net.graph)();
    let all = graph.tensors(graph.nodes.len() - 1);
    all.iter().all(|spec| tensors.get(naming.name(spec)).is_some_and(|t| t.shape() == spec.shape))
}

/// The tensor in `f32`, `shift` added; says what is wrong with values that cannot be weights.
fn convert(tensor: &Tensor, variance: bool, shift: f64) -> std::result::Result<Tensor, String> {
    let values: Cow<'_, [f32]> = match tensor.dtype() {
        DType::F32 => tensor.as_slice::<f32>().map(Cow::Borrowed),
        DType::F64 => tensor.as_slice::<f64>().map(|v| v.iter().map(|&x| x as f32).collect()),
        DType::F16 => tensor.as_slice::<half::f16>().map(|v| v.iter().map(|x| x.to_f32()).collect()),
        DType::BF16 => tensor.as_slice::<half::bf16>().map(|v| v.iter().map(|x| x.to_f32()).collect()),
        other => return Err(format!("holds {other}, not floating-point numbers")),
    }
    .map_err(|e| e.to_string())?;
    if let Some(index) = values.iter().position(|x| !x.is_finite()) {
        return Err(format!("holds a value that is not finite at index {index}"));
    }
    if variance && let Some(index) = values.iter().position(|&x| x < 0.0) {
        return Err(format!("holds a negative variance at index {index}"));
    }
    if tensor.dtype() == DType::F32 && shift == 0.0 {
        return Ok(tensor.clone());
    }
    let values = values.iter().map(|&x| (f64::from(x) + shift) as f32).collect();
    Tensor::from_vec(tensor.shape().to_vec(), values).map_err(|e| e.to_string())
}
