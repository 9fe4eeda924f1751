//! CFlow-AD's decoder and FastFlow's stacks against anomalib's and FrEIA's numbers.

#[path = "../../grad/tests/common/mod.rs"]
mod common;

use blemish_flow::{
    ConvTrainer, Flow, FlowSpec, LinearTrainer, MapFlow, Mixing, PackedFlow, log_likelihood, log_likelihood_loss,
    positional_encoding,
};
use blemish_grad::ops::{self, Unary};
use blemish_grad::optim::{Adam, AdamState};
use blemish_grad::{Leaves, Module, Tape, Var};
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

/// The affine of a norm is `[c, h, w]` in the files, `[h, w, c]` here.
fn stored_order(name: &str, x: &ndarray::ArrayD<f32>) -> ndarray::ArrayD<f32> {
    if !name.starts_with("norm.") {
        return x.clone();
    }
    x.view().permuted_axes(ndarray::IxDyn(&[1, 2, 0])).as_standard_layout().into_owned()
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
        let want = &stored_order(name, golden.get(&format!("{case}/grad/{name}")));
        near(&format!("{case}/grad/{name}"), got.as_ref().unwrap(), want, tolerance, 1e-9);
        stored.push(Some(want.iter().copied().collect()));
    }
    adam.step(flow, &mut AdamState::default(), &stored, adam.lr).unwrap();
    let mut names = names.iter();
    flow.visit(&mut |_, param| {
        let name = names.next().unwrap();
        let want = &stored_order(name, golden.get(&format!("{case}/after_adam/{name}")));
        near(&format!("{case}/after_adam/{name}"), param.data(), want, 1e-6, f64::from(adam.lr) * 1e-2);
    });
}

/// Compares a module after a step of its own with the stored one, where the gradient is not lost in rounding: elsewhere even
/// its sign, and with it the direction of the step, is open. Units that are off for all samples have none.
fn check_step(module: &dyn Module, golden: &Golden, case: &str, prefix: &str, lr: f32) {
    let (mut compared, mut all) = (0, 0);
    module.visit(&mut |name, param| {
        let gradient = stored_order(name, golden.get(&format!("{case}/grad/{prefix}{name}")));
        let want = stored_order(name, golden.get(&format!("{case}/after_adam/{prefix}{name}")));
        let rms = (gradient.iter().map(|g| g * g).sum::<f32>() / gradient.len() as f32).sqrt();
        for ((got, want), g) in param.data().iter().zip(&want).zip(&gradient) {
            all += 1;
            if g.abs() > 1e-3 * rms {
                compared += 1;
                assert!((got - want).abs() <= 1e-2 * lr + 1e-6 * want.abs(), "{case}/{name}: {got} for {want}");
            }
        }
    });
    assert!(compared * 3 > all * 2, "{case}: {compared} of {all}");
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
    let adam = Adam { lr: 1e-4, ..Adam::default() };
    check_gradients(&mut flow.clone(), &gradients, &golden, "dim32", "", adam, 2e-4);

    // The trainer computes the same without a tape.
    let (x, condition) = (x.data(), condition.data());
    let each = flow.log_likelihoods(x, condition).unwrap();
    let scaled: Vec<f32> = each.iter().map(|l| l * 32.0).collect();
    near("log_likelihoods", &scaled, golden.get("dim32/logp"), 1e-5, 0.0);
    let mut trainer = LinearTrainer::new(flow, adam).unwrap();
    let fused = trainer.gradients(x, condition).unwrap();
    near("loss", &[fused.loss], golden.get("dim32/loss"), 1e-5, 0.0);
    check_gradients(&mut trainer.flow().clone(), &fused.gradients, &golden, "dim32", "", adam, 2e-4);
    let mut plain = trainer.flow().clone();
    assert_eq!(trainer.step(x, condition, adam.lr).unwrap(), fused.loss);
    adam.step(&mut plain, &mut AdamState::default(), &fused.gradients, adam.lr).unwrap();
    assert_eq!(trainer.flow().state(), plain.state(), "the fused step is the plain step");
    check_step(trainer.flow(), &golden, "dim32", "", adam.lr);
}

#[test]
fn fastflow_stacks() {
    let Some(golden) = Golden::open("fastflow.safetensors") else { return };
    for (case, channels, steps, ratio, only, norm) in [
        ("steps2", 16, 2, 1.0, false, false),
        ("steps8", 16, 8, 1.0, false, false),
        ("odd", 5, 1, 1.0, false, false),
        ("layernorm", 6, 2, 0.5, true, true),
    ] {
        let x = nhwc(golden.get(&format!("{case}/x")));
        let size = (x.shape()[1], x.shape()[2]);
        let mut model = MapFlow::new(&FlowSpec::convolutional(channels, steps, ratio, only), size, norm, 0).unwrap();
        load(model.flow_mut(), &golden, case, "flow.");
        let flow: std::collections::HashMap<_, _> = model.state().into_iter().collect();
        let find = |name: &str| {
            if name.starts_with("flow.") {
                return flow.get(name).cloned();
            }
            Some(stored_order(name, golden.tensors.get(&format!("{case}/state/{name}"))?))
        };
        model.load(&find).unwrap();

        let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
        let leaf = tape.leaf(x.clone());
        let (z, log_det) = model.forward(&mut tape, &leaf, &mut leaves).unwrap();
        near(case, z.data(), &nhwc(golden.get(&format!("{case}/z"))), 1e-4, 0.0);
        near(case, log_det.data(), golden.get(&format!("{case}/log_jac_det")), 1e-4, 0.0);
        if !norm {
            let back = model.flow().inverse(&z, None).unwrap();
            near(case, back.data(), &nhwc(golden.get(&format!("{case}/x"))), 1e-4, 0.0);
        }
        // FastFlow's loss: mean over the batch of half the squares minus the log-determinant.
        let squares = ops::unary(&mut tape, &z, Unary::Square).unwrap();
        let squares = ops::sum_rows(&mut tape, &squares).unwrap();
        let half = ops::scale(&mut tape, &squares, 0.5).unwrap();
        let each = ops::sub(&mut tape, &half, &log_det).unwrap();
        let loss = ops::mean(&mut tape, &each).unwrap();
        near(case, loss.data(), golden.get(&format!("{case}/loss")), 1e-5, 0.0);
        let mut gradients = tape.backward(&loss).unwrap();
        let dx = gradients.take(&leaf).unwrap();
        near(case, &dx, &nhwc(golden.get(&format!("{case}/grad_x"))), 1e-4, 0.0);
        let gradients = leaves.gradients(&mut gradients);
        let adam = Adam { weight_decay: 1e-5, ..Adam::default() };
        check_gradients(&mut model.clone(), &gradients, &golden, case, "", adam, 1e-4);

        // The trainer and the packed flow compute the same without a tape.
        let images: Vec<&[f32]> = x.as_slice().unwrap().chunks_exact(size.0 * size.1 * channels).collect();
        let mut trainer = ConvTrainer::new(model.clone(), adam).unwrap();
        let fused = trainer.gradients(&images).unwrap();
        near(case, &[fused.loss], golden.get(&format!("{case}/loss")), 1e-5, 0.0);
        check_gradients(&mut model.clone(), &fused.gradients, &golden, case, "", adam, 1e-4);
        assert_eq!(trainer.step(&images, adam.lr).unwrap(), fused.loss);
        check_step(trainer.model(), &golden, case, "", adam.lr);
        let packed = PackedFlow::new(model).unwrap();
        for (i, image) in images.iter().enumerate() {
            let latent = packed.latent(image).unwrap();
            let want = log_det.data()[i];
            assert!((latent.log_det as f32 - want).abs() < 1e-4 * want.abs().max(1.0), "{case}");
            let pixels = z.data()[i * image.len()..][..image.len()].chunks_exact(channels);
            for (energy, z) in latent.energy.iter().zip(pixels) {
                let want = z.iter().map(|z| z * z).sum::<f32>() / channels as f32;
                assert!((energy - want).abs() < 1e-4 * (1.0 + want), "{case}");
            }
        }
    }
}
