//! Every GPU form against its CPU form, on a GPU or on the stand-in driver of `emu/` (`cargo xtask emu`).
#![cfg(feature = "cuda")]

use blemish_kernels::blur::{self, Border};
use blemish_kernels::conv::{self, Activation, Conv2d, ConvSpec};
use blemish_kernels::cuda::element::{Element, pack, unpack, wide};
use blemish_kernels::cuda::embed::embed;
use blemish_kernels::kcenter;
use blemish_kernels::mahalanobis::{self, Layout, PAD};
use blemish_kernels::nearest::{self, cuda::Bank};
use blemish_kernels::pool::{self, PoolSpec, avg_pool, max_pool};
use blemish_kernels::{KernelError, Par, resize};
use blemish_tensor::TensorError;
use blemish_tensor::cuda::{Buffer, Cuda};
use ndarray::{Array, Array2, Array3, Array4, Dimension, ShapeBuilder, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn random<D: Dimension, Sh: ShapeBuilder<Dim = D>>(shape: Sh, seed: u64) -> Array<f32, D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// Few different whole numbers, so that ties and duplicates abound.
fn tied(n: usize, d: usize, values: i32, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((n, d), || rng.random_range(0..values) as f32)
}

fn upload<D: Dimension>(cuda: &Cuda, array: &Array<f32, D>) -> Buffer<f32> {
    cuda.upload(array.as_slice().unwrap()).unwrap()
}

#[test]
fn blur_is_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for ([n, h, w], sigma) in [([1, 20, 31], 4.0), ([3, 7, 4], 1.3), ([2, 1, 9], 2.0), ([1, 5, 5], 0.0)] {
        let maps = random((n, h, w), h as u64);
        let device = upload(&cuda, &maps);
        for border in [Border::Reflect, Border::Symmetric] {
            let got = blur::cuda::gaussian(&cuda, &device, [n, h, w], sigma, border).unwrap().read().unwrap();
            for i in 0..n {
                let wanted = blur::gaussian_with(maps.slice(s![i, .., ..]), sigma, border).unwrap();
                assert_eq!(&got[i * h * w..][..h * w], wanted.as_slice().unwrap(), "{n}x{h}x{w} {border:?}");
            }
        }
    }
    let device = cuda.zeros(12).unwrap();
    assert!(blur::cuda::gaussian(&cuda, &device, [1, 3, 5], 1.0, Border::Reflect).is_err());
    assert!(blur::cuda::gaussian(&cuda, &device, [1, 3, 4], f32::NAN, Border::Reflect).is_err());
}

#[test]
fn resizes_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for ((h, w, c), size) in
        [((37, 23, 3), (9, 14)), ((6, 11, 1), (13, 5)), ((1, 1, 3), (2, 3)), ((20, 64, 3), (20, 17))]
    {
        let bytes = Array3::from_shape_simple_fn((h, w, c), || rng.random::<u8>());
        let got = resize::cuda::antialias_u8(&cuda, bytes.view(), size).unwrap().read().unwrap();
        assert_eq!(got, resize::antialias_u8(bytes.view(), size).unwrap().into_raw_vec_and_offset().0);
        let words = Array3::from_shape_simple_fn((h, w, c), || rng.random::<u16>());
        let got = resize::cuda::antialias_u16(&cuda, words.view(), size).unwrap().read().unwrap();
        assert_eq!(got, resize::antialias_u16(words.view(), size).unwrap().into_raw_vec_and_offset().0);
        let maps = random((2, h, w, c), 8);
        let got = resize::cuda::bilinear(&cuda, &upload(&cuda, &maps), 2, [h, w, c], size).unwrap().read().unwrap();
        assert_eq!(got, resize::bilinear(maps.view(), size).unwrap().into_raw_vec_and_offset().0);
    }
}

#[test]
fn embeddings_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let sizes = [[6, 9, 5], [3, 4, 7], [6, 9, 2]];
    let maps: Vec<Array4<f32>> = sizes.iter().map(|[h, w, c]| random((2, *h, *w, *c), 3 + *c as u64)).collect();
    let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
    let arguments: Vec<(&Buffer<f32>, [usize; 3])> = device.iter().zip(sizes).collect();
    let got = embed(&cuda, 2, &arguments).unwrap().read().unwrap();
    let spec = PoolSpec { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
    let mut wanted = Array4::<f32>::zeros((2, 6, 9, 14));
    let mut first = 0;
    for (map, [h, w, c]) in maps.iter().zip(sizes) {
        let mut mean = Array4::zeros(map.dim());
        avg_pool(map.as_slice().unwrap(), [2, h, w, c], &spec, true, mean.as_slice_mut().unwrap(), Par::Serial)
            .unwrap();
        let part = resize::bilinear(mean.view(), (6, 9)).unwrap();
        wanted.slice_mut(s![.., .., .., first..first + c]).assign(&part);
        first += c;
    }
    assert_eq!(got, wanted.into_raw_vec_and_offset().0);
    assert!(embed(&cuda, 1, &arguments).is_err() && embed(&cuda, 1, &[]).is_err());
}

#[test]
fn distances_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for [m, n, d] in [[1, 1, 1], [33, 40, 3], [5, 70, 100], [2, 3, 1792]] {
        let (q, b) = (random((m, d), 1), random((n, d), 2));
        let (dq, db) = (upload(&cuda, &q), upload(&cuda, &b));
        let got = nearest::cuda::pairwise_squared(&cuda, &dq, &db, [m, n, d]).unwrap().read().unwrap();
        assert_eq!(got, nearest::pairwise_squared(q.view(), b.view()).unwrap().into_raw_vec_and_offset().0);
        assert!(nearest::cuda::pairwise_squared(&cuda, &dq, &db, [m, n, d + 1]).is_err());
    }
}

#[test]
fn nearest_rows_are_the_cpu_s_sieved_and_scanned() {
    let Some(cuda) = open() else { return };
    let cases: Vec<(Array2<f32>, Array2<f32>)> = vec![
        (random((1, 1), 1), random((1, 1), 2)),
        (random((70, 33), 3), random((200, 33), 4)),
        (random((3, 550), 5) * 1e-3, random((90, 550), 6) * 1e-3 + 40.0),
        (tied(20, 3, 3, 7), tied(300, 3, 3, 8)),
        (tied(4, 5, 1, 9), tied(130, 5, 1, 10)),
        (random((2, 4), 11) * 1e-30, random((70, 4), 12) * 1e-30),
    ];
    for (q, b) in &cases {
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for small in [1, usize::MAX] {
            let bank = Bank::with_small(&cuda, b.view(), small).unwrap();
            for k in [1, 9, 32] {
                assert_eq!(bank.search(q.view(), k).unwrap(), cpu.search(q.view(), k).unwrap(), "{bank:?} k {k}");
            }
            assert!(bank.search(q.view(), 0).is_err() && bank.search(q.view(), 33).is_err());
        }
    }
    let empty = Array2::zeros((0, 4));
    assert!(Bank::new(&cuda, empty.view()).is_err());
    let bank = Bank::new(&cuda, random((5, 4), 1).view()).unwrap();
    assert_eq!(bank.search(empty.view(), 2).unwrap().index.dim(), (0, 2));
    let mut bad = random((2, 4), 2);
    bad[[1, 3]] = f32::NAN;
    assert!(bank.search(bad.view(), 1).is_err());
}

#[test]
fn banks_larger_than_the_budget_are_streamed_and_the_budget_holds() {
    let Some(cuda) = open() else { return };
    let many = [
        (tied(23, 6, 3, 1), tied(1900, 6, 3, 2), 40 << 10),
        (random((9, 40), 3), random((1300, 40), 4), 600 << 10),
        (random((5, 3), 5), random((1, 3), 6), 1 << 20),
        // Squared distances that differ where their roots do not, the larger one first.
        (Array2::zeros((1, 1)), Array2::from_shape_vec((2, 1), vec![1.0, 1.0 - f32::EPSILON / 2.0]).unwrap(), 3000),
    ];
    let before = cuda.memory_budget();
    for (q, b, budget) in many {
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for k in [1, 9, 32] {
            cuda.set_memory_budget(cuda.memory_used() + budget);
            let got = nearest::cuda::search_streamed(&cuda, b.view(), q.view(), k);
            cuda.set_memory_budget(before);
            assert_eq!(got.unwrap(), cpu.search(q.view(), k).unwrap(), "k {k}, {:?}, {budget} bytes", b.shape());
        }
        cuda.set_memory_budget(cuda.memory_used() + 64);
        let error = nearest::cuda::search_streamed(&cuda, b.view(), q.view(), 1).unwrap_err();
        cuda.set_memory_budget(before);
        assert!(matches!(error, blemish_kernels::cuda::CudaError::Device(TensorError::Budget { .. })), "{error}");
        assert!(nearest::cuda::search_streamed(&cuda, b.view(), q.view(), 0).is_err());
    }
}

#[test]
fn picks_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let many = [(random((700, 20), 1), 90), (tied(400, 2, 6, 2), 60), (random((1, 3), 3), 1), (tied(50, 3, 1, 4), 20)];
    for (points, count) in many {
        let start = points.nrows() / 3;
        let shape = [points.nrows(), points.ncols()];
        let wanted = kcenter::greedy(points.view(), count, start, &mut |_| true).unwrap();
        let device = upload(&cuda, &points);
        assert_eq!(kcenter::cuda::greedy(&cuda, &device, shape, count, start, &mut |_| true).unwrap(), wanted);
        let stopped = kcenter::cuda::greedy(&cuda, &device, shape, count, start, &mut |_| false).unwrap();
        assert_eq!(stopped.picks, wanted.picks[..1]);
        assert!(kcenter::cuda::greedy(&cuda, &device, shape, shape[0] + 1, start, &mut |_| true).is_err());
    }
}

#[test]
fn projections_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for (n, in_dim, out_dim, seed) in [(1, 1, 1, 0), (19, 550, 33, 7), (8, 3, 300, u64::MAX), (9, 4000, 5, 1 << 40)] {
        let projection = kcenter::SparseProjection::new(in_dim, out_dim, seed).unwrap();
        let rows = random((n, in_dim), seed);
        let wanted = projection.apply(rows.view()).unwrap();
        let device = kcenter::cuda::Projection::new(&cuda, &projection).unwrap();
        let mut out = cuda.zeros((n + 2) * out_dim).unwrap();
        device.apply(&upload(&cuda, &rows), n, &mut out, 2).unwrap();
        assert_eq!(out.read().unwrap()[2 * out_dim..], *wanted.as_slice().unwrap(), "{n} x {in_dim} to {out_dim}");
        assert!(device.apply(&upload(&cuda, &rows), n, &mut out, 3).is_err());
        assert!(device.apply(&upload(&cuda, &rows), n + 1, &mut out, 0).is_err());
    }
}

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
    for (nested, budget) in [(true, usize::MAX), (false, usize::MAX), (true, 700 << 10)] {
        let layout = Layout::new(&sizes, &channels, nested).unwrap();
        let mut wanted = mahalanobis::Moments::new(layout.clone());
        let mut got = mahalanobis::cuda::Moments::new(&cuda, layout.clone()).unwrap();
        for (i, n) in [5, 38, 1].into_iter().enumerate() {
            let maps: Vec<Array4<f32>> =
                sizes.iter().map(|[h, w, c]| random((n, *h, *w, *c), (10 * i + c) as u64) + 3.0).collect();
            wanted.push(&maps.iter().map(|m| m.view()).collect::<Vec<_>>()).unwrap();
            let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
            let device: Vec<&Buffer<f32>> = device.iter().collect();
            assert!(got.push(&device, n + 1).is_err() && got.push(&device[1..], n).is_err());
            got.push(&device, n).unwrap();
        }
        assert_eq!((got.count(), got.layout()), (44, &layout));
        for (g, w) in got.mean().unwrap().iter().flatten().zip(wanted.mean().unwrap().iter().flatten()) {
            assert!((g - w).abs() <= 1e-6, "{g} {w}");
        }
        cuda.set_memory_budget(budget.min(before));
        let got = got.factor(0.05);
        cuda.set_memory_budget(before);
        let (got, wanted) = (got.unwrap(), wanted.factor(0.05, extend).unwrap());
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), wanted.iter().map(Vec::len).collect::<Vec<_>>());
        let largest = wanted.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((g - w).abs() <= 2e-5 * largest, "{g} {w} {nested}");
        }
    }
    let one = mahalanobis::cuda::Moments::new(&cuda, Layout::new(&sizes, &channels, true).unwrap()).unwrap();
    assert!(one.factor(0.05).unwrap_err().to_string().contains("2 pictures"));
    let mut bad = mahalanobis::cuda::Moments::new(&cuda, Layout::new(&[[1, 1, 2]], &[0, 1], true).unwrap()).unwrap();
    bad.push(&[&cuda.upload(&[f32::NAN, 1.0, 2.0, 3.0]).unwrap()], 2).unwrap();
    assert!(bad.mean().is_err());
    assert!(bad.factor(0.05).unwrap_err().to_string().contains("positive definite"));
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

/// `values` `[pixels, c]` as a map on the GPU.
fn map<T: Element>(cuda: &Cuda, values: &[f32], c: usize) -> Buffer<T> {
    let pixels = values.len() / c;
    let mut map = cuda.scratch(pixels * wide::<T>(c)).unwrap();
    pack(cuda, &cuda.upload(values).unwrap(), [pixels, c], &mut map).unwrap();
    map
}

/// Fp16 (and its weights) keeps 11 bits; f32 differs in the order of its sums.
fn tolerance<T: Element>() -> f32 {
    if T::LANES == 8 { 4e-3 } else { 1e-5 }
}

fn close<T: Element>(what: &str, got: &[f32], wanted: &[f32], size: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance::<T>() * (size + w.abs()), "{what} at {i}: {g}, not {w}");
    }
}

fn convolutions<T: Element + PartialEq>(cuda: &Cuda) {
    use Activation::{HardSwish, None, Relu, Relu6, Silu};
    let cases = [
        ([2, 9, 11, 3], 16, [7, 7], [2, 2], [3; 4], false, Relu, false),
        ([1, 13, 12, 24], 72, [3, 3], [1, 1], [1; 4], false, Relu, true),
        ([2, 7, 7, 40], 24, [1, 1], [1, 1], [0; 4], false, None, true),
        ([1, 8, 9, 64], 130, [1, 1], [2, 2], [0; 4], false, Relu6, false),
        ([3, 12, 12, 16], 130, [3, 2], [1, 2], [1, 0, 0, 1], false, Silu, false),
        ([1, 6, 9, 8], 16, [2, 3], [1, 2], [1, 0, 0, 1], false, Relu, false),
        ([2, 9, 8, 40], 40, [3, 3], [1, 1], [1; 4], true, HardSwish, false),
        ([1, 11, 10, 13], 13, [5, 5], [2, 2], [2; 4], true, Silu, true),
        ([1, 1, 1, 1], 1, [1, 1], [1, 1], [0; 4], false, None, false),
    ];
    for (i, (shape, out, kernel, stride, padding, depthwise, activation, residual)) in cases.into_iter().enumerate() {
        let [n, h, w, c] = shape;
        let groups = if depthwise { c } else { 1 };
        let spec = ConvSpec { in_channels: c, out_channels: out, kernel, stride, padding, groups };
        let weight = random(spec.weight_len(), 1).to_vec();
        let bias = random(out, 2).to_vec();
        let input = random(shape, 3);
        let input = input.as_slice().unwrap();
        let (oh, ow) = spec.output_size(h, w).unwrap();
        let add = residual.then(|| random(n * oh * ow * out, 4).to_vec());
        let cpu = Conv2d::new(spec, &weight, &bias, activation).unwrap();
        let mut wanted = vec![0.0; n * oh * ow * out];
        let mut scratch = vec![0.0; cpu.workspace(n, h, w)];
        cpu.forward(input, n, h, w, add.as_deref(), &mut wanted, &mut scratch, Par::Serial).unwrap();
        let gpu = conv::cuda::Conv::<T>::new(cuda, spec, &weight, &bias, activation).unwrap();
        let device = map::<T>(cuda, input, c);
        let add = add.map(|add| map::<T>(cuda, &add, out));
        let mut output = cuda.scratch(n * oh * ow * wide::<T>(out)).unwrap();
        gpu.forward(&device, [n, h, w], add.as_ref(), &mut output).unwrap();
        let got = unpack(cuda, &output, [n * oh * ow, out]).unwrap().read().unwrap();
        close::<T>(&format!("case {i}"), &got, &wanted, ((spec.weight_len() / out) as f32).sqrt());
        // What only fills up stays zero, or the next layer would see it.
        let stored = output.read().unwrap();
        let beyond = stored.chunks(wide::<T>(out)).flat_map(|pixel| &pixel[out..]);
        assert!(beyond.clone().all(|v| *v == T::default()), "case {i}");
        assert!(gpu.forward(&device, [n, h, w + 1], add.as_ref(), &mut output).is_err());
        let mut short = cuda.scratch(n * oh * ow * wide::<T>(out) - 1).unwrap();
        assert!(gpu.forward(&device, [n, h, w], add.as_ref(), &mut short).is_err());
        assert!(conv::cuda::Conv::<T>::new(cuda, spec, &weight[1..], &bias, activation).is_err());
    }
    let spec = ConvSpec { in_channels: 8, out_channels: 8, kernel: [1; 2], stride: [1; 2], padding: [0; 4], groups: 2 };
    let error = conv::cuda::Conv::<T>::new(cuda, spec, &[0.0; 32], &[0.0; 8], None).unwrap_err().to_string();
    assert!(error.contains("1 group"), "{error}");
}

#[test]
fn convolutions_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    convolutions::<f32>(&cuda);
    if cuda.info().capability >= (8, 0) {
        convolutions::<u16>(&cuda);
    }
}

fn pools<T: Element>(cuda: &Cuda) {
    for (shape, kernel, stride, padding) in
        [([2, 9, 7, 5], [3, 3], [2, 2], [1; 4]), ([1, 4, 6, 64], [2, 4], [1, 3], [0, 3, 1, 0])]
    {
        let [n, _, _, c] = shape;
        let spec = PoolSpec { kernel, stride, padding };
        let (oh, ow) = spec.output_size(shape[1], shape[2]).unwrap();
        let input = random(shape, 6);
        let device = map::<T>(cuda, input.as_slice().unwrap(), c);
        let mut output = cuda.scratch(n * oh * ow * wide::<T>(c)).unwrap();
        let mut wanted = vec![0.0; n * oh * ow * c];
        pool::cuda::max_pool(cuda, &device, shape, &spec, &mut output).unwrap();
        max_pool(input.as_slice().unwrap(), shape, &spec, &mut wanted, Par::Serial).unwrap();
        close::<T>("max", &unpack(cuda, &output, [n * oh * ow, c]).unwrap().read().unwrap(), &wanted, 1.0);
        for all in [true, false] {
            pool::cuda::avg_pool(cuda, &device, shape, &spec, all, &mut output).unwrap();
            avg_pool(input.as_slice().unwrap(), shape, &spec, all, &mut wanted, Par::Serial).unwrap();
            close::<T>("mean", &unpack(cuda, &output, [n * oh * ow, c]).unwrap().read().unwrap(), &wanted, 1.0);
        }
        assert!(pool::cuda::max_pool(cuda, &device, [n + 1, shape[1], shape[2], c], &spec, &mut output).is_err());
    }
}

fn gates<T: Element>(cuda: &Cuda) {
    use pool::cuda::{Gate, SqueezeExcite, Work};
    for (n, positions, c, reduced, gate) in [
        (3, 35, 40, 10, Gate::SiluSigmoid),
        (1, 9, 13, 3, Gate::ReluHardSigmoid),
        (2, 1, 72, 24, Gate::ReluHardSigmoid),
    ] {
        let parts = [reduced * c, reduced, reduced * c, c].map(|len| random(len, len as u64).to_vec());
        let [reduce, reduce_bias, expand, expand_bias] = &parts;
        let input = random(n * positions * c, 5).to_vec();
        let mut wanted = input.clone();
        for map in wanted.chunks_exact_mut(positions * c) {
            let mut mean = vec![0.0; c];
            pool::global_avg(map, 1, positions, c, &mut mean, Par::Serial).unwrap();
            let dense = |w: &[f32], b: &[f32], x: &[f32]| -> Vec<f32> {
                let dot = |row: &[f32]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
                w.chunks_exact(x.len()).zip(b).map(|(row, b)| dot(row) + b).collect()
            };
            let mut hidden = dense(reduce, reduce_bias, &mean);
            if gate == Gate::SiluSigmoid {
                pool::silu(&mut hidden)
            } else {
                pool::relu(&mut hidden)
            }
            let mut scale = dense(expand, expand_bias, &hidden);
            if gate == Gate::SiluSigmoid {
                pool::sigmoid(&mut scale)
            } else {
                pool::hard_sigmoid(&mut scale)
            }
            pool::scale_channels(map, 1, positions, c, &scale, Par::Serial).unwrap();
        }
        let se =
            SqueezeExcite::<T>::new(cuda, [c, reduced], [reduce, reduce_bias], [expand, expand_bias], gate).unwrap();
        let mut work = Work::new(cuda, n, c, reduced).unwrap();
        let mut place = map::<T>(cuda, &input, c);
        let mut other = cuda.scratch(place.len()).unwrap();
        se.apply(Some(&place), &mut other, [n, positions], &mut work).unwrap();
        se.apply(None, &mut place, [n, positions], &mut work).unwrap();
        for gated in [&place, &other] {
            close::<T>("gate", &unpack(cuda, gated, [n * positions, c]).unwrap().read().unwrap(), &wanted, 1.0);
        }
        assert!(se.apply(None, &mut place, [n + 1, positions], &mut work).is_err());
        let mut small = Work::new(cuda, n, c, reduced - 1).unwrap();
        assert!(se.apply(None, &mut place, [n, positions], &mut small).is_err());
        assert!(
            SqueezeExcite::<T>::new(cuda, [c, reduced], [expand, expand_bias], [reduce, reduce_bias], gate).is_err()
        );
    }
}

#[test]
fn pools_and_gates_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    pools::<f32>(&cuda);
    pools::<u16>(&cuda);
    gates::<f32>(&cuda);
    gates::<u16>(&cuda);
}

#[test]
fn recorded_launches_start_again_on_the_same_buffers() {
    let Some(cuda) = open() else { return };
    let (a, b) = (random((3, 20), 1), random((4, 20), 2));
    let (mut device, other) = (upload(&cuda, &a), upload(&cuda, &b));
    let wanted = |a: &Array2<f32>| nearest::pairwise_squared(a.view(), b.view()).unwrap().into_raw_vec_and_offset().0;
    let mut out = None;
    let recording = cuda
        .record(|| -> blemish_kernels::cuda::CudaResult<()> {
            out = Some(nearest::cuda::pairwise_squared(&cuda, &device, &other, [3, 4, 20])?);
            assert!(cuda.record(|| Ok::<(), TensorError>(())).is_err(), "recordings do not nest");
            Ok(())
        })
        .unwrap();
    let out = out.unwrap();
    assert_eq!(recording.launches(), 1);
    assert!(out.read().unwrap()[0] != wanted(&a)[0], "it only started with the replay");
    // The memory of a dropped buffer is kept as long as the recording.
    drop(other);
    recording.replay().unwrap();
    assert_eq!(out.read().unwrap(), wanted(&a));
    let c = random((3, 20), 3);
    device.write_at(0, c.as_slice().unwrap()).unwrap();
    recording.replay().unwrap();
    assert_eq!(out.read().unwrap(), wanted(&c));
    let used = cuda.memory_used();
    drop(recording);
    assert_eq!(cuda.memory_used(), used - 4 * 20 * 4);
    // Work that fails leaves nothing behind, and the next launch starts at once again.
    let error = cuda.record(|| {
        nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20])?;
        nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 21]).map(|_| ())
    });
    assert!(error.is_err());
    let now = nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20]).unwrap().read().unwrap();
    assert_eq!(now[0], 0.0);
    // Launches of other threads are not recorded.
    let recording = cuda
        .record(|| -> blemish_kernels::cuda::CudaResult<()> {
            let work =
                || nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20])?.read().map_err(Into::into);
            let found: blemish_kernels::cuda::CudaResult<Vec<f32>> =
                std::thread::scope(|s| s.spawn(work).join().unwrap());
            assert_eq!(found?[0], 0.0);
            Ok(())
        })
        .unwrap();
    assert_eq!(recording.launches(), 0);
    recording.replay().unwrap();
}
