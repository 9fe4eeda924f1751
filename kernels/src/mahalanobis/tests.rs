//! The forms against a plain f64 computation on the upsampled embedding, and against each other.

use ndarray::{Array1, Array2, Array3, Array4, ArrayView2, s};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bands::packing;
use super::*;
use crate::{KernelError, Result};

const EPSILON: f64 = 0.01;

/// Feature maps with correlated channels and means far from zero.
fn features(maps: &[[usize; 3]], n: usize, seed: u64) -> Vec<Array4<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let common: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
    let map = |&[h, w, c]: &[usize; 3]| {
        Array4::from_shape_fn((n, h, w, c), |(i, _, _, k)| {
            3.0 + common[i] + k as f32 * 0.1 + rng.random_range(-0.5..0.5)
        })
    };
    maps.iter().map(map).collect()
}

fn views(features: &[Array4<f32>]) -> Vec<ndarray::ArrayView4<'_, f32>> {
    features.iter().map(|f| f.view()).collect()
}

/// Inverse factor rows by plain substitution.
fn step(inverse: &mut Array2<f64>, rows: ArrayView2<'_, f64>) -> Result<()> {
    let (n, b) = rows.dim();
    let a = b - n;
    for r in a..b {
        let known: Vec<f64> =
            (0..r).map(|c| (0..=c).map(|k| inverse[[c, k]] * rows[[r - a, k]]).sum::<f64>()).collect();
        let pivot = (rows[[r - a, r]] - known.iter().map(|l| l * l).sum::<f64>()).sqrt();
        for c in 0..b {
            let along: f64 = (c..r).map(|k| known[k] * inverse[[k, c]]).sum();
            inverse[[r, c]] = if c < r {
                -along / pivot
            } else if c == r {
                1.0 / pivot
            } else {
                0.0
            };
        }
    }
    Ok(())
}

/// An orthonormal basis by Gram-Schmidt on the pictures, rotated to the eigenvectors by Jacobi's method.
fn decompose(y: &Array2<f64>) -> Result<(Array2<f64>, Array1<f64>)> {
    let mut g = y.dot(&y.t());
    let n = g.nrows();
    let mut v = Array2::<f64>::eye(n);
    for _ in 0..12 {
        for p in 0..n {
            for q in p + 1..n {
                if g[[p, q]].abs() < 1e-300 {
                    continue;
                }
                let theta = 0.5 * (2.0 * g[[p, q]]).atan2(g[[q, q]] - g[[p, p]]);
                let (sin, cos) = theta.sin_cos();
                let turn = |a: f64, b: f64| (cos * a - sin * b, sin * a + cos * b);
                for i in 0..n {
                    (g[[i, p]], g[[i, q]]) = turn(g[[i, p]], g[[i, q]]);
                    (v[[i, p]], v[[i, q]]) = turn(v[[i, p]], v[[i, q]]);
                }
                for i in 0..n {
                    (g[[p, i]], g[[q, i]]) = turn(g[[p, i]], g[[q, i]]);
                }
            }
        }
    }
    let kept: Vec<usize> = (0..n).filter(|&i| g[[i, i]] > 1e-9).collect();
    let mut basis = Array2::zeros((kept.len(), y.ncols()));
    for (row, &i) in kept.iter().enumerate() {
        basis.row_mut(row).assign(&(y.t().dot(&v.column(i)) / g[[i, i]].sqrt()));
    }
    Ok((basis, kept.iter().map(|&i| g[[i, i]]).collect()))
}

/// Every step as the papers write it, in f64.
fn reference(maps: &[[usize; 3]], channels: &[usize], train: &[Array4<f32>], test: &[Array4<f32>]) -> Array3<f64> {
    let finest = maps.iter().rev().max_by_key(|m| m[0] * m[1]).unwrap();
    let (h, w) = (finest[0], finest[1]);
    let embed = |set: &[Array4<f32>], i: usize, y: usize, x: usize| -> Array1<f64> {
        let all: Vec<f64> = set
            .iter()
            .flat_map(|f| {
                let (_, fh, fw, _) = f.dim();
                f.slice(s![i, y * fh / h, x * fw / w, ..]).iter().map(|v| f64::from(*v)).collect::<Vec<_>>()
            })
            .collect();
        channels.iter().map(|&c| all[c]).collect()
    };
    let (n, d) = (train[0].dim().0, channels.len());
    Array3::from_shape_fn((test[0].dim().0, h, w), |(i, y, x)| {
        let samples: Vec<Array1<f64>> = (0..n).map(|k| embed(train, k, y, x)).collect();
        let mean = samples.iter().fold(Array1::zeros(d), |m: Array1<f64>, s| m + s) / n as f64;
        let mut covariance = Array2::<f64>::eye(d) * EPSILON;
        for sample in &samples {
            let centred = sample - &mean;
            for r in 0..d {
                for c in 0..d {
                    covariance[[r, c]] += centred[r] * centred[c] / (n as f64 - 1.0);
                }
            }
        }
        let mut w = Array2::zeros((d, d));
        step(&mut w, covariance.view()).unwrap();
        let z = w.dot(&(embed(test, i, y, x) - mean));
        z.dot(&z).sqrt()
    })
}

fn slices(tensors: &[Vec<f32>]) -> Vec<&[f32]> {
    tensors.iter().map(|t| &t[..]).collect()
}

/// Mean and weights, learnt in batches of 5.
fn triangles(layout: Layout, train: &[Array4<f32>]) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut moments = Moments::new(layout);
    for first in (0..train[0].dim().0).step_by(5) {
        let last = (first + 5).min(train[0].dim().0);
        let part: Vec<_> = train.iter().map(|t| t.slice(s![first..last, .., .., ..])).collect();
        moments.push(&part).unwrap();
    }
    (moments.mean().unwrap(), moments.factor(EPSILON, step).unwrap())
}

/// The worst relative difference of each form from the reference.
fn compare(maps: &[[usize; 3]], channels: &[usize], n: usize, seed: u64) -> [f64; 3] {
    let (train, test) = (features(maps, n, seed), features(maps, 3, seed + 1));
    let want = reference(maps, channels, &train, &test);
    let worst = |got: Array3<f32>| {
        got.iter().zip(&want).fold(0.0f64, |m, (g, w)| m.max((f64::from(*g) - w).abs() / w.max(1e-3)))
    };
    let form = |nested: bool| {
        let layout = Layout::new(maps, channels, nested).unwrap();
        let (mean, weight) = triangles(layout.clone(), &train);
        worst(distance(&layout, &slices(&mean), &slices(&weight), &views(&test)).unwrap())
    };
    let layout = Layout::new(maps, channels, true).unwrap();
    let mut samples = Samples::new(layout.clone(), n);
    samples.push(&views(&train)).unwrap();
    let (mean, basis, scale) = samples.factor(EPSILON, decompose).unwrap();
    let low = distance_low_rank(&layout, &slices(&mean), &basis, &scale, EPSILON as f32, &views(&test)).unwrap();
    [form(false), form(true), worst(low)]
}

#[test]
fn three_forms_agree_with_the_reference() {
    let sorted = |n: usize| (0..n).collect::<Vec<_>>();
    for (name, maps, channels, n) in [
        ("powers of two", vec![[8, 8, 3], [4, 4, 5], [2, 2, 7]], sorted(15), 6),
        ("no powers of two", vec![[15, 13, 2], [8, 7, 4], [4, 4, 9]], sorted(15), 7),
        ("coarse first", vec![[2, 3, 4], [7, 5, 3]], vec![6, 0, 3, 5], 9),
        ("not nested in one another", vec![[6, 4, 2], [4, 5, 3], [3, 7, 2]], sorted(7), 4),
        ("one channel", vec![[4, 4, 3], [2, 2, 2]], vec![4], 5),
        ("one layer", vec![[5, 4, 20]], sorted(20), 6),
        ("two layers of one size", vec![[4, 4, 3], [4, 4, 18]], sorted(21), 5),
        ("two pictures", vec![[4, 4, 17], [2, 2, 18]], sorted(35), 2),
        ("one cell", vec![[1, 1, 4]], vec![1, 3], 12),
        ("more pictures than channels", vec![[3, 3, 2], [1, 2, 2]], sorted(4), 40),
    ] {
        let errors = compare(&maps, &channels, n, 5);
        assert!(errors.iter().all(|e| *e < 3e-5), "{name}: {errors:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_grids(
        maps in prop::collection::vec((1usize..9, 1usize..9, 1usize..20).prop_map(|(h, w, c)| [h, w, c]), 1..4),
        n in 2usize..7,
        keep in 1usize..40,
        seed in any::<u64>(),
    ) {
        let total: usize = maps.iter().map(|m| m[2]).sum();
        let mut channels: Vec<usize> = (0..total).collect();
        rand::seq::SliceRandom::shuffle(&mut channels[..], &mut ChaCha8Rng::seed_from_u64(seed));
        channels.truncate(keep);
        let errors = compare(&maps, &channels, n, seed >> 1);
        prop_assert!(errors.iter().all(|e| *e < 1e-4), "{errors:?}");
    }
}

#[test]
fn neither_batch_nor_threads_change_a_bit() {
    let maps = [[9, 8, 20], [5, 4, 30]];
    let channels: Vec<usize> = (0..50).filter(|c| c % 5 != 3).collect();
    let (train, test) = (features(&maps, 11, 1), features(&maps, 9, 2));
    let layout = Layout::new(&maps, &channels, true).unwrap();
    let run = || {
        let (mean, weight) = triangles(layout.clone(), &train);
        let all = distance(&layout, &slices(&mean), &slices(&weight), &views(&test)).unwrap();
        for i in 0..9 {
            let one: Vec<_> = test.iter().map(|t| t.slice(s![i..i + 1, .., .., ..])).collect();
            let alone = distance(&layout, &slices(&mean), &slices(&weight), &one).unwrap();
            assert_eq!(alone.slice(s![0, .., ..]), all.slice(s![i, .., ..]));
        }
        (mean, weight, all)
    };
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let first = pool(1).install(run);
    assert!([2, 7].iter().all(|&n| pool(n).install(run) == first));
}

#[test]
fn a_far_mean_costs_no_digits() {
    let maps = [[2, 2, 6]];
    let layout = Layout::new(&maps, &[0, 1, 2, 3, 4, 5], false).unwrap();
    let near = features(&maps, 200, 3);
    let exact = near[0].mapv(|v| (v * 1024.0).round() / 1024.0);
    let far = exact.mapv(|v| v + 1000.0);
    let ((_, a), (_, b)) = (triangles(layout.clone(), &[exact]), triangles(layout, &[far]));
    let worst = a[0].iter().zip(&b[0]).fold(0.0f32, |m, (a, b)| m.max((a - b).abs() / a.abs().max(1e-2)));
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn every_instruction_set_computes_the_same() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (a, b, n) in [(0, 1, 1), (0, 16, 4), (3, 17, 5), (20, 55, 9), (86, 100, 2), (0, 33, 32)] {
        let stride = 128;
        let mut x = vec![0.0f32; n * stride];
        x.chunks_mut(stride).for_each(|x| x[..b].fill_with(|| rng.random_range(-1.0..1.0)));
        let mut w = vec![0.0f32; b * (b + 1) / 2 - a * (a + 1) / 2 + PAD];
        w.fill_with(|| rng.random_range(-1.0..1.0));
        let want: Vec<f64> = x
            .chunks(stride)
            .map(|x| {
                let mut rows = vec![0.0f64; b];
                packing(a, b, |r, c, at| rows[r] += f64::from(w[at]) * f64::from(x[c]));
                0.5 + rows.iter().map(|z| z * z).sum::<f64>()
            })
            .collect();
        let length = w.len() - PAD;
        let k = (length / b).min(2);
        let mut first = None;
        for which in 0..3 {
            let mut sums = vec![0.5f32; n];
            if cpu::each::squares(which, &w, a, b, &x, stride, &mut sums).is_none() {
                eprintln!("skipped: this processor has no instruction set {which}");
                continue;
            }
            let near = |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs() <= 1e-5 * want;
            assert!(sums.iter().zip(&want).all(near), "{which}, squares {a}..{b}: {sums:?} {want:?}");
            let mut products = vec![1.0f64; length];
            cpu::each::products(which, &x, stride, n, a, b, &mut products).unwrap();
            packing(a, b, |r, c, at| {
                let of = |x: &[f32]| f64::from(x[r]) * f64::from(x[c]);
                let want = 1.0 + x.chunks(stride).map(of).sum::<f64>();
                assert!((products[at] - want).abs() < 1e-5, "{which}, products {a}..{b}");
            });
            let mut rest = x[..stride].to_vec();
            let got = cpu::each::low_rank(which, &w[..b * k], &[0.7, 3.0][..k], b, &mut rest, 0.01).unwrap();
            let plain = *first.get_or_insert(got);
            assert!((got - plain).abs() <= 1e-4 * plain.abs(), "{which}, low rank {b}: {got} {plain}");
        }
    }
}

#[test]
fn refusals() {
    assert!(Layout::new(&[], &[0], true).is_err());
    assert!(Layout::new(&[[2, 2, 3]], &[], true).is_err());
    assert!(Layout::new(&[[2, 0, 3]], &[0], true).is_err());
    assert!(Layout::new(&[[2, 2, 1 << 40]], &[0], true).is_err());
    assert!(Layout::new(&[[2, 2, 3]], &[3], true).unwrap_err().to_string().contains("channel 3 of 3"));
    assert!(Layout::new(&[[2, 2, 3]], &[1, 0, 1], true).unwrap_err().to_string().contains("channel 1 is named twice"));
    let layout = Layout::new(&[[2, 2, 3]], &[0, 2], true).unwrap();
    let one = features(&[[2, 2, 3]], 1, 0);
    let mut moments = Moments::new(layout.clone());
    assert!(moments.push(&views(&features(&[[2, 3, 3]], 1, 0))).is_err());
    moments.push(&views(&one)).unwrap();
    assert!(moments.factor(EPSILON, step).is_err());
    let mut moments = Moments::new(layout.clone());
    moments.push(&views(&features(&[[2, 2, 3]], 3, 0))).unwrap();
    moments.push(&[one[0].mapv(|_| f32::NAN).view()]).unwrap();
    assert!(matches!(moments.mean(), Err(KernelError::NotFinite { .. })));
    let mut samples = Samples::new(layout.clone(), 2);
    samples.push(&views(&one)).unwrap();
    assert!(samples.push(&views(&features(&[[2, 2, 3]], 2, 0))).is_err());
    assert!(samples.factor(EPSILON, decompose).is_err());
    let mean = [0.0; 8];
    assert!(distance(&layout, &[&mean], &[&[0.0; 5]], &views(&one)).is_err());
    assert!(distance(&layout, &[], &[], &views(&one)).is_err());
    assert!(distance_low_rank(&layout, &[&mean], &[0.0; 9], &[0.0; 4], 0.01, &views(&one)).is_err());
    assert!(distance_low_rank(&layout, &[&mean], &[0.0; 8], &[0.0; 4], 0.0, &views(&one)).is_err());
}
