//! Convolutions on bf16 maps against f64 on the same rounded operands, and convolutions on bytes against whole numbers.

use blemish_kernels::Par;
use blemish_kernels::conv::{Activation, Algorithm, Conv2d, ConvSpec, Levels};
use blemish_kernels::gemm::Isa;
use half::bf16;
use proptest::prelude::*;

fn values(n: usize, salt: usize) -> Vec<f32> {
    let value = |i: usize| {
        let h = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt as u64 * 77) >> 40;
        (h % 2001) as f32 / 1000.0 - 1.0
    };
    (0..n).map(value).collect()
}

/// For each output of one image: the sum over its window of `term(input index, weight index)`; `None` stands for padding.
fn windows(s: &ConvSpec, (h, w): (usize, usize), mut visit: impl FnMut(usize, usize, Option<usize>, usize)) {
    let (oh, ow) = s.output_size(h, w).unwrap();
    for place in 0..oh * ow {
        let (oy, ox) = (place / ow, place % ow);
        for o in 0..s.out_channels {
            for tap in 0..s.kernel[0] * s.kernel[1] {
                let (ky, kx) = (tap / s.kernel[1], tap % s.kernel[1]);
                let y = (oy * s.stride[0] + ky).wrapping_sub(s.padding[0]);
                let x = (ox * s.stride[1] + kx).wrapping_sub(s.padding[1]);
                for c in 0..s.in_channels {
                    let at = (y < h && x < w).then(|| (y * w + x) * s.in_channels + c);
                    let weight = (o * s.in_channels + c) * s.kernel[0] * s.kernel[1] + tap;
                    visit(place * s.out_channels + o, tap, at, weight);
                }
            }
        }
    }
}

fn specs() -> impl Strategy<Value = (ConvSpec, (usize, usize))> {
    let kernel = prop_oneof![Just([1usize, 1]), Just([3, 3]), Just([7, 7]), Just([1, 5])];
    (1usize..40, 1usize..90, kernel, 1usize..3, any::<bool>(), 7usize..12, 7usize..15).prop_map(
        |(in_channels, out_channels, kernel, stride, padded, h, w)| {
            let padding = if padded { [kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2] } else { [0; 4] };
            let spec = ConvSpec { in_channels, out_channels, kernel, stride: [stride; 2], padding, groups: 1 };
            (spec, (h, w))
        },
    )
}

fn run<E: blemish_kernels::gemm::Element>(
    conv: &Conv2d,
    x: &[E],
    (h, w): (usize, usize),
    residual: Option<&[E]>,
    par: Par,
) -> Vec<E> {
    let (oh, ow) = conv.output_size(h, w).unwrap();
    let mut out = vec![E::narrow(f32::NAN); oh * ow * conv.spec().out_channels];
    let mut scratch = vec![f32::NAN; conv.workspace(1, h, w)];
    conv.forward_in(x, 1, h, w, residual, &mut out, &mut scratch, par).unwrap();
    out
}

fn narrow(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn widen(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bf16_agrees_with_f64_on_rounded_operands((s, size) in specs(), salt in 0usize..100) {
        let weight = values(s.weight_len(), salt);
        let bias = values(s.out_channels, salt + 1);
        let x = narrow(&values(size.0 * size.1 * s.in_channels, salt + 2));
        let (oh, ow) = s.output_size(size.0, size.1).unwrap();
        let count = oh * ow * s.out_channels;
        let residual = narrow(&values(count, salt + 3));
        let (mut want, mut size_of) = (vec![0.0f64; count], vec![0.0f64; count]);
        windows(&s, size, |out, _, at, k| {
            let term = at.map_or(0.0, |at| x[at].to_f64() * bf16::from_f32(weight[k]).to_f64());
            want[out] += term;
            size_of[out] += term.abs();
        });
        let terms = (s.weight_len() / s.out_channels) as f64;
        for isa in [Some(Isa::Portable), Isa::bf16()].into_iter().flatten() {
            let conv = Conv2d::with_algorithm(s, &weight, &bias, Activation::Relu, Algorithm::PiecesBf16, isa).unwrap();
            let got = run(&conv, &x, size, Some(&residual), Par::Rayon);
            prop_assert_eq!(&got, &run(&conv, &x, size, Some(&residual), Par::Serial));
            for i in 0..count {
                let exact = (want[i] + f64::from(bias[i % s.out_channels]) + residual[i].to_f64()).max(0.0);
                // One rounding of f32 for each term and three more, then one to bf16.
                let sum = (size_of[i] + 2.0) * (terms + 3.0) * f64::from(f32::EPSILON) / 2.0;
                let bound = sum + (exact + sum) * 2f64.powi(-8);
                prop_assert!((got[i].to_f64() - exact).abs() <= bound, "{:?} {:?}: {} for {}", isa, s, got[i], exact);
            }
        }
    }

    #[test]
    fn bytes_are_exact_with_every_instruction_set((s, size) in specs(), salt in 0usize..100, low in -1.5f32..0.0) {
        let weight = values(s.weight_len(), salt);
        let bias = values(s.out_channels, salt + 1);
        let x = values(size.0 * size.1 * s.in_channels, salt + 2);
        let levels = Levels::new([low, 1.0]).unwrap();
        let mut bytes = vec![0u8; x.len()];
        levels.quantise(&x, &mut bytes);
        let row = s.weight_len() / s.out_channels;
        let steps: Vec<f64> =
            weight.chunks(row).map(|w| w.iter().fold(0.0f64, |m, &w| m.max(f64::from(w.abs()))) / 127.0).collect();
        let (oh, ow) = s.output_size(size.0, size.1).unwrap();
        let mut sums = vec![0i32; oh * ow * s.out_channels];
        windows(&s, size, |out, _, at, k| {
            let byte = (f64::from(weight[k]) / steps[k / row].max(1e-30)).round_ties_even() as i32;
            sums[out] += at.map_or(0, |at| (i32::from(bytes[at]) - i32::from(levels.zero_level())) * byte);
        });
        let residual = values(sums.len(), salt + 3);
        for isa in [Isa::Portable, Isa::Avx2, Isa::int8()].into_iter().filter(|isa| isa.is_available()) {
            let conv = Conv2d::int8(s, &weight, &bias, Activation::Relu6, levels, isa).unwrap();
            let got = run(&conv, &x, size, Some(&residual), Par::Rayon);
            for (i, &sum) in sums.iter().enumerate() {
                let o = i % s.out_channels;
                let factor = (steps[o].max(1e-30) * f64::from(levels.step())) as f32;
                let want = ((sum as f32).mul_add(factor, bias[o]) + residual[i]).clamp(0.0, 6.0);
                prop_assert_eq!(got[i].to_bits(), want.to_bits(), "{:?} {:?}: {} for {}", isa, s, got[i], want);
            }
        }
    }

    /// Everything else computes in f32 and rounds what it stores.
    #[test]
    fn other_algorithms_round_their_results(c in 1usize..70, k in 0usize..3, stride in 1usize..3, salt in 0usize..100) {
        let kernel = [1, 3, 5][k];
        let (h, w) = (13, 15);
        for (algorithm, groups) in [(Algorithm::Depthwise, c), (Algorithm::Winograd, 1), (Algorithm::Direct, 1)] {
            let (kernel, stride) = if algorithm == Algorithm::Winograd { (3, 1) } else { (kernel, stride) };
            let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [kernel / 2; 4]);
            let s = ConvSpec { in_channels: c, out_channels: c, kernel, stride, padding, groups };
            let (weight, bias) = (values(s.weight_len(), salt), values(c, salt + 1));
            let x = narrow(&values(h * w * c, salt + 2));
            let (oh, ow) = s.output_size(h, w).unwrap();
            let residual = narrow(&values(oh * ow * c, salt + 3));
            for isa in Isa::available().into_iter().chain(Isa::bf16()) {
                for activation in [Activation::Silu, Activation::HardSwish] {
                    let conv = Conv2d::with_algorithm(s, &weight, &bias, activation, algorithm, isa).unwrap();
                    let got = run(&conv, &x, (h, w), Some(&residual), Par::Rayon);
                    let wide = run(&conv, &widen(&x), (h, w), Some(&widen(&residual)), Par::Rayon);
                    prop_assert_eq!(got, narrow(&wide), "{:?} {:?}", isa, s);
                }
            }
        }
    }
}

#[test]
fn maps_of_the_other_kind_are_refused() {
    let s = ConvSpec { in_channels: 2, out_channels: 3, kernel: [1, 1], stride: [1; 2], padding: [0; 4], groups: 1 };
    let half = Conv2d::with_algorithm(s, &[1.0; 6], &[0.0; 3], Activation::None, Algorithm::PiecesBf16, Isa::Portable);
    assert!(half.unwrap().forward(&[1.0; 2], 1, 1, 1, None, &mut [0.0; 3], &mut [], Par::Serial).is_err());
    let single = Conv2d::new(s, &[1.0; 6], &[0.0; 3], Activation::None).unwrap();
    let (x, mut y) = ([bf16::ONE; 2], [bf16::ZERO; 3]);
    assert!(single.forward_in(&x, 1, 1, 1, None, &mut y, &mut [], Par::Serial).is_err());
    let grouped = ConvSpec { groups: 2, in_channels: 4, out_channels: 4, ..s };
    let levels = Levels::new([0.0, 1.0]).unwrap();
    assert!(Conv2d::int8(grouped, &[1.0; 8], &[0.0; 4], Activation::None, levels, Isa::Portable).is_err());
    assert!(Conv2d::int8(s, &[1.0; 6], &[0.0; 3], Activation::None, levels, Isa::Avx512).is_err());
    assert!(Isa::bf16().is_none() || Conv2d::bf16(grouped, &[1.0; 8], &[0.0; 4], Activation::None).is_err());
}
