use super::*;
use proptest::prelude::*;

fn values(n: usize, seed: usize, spread: f32) -> Vec<f32> {
    (0..n).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0) * spread).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_f64(rows in 1usize..9, width in 1usize..70, panel: bool, spread in 0.1f32..120.0, seed in 0usize..99) {
        let layout = if panel { Layout::panel(rows, width) } else { Layout::rows(rows, width) };
        let (a, x) = (values(2 * rows * width, seed, spread), values(rows * width, seed + 1, 2.0));
        let g = values(rows * width, seed + 2, 1.0);
        let log_det = values(width, seed + 3, 1.0);
        for isa in Isa::available() {
            let (mut y, mut s, mut sums) = (x.clone(), vec![0.0; rows * width], vec![0.5; width]);
            cpu::forward(isa, layout, 1.9, &a, &mut y, &mut s, &mut sums);
            let (mut dx, mut da) = (g.clone(), a.clone());
            cpu::backward(isa, layout, 1.9, &x, &s, &log_det, &mut dx, &mut da);
            let mut want_sums = vec![0.5f64; width];
            for r in 0..rows {
                for i in 0..width {
                    let (at, to) = (r * layout.stride + i, r * width + i);
                    let tanh = (0.1 * f64::from(a[at])).tanh();
                    let (want_s, x) = (1.9 * tanh, f64::from(x[to]));
                    let (e, g) = (want_s.exp(), f64::from(g[to]));
                    let near = |got: f32, want: f64, scale: f64| (f64::from(got) - want).abs() <= 1e-6 * (want.abs() + scale);
                    prop_assert!(near(s[to], want_s, 0.0), "s {} {}", s[to], want_s);
                    prop_assert!(near(y[to], x * e + 0.1 * f64::from(a[at + layout.gap]), 10.0 + f64::from(spread)));
                    prop_assert!(near(dx[to], g * e, 0.0));
                    let ds = g * x * e + f64::from(log_det[i]);
                    prop_assert!(near(da[at], ds * 1.9 * (1.0 - tanh * tanh) * 0.1, 2.0), "{isa:?}");
                    prop_assert!(near(da[at + layout.gap], 0.1 * g, 0.0));
                    want_sums[i] += want_s;
                }
            }
            for (got, want) in sums.iter().zip(&want_sums) {
                prop_assert!((f64::from(*got) - want).abs() < 1e-5);
            }
            cpu::inverse(isa, layout, 1.9, &a, &mut y);
            for (back, x) in y.iter().zip(&x) {
                prop_assert!((back - x).abs() < 2e-5 * (1.0 + spread), "{back} {x}");
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let layout = Layout::rows(2, 3);
    let mut five = [0.0; 5];
    let (mut six, mut three) = ([0.0; 6], [0.0; 3]);
    assert!(forward(layout, 1.0, &[0.0; 11], &mut six, &mut [0.0; 6], &mut three).is_err());
    assert!(forward(layout, 1.0, &[0.0; 12], &mut five, &mut [0.0; 6], &mut three).is_err());
    assert!(forward(layout, 1.0, &[0.0; 12], &mut six, &mut [0.0; 6], &mut [0.0; 2]).is_err());
    assert!(forward(layout, 1.0, &[0.0; 12], &mut six, &mut [0.0; 6], &mut three).is_ok());
    let nan = forward(Layout::rows(1, 1), 1.0, &[f32::NAN, 0.0], &mut [1.0], &mut [0.0], &mut five[..1]);
    assert!(nan.is_ok() && five[0].is_nan(), "a NaN is not hidden");
}

#[test]
fn mixing_and_its_inverse() {
    for c in [2, 3, 7, 32] {
        let pixels = 5;
        let (c1, c2) = (c - c / 2, c / 2);
        let order: Vec<u32> = (0..c as u32).map(|i| (i * 5 + 3) % c as u32).collect();
        let (scale, offset) = (values(c, 1, 1.0), values(c, 2, 1.0));
        let (x1, x2) = (values(pixels * c1, 3, 1.0), values(pixels * c2, 4, 1.0));
        let (mut y1, mut y2) = (vec![0.0; pixels * c1], vec![0.0; pixels * c2]);
        mix(&order, &scale, &offset, (&x1, &x2), (&mut y1, &mut y2)).unwrap();
        let at = |h1: &[f32], h2: &[f32], p: usize, i: usize| if i < c1 { h1[p * c1 + i] } else { h2[p * c2 + i - c1] };
        for p in 0..pixels {
            for i in 0..c {
                let want = at(&x1, &x2, p, order[i] as usize) * scale[i] + offset[i];
                assert_eq!(at(&y1, &y2, p, i), want);
            }
        }
        let (mut sums, mut products) = (vec![1.0; c1], vec![2.0; c1]);
        channel_sums(&x1, &y1, &mut sums, &mut products).unwrap();
        for i in 0..c1 {
            let column = (0..pixels).map(|p| (f64::from(x1[p * c1 + i]), f64::from(y1[p * c1 + i])));
            let want = column.fold((1.0, 2.0), |(s, d), (a, b)| (s + a, d + a * b));
            assert!((sums[i] - want.0).abs() < 1e-5 && (products[i] - want.1).abs() < 1e-5);
        }
    }
    let refused = mix(&[0, 2], &[1.0; 2], &[0.0; 2], (&[0.0], &[0.0]), (&mut [0.0], &mut [0.0]));
    assert!(refused.is_err());
    assert!(channel_sums(&[0.0; 3], &[0.0; 3], &mut [0.0; 2], &mut [0.0; 2]).is_err());
}
