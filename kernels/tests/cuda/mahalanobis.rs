use blemish_kernels::KernelError;
use blemish_kernels::kcenter;
use blemish_kernels::mahalanobis::{self, Layout, PAD};
use blemish_tensor::TensorError;
use blemish_tensor::cuda::Buffer;
use ndarray::{Array2, Array3, Array4, s};

use super::*;

/// The next rows of an inverse Cholesky factor, the plain way.
fn extend(inverse: &mut Array2<f64>, rows: ndarray::ArrayView2<'_, f64>) -> Result<(), KernelError> {
    let (n, b) = rows.dim();
    let a = b - n;
    for r in 0..n {
        let row = a + r;
        let lower: Vec<f64> = (0..row).map(|k| (0..=k).map(|c| rows[[r, c]] * inverse[[k, c]]).sum()).collect();
        let pivot = (rows[[r, row]] - lower.iter().map(|l| l * l).sum::<f64>()).sqrt();
        for c in 0..row {
            inverse[[row, c]] = -(c..row).map(|k| lower[k] * inverse[[k, c]]).sum::<f64>() / pivot;
        }
        inverse[[row, row]] = 1.0 / pivot;
        inverse.slice_mut(s![row, row + 1..]).fill(0.0);
    }
    Ok(())
}

#[test]
fn fits_agree_with_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let sizes = [[4, 6, 30], [2, 3, 50], [1, 2, 20]];
    let channels: Vec<usize> = (0..100).filter(|c| c % 3 != 1).collect();
    let before = cuda.memory_budget();
    for (nested, room) in [(true, usize::MAX), (false, usize::MAX), (true, 200 << 10)] {
        let layout = Layout::new(&sizes, &channels, nested).unwrap();
        let mut wanted = mahalanobis::Moments::new(layout.clone());
        let mut got = mahalanobis::cuda::Moments::new(&cuda, layout.clone()).unwrap();
        let mut there = mahalanobis::cuda::Moments::new(&cuda, layout.clone()).unwrap();
        let mut last = Vec::new();
        for (i, n) in [5, 38, 1].into_iter().enumerate() {
            let maps: Vec<Array4<f32>> =
                sizes.iter().map(|[h, w, c]| random((n, *h, *w, *c), (10 * i + c) as u64) + 3.0).collect();
            wanted.push(&maps.iter().map(|m| m.view()).collect::<Vec<_>>()).unwrap();
            let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
            let device: Vec<&Buffer<f32>> = device.iter().collect();
            assert!(got.push(&device, n + 1).is_err() && got.push(&device[1..], n).is_err());
            got.push(&device, n).unwrap();
            there.push(&device, n).unwrap();
            last = maps.iter().map(|m| upload(&cuda, m)).collect();
        }
        assert_eq!((got.count(), got.layout()), (44, &layout));
        for (g, w) in got.mean().unwrap().iter().flatten().zip(wanted.mean().unwrap().iter().flatten()) {
            assert!((g - w).abs() <= 1e-6, "{g} {w}");
        }
        cuda.set_memory_budget(cuda.memory_used().saturating_add(room).min(before));
        let mean = got.mean().unwrap();
        let got = got.factor(0.05);
        cuda.set_memory_budget(before);
        let (got, wanted) = (got.unwrap(), wanted.factor(0.05, extend).unwrap());
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), wanted.iter().map(Vec::len).collect::<Vec<_>>());
        let largest = wanted.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((g - w).abs() <= 2e-5 * largest, "{g} {w} {nested}");
        }
        // Left on the GPU they are the same, and measure the same.
        let there = there.factor_there(0.05).unwrap();
        for (l, (there, got)) in there.iter().zip(&got).enumerate() {
            let (groups, floats) = (layout.groups(l), (got.len() - PAD) / layout.groups(l));
            let there = there.read().unwrap();
            assert_eq!(there.len() % groups, 0);
            for (i, triangle) in there.chunks_exact(there.len() / groups).enumerate() {
                assert_eq!(triangle[..floats], got[i * floats..][..floats]);
            }
        }
        let mean: Vec<&[f32]> = mean.iter().map(|m| &m[..]).collect();
        let weight: Vec<&[f32]> = got.iter().map(|w| &w[..]).collect();
        let (last, at_once) = (last.iter().collect::<Vec<_>>(), mahalanobis::cuda::Gaussians::fitted);
        let uploaded = mahalanobis::cuda::Gaussians::triangle(&cuda, &layout, &mean, &weight).unwrap();
        assert!(at_once(&cuda, &layout, &mean, Vec::new()).is_err());
        let fitted = at_once(&cuda, &layout, &mean, there).unwrap();
        let measured = fitted.distance(&last, 1).unwrap().read().unwrap();
        assert_eq!(measured, uploaded.distance(&last, 1).unwrap().read().unwrap());
        // Brought to the CPU they are what it takes.
        assert_eq!(fitted.weights().unwrap().unwrap(), got);
    }
    let one = mahalanobis::cuda::Moments::new(&cuda, Layout::new(&sizes, &channels, true).unwrap()).unwrap();
    assert!(one.factor(0.05).unwrap_err().to_string().contains("2 pictures"));
    let mut bad = mahalanobis::cuda::Moments::new(&cuda, Layout::new(&[[1, 1, 2]], &[0, 1], true).unwrap()).unwrap();
    bad.push(&[&cuda.upload(&[f32::NAN, 1.0, 2.0, 3.0]).unwrap()], 2).unwrap();
    assert!(bad.mean().is_err());
    assert!(bad.factor(0.05).unwrap_err().to_string().contains("positive definite"));
}

#[test]
fn fits_of_many_channels_agree_with_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let channels: Vec<usize> = (0..400).collect();
    let layout = Layout::new(&[[1, 2, 280], [1, 1, 120]], &channels, true).unwrap();
    let mut wanted = mahalanobis::Moments::new(layout.clone());
    let mut got = mahalanobis::cuda::Moments::new(&cuda, layout.clone()).unwrap();
    let maps = [random((7, 1, 2, 280), 1), random((7, 1, 1, 120), 2)];
    wanted.push(&maps.each_ref().map(|m| m.view())).unwrap();
    let device = maps.each_ref().map(|m| upload(&cuda, m));
    got.push(&device.each_ref(), 7).unwrap();
    let (got, wanted) = (got.factor(0.05).unwrap(), wanted.factor(0.05, extend).unwrap());
    let largest = wanted.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
    for (g, w) in got.iter().flatten().zip(wanted.iter().flatten()) {
        assert!((g - w).abs() <= 2e-5 * largest, "{g} {w}");
    }
}

#[test]
fn mahalanobis_distances_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    let sizes = [[4, 8, 30], [2, 4, 50], [1, 3, 20]];
    let channels: Vec<usize> = (0..100).filter(|c| c % 3 != 1).collect();
    for (nested, n) in [(true, 5), (false, 3)] {
        let layout = Layout::new(&sizes, &channels, nested).unwrap();
        let maps: Vec<Array4<f32>> = sizes.iter().map(|[h, w, c]| random((n, *h, *w, *c), *c as u64)).collect();
        let views: Vec<_> = maps.iter().map(|m| m.view()).collect();
        let levels = 0..layout.levels();
        let mean: Vec<Vec<f32>> =
            levels.clone().map(|l| random(layout.groups(l) * layout.rows(l).len(), 7).to_vec()).collect();
        let weight: Vec<Vec<f32>> = levels
            .map(|l| {
                let mut w = random(layout.weight_len(l), 9).to_vec();
                w[layout.weight_len(l) - PAD..].fill(0.0);
                w
            })
            .collect();
        let (mean, weight): (Vec<&[f32]>, Vec<&[f32]>) =
            (mean.iter().map(|m| &m[..]).collect(), weight.iter().map(|w| &w[..]).collect());
        let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
        let device: Vec<&Buffer<f32>> = device.iter().collect();
        let close = |got: Vec<f32>, wanted: Array3<f32>| {
            assert_eq!(got.len(), wanted.len());
            for (g, w) in got.iter().zip(&wanted) {
                assert!((g - w).abs() <= 2e-5 * w, "{g} {w}");
            }
        };
        let wanted = mahalanobis::distance(&layout, &mean, &weight, &views).unwrap();
        let triangle = mahalanobis::cuda::Gaussians::triangle(&cuda, &layout, &mean, &weight).unwrap();
        close(triangle.distance(&device, n).unwrap().read().unwrap(), wanted);
        assert!(triangle.distance(&device, n + 1).is_err() && triangle.distance(&device[1..], n).is_err());
        // Rows of the identity are orthonormal.
        let (d, groups, rank) = (channels.len(), layout.groups(layout.levels() - 1), 4);
        let mut basis = vec![0.0; groups * rank * d];
        for (i, row) in basis.chunks_exact_mut(d).enumerate() {
            row[i * 5 % d] = 1.0;
        }
        let scale = random(groups * rank, 4).mapv(|v| v + 2.0).to_vec();
        let wanted = mahalanobis::distance_low_rank(&layout, &mean, &basis, &scale, 0.25, &views).unwrap();
        let low = mahalanobis::cuda::Gaussians::low_rank(&cuda, &layout, &mean, &basis, &scale, 0.25).unwrap();
        close(low.distance(&device, n).unwrap().read().unwrap(), wanted);
    }
}

#[test]
fn a_budget_too_small_is_an_error_and_leaves_nothing_behind() {
    let Some(cuda) = open() else { return };
    let points = random((64, 8), 1);
    cuda.set_memory_budget(4096);
    let device = upload(&cuda, &points);
    let error = kcenter::cuda::greedy(&cuda, &device, [64, 8], 10, 0, &mut |_| true).unwrap_err();
    assert!(matches!(error, blemish_kernels::cuda::CudaError::Device(TensorError::Budget { .. })), "{error}");
    drop(device);
    assert_eq!(cuda.memory_used(), 0);
}

#[test]
fn odd_widths_are_measured_like_on_the_cpu() {
    let Some(cuda) = open() else { return };
    for (n, d) in [(1, 1), (1, 3), (7, 17), (5, 100), (1, 550)] {
        let layout = Layout::new(&[[1, 1, d]], &(0..d).collect::<Vec<_>>(), true).unwrap();
        let map = random((n, 1, 1, d), 3);
        let (mean, mut weight) = (random(d, 1).to_vec(), random(layout.weight_len(0), 2).to_vec());
        let length = weight.len();
        weight[length - PAD..].fill(0.0);
        let wanted = mahalanobis::distance(&layout, &[&mean], &[&weight], &[map.view()]).unwrap();
        let device = mahalanobis::cuda::Gaussians::triangle(&cuda, &layout, &[&mean], &[&weight]).unwrap();
        let got = device.distance(&[&upload(&cuda, &map)], n).unwrap().read().unwrap();
        for (g, w) in got.iter().zip(&wanted) {
            assert!((g - w).abs() <= 2e-5 * w, "{n} x {d}: {g} {w}");
        }
    }
}

/// How many pictures share the weights that are read depends on the batch; what comes out does not.
#[test]
fn pictures_are_measured_alike_in_any_batch() {
    let Some(cuda) = open() else { return };
    let (n, d, rank) = (40, 37, 11);
    let layout = Layout::new(&[[2, 2, 24], [1, 2, 16]], &(0..d).collect::<Vec<_>>(), false).unwrap();
    let maps = [random((n, 2, 2, 24), 1), random((n, 1, 2, 16), 2)];
    let mean = random(4 * d, 3).to_vec();
    let mut weight = random(layout.weight_len(0), 4).to_vec();
    let length = weight.len();
    weight[length - PAD..].fill(0.0);
    let mut basis = vec![0.0; 4 * rank * d];
    for (i, row) in basis.chunks_exact_mut(d).enumerate() {
        row[i % rank * 3] = 1.0;
    }
    let scale = random(4 * rank, 5).mapv(|v| v + 2.0).to_vec();
    let forms = [
        mahalanobis::cuda::Gaussians::triangle(&cuda, &layout, &[&mean], &[&weight]).unwrap(),
        mahalanobis::cuda::Gaussians::low_rank(&cuda, &layout, &[&mean], &basis, &scale, 0.25).unwrap(),
    ];
    let views = [maps[0].view(), maps[1].view()];
    let wanted = [
        mahalanobis::distance(&layout, &[&mean], &[&weight], &views).unwrap(),
        mahalanobis::distance_low_rank(&layout, &[&mean], &basis, &scale, 0.25, &views).unwrap(),
    ];
    for (form, wanted) in forms.iter().zip(&wanted) {
        let some = |n: usize| {
            let device: Vec<Buffer<f32>> =
                maps.iter().map(|m| cuda.upload(&m.as_slice().unwrap()[..m.len() / 40 * n]).unwrap()).collect();
            form.distance(&device.iter().collect::<Vec<_>>(), n).unwrap().read().unwrap()
        };
        let all = some(n);
        for (g, w) in all.iter().zip(wanted) {
            assert!((g - w).abs() <= 2e-5 * w, "{g} {w}");
        }
        for fewer in [1, 2, 3, 7, 11, 30] {
            assert_eq!(some(fewer), all[..4 * fewer], "{fewer} pictures of {form:?}");
        }
    }
}

#[test]
fn bases_of_many_channels_are_read_from_memory() {
    let Some(cuda) = open() else { return };
    let (n, d, rank) = (2, 4000, 9);
    let layout = Layout::new(&[[1, 1, d]], &(0..d).collect::<Vec<_>>(), true).unwrap();
    let (map, mean) = (random((n, 1, 1, d), 3), random(d, 1).to_vec());
    let mut basis = vec![0.0; rank * d];
    for (i, row) in basis.chunks_exact_mut(d).enumerate() {
        row[i * 400] = 1.0;
    }
    let scale = random(rank, 4).mapv(|v| v + 2.0).to_vec();
    let wanted = mahalanobis::distance_low_rank(&layout, &[&mean], &basis, &scale, 0.25, &[map.view()]).unwrap();
    let low = mahalanobis::cuda::Gaussians::low_rank(&cuda, &layout, &[&mean], &basis, &scale, 0.25).unwrap();
    let got = low.distance(&[&upload(&cuda, &map)], n).unwrap().read().unwrap();
    for (g, w) in got.iter().zip(&wanted) {
        assert!((g - w).abs() <= 2e-5 * w, "{g} {w}");
    }
}
