use blemish_kernels::Par;
use blemish_kernels::adam::cuda::{Moments, Steps, adam};
use blemish_kernels::adam::{self, AdamStep};
use blemish_kernels::coupling::cuda::{Loss, Mix, Sums, Training, Vectors, backward, forward, gather, next, output};
use blemish_kernels::coupling::{self, Layout};
use blemish_kernels::cuda::rows::{Half, HalfMut};
use rand::seq::SliceRandom;

use super::*;

const CLAMP: f32 = 1.9;

fn close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance * (1.0 + w.abs()), "{what} at {i}: {g}, not {w}");
    }
}

fn step(t: u64) -> AdamStep {
    AdamStep::new(1e-2, [0.9, 0.999], 1e-8, 1e-3, false, t)
}

/// A permutation of `c` channels.
fn permutation(c: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..c as u32).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

#[test]
fn adam_takes_the_steps_of_the_cpu() {
    let Some(cuda) = open() else { return };
    let n = 1000;
    let (p, g) = (random(n, 1).to_vec(), random(n, 2).to_vec());
    let (mut wanted, mut m, mut v) = (p.clone(), vec![0.0; n], vec![0.0; n]);
    let all: Vec<AdamStep> = (1..=3).map(step).collect();
    for s in &all {
        adam::adam(s, &mut wanted, &mut m, &mut v, &g, Par::Serial).unwrap();
    }
    let mut steps = Steps::new(&cuda, 4).unwrap();
    assert!(steps.is_empty() && steps.load(&[]).is_err() && steps.load(&[all[0]; 5]).is_err());
    steps.load(&all).unwrap();
    assert_eq!((steps.len(), steps.capacity()), (3, 4));
    let (mut pd, mut moments, gd) =
        (cuda.upload(&p).unwrap(), Moments::new(&cuda, n).unwrap(), cuda.upload(&g).unwrap());
    let loss = cuda.upload(&[2.0, 4.0]).unwrap();
    for _ in &all {
        adam(&steps, &mut pd, &mut moments, &gd).unwrap();
        next(&mut steps, &loss, 2, 2).unwrap();
    }
    assert_eq!(pd.read().unwrap(), wanted);
    assert_eq!((moments.first.read().unwrap(), moments.second.read().unwrap()), (m, v));
    assert_eq!(steps.losses(3).unwrap(), [3.0; 3]);
    assert!(steps.losses(5).is_err() && next(&mut steps, &loss, 3, 1).is_err());
    assert!(adam(&steps, &mut pd, &mut moments, &cuda.zeros(n - 1).unwrap()).is_err());
}

#[test]
fn a_block_agrees_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for (rows, c, h) in [(70, 24, 40), (5, 7, 3), (1, 2, 1), (1100, 33, 20)] {
        let (c1, c2) = (c - c / 2, c / 2);
        let order = permutation(c, 3);
        let a = random((rows, 2 * c2), 4).mapv(|v| 9.0 * v);
        let (x1, x2) = (random((rows, c1), 5), random((rows, c2), 6));
        let (theta, offset) = (random(c, 7).mapv(|v| 10.0 + v).to_vec(), random(c, 8).to_vec());
        let (b0, b2) = (random(h, 9).to_vec(), random(2 * c2, 10).to_vec());
        let scale: Vec<f32> = theta.iter().map(|t| 0.2 * (0.5 * t).exp().ln_1p()).collect();

        // The CPU.
        let (mut y2, mut s, mut sums) = (x2.to_owned(), vec![0.0; rows * c2], vec![0.0; c2]);
        let mut log_det = Vec::new();
        for r in 0..rows {
            sums.fill(0.0);
            let (a, y2) = (a.row(r), y2.as_slice_mut().unwrap());
            let (y2, s) = (&mut y2[r * c2..][..c2], &mut s[r * c2..][..c2]);
            coupling::forward(Layout::rows(1, c2), CLAMP, a.as_slice().unwrap(), y2, s, &mut sums).unwrap();
            log_det.push(sums.iter().sum::<f32>() + scale.iter().map(|g| g.ln()).sum::<f32>());
        }
        let of_order = |v: &[f32]| order.iter().map(|i| v[*i as usize]).collect::<Vec<_>>();
        let (mut z1, mut z2) = (vec![0.0; rows * c1], vec![0.0; rows * c2]);
        let from = (x1.as_slice().unwrap(), y2.as_slice().unwrap());
        coupling::mix(&order, &of_order(&scale), &of_order(&offset), from, (&mut z1, &mut z2)).unwrap();

        // The GPU, its left half with a pitch.
        let mix = Mix::new(&cuda, &order).unwrap();
        let mut vectors = Vectors::new(&cuda, &theta, &offset, &b0, &b2, [h + 1, 2 * c2]).unwrap();
        close("scale", &vectors.scale().read().unwrap(), &scale, 1e-6);
        let wide = |v: &Array2<f32>| {
            let mut wide = Array2::<f32>::zeros((v.nrows(), v.ncols() + 3));
            wide.slice_mut(ndarray::s![.., ..v.ncols()]).assign(v);
            wide
        };
        let narrow = |v: &Buffer<f32>, width: usize| -> Vec<f32> {
            v.read().unwrap().chunks(width + 3).flat_map(|row| row[..width].to_vec()).collect()
        };
        let p1 = c1 + 3;
        let (ad, x1d, x2d) = (upload(&cuda, &a), upload(&cuda, &wide(&x1)), upload(&cuda, &x2));
        let mut z1d = cuda.zeros::<f32>(rows * p1).unwrap();
        let mut z2d = cuda.zeros::<f32>(rows * c2).unwrap();
        let (mut sd, mut det) = (cuda.zeros(rows * c2).unwrap(), cuda.zeros(rows).unwrap());
        let half = |buffer, pitch| Half { buffer, pitch };
        for add in [false, true] {
            let z = [HalfMut { buffer: &mut z1d, pitch: p1 }, HalfMut { buffer: &mut z2d, pitch: c2 }];
            let x = [half(&x1d, p1), half(&x2d, c2)];
            forward(CLAMP, rows, half(&ad, 2 * c2), x, &vectors, &mix, z, &mut sd, &mut det, add).unwrap();
        }
        close("s", &sd.read().unwrap(), &s, 1e-5);
        close("z1", &narrow(&z1d, c1), &z1, 1e-5);
        close("z2", &z2d.read().unwrap(), &z2, 1e-5);
        let twice: Vec<f32> = log_det.iter().map(|d| 2.0 * d).collect();
        close("log det", &det.read().unwrap(), &twice, 1e-5 * c as f32);

        // The end.
        let mut value = cuda.zeros(rows).unwrap();
        let z = [half(&z1d, p1), half(&z2d, c2)];
        let (mut g1d, mut g2d) = (cuda.zeros(rows * c1).unwrap(), cuda.zeros(rows * c2).unwrap());
        let (mut loss, mut slope) = (cuda.zeros(rows).unwrap(), cuda.zeros(rows).unwrap());
        let g = [HalfMut { buffer: &mut g1d, pitch: c1 }, HalfMut { buffer: &mut g2d, pitch: c2 }];
        let training = Training { loss: &mut loss, g, slope: &mut slope, share: 0.5 };
        output(Loss::Energy, rows, [c1, c2], z, &det, &mut value, Some(training)).unwrap();
        let squares = |r: usize| {
            let (z1, z2) = (&z1[r * c1..][..c1], &z2[r * c2..][..c2]);
            z1.iter().chain(z2).map(|z| f64::from(*z) * f64::from(*z)).sum::<f64>()
        };
        let energies: Vec<f32> = (0..rows).map(|r| (squares(r) / c as f64) as f32).collect();
        close("energy", &value.read().unwrap(), &energies, 1e-5);
        output(Loss::Likelihood, rows, [c1, c2], z, &det, &mut value, None).unwrap();
        let density = |r: usize| -0.5 * (squares(r) + c as f64 * std::f64::consts::TAU.ln());
        let wanted: Vec<f32> = (0..rows).map(|r| ((density(r) + f64::from(twice[r])) / c as f64) as f32).collect();
        close("likelihood", &value.read().unwrap(), &wanted, 1e-5);

        // And back.
        let mut wanted_g: Vec<f32> = Vec::new();
        for r in 0..rows {
            let z = |i: usize| 0.5 * if i < c1 { z1[r * c1 + i] } else { z2[r * c2 + i - c1] };
            let mut row = vec![0.0; c];
            order.iter().enumerate().for_each(|(i, j)| row[*j as usize] = z(i) * scale[*j as usize]);
            wanted_g.extend(row);
        }
        let parts = |from: usize, to: usize| -> Vec<f32> {
            wanted_g.chunks(c).flat_map(|row| row[from..to].to_vec()).collect()
        };
        let (gx1, mut gx2, mut ga) = (parts(0, c1), parts(c1, c), a.as_slice().unwrap().to_vec());
        let down = vec![-0.5; c2];
        let x2h = x2.as_slice().unwrap();
        coupling::backward(Layout::rows(rows, c2), CLAMP, x2h, &s, &down, &mut gx2, &mut ga).unwrap();
        let (mut gx1d, mut gx2d) = (cuda.zeros(rows * c1).unwrap(), cuda.zeros(rows * c2).unwrap());
        let mut gad = cuda.zeros(rows * 2 * c2).unwrap();
        let gx = [HalfMut { buffer: &mut gx1d, pitch: c1 }, HalfMut { buffer: &mut gx2d, pitch: c2 }];
        let to = HalfMut { buffer: &mut gad, pitch: 2 * c2 };
        let g = [half(&g1d, c1), half(&g2d, c2)];
        backward(CLAMP, rows, g, &vectors, &mix, half(&x2d, c2), &sd, &slope, gx, to).unwrap();
        close("gx1", &gx1d.read().unwrap(), &gx1, 1e-5);
        close("gx2", &gx2d.read().unwrap(), &gx2, 1e-5);
        close("ga", &gad.read().unwrap(), &ga, 1e-5);

        // The vectors: gradients, then a step of Adam.
        let gh = random((rows, h), 11);
        let ghd = upload(&cuda, &gh);
        let mut work = Sums::new(&cuda, c, h).unwrap();
        vectors.sums(rows, half(&gad, 2 * c2), half(&ghd, h), g, z, &slope, &mut work).unwrap();
        vectors.finish(rows, &work, &mix, None).unwrap();
        let gradients = vectors.gradients().unwrap();
        let size = rows as f32;
        let column = |v: &[f32], width: usize, i: usize| v.chunks(width).map(|row| f64::from(row[i])).sum::<f64>();
        for (j, got) in gradients[0].iter().enumerate() {
            let i = order.iter().position(|o| *o as usize == j).unwrap();
            let z = |r: usize| f64::from(if i < c1 { z1[r * c1 + i] } else { z2[r * c2 + i - c1] });
            let (g, o) = (f64::from(scale[j]), f64::from(offset[j]));
            let through: f64 = (0..rows).map(|r| 0.5 * z(r) * (z(r) - o) / g - 0.5 / g).sum();
            let rise = 0.1 / (1.0 + (-0.5 * f64::from(theta[j])).exp());
            assert!((f64::from(*got) - through * rise).abs() < 1e-5 * f64::from(size), "theta {j}: {got}");
            let sum: f64 = (0..rows).map(|r| 0.5 * z(r)).sum();
            assert!((f64::from(gradients[1][j]) - sum).abs() < 1e-5 * f64::from(size), "offset {j}");
        }
        let sums: Vec<f32> = (0..h).map(|i| column(gh.as_slice().unwrap(), h, i) as f32).collect();
        close("outer bias", &gradients[2], &sums, 1e-6 * size.sqrt());
        let sums: Vec<f32> = (0..2 * c2).map(|i| column(&ga, 2 * c2, i) as f32).collect();
        close("inner bias", &gradients[3], &sums, 1e-5 * size.sqrt());
        let before = vectors.values().unwrap();
        assert_eq!(before, [theta.clone(), offset.clone(), b0.clone(), b2.clone()]);
        let old: Vec<Vec<f32>> = before.iter().map(|v| v.iter().map(|v| 0.1 * v.abs()).collect()).collect();
        let old = [&old[0], &old[1], &old[2], &old[3]].map(Vec::as_slice);
        vectors.set_moments(old, old).unwrap();
        let mut steps = Steps::new(&cuda, 1).unwrap();
        steps.load(&[step(5)]).unwrap();
        vectors.finish(rows, &work, &mix, Some(&steps)).unwrap();
        let ([first, _], after) = (vectors.moments().unwrap(), vectors.values().unwrap());
        for k in 0..4 {
            let (mut p, mut m, mut v) = (before[k].clone(), old[k].to_vec(), old[k].to_vec());
            adam::adam(&step(5), &mut p, &mut m, &mut v, &gradients[k], Par::Serial).unwrap();
            assert_eq!((&after[k], &first[k]), (&p, &m), "vector {k}");
        }
        let outer = vectors.outer_bias().read().unwrap();
        assert_eq!((&outer[..h], outer[h]), (&after[2][..], 0.0));
        assert_eq!(vectors.inner_bias().read().unwrap(), after[3]);
        let scale: Vec<f32> = after[0].iter().map(|t| 0.2 * (0.5 * t).exp().ln_1p()).collect();
        close("new scale", &vectors.scale().read().unwrap(), &scale, 1e-6);

        // What does not fit is refused.
        let z = [half(&z1d, p1), half(&z2d, c2)];
        assert!(output(Loss::Energy, rows + 1, [c1, c2], z, &det, &mut value, None).is_err());
        assert!(vectors.sums(rows, half(&gad, 2 * c2), half(&ghd, h + 1), z, z, &slope, &mut work).is_err());
        assert!(Vectors::new(&cuda, &theta, &offset, &b0, &b2, [h - 1, 2 * c2]).is_err());
    }
    assert!(Mix::new(&cuda, &[0, 0]).is_err() && Mix::new(&cuda, &[0, 2]).is_err() && Mix::new(&cuda, &[0]).is_err());
}

#[test]
fn samples_are_gathered_step_by_step() {
    let Some(cuda) = open() else { return };
    let (m, c, k, positions, n) = (30, 5, 4, 6, 8);
    let (features, codes) = (random((m, c), 1), random((positions, k), 2));
    let fibres: Vec<u32> = (0..2 * n as u32).map(|i| i * 7 % m as u32).collect();
    let (fd, cd, list) = (upload(&cuda, &features), upload(&cuda, &codes), cuda.upload(&fibres).unwrap());
    let mut steps = Steps::new(&cuda, 2).unwrap();
    steps.load(&[step(1), step(2)]).unwrap();
    let loss = cuda.upload(&[1.0]).unwrap();
    let mut x1 = cuda.zeros::<f32>(n * 3).unwrap();
    let mut x2 = cuda.zeros::<f32>(n * 2).unwrap();
    let mut condition = cuda.zeros::<f32>(n * (k + 1)).unwrap();
    for turn in 0..2 {
        let x = [HalfMut { buffer: &mut x1, pitch: 3 }, HalfMut { buffer: &mut x2, pitch: 2 }];
        let cond = HalfMut { buffer: &mut condition, pitch: k + 1 };
        gather(&steps, n, n, &list, &fd, &cd, [3, 2, k], x, cond).unwrap();
        let (a, b, cond) = (x1.read().unwrap(), x2.read().unwrap(), condition.read().unwrap());
        for r in 0..n {
            let fibre = fibres[turn * n + r] as usize;
            let got = [&a[r * 3..][..3], &b[r * 2..][..2]].concat();
            assert_eq!(got, features.row(fibre).to_vec());
            assert_eq!(cond[r * (k + 1)..][..k], codes.row(fibre % positions).to_vec());
        }
        next(&mut steps, &loss, 1, 1).unwrap();
    }
    let x = [HalfMut { buffer: &mut x1, pitch: 3 }, HalfMut { buffer: &mut x2, pitch: 2 }];
    let cond = HalfMut { buffer: &mut condition, pitch: k - 1 };
    assert!(gather(&steps, n, n, &list, &fd, &cd, [3, 2, k], x, cond).is_err());
}
