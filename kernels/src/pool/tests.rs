use proptest::prelude::*;

use super::*;
use crate::Par;

fn values(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

/// Each window's values, in f64.
fn windows(x: &[f32], [n, h, w, c]: [usize; 4], s: &PoolSpec) -> Vec<Vec<f64>> {
    let (oh, ow) = s.output_size(h, w).unwrap();
    let mut all = Vec::new();
    for i in 0..n * oh * ow * c {
        let (image, oy, ox, channel) = (i / (oh * ow * c), i / (ow * c) % oh, i / c % ow, i % c);
        let mut window = Vec::new();
        for ky in 0..s.kernel[0] {
            for kx in 0..s.kernel[1] {
                let y = (oy * s.stride[0] + ky).wrapping_sub(s.padding[0]);
                let x_ = (ox * s.stride[1] + kx).wrapping_sub(s.padding[1]);
                if y < h && x_ < w {
                    window.push(f64::from(x[((image * h + y) * w + x_) * c + channel]));
                }
            }
        }
        all.push(window);
    }
    all
}

proptest! {
    #[test]
    fn windows_agree_with_the_definition(
        n in 1usize..3, h in 1usize..10, w in 1usize..10, c in prop::sample::select(vec![1usize, 3, 16, 17, 70]),
        k in 1usize..4, stride in 1usize..4, pad in prop::array::uniform4(0usize..3),
    ) {
        let spec = PoolSpec { kernel: [k; 2], stride: [stride; 2], padding: pad.map(|p| p.min(k - 1)) };
        let shape = [n, h, w, c];
        let x = values(n * h * w * c, 1);
        let Ok((oh, ow)) = spec.output_size(h, w) else { return Ok(()) };
        let want = windows(&x, shape, &spec);
        let mut out = vec![f32::NAN; n * oh * ow * c];
        for par in [Par::Serial, Par::Rayon] {
            max_pool(&x, shape, &spec, &mut out, par).unwrap();
            for (got, want) in out.iter().zip(&want) {
                prop_assert_eq!(f64::from(*got), want.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            }
            for border in [false, true] {
                avg_pool(&x, shape, &spec, border, &mut out, par).unwrap();
                for (got, want) in out.iter().zip(&want) {
                    let count = if border { k * k } else { want.len() };
                    prop_assert!((f64::from(*got) - want.iter().sum::<f64>() / count as f64).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn means_and_gates_agree_with_the_definition(
        n in 1usize..4, positions in 1usize..200, c in prop::sample::select(vec![1usize, 5, 24, 40, 64, 65, 130]),
    ) {
        let x = values(n * positions * c, 2);
        let gate = values(n * c, 3);
        for par in [Par::Serial, Par::Rayon] {
            let mut mean = vec![f32::NAN; n * c];
            global_avg(&x, n, positions, c, &mut mean, par).unwrap();
            let mut scaled = x.clone();
            scale_channels(&mut scaled, n, positions, c, &gate, par).unwrap();
            for i in 0..n * c {
                let channel = (0..positions).map(|p| f64::from(x[(i / c * positions + p) * c + i % c]));
                prop_assert!((f64::from(mean[i]) - channel.sum::<f64>() / positions as f64).abs() < 1e-5);
            }
            for (i, got) in scaled.iter().enumerate() {
                prop_assert_eq!(*got, x[i] * gate[i / (positions * c) * c + i % c]);
            }
        }
    }
}

#[test]
fn a_maximum_keeps_nan() {
    let spec = PoolSpec { kernel: [2, 2], stride: [2, 2], padding: [0; 4] };
    let mut out = [0.0f32; 2];
    let x = [1.0, f32::NAN, 5.0, 6.0, 2.0, 3.0, 7.0, 8.0];
    max_pool(&x, [1, 2, 4, 1], &spec, &mut out, Par::Serial).unwrap();
    assert!(out[0].is_nan() && out[1] == 8.0, "{out:?}");
}

#[test]
fn wrong_lengths_are_refused() {
    let spec = PoolSpec { kernel: [2, 2], stride: [1, 1], padding: [0; 4] };
    assert!(max_pool(&[0.0; 8], [1, 3, 3, 1], &spec, &mut [0.0; 4], Par::Serial).is_err());
    assert!(max_pool(&[0.0; 9], [1, 3, 3, 1], &spec, &mut [0.0; 5], Par::Serial).is_err());
    assert!(PoolSpec { padding: [2; 4], ..spec }.output_size(9, 9).is_err());
    assert!(global_avg(&[0.0; 6], 1, 3, 2, &mut [0.0; 3], Par::Serial).is_err());
    assert!(scale_channels(&mut [0.0; 6], 1, 3, 2, &[0.0; 1], Par::Serial).is_err());
}
