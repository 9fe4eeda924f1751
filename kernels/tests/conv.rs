//! Every convolution algorithm at every instruction level against an f64 loop.

use blemish_kernels::Par;
use blemish_kernels::conv::{Activation, Algorithm, Conv2d, ConvSpec};
use blemish_kernels::gemm::Isa;
use proptest::prelude::*;

fn value(i: usize, salt: usize) -> f32 {
    let h = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt as u64 * 77) >> 40;
    (h % 2001) as f32 / 1000.0 - 1.0
}

fn values(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| value(i, salt)).collect()
}

fn act(a: Activation, x: f64) -> f64 {
    match a {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

fn reference(
    s: &ConvSpec,
    weight: &[f32],
    bias: &[f32],
    a: Activation,
    x: &[f32],
    (n, h, w): (usize, usize, usize),
    residual: Option<&[f32]>,
) -> Vec<f64> {
    let (oh, ow) = s.output_size(h, w).unwrap();
    let (cin, cout) = (s.in_channels / s.groups, s.out_channels / s.groups);
    let mut out = Vec::new();
    for i in 0..n {
        for oy in 0..oh {
            for ox in 0..ow {
                for o in 0..s.out_channels {
                    let mut sum = f64::from(bias[o]);
                    for ky in 0..s.kernel[0] {
                        for kx in 0..s.kernel[1] {
                            let y = (oy * s.stride[0] + ky).wrapping_sub(s.padding[0]);
                            let xx = (ox * s.stride[1] + kx).wrapping_sub(s.padding[1]);
                            if y >= h || xx >= w {
                                continue;
                            }
                            for c in 0..cin {
                                let v = x[((i * h + y) * w + xx) * s.in_channels + o / cout * cin + c];
                                let k = weight[((o * cin + c) * s.kernel[0] + ky) * s.kernel[1] + kx];
                                sum += f64::from(v) * f64::from(k);
                            }
                        }
                    }
                    if let Some(r) = residual {
                        sum += f64::from(r[out.len()]);
                    }
                    out.push(act(a, sum));
                }
            }
        }
    }
    out
}

fn check(s: ConvSpec, dim: (usize, usize, usize), a: Activation, with_residual: bool) {
    let (n, h, w) = dim;
    let Ok((oh, ow)) = s.output_size(h, w) else { return };
    let weight = values(s.out_channels * s.in_channels / s.groups * s.kernel[0] * s.kernel[1], 1);
    let bias = values(s.out_channels, 2);
    let x = values(n * h * w * s.in_channels, 3);
    let residual = with_residual.then(|| values(n * oh * ow * s.out_channels, 4));
    let want = reference(&s, &weight, &bias, a, &x, dim, residual.as_deref());
    let taps = (s.kernel[0] * s.kernel[1] * s.in_channels / s.groups) as f64;
    let mut ran = 0;
    for algorithm in
        [Algorithm::Depthwise, Algorithm::Winograd, Algorithm::WinogradSmall, Algorithm::Pieces, Algorithm::Direct]
    {
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let Ok(conv) = Conv2d::with_algorithm(s, &weight, &bias, a, algorithm, isa) else { continue };
            let run = |par: Par| {
                let mut out = vec![f32::NAN; want.len()];
                let mut scratch = vec![f32::NAN; conv.workspace(n, h, w)];
                conv.forward(&x, n, h, w, residual.as_deref(), &mut out, &mut scratch, par).unwrap();
                out
            };
            let out = run(Par::Serial);
            let tolerance = if algorithm == Algorithm::Winograd { 3e-5 } else { 3e-6 } * (1.0 + taps.sqrt());
            for (got, want) in out.iter().zip(&want) {
                assert!(
                    (f64::from(*got) - want).abs() <= tolerance,
                    "{algorithm:?} {isa:?} {s:?} {dim:?}: {got} {want}"
                );
            }
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| run(Par::Rayon)), out, "{algorithm:?}: bits depend on threads");
            }
            match &first {
                Some(first) if algorithm != Algorithm::Direct => assert_eq!(first, &out, "{algorithm:?} {isa:?}"),
                _ => first = Some(out),
            }
            ran += 1;
        }
    }
    assert!(ran >= 2, "{s:?}");
}

fn dense(cin: usize, cout: usize, k: usize, stride: usize, pad: usize) -> ConvSpec {
    ConvSpec { in_channels: cin, out_channels: cout, kernel: [k; 2], stride: [stride; 2], padding: [pad; 4], groups: 1 }
}

#[test]
fn layers_of_real_networks() {
    check(dense(3, 64, 7, 2, 3), (1, 33, 29), Activation::Relu, false);
    check(dense(64, 64, 3, 1, 1), (2, 17, 14), Activation::Relu, true);
    check(dense(130, 33, 3, 1, 1), (1, 9, 11), Activation::None, false);
    check(dense(64, 96, 3, 2, 1), (1, 15, 16), Activation::Relu, false);
    check(dense(100, 40, 1, 1, 0), (2, 7, 9), Activation::HardSwish, true);
    check(dense(64, 128, 1, 2, 0), (1, 13, 13), Activation::None, false);
    for (c, k, stride) in [(72, 3, 1), (72, 3, 2), (33, 5, 1), (120, 5, 2), (1, 3, 1)] {
        let spec = ConvSpec { groups: c, ..dense(c, c, k, stride, k / 2) };
        check(spec, (2, 19, 21), Activation::Silu, false);
        check(spec, (1, 4, 3), Activation::Relu6, true);
        // One block of columns with both edges.
        check(spec, (1, 8, 8), Activation::HardSwish, true);
    }
    check(ConvSpec { groups: 2, ..dense(8, 12, 3, 1, 1) }, (1, 6, 5), Activation::Relu, true);
}

/// So many tiles that threads take blocks of them, with scratch of any size.
#[test]
fn many_blocks_of_winograd_tiles() {
    let s = dense(33, 35, 3, 1, 1);
    let (n, h, w) = (5, 46, 43);
    check(s, (n, h, w), Activation::Relu, true);
    let (weight, x) = (values(33 * 35 * 9, 1), values(n * h * w * 33, 3));
    let conv =
        Conv2d::with_algorithm(s, &weight, &[0.5; 35], Activation::Relu, Algorithm::Winograd, Isa::best()).unwrap();
    let large = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let small = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let run = |scratch: usize| {
        let (mut out, mut scratch) = (vec![f32::NAN; n * h * w * 35], vec![f32::NAN; scratch]);
        large.install(|| conv.forward(&x, n, h, w, None, &mut out, &mut scratch, Par::Rayon)).map(|()| out)
    };
    let (least, most) = (small.install(|| conv.workspace(n, h, w)), large.install(|| conv.workspace(n, h, w)));
    assert!(most > least);
    assert_eq!(run(least).unwrap(), run(most).unwrap());
    assert!(run(least - 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape(
        cin in prop::sample::select(vec![1usize, 3, 7, 16, 17, 40]),
        cout in prop::sample::select(vec![1usize, 5, 16, 31, 32, 33]),
        k in 1usize..5, stride in 1usize..4, pad in prop::array::uniform4(0usize..3),
        n in 1usize..3, h in 1usize..21, w in 1usize..21, a in 0usize..5, residual: bool,
    ) {
        let padding = pad.map(|p| p.min(k - 1));
        let spec = ConvSpec { padding, ..dense(cin, cout, k, stride, 0) };
        let a = [Activation::None, Activation::Relu, Activation::Relu6, Activation::HardSwish, Activation::Silu][a];
        check(spec, (n, h, w), a, residual);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_depthwise_shape(
        c in prop::sample::select(vec![1usize, 3, 8, 16, 17, 40, 100]), k in 1usize..6, stride in 1usize..4,
        pad in prop::array::uniform4(0usize..5), h in 1usize..21, w in 1usize..30, a in 0usize..5, residual: bool,
    ) {
        let padding = pad.map(|p| p.min(k - 1));
        let spec = ConvSpec { padding, groups: c, ..dense(c, c, k, stride, 0) };
        let a = [Activation::None, Activation::Relu, Activation::Relu6, Activation::HardSwish, Activation::Silu][a];
        check(spec, (1, h, w), a, residual);
    }
}

#[test]
fn winograd_error_is_as_stated() {
    for channels in [64, 512] {
        let s = dense(channels, 32, 3, 1, 1);
        let (weight, x) = (values(32 * channels * 9, 1), values(8 * 8 * channels, 3));
        let want = reference(&s, &weight, &[0.0; 32], Activation::None, &x, (1, 8, 8), None);
        let rms = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
        let error = |algorithm| {
            let conv =
                Conv2d::with_algorithm(s, &weight, &[0.0; 32], Activation::None, algorithm, Isa::best()).unwrap();
            let (mut out, mut scratch) = (vec![0.0; want.len()], vec![0.0; conv.workspace(1, 8, 8)]);
            conv.forward(&x, 1, 8, 8, None, &mut out, &mut scratch, Par::Serial).unwrap();
            out.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max) / rms
        };
        let (plain, fast) = (error(Algorithm::Pieces), error(Algorithm::Winograd));
        let small = error(Algorithm::WinogradSmall);
        println!(
            "{channels} channels: largest error over rms: pieces {plain:.1e}, Winograd {fast:.1e}, small {small:.1e}"
        );
        assert!(plain < 2e-5 && fast < 1e-4 && small < 2e-5, "{plain} {fast} {small}");
    }
}

#[test]
fn wrong_lengths_and_algorithms_are_refused() {
    let s = dense(4, 4, 3, 1, 1);
    let (w, b) = (values(144, 1), values(4, 2));
    assert!(Conv2d::new(s, &w[1..], &b, Activation::None).is_err());
    assert!(Conv2d::new(s, &w, &b[1..], Activation::None).is_err());
    let refuse =
        |spec, algorithm| Conv2d::with_algorithm(spec, &w, &b, Activation::None, algorithm, Isa::best()).is_err();
    assert!(refuse(s, Algorithm::Depthwise));
    assert!(refuse(dense(4, 4, 3, 2, 1), Algorithm::Winograd));
    let conv = Conv2d::new(s, &w, &b, Activation::None).unwrap();
    let mut scratch = vec![0.0; conv.workspace(1, 5, 5)];
    assert!(conv.forward(&[0.0; 99], 1, 5, 5, None, &mut [0.0; 100], &mut scratch, Par::Serial).is_err());
    assert!(conv.forward(&[0.0; 100], 1, 5, 5, None, &mut [0.0; 99], &mut scratch, Par::Serial).is_err());
    assert!(conv.forward(&[0.0; 100], 1, 5, 5, Some(&[0.0; 1]), &mut [0.0; 100], &mut scratch, Par::Serial).is_err());
    assert!(conv.forward(&[0.0; 100], 1, 5, 5, None, &mut [0.0; 100], &mut [], Par::Serial).is_err());
}
