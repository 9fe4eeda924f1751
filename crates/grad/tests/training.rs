//! Optimisers, schedules, averages and clipping on a small problem, and what they refuse.

use blemish_grad::ops::{self, Unary};
use blemish_grad::optim::{Adam, AdamState, Decay, Ema, Schedule, Sgd};
use blemish_grad::{GradError, Leaves, Module, Param, Tape, Var};
use ndarray::{ArrayD, arr1};
use rand::{Rng, SeedableRng};

/// Two layers with a hyperbolic tangent between them.
#[derive(Clone)]
struct Net {
    first: Param,
    bias: Param,
    second: Param,
}

impl Module for Net {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        f("first", &self.first);
        f("bias", &self.bias);
        f("second", &self.second);
    }
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        f("first", &mut self.first);
        f("bias", &mut self.bias);
        f("second", &mut self.second);
    }
}

fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(shape, || rng.random_range(-0.7..0.7))
}

fn net() -> Net {
    let param = |shape: &[usize], seed| Param::new(random(shape, seed));
    Net { first: param(&[8, 3], 1), bias: param(&[8], 2), second: param(&[1, 8], 3) }
}

/// Loss and gradients on `sin` of a projection.
fn gradients(net: &Net) -> (f32, Vec<Option<Vec<f32>>>) {
    let x = random(&[32, 3], 4);
    let y: Vec<f32> = x.rows().into_iter().map(|r| (2.0 * r[0] - r[1] + 0.5 * r[2]).sin()).collect();
    let y = Var::constant(ArrayD::from_shape_vec(vec![32, 1], y).unwrap().into_shared());
    let (mut tape, mut leaves) = (Tape::recording(), Leaves::default());
    let [first, bias, second] = [&net.first, &net.bias, &net.second].map(|p| leaves.add(&mut tape, p));
    let hidden = ops::linear(&mut tape, &Var::constant(x.into_shared()), &first, Some(&bias)).unwrap();
    let hidden = ops::unary(&mut tape, &hidden, Unary::Tanh).unwrap();
    let out = ops::linear(&mut tape, &hidden, &second, None).unwrap();
    let loss = ops::mse_loss(&mut tape, &out, &y).unwrap();
    let value = loss.item();
    (value, leaves.gradients(&mut tape.backward(&loss).unwrap()))
}

#[test]
fn every_optimiser_learns() {
    let adam = Adam { lr: 0.02, ..Adam::default() };
    let optimisers: [(&str, Option<Adam>, Option<Sgd>); 4] = [
        ("adam", Some(adam), None),
        ("adamw", Some(Adam { weight_decay: 1e-3, decay: Decay::Decoupled, ..adam }), None),
        ("sgd", None, Some(Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() })),
        ("nesterov", None, Some(Sgd { lr: 0.1, momentum: 0.9, nesterov: true, ..Sgd::default() })),
    ];
    for (name, adam, sgd) in optimisers {
        let (mut net, mut state, mut buffers) = (net(), AdamState::default(), Vec::new());
        let before = gradients(&net).0;
        for _ in 0..300 {
            let (_, gradients) = gradients(&net);
            if let Some(adam) = adam {
                adam.step(&mut net, &mut state, &gradients, adam.lr).unwrap();
            }
            if let Some(sgd) = sgd {
                sgd.step(&mut net, &mut buffers, &gradients, sgd.lr).unwrap();
            }
        }
        let after = gradients(&net).0;
        assert!(after < 0.02 * before, "{name}: {after} after {before}");
    }
}

#[test]
fn clipping() {
    // The slope of sum(x * w) is w: norm 5.
    let run = |limit: f32| {
        let mut tape = Tape::recording();
        let (a, b) = (tape.leaf(arr1(&[1.0f32]).into_dyn()), tape.leaf(arr1(&[1.0f32]).into_dyn()));
        let (left, right) = (ops::scale(&mut tape, &a, 3.0).unwrap(), ops::scale(&mut tape, &b, -4.0).unwrap());
        let sum = ops::add(&mut tape, &left, &right).unwrap();
        let mut gradients = tape.backward(&sum).unwrap();
        let norm = gradients.clip_norm(limit).unwrap();
        (norm, gradients.get(&a).unwrap()[0], gradients.get(&b).unwrap()[0])
    };
    assert_eq!(run(10.0), (5.0, 3.0, -4.0), "below the limit nothing changes");
    let (norm, a, b) = run(1.0);
    assert_eq!(norm, 5.0, "the norm before");
    assert!((a - 0.6).abs() < 1e-6 && (b + 0.8).abs() < 1e-6, "{a} {b}");

    let mut tape = Tape::recording();
    let x = tape.leaf(arr1(&[f32::INFINITY]).into_dyn());
    let square = ops::unary(&mut tape, &x, Unary::Square).unwrap();
    let error = tape.backward(&square).unwrap().clip_norm(1.0).unwrap_err();
    assert!(matches!(error, GradError::NotFinite { .. }), "{error}");
}

#[test]
fn averages() {
    let mut net = net();
    let start = net.first.value().to_owned();
    let mut ema = Ema::new(&net, 0.75);
    net.first.data_mut().iter_mut().for_each(|v| *v += 1.0);
    ema.update(&net);
    net.first.data_mut().iter_mut().for_each(|v| *v += 1.0);
    ema.update(&net);
    // 0.75 * (0.75 * s + 0.25 * (s + 1)) + 0.25 * (s + 2)
    let mut average = net.clone();
    ema.copy_to(&mut average);
    for (a, s) in average.first.data().iter().zip(&start) {
        assert!((a - (s + 0.1875 + 0.5)).abs() < 1e-6, "{a} for {s}");
    }
    assert_eq!(average.bias.value(), net.bias.value());
    assert_ne!(average.first.value(), net.first.value(), "the module itself is left alone");
}

#[test]
fn schedules() {
    let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} for {want}");
    for step in [0, 1, 1000] {
        close(Schedule::Constant.factor(step), 1.0);
    }
    let step = Schedule::Step { every: 3, factor: 0.1 };
    for (at, want) in [(0, 1.0), (2, 1.0), (3, 0.1), (5, 0.1), (6, 0.01)] {
        close(step.factor(at), want);
    }
    close(Schedule::Step { every: 0, factor: 0.5 }.factor(2), 0.25);
    let cosine = Schedule::Cosine { total: 10, floor: 0.1, warm_up: 4, start: 0.2 };
    close(cosine.factor(0), 0.2);
    let at = |s: f64| 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * s / 10.0).cos());
    close(cosine.factor(2), (0.2 + at(4.0)) / 2.0);
    for s in 4..=10 {
        close(cosine.factor(s), at(s as f64));
    }
    close(cosine.factor(10), 0.1);
    close(cosine.factor(500), 0.1);
    assert!((0..3).all(|s| cosine.factor(s) < cosine.factor(s + 1)), "it rises");
    assert!((4..10).all(|s| cosine.factor(s) > cosine.factor(s + 1)), "it falls");
    // Nothing to divide by.
    assert!(Schedule::Cosine { total: 0, floor: 0.1, warm_up: 0, start: 1.0 }.factor(0).is_finite());
}

#[test]
fn tapes() {
    let x = arr1(&[2.0f32]).into_dyn();
    // Without recording there is nothing to walk back.
    let mut tape = Tape::inference();
    let leaf = tape.leaf(x.clone());
    let out = ops::scale(&mut tape, &leaf, 3.0).unwrap();
    assert!(!out.needs_grad() && !tape.is_recording());
    assert!(matches!(tape.backward(&out), Err(GradError::Shape { .. })));
    // A loss of two values, a constant, a gradient of another shape.
    let mut tape = Tape::recording();
    let leaf = tape.leaf(arr1(&[1.0f32, 2.0]).into_dyn());
    assert!(tape.backward(&leaf).is_err());
    assert!(Tape::recording().backward(&Var::constant(x.clone().into_shared())).is_err());
    let mut tape = Tape::recording();
    let leaf = tape.leaf(x.clone());
    assert!(tape.backward_from(&leaf, ArrayD::zeros(vec![2])).is_err());
    // What no gradient reaches has none; what two paths reach gets their sum.
    let mut tape = Tape::recording();
    let (used, unused) = (tape.leaf(x.clone()), tape.leaf(x));
    let (a, b) = (ops::scale(&mut tape, &used, 3.0).unwrap(), ops::unary(&mut tape, &used, Unary::Square).unwrap());
    let sum = ops::add(&mut tape, &a, &b).unwrap();
    let gradients = tape.backward(&sum).unwrap();
    assert_eq!(gradients.get(&used).unwrap(), [3.0 + 4.0]);
    assert!(gradients.get(&unused).is_none());
}

#[test]
fn modules() {
    let mut net = net();
    assert_eq!(net.count(), 24 + 8 + 8);
    let state: std::collections::HashMap<_, _> = net.state().into_iter().collect();
    let mut other = Net { first: Param::new(random(&[8, 3], 9)), ..net.clone() };
    other.load(&|name| state.get(name).cloned()).unwrap();
    assert_eq!(other.state(), net.state());
    // Missing or misshapen: the first is named, nothing is changed.
    let error = other.load(&|name| (name != "bias").then(|| random(&[8, 3], 7))).unwrap_err();
    assert!(matches!(&error, GradError::State { name, .. } if name == "bias"), "{error}");
    assert_eq!(other.state(), net.state());
    assert!(Param::from_vec(&[2, 2], vec![0.0; 3]).is_err());
    // Gradients that do not fit.
    let wrong = vec![Some(vec![0.0; 3]), None, None];
    assert!(Adam::default().step(&mut net, &mut AdamState::default(), &wrong, 0.1).is_err());
    assert!(Sgd::default().step(&mut net, &mut Vec::new(), &wrong, 0.1).is_err());
}
