//! What makes a flow a flow: it can be undone, and its log-determinant is that of its Jacobian.

use blemish_flow::{
    ConvTrainer, Flow, FlowSpec, LinearTrainer, MapFlow, PackedFlow, Products, Recomputed, log_likelihood_loss,
};
use blemish_grad::optim::Adam;
use blemish_grad::{Leaves, Module, Tape, Var, ops};
use blemish_kernels::gemm::Isa;
use ndarray::ArrayD;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A flow away from the near-identity start.
fn stirred(spec: &FlowSpec, seed: u64) -> Flow {
    let mut flow = Flow::new(spec, seed).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    flow.visit_mut(&mut |name, param| {
        let spread = if name.ends_with("global_scale") { 2.0 } else { 0.6 };
        param.data_mut().iter_mut().for_each(|v| *v += rng.random_range(-spread..spread));
    });
    flow
}

fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(shape, || rng.random_range(-1.5f32..1.5))
}

fn constant(x: &ArrayD<f32>) -> Var {
    Var::constant(x.clone().into_shared())
}

fn forward(flow: &Flow, x: &ArrayD<f32>, condition: Option<&Var>) -> (ArrayD<f32>, f32) {
    let (z, det) = flow.forward(&mut Tape::inference(), &constant(x), condition, &mut Leaves::default()).unwrap();
    (z.value().to_owned(), det.data()[0])
}

/// `ln|det|` of the Jacobian of `of` at `x` by central differences of step `h` and elimination in f64.
fn numeric_log_det(x: &[f32], h: f32, of: impl Fn(&[f32]) -> Vec<f32>) -> f64 {
    let d = x.len();
    let mut jacobian = vec![vec![0.0f64; d]; d];
    for j in 0..d {
        let moved = |by: f32| {
            let mut x = x.to_vec();
            x[j] += by;
            of(&x)
        };
        let (up, down) = (moved(h), moved(-h));
        for (row, (u, v)) in jacobian.iter_mut().zip(up.iter().zip(&down)) {
            row[j] = (f64::from(*u) - f64::from(*v)) / (2.0 * f64::from(h));
        }
    }
    let mut log = 0.0;
    for k in 0..d {
        let pivot = (k..d).max_by(|a, b| jacobian[*a][k].abs().total_cmp(&jacobian[*b][k].abs())).unwrap();
        jacobian.swap(k, pivot);
        log += jacobian[k][k].abs().ln();
        let top = jacobian[k].clone();
        for row in &mut jacobian[k + 1..] {
            let factor = row[k] / top[k];
            row.iter_mut().zip(&top).for_each(|(v, t)| *v -= factor * t);
        }
    }
    log
}

/// Steps of differences: a kink of a ReLU within one spoils it, but not a smaller one, too.
const STEPS: [f32; 3] = [2e-3, 5e-4, 2e-4];

fn specs() -> impl Strategy<Value = (FlowSpec, Vec<usize>)> {
    let linear = (2usize..7, 0usize..4, 1usize..4, any::<bool>()).prop_map(|(c, condition, blocks, soft)| {
        (FlowSpec { soft_mixing: soft, ..FlowSpec::linear(c, condition, blocks) }, vec![1, c])
    });
    let image = (2usize..5, 1usize..3, 1usize..4, 1usize..4, any::<bool>(), any::<bool>()).prop_map(
        |(c, steps, h, w, only, soft)| {
            (FlowSpec { soft_mixing: soft, ..FlowSpec::convolutional(c, steps, 1.0, only) }, vec![1, h, w, c])
        },
    );
    prop_oneof![linear, image]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn inverse_and_log_det((spec, shape) in specs(), seed in 0u64..1000) {
        let flow = stirred(&spec, seed);
        let x = random(&shape, seed + 1);
        let mut wide = shape.clone();
        *wide.last_mut().unwrap() = spec.condition;
        let condition = (spec.condition > 0).then(|| constant(&random(&wide, seed + 2)));
        let (z, log_det) = forward(&flow, &x, condition.as_ref());
        let back = flow.inverse(&constant(&z), condition.as_ref()).unwrap();
        for (a, b) in back.data().iter().zip(&x) {
            prop_assert!((a - b).abs() < 1e-4, "{a} for {b}");
        }
        let of = |x: &[f32]| {
            let x = ArrayD::from_shape_vec(&shape[..], x.to_vec()).unwrap();
            forward(&flow, &x, condition.as_ref()).0.into_iter().collect()
        };
        let wanted = STEPS.map(|h| numeric_log_det(x.as_slice().unwrap(), h, of));
        let near = |want: &f64| (f64::from(log_det) - want).abs() < 5e-3 * (1.0 + want.abs());
        prop_assert!(wanted.iter().any(near), "{log_det} for {wanted:?}");
    }

    #[test]
    fn a_pixel_s_log_det_is_that_of_its_own_channels(c in 2usize..6, blocks in 1usize..4, h in 1usize..4, w in 1usize..4, seed in 0u64..1000) {
        let map = |blocks: usize| {
            let mut model = MapFlow::new(&FlowSpec::convolutional(c, blocks, 1.0, false), (h, w), false, 0).unwrap();
            *model.flow_mut() = stirred(&FlowSpec::convolutional(c, blocks, 1.0, false), seed);
            model
        };
        let x = random(&[1, h, w, c], seed + 1);
        let x = x.as_slice().unwrap();
        let latent = PackedFlow::new(map(blocks)).unwrap().latent(x).unwrap();
        let sum: f64 = latent.log_dets.iter().map(|d| f64::from(*d)).sum();
        prop_assert!((sum - latent.log_det).abs() < 1e-5 * (1.0 + x.len() as f64), "{sum} for {}", latent.log_det);
        // Through one block, a pixel's channels are the only ones of it that move with the others still.
        let model = map(1);
        let latent = PackedFlow::new(model.clone()).unwrap().latent(x).unwrap();
        for (p, got) in latent.log_dets.iter().enumerate() {
            let of = |own: &[f32]| {
                let mut x = x.to_vec();
                x[p * c..][..c].copy_from_slice(own);
                let z = forward(model.flow(), &ArrayD::from_shape_vec(&[1, h, w, c][..], x).unwrap(), None).0;
                z.as_slice().unwrap()[p * c..][..c].to_vec()
            };
            let wanted = STEPS.map(|step| numeric_log_det(&x[p * c..][..c], step, of));
            let near = |want: &f64| (f64::from(*got) - want).abs() < 5e-3 * (1.0 + want.abs());
            prop_assert!(wanted.iter().any(near), "{got} for {wanted:?}");
        }
    }

    #[test]
    fn recomputed_gradients_are_the_gradients(soft: bool, seed in 0u64..100) {
        let spec = FlowSpec { soft_mixing: soft, ..FlowSpec::linear(6, 4, 3) };
        let flow = stirred(&spec, seed);
        let (x, condition) = (constant(&random(&[9, 6], seed)), constant(&random(&[9, 4], seed + 1)));
        let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
        let (z, det) = flow.forward(&mut tape, &x, Some(&condition), &mut leaves).unwrap();
        let loss = log_likelihood_loss(&mut tape, &z, &det).unwrap();
        let stored = leaves.gradients(&mut tape.backward(&loss).unwrap());
        let again = flow
            .gradients_recomputed(&x, Some(&condition), &mut |tape, z, det| log_likelihood_loss(tape, z, det))
            .unwrap();
        prop_assert_eq!(stored.len(), again.gradients.len());
        for (a, b) in stored.iter().flatten().flatten().zip(again.gradients.iter().flatten().flatten()) {
            prop_assert!((a - b).abs() < 1e-5 + 1e-3 * a.abs(), "{a} for {b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_trainer_agrees_with_the_tape(c in 2usize..40, k in 0usize..9, blocks in 1usize..4, soft: bool, n in 1usize..150) {
        let spec = FlowSpec { soft_mixing: soft, ..FlowSpec::linear(c, k, blocks) };
        let flow = stirred(&spec, n as u64);
        let (x, codes) = (random(&[n, c], 1), random(&[n, k], 2));
        let condition = (k > 0).then(|| constant(&codes));
        let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
        let (z, det) = flow.forward(&mut tape, &constant(&x), condition.as_ref(), &mut leaves).unwrap();
        let loss = log_likelihood_loss(&mut tape, &z, &det).unwrap();
        let want = leaves.gradients(&mut tape.backward(&loss).unwrap());
        let (x, codes) = (x.as_slice().unwrap(), codes.as_slice().unwrap());
        let mut trainer = LinearTrainer::new(flow, Adam::default()).unwrap();
        let got = trainer.gradients(x, codes).unwrap();
        prop_assert!((got.loss - loss.item()).abs() < 1e-5 * (1.0 + loss.item().abs()));
        prop_assert_eq!(got.gradients.len(), want.len());
        for (got, want) in got.gradients.iter().flatten().zip(want.iter().flatten()) {
            let rms = (want.iter().map(|g| g * g).sum::<f32>() / want.len() as f32).sqrt();
            for (g, w) in got.iter().zip(want) {
                prop_assert!((g - w).abs() < 1e-3 * rms + 1e-6, "{} for {}", g, w);
            }
        }
        // A sample's likelihood does not depend on the others, to the bit.
        let all = trainer.flow().log_likelihoods(x, codes).unwrap();
        let i = n / 2;
        let one = trainer.flow().log_likelihoods(&x[i * c..(i + 1) * c], &codes[i * k..(i + 1) * k]).unwrap();
        prop_assert_eq!(one[0], all[i]);
    }
}

#[test]
fn the_trainer_gives_the_same_bits_for_any_threads() {
    let run = |threads: usize, products: Products| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let flow = stirred(&FlowSpec::linear(96, 16, 3), 5);
            let mut trainer = LinearTrainer::with_products(flow, Adam::default(), products).unwrap();
            let (x, codes) = (random(&[100, 96], 1), random(&[100, 16], 2));
            let (x, codes) = (x.as_slice().unwrap(), codes.as_slice().unwrap());
            for _ in 0..3 {
                trainer.step(x, codes, 1e-2).unwrap();
            }
            (trainer.flow().state(), trainer.flow().log_likelihoods(x, codes).unwrap())
        })
    };
    for products in [Products::F32, Products::Bf16] {
        let one = run(1, products);
        assert!(one == run(2, products) && one == run(7, products), "{products:?}");
    }
}

#[test]
fn the_trainer_refuses_what_does_not_fit() {
    let flow = Flow::new(&FlowSpec::linear(4, 2, 2), 0).unwrap();
    let mut trainer = LinearTrainer::new(flow.clone(), Adam::default()).unwrap();
    assert!(trainer.step(&[], &[], 1e-3).is_err(), "no samples");
    assert!(trainer.step(&[0.0; 7], &[0.0; 2], 1e-3).is_err());
    assert!(trainer.step(&[0.0; 8], &[0.0; 2], 1e-3).is_err());
    let before = trainer.flow().state();
    let error = trainer.step(&[f32::NAN; 4], &[0.0; 2], 1e-3).unwrap_err().to_string();
    assert!(error.contains("not a finite number"), "{error}");
    assert_eq!(trainer.flow().state(), before, "nothing is changed");
    assert!(
        LinearTrainer::new(Flow::new(&FlowSpec::convolutional(4, 2, 1.0, true), 0).unwrap(), Adam::default()).is_err()
    );
    assert!(LinearTrainer::new(flow.clone(), Adam { betas: [1.0, 0.5], ..Adam::default() }).is_err());
    let other = LinearTrainer::new(Flow::new(&FlowSpec::linear(4, 2, 1), 0).unwrap(), Adam::default()).unwrap();
    assert!(trainer.resume(other.flow().clone(), other.state().clone()).is_err());
    assert!(trainer.resume(flow, other.state().clone()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_image_trainer_agrees_with_the_tape(
        c in 2usize..40, steps in 1usize..4, h in 1usize..7, w in 1usize..7, n in 1usize..7, only: bool, norm: bool,
    ) {
        let mut model = MapFlow::new(&FlowSpec::convolutional(c, steps, 1.0, only), (h, w), norm, 3).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(c as u64);
        model.visit_mut(&mut |_, param| param.data_mut().iter_mut().for_each(|v| *v += rng.random_range(-0.3..0.3)));
        let x = random(&[n, h, w, c], 1);
        let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
        let (z, det) = model.forward(&mut tape, &constant(&x), &mut leaves).unwrap();
        let squares = ops::unary(&mut tape, &z, ops::Unary::Square).unwrap();
        let squares = ops::sum_rows(&mut tape, &squares).unwrap();
        let half = ops::scale(&mut tape, &squares, 0.5).unwrap();
        let each = ops::sub(&mut tape, &half, &det).unwrap();
        let loss = ops::mean(&mut tape, &each).unwrap();
        let want = leaves.gradients(&mut tape.backward(&loss).unwrap());
        let images: Vec<&[f32]> = x.as_slice().unwrap().chunks_exact(h * w * c).collect();
        let trainer = ConvTrainer::new(model.clone(), Adam::default()).unwrap();
        let got = trainer.gradients(&images).unwrap();
        prop_assert!((got.loss - loss.item()).abs() < 1e-4 * (1.0 + loss.item().abs()));
        prop_assert_eq!(got.gradients.len(), want.len());
        for (got, want) in got.gradients.iter().flatten().zip(want.iter().flatten()) {
            prop_assert_eq!(got.len(), want.len());
            let rms = (want.iter().map(|g| g * g).sum::<f32>() / want.len() as f32).sqrt();
            for (g, w) in got.iter().zip(want) {
                prop_assert!((g - w).abs() < 2e-3 * rms + 1e-5, "{} for {}", g, w);
            }
        }
        let packed = PackedFlow::new(model).unwrap();
        let mean = images.iter().map(|x| packed.latent(x).unwrap().loss).sum::<f64>() / n as f64;
        prop_assert!((mean - f64::from(got.loss)).abs() < 1e-4 * (1.0 + mean.abs()));
    }
}

#[test]
fn the_image_trainer_gives_the_same_bits_for_any_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = MapFlow::new(&FlowSpec::convolutional(32, 4, 1.0, false), (9, 8), true, 3).unwrap();
            let mut trainer = ConvTrainer::new(model, Adam::default()).unwrap();
            let x = random(&[6, 9, 8, 32], 1);
            let images: Vec<&[f32]> = x.as_slice().unwrap().chunks_exact(9 * 8 * 32).collect();
            for _ in 0..3 {
                trainer.step(&images, 1e-2).unwrap();
            }
            trainer.model().state()
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(7));
}

#[test]
fn the_image_trainer_refuses_what_does_not_fit() {
    let spec = FlowSpec::convolutional(4, 2, 1.0, true);
    let model = MapFlow::new(&spec, (2, 3), true, 0).unwrap();
    let mut trainer = ConvTrainer::new(model.clone(), Adam::default()).unwrap();
    assert!(trainer.step(&[], 1e-3).is_err(), "no maps");
    assert!(trainer.step(&[&[0.0; 23]], 1e-3).is_err());
    let error = trainer.step(&[&[f32::NAN; 24]], 1e-3).unwrap_err().to_string();
    assert!(error.contains("not a finite number"), "{error}");
    assert_eq!(trainer.model().state(), model.state(), "nothing is changed");
    assert!(MapFlow::new(&FlowSpec { soft_mixing: true, ..spec.clone() }, (2, 3), true, 0).is_err());
    assert!(MapFlow::new(&FlowSpec::linear(4, 0, 1), (2, 3), true, 0).is_err());
    assert!(MapFlow::new(&spec, (0, 3), true, 0).is_err());
    assert!(PackedFlow::new(model).unwrap().latent(&[0.0; 5]).is_err());
}

#[test]
fn samples_do_not_see_each_other() {
    let flow = stirred(&FlowSpec::convolutional(6, 3, 1.0, false), 3);
    let batch = random(&[3, 4, 5, 6], 4);
    let (all, det) = flow.forward(&mut Tape::inference(), &constant(&batch), None, &mut Leaves::default()).unwrap();
    for i in 0..3 {
        let one = batch.slice_axis(ndarray::Axis(0), ndarray::Slice::from(i..i + 1)).to_owned();
        let (z, log_det) = forward(&flow, &one, None);
        let same = all.value().slice_axis(ndarray::Axis(0), ndarray::Slice::from(i..i + 1)).to_owned();
        assert_eq!(z, same);
        assert_eq!(log_det, det.data()[i]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let flow = Flow::new(&FlowSpec::linear(4, 2, 1), 0).unwrap();
    let x = constant(&random(&[3, 4], 0));
    let run = |x: &Var, c: Option<&Var>| {
        flow.forward(&mut Tape::inference(), x, c, &mut Leaves::default()).is_err() && flow.inverse(x, c).is_err()
    };
    assert!(run(&x, None), "no condition");
    assert!(run(&x, Some(&constant(&random(&[2, 2], 0)))), "another number of rows");
    assert!(run(&constant(&random(&[3, 5], 0)), Some(&constant(&random(&[3, 2], 0)))), "another width");
    assert!(Flow::new(&FlowSpec::linear(1, 0, 1), 0).is_err());
    let even = FlowSpec { kernels: vec![blemish_flow::Kernel::Conv(2)], ..FlowSpec::convolutional(4, 1, 1.0, true) };
    assert!(Flow::new(&even, 0).is_err());
    assert!(Flow::new(&FlowSpec { clamp: f32::NAN, ..FlowSpec::linear(4, 0, 1) }, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Rounding to bf16 is off by at most 2^-9 of a number; a ReLU that it switches is off by more.
    #[test]
    fn gradients_in_bf16_are_near_those_in_f32(c in 2usize..60, k in 1usize..20, blocks in 1usize..4, n in 1usize..140) {
        let flow = Flow::new(&FlowSpec::linear(c, k, blocks), 3).unwrap();
        let (x, codes) = (random(&[n, c], 1), random(&[n, k], 2));
        let (x, codes) = (x.as_slice().unwrap(), codes.as_slice().unwrap());
        let of = |products| {
            let mut trainer = LinearTrainer::with_products(flow.clone(), Adam::default(), products).unwrap();
            (trainer.products(), trainer.gradients(x, codes).unwrap())
        };
        let ((single, want), (used, got)) = (of(Products::F32), of(Products::Bf16));
        prop_assert_eq!(single, Products::F32);
        if Isa::bf16().is_none() {
            // Where the processor cannot do it, f32 takes its place.
            prop_assert_eq!(used, Products::F32);
            prop_assert!(want.loss == got.loss && want.gradients == got.gradients);
            return Ok(());
        }
        prop_assert_eq!(used, Products::Bf16);
        prop_assert!((got.loss - want.loss).abs() < 2e-3 * (1.0 + want.loss.abs()), "{} for {}", got.loss, want.loss);
        // Of all gradients together: of a few samples a switched ReLU is much of a single one.
        let all = |of: &Recomputed| of.gradients.iter().flatten().flatten().copied().collect::<Vec<f32>>();
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| v * v).sum::<f32>().sqrt();
        let (got, want) = (all(&got), all(&want));
        let error = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w));
        let size = norm(&mut want.iter().copied());
        prop_assert!(error <= 0.1 * size, "{error} of {size}");
    }
}
