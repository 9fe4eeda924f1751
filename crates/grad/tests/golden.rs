//! Every operation, optimiser and schedule against PyTorch's numbers.

mod common;

use blemish_grad::ops::{self, Conv, ConvTranspose, Interpolation, Unary};
use blemish_grad::optim::{Adam, AdamState, Decay, Schedule, Sgd};
use blemish_grad::{Module, Param, Result, Tape, Var};
use common::{Golden, near, nhwc};
use ndarray::ArrayD;
use serde_json::Value as Json;

/// Runs one case: leaves from `in/*`, output and gradients against the file. Returns the names of the gradients checked.
fn check(golden: &Golden, case: &str, tolerance: (f64, f64)) {
    let options = &golden.info["cases"][case];
    let mut tape = Tape::recording();
    let leaf = |tape: &mut Tape, name: &str| {
        let stored = golden.tensors.get(&format!("{case}/in/{name}"))?;
        let image = name == "x" || name == "y";
        Some(tape.leaf(if image && !case.starts_with("layer_norm") { nhwc(stored) } else { stored.clone() }))
    };
    let (x, y) = (leaf(&mut tape, "x").unwrap(), leaf(&mut tape, "y"));
    let (weight, bias) = (leaf(&mut tape, "weight"), leaf(&mut tape, "bias"));
    let out = run(golden, case, options, &mut tape, &x, y.as_ref(), weight.as_ref(), bias.as_ref())
        .unwrap_or_else(|e| panic!("{case}: {e}"));
    let raw = case.starts_with("layer_norm");
    let order = |a: &ArrayD<f32>| if raw { a.clone() } else { nhwc(a) };
    let want = order(golden.get(&format!("{case}/out")));
    near(&format!("{case}/out"), out.data(), &want, tolerance.0, tolerance.1);
    let gradient = order(golden.get(&format!("{case}/grad_out"))).into_shape_with_order(out.shape()).unwrap();
    let gradients = tape.backward_from(&out, gradient).unwrap();
    let mut checked = 0;
    for (name, var) in [("x", Some(&x)), ("y", y.as_ref()), ("weight", weight.as_ref()), ("bias", bias.as_ref())] {
        let Some(var) = var else { continue };
        let stored = golden.get(&format!("{case}/grad/{name}"));
        let want = if name == "x" || name == "y" { order(stored) } else { stored.clone() };
        let got = gradients.get(var).unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
        if case == "loss/bce" {
            // Gradients of 1e12 at p = 0 and 1.
            for (g, w) in got.iter().zip(want.iter()) {
                assert!((g - w).abs() <= 1e-6 * w.abs().max(1e-3), "{case}/{name}: {g} for {w}");
            }
        } else {
            near(&format!("{case}/grad/{name}"), got, &want, tolerance.0, tolerance.1);
        }
        checked += 1;
    }
    assert!(checked > 0);
}

fn run(
    golden: &Golden,
    case: &str,
    options: &Json,
    tape: &mut Tape,
    x: &Var,
    y: Option<&Var>,
    weight: Option<&Var>,
    bias: Option<&Var>,
) -> Result<Var> {
    let number = |name: &str, default: usize| options[name].as_u64().map_or(default, |n| n as usize);
    let target = |name: &str| golden.get(&format!("{case}/{name}"));
    let (op, rest) = case.split_once('/').unwrap();
    match op {
        "linear" => ops::linear(tape, x, weight.unwrap(), bias),
        "conv2d" => {
            let conv = Conv {
                stride: number("stride", 1),
                padding: number("padding", 0),
                dilation: number("dilation", 1),
                groups: number("groups", 1),
            };
            ops::conv2d(tape, x, weight.unwrap(), bias, conv)
        }
        "conv_transpose2d" => {
            let conv = ConvTranspose {
                stride: number("stride", 1),
                padding: number("padding", 0),
                output_padding: number("output_padding", 0),
                groups: number("groups", 1),
            };
            ops::conv_transpose2d(tape, x, weight.unwrap(), bias, conv)
        }
        "batch_norm" => {
            let mut statistics = ops::BatchStatistics::new(x.shape()[3]);
            statistics.mean = target("running_mean_before").iter().copied().collect();
            statistics.var = target("running_var_before").iter().copied().collect();
            let train = options["training"].as_bool().unwrap();
            let out = ops::batch_norm(tape, x, weight.unwrap(), bias.unwrap(), &mut statistics, train)?;
            near(case, &statistics.mean, target("running_mean_after"), 1e-5, 1e-6);
            near(case, &statistics.var, target("running_var_after"), 1e-5, 1e-6);
            Ok(out)
        }
        "layer_norm" => ops::layer_norm(tape, x, weight.unwrap(), bias.unwrap(), 1e-5),
        "pointwise" => {
            let f = match rest {
                "relu" => Unary::Relu,
                "relu6" => Unary::Relu6,
                "leaky_relu_0.2" => Unary::LeakyRelu(0.2),
                "sigmoid" => Unary::Sigmoid,
                "log_sigmoid" => Unary::LogSigmoid,
                "tanh" => Unary::Tanh,
                "silu" => Unary::Silu,
                "hardswish" => Unary::HardSwish,
                "hardsigmoid" => Unary::HardSigmoid,
                "softplus_beta0.5" => Unary::Softplus(0.5),
                "exp" => Unary::Exp,
                other => panic!("no such function: {other}"),
            };
            ops::unary(tape, x, f)
        }
        "softmax" => ops::softmax(tape, x),
        "logsumexp" => ops::logsumexp(tape, x),
        "max_pool" => ops::max_pool(tape, x, number("kernel_size", 1), number("stride", 1), number("padding", 0)),
        "avg_pool" if rest == "global" => ops::global_avg_pool(tape, x),
        "avg_pool" => {
            let count = options["count_include_pad"].as_bool().unwrap();
            ops::avg_pool(tape, x, number("kernel_size", 1), number("stride", 1), number("padding", 0), count)
        }
        "pad" => {
            let sides: Vec<usize> =
                options["lrtb"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            ops::pad_reflect(tape, x, sides.try_into().unwrap())
        }
        "interpolate" => {
            let size = options["size"].as_array().unwrap();
            let size = (size[0].as_u64().unwrap() as usize, size[1].as_u64().unwrap() as usize);
            let how = match (options["mode"].as_str().unwrap(), options["align_corners"].as_bool()) {
                ("nearest", _) => Interpolation::Nearest,
                (_, Some(true)) => Interpolation::BilinearCorners,
                _ => Interpolation::Bilinear,
            };
            ops::interpolate(tape, x, size, how)
        }
        "loss" => match rest {
            "mse" => ops::mse_loss(tape, x, y.unwrap()),
            "l1" => ops::l1_loss(tape, x, y.unwrap()),
            "smooth_l1" => ops::smooth_l1_loss(tape, x, y.unwrap()),
            "bce" => ops::bce_loss(tape, x, target("target").as_slice().unwrap()),
            "cross_entropy" => {
                let classes: Vec<usize> =
                    golden.integers[&format!("{case}/target")].iter().map(|t| *t as usize).collect();
                ops::cross_entropy(tape, x, &classes)
            }
            _ => ops::ssim_loss(tape, x, y.unwrap(), number("padding", 0), 1.0),
        },
        other => panic!("no test for {other}"),
    }
}

#[test]
fn operations() {
    let Some(golden) = Golden::open("autodiff.safetensors") else { return };
    let cases = golden.info["cases"].as_object().unwrap();
    let mut run = 0;
    for case in cases.keys().filter(|case| !case.starts_with("schedule/")) {
        let tolerance = match case.split('/').next().unwrap() {
            // torch computes source coordinates in f32.
            "interpolate" => (0.0, 1e-5),
            _ => (1e-5, 1e-6),
        };
        check(&golden, case, tolerance);
        run += 1;
    }
    assert!(run > 55, "{run} cases");
}

struct One(Param);

impl Module for One {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        f("p", &self.0);
    }
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        f("p", &mut self.0);
    }
}

#[test]
fn optimisers() {
    let Some(golden) = Golden::open("autodiff.safetensors") else { return };
    let start = || One(Param::new(golden.get("optimiser/start").clone()));
    let gradient =
        |i: usize| vec![Some(golden.get(&format!("optimiser/gradient{i}")).iter().copied().collect::<Vec<_>>())];
    let adam = Adam::default();
    let adams = [
        ("adam", adam),
        ("adam_decay", Adam { weight_decay: 0.1, ..adam }),
        ("adam_beta0.5", Adam { lr: 2e-4, betas: [0.5, 0.999], ..adam }),
        ("adamw", Adam { weight_decay: 0.1, decay: Decay::Decoupled, ..adam }),
    ];
    for (name, adam) in adams {
        let (mut module, mut state) = (start(), AdamState::default());
        for i in 0..3 {
            adam.step(&mut module, &mut state, &gradient(i), adam.lr).unwrap();
            near(name, module.0.data(), golden.get(&format!("optimiser/{name}/after{i}")), 1e-6, 1e-7);
        }
        near(name, &state.exp_avg[0], golden.get(&format!("optimiser/{name}/exp_avg")), 1e-6, 1e-7);
        near(name, &state.exp_avg_sq[0], golden.get(&format!("optimiser/{name}/exp_avg_sq")), 1e-6, 1e-7);
    }
    let sgd = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let sgds = [
        ("sgd_momentum_decay", Sgd { weight_decay: 0.01, ..sgd }),
        ("sgd_nesterov", Sgd { nesterov: true, ..sgd }),
        ("sgd_dampening", Sgd { dampening: 0.5, ..sgd }),
    ];
    for (name, sgd) in sgds {
        let (mut module, mut buffers) = (start(), Vec::new());
        for i in 0..3 {
            sgd.step(&mut module, &mut buffers, &gradient(i), sgd.lr).unwrap();
            near(name, module.0.data(), golden.get(&format!("optimiser/{name}/after{i}")), 1e-6, 1e-7);
        }
        near(name, &buffers[0], golden.get(&format!("optimiser/{name}/momentum_buffer")), 1e-6, 1e-7);
    }
    // A parameter without a gradient stays where it is.
    let mut module = start();
    adam.step(&mut module, &mut AdamState::default(), &[None], 1.0).unwrap();
    assert_eq!(module.0.value(), golden.get("optimiser/start"));
    assert!(adam.step(&mut module, &mut AdamState::default(), &[Some(vec![0.0; 2])], 1.0).is_err());
}

#[test]
fn schedules() {
    let Some(golden) = Golden::open("autodiff.safetensors") else { return };
    for (name, total, floor) in [("cosine_t10", 10, 1e-5 / 0.1), ("cosine_t3", 3, 0.0)] {
        let schedule = Schedule::Cosine { total, floor, warm_up: 0, start: 1.0 };
        let want = &golden.wide[&format!("schedule/{name}_closed_form")];
        for (step, want) in want.iter().enumerate().take(total as usize + 1) {
            let got = 0.1 * schedule.factor(step as u64);
            assert!((got - want).abs() < 1e-12, "{name}, step {step}: {got} for {want}");
        }
        assert_eq!(schedule.factor(total + 5), schedule.factor(total), "stays at the floor");
    }
}
