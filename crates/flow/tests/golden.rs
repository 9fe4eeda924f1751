//! CFlow-AD's decoder and FastFlow's stacks against anomalib's and FrEIA's numbers.

#[path = "../../grad/tests/common/mod.rs"]
mod common;

use blemish_flow::{Flow, FlowSpec, Mixing, log_likelihood, log_likelihood_loss, positional_encoding};
use blemish_grad::ops::{self, Unary};
use blemish_grad::optim::{Adam, AdamState};
use blemish_grad::{Leaves, Module, Param, Tape, Var};
use common::{Golden, near, nhwc};

fn constant(x: &ndarray::ArrayD<f32>) -> Var {
    Var::constant(x.clone().into_shared())
}

/// Takes parameters and permutations from `prefix`.
fn load(flow: &mut Flow, golden: &Golden, case: &str, prefix: &str) {
    let order = &golden.integers[&format!("{case}/permutation")];
    let channels = order.len() / flow.blocks().len();
    for (block, order) in flow.blocks_mut().iter_mut().zip(order.chunks_exact(channels)) {
        block.set_mixing(Mixing::Hard(order.iter().map(|i| *i as usize).collect())).unwrap();
    }
    let shapes: std::collections::HashMap<_, _> =
        flow.state().into_iter().map(|(name, value)| (name, value.shape().to_vec())).collect();
    let find = |name: &str| {
        let stored = golden.tensors.get(&format!("{case}/state/{prefix}{name}"))?;
        stored.clone().into_shape_with_order(shapes[name].clone()).ok()
    };
    flow.load(&find).unwrap();
}

/// Compares every gradient, and the step Adam takes with the stored gradients.
fn check_gradients(
    flow: &mut dyn Module,
    got: &[Option<Vec<f32>>],
    golden: &Golden,
    case: &str,
    prefix: &str,
    adam: Adam,
    tolerance: f64,
) {
    let mut names = Vec::new();
    flow.visit(&mut |name, _| names.push(format!("{prefix}{name}")));
    assert_eq!(names.len(), got.len());
    let mut stored = Vec::new();
    for (name, got) in names.iter().zip(got) {
        let want = golden.get(&format!("{case}/grad/{name}"));
        near(&format!("{case}/grad/{name}"), got.as_ref().unwrap(), want, tolerance, 1e-9);
        stored.push(Some(want.iter().copied().collect()));
    }
    adam.step(flow, &mut AdamState::default(), &stored, adam.lr).unwrap();
    let mut names = names.iter();
    flow.visit(&mut |_, param| {
        let name = names.next().unwrap();
        let want = golden.get(&format!("{case}/after_adam/{name}"));
        near(&format!("{case}/after_adam/{name}"), param.data(), want, 1e-6, f64::from(adam.lr) * 1e-2);
    });
}

#[test]
fn positions() {
    let Some(golden) = Golden::open("cflow.safetensors") else { return };
    for (h, w) in [(14, 14), (8, 12), (28, 28)] {
        let got = positional_encoding(128, h, w).unwrap();
        let want = golden.get(&format!("position/{h}x{w}")).view().permuted_axes(ndarray::IxDyn(&[1, 2, 0]));
        near("position", got.as_slice().unwrap(), &want.as_standard_layout().into_owned(), 1e-5, 1e-6);
    }
}

#[test]
fn cflow_decoder() {
    let Some(golden) = Golden::open("cflow.safetensors") else { return };
    let mut flow = Flow::new(&FlowSpec::linear(32, 128, 8), 0).unwrap();
    load(&mut flow, &golden, "dim32", "");
    let (x, condition) = (constant(golden.get("dim32/x")), constant(golden.get("dim32/condition")));
    let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
    let (z, log_det) = flow.forward(&mut tape, &x, Some(&condition), &mut leaves).unwrap();
    near("z", z.data(), golden.get("dim32/z"), 5e-5, 0.0);
    near("log_jac_det", log_det.data(), golden.get("dim32/log_jac_det"), 5e-5, 0.0);
    let logp = log_likelihood(&mut Tape::inference(), &z, &log_det).unwrap();
    near("logp", logp.data(), golden.get("dim32/logp"), 1e-5, 0.0);
    let loss = log_likelihood_loss(&mut tape, &z, &log_det).unwrap();
    near("loss", loss.data(), golden.get("dim32/loss"), 1e-5, 0.0);
    let back = flow.inverse(&constant(golden.get("dim32/z")), Some(&condition)).unwrap();
    near("reverse_x", back.data(), golden.get("dim32/reverse_x"), 1e-4, 0.0);

    let mut gradients = tape.backward(&loss).unwrap();
    let gradients = leaves.gradients(&mut gradients);
    let recomputed =
        flow.gradients_recomputed(&x, Some(&condition), &mut |tape, z, det| log_likelihood_loss(tape, z, det)).unwrap();
    assert_eq!(recomputed.loss, loss.item());
    for (a, b) in recomputed.gradients.iter().zip(&gradients) {
        let (a, b) = (a.as_ref().unwrap(), b.as_ref().unwrap());
        near("recomputed", a, &ndarray::arr1(b).into_dyn(), 1e-3, 1e-9);
    }
    check_gradients(&mut flow, &gradients, &golden, "dim32", "", Adam { lr: 1e-4, ..Adam::default() }, 2e-4);
}

/// A flow behind a layer norm, as FastFlow trains it.
struct Normed {
    norm: Option<(Param, Param)>,
    flow: Flow,
}

impl Module for Normed {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        if let Some((weight, bias)) = &self.norm {
            f("norm.weight", weight);
            f("norm.bias", bias);
        }
        self.flow.visit(&mut |name, param| f(&format!("flow.{name}"), param));
    }
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        if let Some((weight, bias)) = &mut self.norm {
            f("norm.weight", weight);
            f("norm.bias", bias);
        }
        self.flow.visit_mut(&mut |name, param| f(&format!("flow.{name}"), param));
    }
}

#[test]
fn fastflow_stacks() {
    let Some(golden) = Golden::open("fastflow.safetensors") else { return };
    for (case, channels, steps, ratio, only) in
        [("steps2", 16, 2, 1.0, false), ("steps8", 16, 8, 1.0, false), ("odd", 5, 1, 1.0, false)]
    {
        let mut flow = Flow::new(&FlowSpec::convolutional(channels, steps, ratio, only), 0).unwrap();
        load(&mut flow, &golden, case, "flow.");
        let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
        let x = tape.leaf(nhwc(golden.get(&format!("{case}/x"))));
        let (z, log_det) = flow.forward(&mut tape, &x, None, &mut leaves).unwrap();
        near(case, z.data(), &nhwc(golden.get(&format!("{case}/z"))), 1e-4, 0.0);
        near(case, log_det.data(), golden.get(&format!("{case}/log_jac_det")), 1e-4, 0.0);
        let back = flow.inverse(&z, None).unwrap();
        near(case, back.data(), &nhwc(golden.get(&format!("{case}/x"))), 1e-4, 0.0);

        // FastFlow's loss: mean over the batch of half the squares minus the log-determinant.
        let squares = ops::unary(&mut tape, &z, Unary::Square).unwrap();
        let squares = ops::sum_rows(&mut tape, &squares).unwrap();
        let half = ops::scale(&mut tape, &squares, 0.5).unwrap();
        let each = ops::sub(&mut tape, &half, &log_det).unwrap();
        let loss = ops::mean(&mut tape, &each).unwrap();
        near(case, loss.data(), golden.get(&format!("{case}/loss")), 1e-5, 0.0);
        let mut gradients = tape.backward(&loss).unwrap();
        let dx = gradients.take(&x).unwrap();
        near(case, &dx, &nhwc(golden.get(&format!("{case}/grad_x"))), 1e-4, 0.0);
        let gradients = leaves.gradients(&mut gradients);
        let adam = Adam { weight_decay: 1e-5, ..Adam::default() };
        let mut module = Normed { norm: None, flow };
        check_gradients(&mut module, &gradients, &golden, case, "", adam, 1e-4);
    }
}
