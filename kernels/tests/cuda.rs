//! Every GPU form against its CPU form, on a GPU or on the stand-in driver of `emu/` (`cargo xtask emu`).
#![cfg(feature = "cuda")]

use blemish_kernels::blur::{self, Border};
use blemish_kernels::cuda::embed::embed;
use blemish_kernels::kcenter;
use blemish_kernels::mahalanobis::{self, Layout, PAD};
use blemish_kernels::nearest::{self, cuda::Bank};
use blemish_kernels::pool::{PoolSpec, avg_pool};
use blemish_kernels::{Par, resize};
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
