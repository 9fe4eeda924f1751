//! Every operation's gradients against differences of its values.
//!
//! The scalar under test is a fixed random projection of the output, added up in f64. Its slope by each input value is taken
//! from four values, `(8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12h` with `h = 0.02`: wrong by `h^4` times the
//! fifth derivative and by the rounding of f32 over `h`, for values around 1 below 1e-4. Allowed are 2e-3 of the largest
//! slope, plus 1e-4. Inputs lie further than `2h` from kinks.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::slice::from_ref as one;

use blemish_grad::ops::{self, BatchStatistics, Conv, ConvTranspose, Interpolation, Unary};
use blemish_grad::{Result, Tape, Var};
use ndarray::ArrayD;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const H: f32 = 0.02;

fn random(shape: &[usize], range: std::ops::Range<f32>, seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(shape, || rng.random_range(range.clone()))
}

/// Around zero.
fn plain(shape: &[usize], seed: u64) -> ArrayD<f32> {
    random(shape, -1.5..1.5, seed)
}

/// All different, by 0.1 at least.
fn apart(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32 * 0.1 - 2.0).collect();
    values.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    ArrayD::from_shape_vec(shape, values).unwrap()
}

/// At least 0.1 away from each of the `kinks`.
fn away(shape: &[usize], kinks: &[f32], seed: u64) -> ArrayD<f32> {
    random(shape, -5.0..8.0, seed).mapv(|v| {
        let near = kinks.iter().find(|k| (v - **k).abs() < 0.1);
        near.map_or(v, |k| k + if v < *k { -0.1 } else { 0.1 })
    })
}

/// Operations that were checked; the last test compares them with the list of those there are.
struct Checked(RefCell<BTreeSet<String>>);

impl Checked {
    /// Checks the gradients of `f`, the operation called `name`, at `inputs`.
    fn check(&self, name: &str, inputs: &[ArrayD<f32>], f: impl Fn(&mut Tape, &[Var]) -> Result<Var>) {
        self.0.borrow_mut().insert(name.to_owned());
        let value = |inputs: &[ArrayD<f32>]| {
            let inputs: Vec<Var> = inputs.iter().map(|x| Var::constant(x.clone().into_shared())).collect();
            f(&mut Tape::inference(), &inputs).unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        let mut tape = Tape::recording();
        let leaves: Vec<Var> = inputs.iter().map(|x| tape.leaf(x.clone().into_shared())).collect();
        let out = f(&mut tape, &leaves).unwrap();
        let plain = value(inputs);
        assert_eq!(plain.data(), out.data(), "{name}: the value does not depend on recording");
        assert!(plain.node().is_none() && out.needs_grad(), "{name}");
        let weights = random(out.shape(), -1.0..1.0, 99);
        let project =
            |out: &Var| -> f64 { out.data().iter().zip(&weights).map(|(v, w)| f64::from(*v) * f64::from(*w)).sum() };
        let gradients = tape.backward_from(&out, weights.clone()).unwrap();
        for (i, leaf) in leaves.iter().enumerate() {
            let got = gradients.get(leaf).unwrap_or_else(|| panic!("{name}: no gradient of input {i}"));
            let want: Vec<f64> = (0..got.len())
                .map(|at| {
                    let moved = |by: f32| {
                        let mut inputs = inputs.to_vec();
                        let values = inputs[i].as_slice_mut().unwrap();
                        let start = values[at];
                        values[at] = start + by;
                        let step = f64::from(values[at]) - f64::from(start);
                        (project(&value(&inputs)), step)
                    };
                    let ((a, up), (b, down)) = (moved(H), moved(-H));
                    let ((c, far_up), (d, far_down)) = (moved(2.0 * H), moved(-2.0 * H));
                    let (near, far) = ((a - b) / (up - down), (c - d) / (far_up - far_down));
                    (4.0 * near - far) / 3.0
                })
                .collect();
            let most = want.iter().map(|w| w.abs()).fold(0.0, f64::max);
            for (at, (g, w)) in got.iter().zip(&want).enumerate() {
                let off = (f64::from(*g) - w).abs();
                assert!(off <= 2e-3 * most + 1e-4, "{name}, input {i}, value {at}: {g} for {w}, the most is {most}");
            }
        }
    }
}

fn layers(checked: &Checked) {
    let [x, w, b] = [plain(&[5, 4], 1), plain(&[3, 4], 2), plain(&[3], 3)];
    checked.check("linear", &[x.clone(), w.clone(), b], |t, v| ops::linear(t, &v[0], &v[1], Some(&v[2])));
    checked.check("linear", &[x, w], |t, v| ops::linear(t, &v[0], &v[1], None));

    for (stride, padding, dilation, groups, kernel) in [
        (1, 0, 1, 1, [3, 3]),
        (1, 1, 1, 1, [3, 3]),
        (2, 1, 1, 1, [3, 3]),
        (3, 2, 1, 2, [4, 2]),
        (1, 2, 2, 2, [3, 3]),
        (1, 0, 1, 4, [1, 1]),
        (2, 1, 1, 4, [3, 3]),
    ] {
        let conv = Conv { stride, padding, dilation, groups };
        let inputs = [plain(&[2, 5, 6, 4], 4), plain(&[8, 4 / groups, kernel[0], kernel[1]], 5), plain(&[8], 6)];
        checked.check("conv2d", &inputs, |t, v| ops::conv2d(t, &v[0], &v[1], Some(&v[2]), conv));
        checked.check("conv2d", &inputs[..2], |t, v| ops::conv2d(t, &v[0], &v[1], None, conv));
    }
    for (stride, padding, output_padding, groups, kernel) in
        [(1, 0, 0, 1, 3), (2, 1, 0, 1, 4), (2, 1, 1, 2, 3), (3, 0, 2, 4, 2), (1, 1, 0, 2, 3)]
    {
        let conv = ConvTranspose { stride, padding, output_padding, groups };
        let inputs = [plain(&[2, 3, 4, 4], 7), plain(&[4, 8 / groups, kernel, kernel], 8), plain(&[8], 9)];
        checked.check("conv_transpose2d", &inputs, |t, v| ops::conv_transpose2d(t, &v[0], &v[1], Some(&v[2]), conv));
        checked.check("conv_transpose2d", &inputs[..2], |t, v| ops::conv_transpose2d(t, &v[0], &v[1], None, conv));
    }
    let norm = [plain(&[3, 2, 2, 4], 10), random(&[4], 0.5..1.5, 11), plain(&[4], 12)];
    for train in [true, false] {
        checked.check("batch_norm", &norm, |t, v| {
            let mut statistics = BatchStatistics::new(4);
            statistics.mean = vec![0.1, -0.2, 0.3, 0.0];
            statistics.var = vec![0.8, 1.0, 1.3, 0.7];
            ops::batch_norm(t, &v[0], &v[1], &v[2], &mut statistics, train)
        });
    }
    let norm = [plain(&[3, 2, 3, 2], 13), random(&[2, 3, 2], 0.5..1.5, 14), plain(&[2, 3, 2], 15)];
    checked.check("layer_norm", &norm, |t, v| ops::layer_norm(t, &v[0], &v[1], &v[2], 1e-5));
}

fn pointwise(checked: &Checked) {
    let smooth = plain(&[4, 5], 20);
    for f in [
        Unary::Sigmoid,
        Unary::LogSigmoid,
        Unary::Tanh,
        Unary::Silu,
        Unary::Softplus(0.5),
        Unary::Softplus(2.0),
        Unary::Exp,
        Unary::Square,
    ] {
        checked.check("unary", one(&smooth), |t, v| ops::unary(t, &v[0], f));
    }
    checked.check("unary", &[random(&[4, 5], 0.5..3.0, 21)], |t, v| ops::unary(t, &v[0], Unary::Log));
    for (f, kinks) in [
        (Unary::Relu, &[0.0][..]),
        (Unary::Relu6, &[0.0, 6.0]),
        (Unary::LeakyRelu(0.2), &[0.0]),
        (Unary::HardSwish, &[-3.0, 3.0]),
        (Unary::HardSigmoid, &[-3.0, 3.0]),
    ] {
        checked.check("unary", &[away(&[6, 7], kinks, 22)], |t, v| ops::unary(t, &v[0], f));
    }
    // Each with another of the same shape, and with fewer leading axes.
    for other in [&[2, 3, 4][..], &[4]] {
        let inputs = [plain(&[2, 3, 4], 23), plain(other, 24)];
        checked.check("add", &inputs, |t, v| ops::add(t, &v[0], &v[1]));
        checked.check("sub", &inputs, |t, v| ops::sub(t, &v[0], &v[1]));
        checked.check("mul", &inputs, |t, v| ops::mul(t, &v[0], &v[1]));
    }
    checked.check("mul", one(&smooth), |t, v| ops::mul(t, &v[0], &v[0]));
    checked.check("scale", one(&smooth), |t, v| ops::scale(t, &v[0], -1.7));
    checked.check("affine", &[smooth], |t, v| ops::affine(t, &v[0], 0.6, -0.4));
}

fn shapes_and_sums(checked: &Checked) {
    let x = plain(&[2, 3, 4], 30);
    checked.check("reshape", one(&x), |t, v| ops::reshape(t, &v[0], &[4, 6]));
    checked.check("permute", one(&x), |t, v| ops::permute(t, &v[0], &[2, 0, 1]));
    checked.check("concat", &[x.clone(), plain(&[2, 3, 2], 31), plain(&[2, 3, 1], 32)], |t, v| {
        ops::concat(t, &[&v[0], &v[1], &v[2]])
    });
    checked.check("slice", one(&x), |t, v| ops::slice(t, &v[0], 1..3));
    // Split and put together the other way round.
    checked.check("slice", one(&x), |t, v| {
        let (a, b) = (ops::slice(t, &v[0], 0..1)?, ops::slice(t, &v[0], 1..4)?);
        ops::concat(t, &[&b, &a])
    });
    checked.check("select_channels", one(&x), |t, v| ops::select_channels(t, &v[0], &[3, 0, 0, 2]));
    checked.check("sum", one(&x), |t, v| ops::sum(t, &v[0]));
    checked.check("mean", one(&x), |t, v| ops::mean(t, &v[0]));
    checked.check("sum_rows", one(&x), |t, v| ops::sum_rows(t, &v[0]));
    checked.check("softmax", one(&x), |t, v| ops::softmax(t, &v[0]));
    checked.check("logsumexp", &[x], |t, v| ops::logsumexp(t, &v[0]));
}

fn images(checked: &Checked) {
    for (kernel, stride, padding) in [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0)] {
        let x = apart(&[1, 5, 6, 2], 40);
        checked.check("max_pool", one(&x), |t, v| ops::max_pool(t, &v[0], kernel, stride, padding));
        for count in [false, true] {
            checked.check("avg_pool", one(&x), |t, v| ops::avg_pool(t, &v[0], kernel, stride, padding, count));
        }
    }
    let x = plain(&[2, 4, 5, 2], 41);
    checked.check("global_avg_pool", one(&x), |t, v| ops::global_avg_pool(t, &v[0]));
    for how in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::BilinearCorners] {
        for size in [(4, 5), (7, 9), (8, 10), (2, 3), (1, 1)] {
            checked.check("interpolate", one(&x), |t, v| ops::interpolate(t, &v[0], size, how));
        }
    }
    for sides in [[1, 2, 3, 0], [0, 0, 0, 0], [4, 4, 3, 3]] {
        checked.check("pad_reflect", one(&x), |t, v| ops::pad_reflect(t, &v[0], sides));
    }
}

fn losses(checked: &Checked) {
    let (x, y) = (plain(&[3, 5], 50), plain(&[3, 5], 51));
    checked.check("mse_loss", &[x.clone(), y], |t, v| ops::mse_loss(t, &v[0], &v[1]));
    // Differences away from 0, and from 1 where the smooth loss turns straight (which has no kink in its slope's value).
    let y = &x + &away(&[3, 5], &[0.0, 1.0, -1.0], 52).mapv(|v| v * 0.9);
    let y = &x + &(&y - &x).mapv(|d| if (d.abs() - 1.0).abs() < 0.1 { d * 1.3 } else { d });
    checked.check("l1_loss", &[x.clone(), y.clone()], |t, v| ops::l1_loss(t, &v[0], &v[1]));
    checked.check("smooth_l1_loss", &[x.clone(), y], |t, v| ops::smooth_l1_loss(t, &v[0], &v[1]));
    let close = &x + &random(&[3, 5], -0.8..0.8, 53);
    checked.check("smooth_l1_loss", &[x.clone(), close], |t, v| ops::smooth_l1_loss(t, &v[0], &v[1]));
    let targets: Vec<f32> = random(&[15], 0.0..1.0, 54).iter().copied().collect();
    checked.check("bce_loss", &[random(&[3, 5], 0.25..0.75, 55)], |t, v| ops::bce_loss(t, &v[0], &targets));
    checked.check("cross_entropy", &[x], |t, v| ops::cross_entropy(t, &v[0], &[4, 0, 2]));
    for padding in [0, 5] {
        let images = [random(&[1, 12, 13, 1], 0.0..1.0, 56), random(&[1, 12, 13, 1], 0.0..1.0, 57)];
        checked.check("ssim_loss", &images, |t, v| ops::ssim_loss(t, &v[0], &v[1], padding, 1.0));
    }
    // Log-sigmoid as a loss, the way CFlow-AD uses it.
    checked.check("unary", &[plain(&[6], 58)], |t, v| {
        let each = ops::unary(t, &v[0], Unary::LogSigmoid)?;
        let mean = ops::mean(t, &each)?;
        ops::scale(t, &mean, -1.0)
    });
}

/// A value used twice gets both gradients, and a long chain all of its factors.
fn chains(checked: &Checked) {
    let inputs = [plain(&[2, 4, 4, 2], 60), plain(&[4, 2, 3, 3], 61), plain(&[4], 62), plain(&[3, 4], 63)];
    checked.check("linear", &inputs, |t, v| {
        let a = ops::conv2d(t, &v[0], &v[1], Some(&v[2]), Conv::same(3))?;
        let b = ops::unary(t, &a, Unary::Tanh)?;
        let c = ops::mul(t, &a, &b)?;
        let d = ops::global_avg_pool(t, &c)?;
        let d = ops::reshape(t, &d, &[2, 4])?;
        let e = ops::linear(t, &d, &v[3], None)?;
        ops::softmax(t, &e)
    });
}

#[test]
fn every_operation() {
    let checked = Checked(RefCell::default());
    layers(&checked);
    pointwise(&checked);
    shapes_and_sums(&checked);
    images(&checked);
    losses(&checked);
    chains(&checked);

    // The operations there are: what the module makes public, in lower case.
    let exported = include_str!("../src/ops/mod.rs").lines().filter(|line| line.starts_with("pub use "));
    let all: BTreeSet<String> = exported
        .flat_map(|line| line.rsplit("::").next().unwrap().split(['{', '}', ',', ';', ' ']))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    assert!(all.len() > 25, "{all:?}");
    assert_eq!(all, *checked.0.borrow());
}
