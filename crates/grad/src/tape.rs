use std::sync::Arc;

use blemish_tensor::Device;
use ndarray::{ArcArray, ArrayD, IxDyn};

use crate::products::Products;
use crate::{GradError, Result, error::shape_error};

/// Values on the tape: C order, cheap to clone.
pub type Value = ArcArray<f32, IxDyn>;

/// A value and, while recording, its place on the tape.
#[derive(Clone, Debug)]
pub struct Var {
    value: Value,
    node: Option<usize>,
}

impl Var {
    /// A value no gradient is wanted for.
    pub fn constant(value: impl Into<Value>) -> Var {
        Var { value: value.into(), node: None }
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The values in C order.
    pub fn data(&self) -> &[f32] {
        // Every value enters through `Tape::push`, `leaf` or `constant` in C order.
        self.value.as_slice().unwrap_or(&[])
    }

    /// The value of a scalar, the first one otherwise.
    pub fn item(&self) -> f32 {
        self.data().first().copied().unwrap_or(f32::NAN)
    }

    /// The node, if a gradient is wanted.
    pub fn node(&self) -> Option<usize> {
        self.node
    }

    /// Whether a gradient is wanted.
    pub fn needs_grad(&self) -> bool {
        self.node.is_some()
    }
}

/// Hands an operation's output gradient on to its inputs.
type Backward = Box<dyn FnOnce(&[f32], &mut Gradients) -> Result<()> + Send>;

struct Node {
    shape: Arc<[usize]>,
    backward: Option<Backward>,
}

/// Records operations in order, so that they can be walked backwards once. Not global: it is passed to every operation.
pub struct Tape {
    nodes: Vec<Node>,
    recording: bool,
    products: Products,
}

impl Tape {
    /// A tape that records.
    pub fn recording() -> Tape {
        Tape { nodes: Vec::new(), recording: true, products: Products::default() }
    }

    /// A tape that records nothing: intermediate values are freed at once.
    pub fn inference() -> Tape {
        Tape { nodes: Vec::new(), recording: false, products: Products::default() }
    }

    /// Multiply-adds from which a product is worth the way of its operands to a GPU and back.
    pub const WORTH: usize = 1 << 26;

    /// The same tape, whose large products run on `device` if that is a GPU: those of linear layers, and of convolutions and their
    /// transposes with stride 1, one group, an odd square kernel and as many output as input pixels, from `least` multiply-adds on
    /// ([`WORTH`](Self::WORTH)). Results agree with the CPU's within rounding. Whatever fails there, or does not fit, is computed on the
    /// CPU. Values stay in the CPU's memory.
    pub fn on(mut self, device: &Device, least: usize) -> Tape {
        self.products = Products::on(device, least);
        self
    }

    /// Where products run.
    pub(crate) fn products(&self) -> &Products {
        &self.products
    }

    /// Whether operations are recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A value whose gradient is wanted: a parameter, or an input under test.
    pub fn leaf(&mut self, value: impl Into<Value>) -> Var {
        let value = standard(value.into());
        let node = self.recording.then(|| self.node(value.shape(), None));
        Var { value, node }
    }

    /// The result of an operation on `inputs`. `backward` receives the gradient of the output in C order and adds to the
    /// gradients of the inputs; it is dropped unless the tape records and one of the inputs needs a gradient.
    pub fn push(
        &mut self,
        value: impl Into<Value>,
        inputs: &[&Var],
        backward: impl FnOnce(&[f32], &mut Gradients) -> Result<()> + Send + 'static,
    ) -> Var {
        let value = standard(value.into());
        let wanted = self.recording && inputs.iter().any(|input| input.needs_grad());
        let node = wanted.then(|| self.node(value.shape(), Some(Box::new(backward))));
        Var { value, node }
    }

    fn node(&mut self, shape: &[usize], backward: Option<Backward>) -> usize {
        self.nodes.push(Node { shape: shape.into(), backward });
        self.nodes.len() - 1
    }

    /// The gradients of the scalar `loss` with respect to every leaf. Uses the tape up; a node's gradient is freed once it
    /// has been handed on.
    ///
    /// # Errors
    /// [`GradError::Shape`] if `loss` is no scalar or does not lie on the tape.
    pub fn backward(self, loss: &Var) -> Result<Gradients> {
        if loss.value.len() != 1 {
            return Err(shape_error("backward", "a loss of one value", loss.shape()));
        }
        self.backward_from(loss, ArrayD::ones(loss.shape()))
    }

    /// As [`backward`](Self::backward), from any output and its gradient.
    ///
    /// # Errors
    /// [`GradError::Shape`] if the shapes differ or `output` does not lie on the tape.
    pub fn backward_from(mut self, output: &Var, gradient: ArrayD<f32>) -> Result<Gradients> {
        let Some(last) = output.node else {
            return Err(shape_error("backward", "an output that depends on a leaf", "a constant"));
        };
        if gradient.shape() != output.shape() || last >= self.nodes.len() {
            return Err(shape_error("backward", format!("a gradient of {:?}", output.shape()), gradient.shape()));
        }
        let shapes = self.nodes.iter().map(|node| node.shape.clone()).collect();
        let mut gradients = Gradients { slots: vec![None; self.nodes.len()], shapes };
        gradients.slots[last] = Some(gradient.as_standard_layout().iter().copied().collect());
        for index in (0..=last).rev() {
            let Some(backward) = self.nodes[index].backward.take() else { continue };
            if let Some(gradient) = gradients.slots[index].take() {
                backward(&gradient, &mut gradients)?;
            }
        }
        Ok(gradients)
    }
}

/// Gradients by node; inputs that need none are passed over.
pub struct Gradients {
    slots: Vec<Option<Vec<f32>>>,
    shapes: Vec<Arc<[usize]>>,
}

impl Gradients {
    /// Adds `gradient`, in C order, to that of `input`; does nothing if none is wanted.
    ///
    /// # Errors
    /// [`GradError::Shape`] if the number of values differs.
    pub fn add(&mut self, input: Option<usize>, gradient: Vec<f32>) -> Result<()> {
        let Some(node) = input else { return Ok(()) };
        let wanted: usize = self.shapes[node].iter().product();
        if wanted != gradient.len() {
            return Err(shape_error("gradient", format!("{wanted} values"), gradient.len()));
        }
        match &mut self.slots[node] {
            Some(sum) => sum.iter_mut().zip(&gradient).for_each(|(s, g)| *s += g),
            empty => *empty = Some(gradient),
        }
        Ok(())
    }

    /// The gradient of a leaf, in C order; `None` if nothing flowed to it.
    pub fn get(&self, leaf: &Var) -> Option<&[f32]> {
        self.slots.get(leaf.node?)?.as_deref()
    }

    /// Moves the gradient of a leaf out.
    pub fn take(&mut self, leaf: &Var) -> Option<Vec<f32>> {
        self.slots.get_mut(leaf.node?)?.take()
    }

    /// Every gradient, to be scaled or clipped in place.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.slots.iter_mut().flatten()
    }

    /// Scales all gradients so that their joint Euclidean norm is at most `limit`; returns the norm before.
    ///
    /// # Errors
    /// [`GradError::NotFinite`] if the norm is no number.
    pub fn clip_norm(&mut self, limit: f32) -> Result<f64> {
        let norm = self.slots.iter().flatten().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(GradError::NotFinite { what: "the norm of the gradients".to_owned() });
        }
        if norm > f64::from(limit) {
            let scale = (f64::from(limit) / (norm + 1e-6)) as f32;
            self.all_mut().flatten().for_each(|g| *g *= scale);
        }
        Ok(norm)
    }
}

fn standard(value: Value) -> Value {
    if value.is_standard_layout() { value } else { value.as_standard_layout().into_owned().into_shared() }
}
