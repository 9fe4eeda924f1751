//! Shapes, inputs and the work that is counted.
//!
//! `benches/peers/gpu_peers.py` times other people's formulas on the same shapes: it knows the operations by these names.

use blemish_kernels::blur::{self, Border};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::embed::embed;
use blemish_kernels::mahalanobis::cuda::Gaussians;
use blemish_kernels::mahalanobis::{Layout, PAD};
use blemish_kernels::nearest::{self, cuda::Bank};
use blemish_kernels::{kcenter, resize};
use blemish_tensor::cuda::Buffer;
use ndarray::{Array2, Array3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::measure::{Bench, Work};

/// Repetitions of what takes seconds.
const FEW: usize = 3;
const MANY: usize = 1000;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    let pick = |real: Vec<Vec<usize>>, small: Vec<usize>| if tiny { vec![small] } else { real };
    for s in pick(vec![vec![1, 56, 550], vec![8, 56, 550], vec![32, 56, 550], vec![32, 64, 100]], vec![2, 4, 9]) {
        gaussians(bench, s[0], s[1], s[2])?;
    }
    let searches = vec![vec![25_088, 16_384, 1536, 1], vec![784, 16_384, 1536, 9], vec![25_088, 25_088, 128, 1]];
    for s in pick(searches, vec![5, 600, 20, 3]) {
        search(bench, s[0], s[1], s[2], s[3])?;
    }
    for s in pick(vec![vec![8192, 16_384, 1536], vec![25_088, 25_088, 128]], vec![5, 40, 20]) {
        pairwise(bench, s[0], s[1], s[2])?;
    }
    for s in pick(vec![vec![200_000, 301, 20_000], vec![25_088, 1536, 2508]], vec![300, 20, 30]) {
        coreset(bench, s[0], s[1], s[2])?;
    }
    for s in pick(vec![vec![1, 1024], vec![512, 256]], vec![2, 9]) {
        blurring(bench, s[0], s[1])?;
    }
    for s in pick(vec![vec![1024, 256], vec![6144, 512]], vec![12, 5]) {
        antialias(bench, s[0], s[1])?;
    }
    for s in pick(vec![vec![32, 28, 1024, 56]], vec![2, 3, 4, 5]) {
        bilinear(bench, s[0], s[1], s[2], s[3])?;
    }
    for s in pick(vec![vec![1, 56, 512, 1024], vec![32, 56, 512, 1024]], vec![2, 6, 4, 5]) {
        embedding(bench, s[0], s[1], s[2], s[3])?;
    }
    Ok(())
}

/// Evenly spread numbers; from a million on they repeat.
pub(crate) fn spread(len: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f32> = (0..len.min(1 << 20)).map(|_| random.random_range(-1.0..1.0)).collect();
    while values.len() < len {
        let more = (len - values.len()).min(values.len());
        values.extend_from_within(..more);
    }
    values
}

/// Rows whose variance falls along the coordinates, as that of features does along their principal axes.
fn features(n: usize, d: usize, seed: u64) -> Array2<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let scale: Vec<f32> = (0..d).map(|j| 1.0 / (1.0 + j as f32 / 8.0).sqrt()).collect();
    Array2::from_shape_fn((n, d), |(_, j)| {
        (random.random_range(-1.0f32..1.0) + random.random_range(-1.0f32..1.0)) * scale[j]
    })
}

/// PaDiM's layout on a wide ResNet: three grids, `d` channels spread over them.
fn gaussians(bench: &mut Bench, n: usize, side: usize, d: usize) -> CudaResult<()> {
    let sizes = [[side, side, 256], [side / 2, side / 2, 512], [side / 4, side / 4, 1024]];
    let channels: Vec<usize> = (0..d).map(|i| i * 1792 / d).collect();
    let cuda = bench.cuda.clone();
    let values: usize = sizes.iter().map(|s| n * s[0] * s[1] * s[2]).sum();
    let shape = [("n", n), ("side", side), ("d", d)];
    let out = side * side * n;
    let mut maps = None;
    for (op, nested) in [("mahalanobis_triangle", false), ("mahalanobis_nested", true)] {
        let layout = Layout::new(&sizes, &channels, nested)?;
        let floats: usize = (0..layout.levels()).map(|l| layout.weight_len(l)).sum();
        if !bench.wants(op, 4 * (floats + values)) {
            continue;
        }
        let mean: Vec<Vec<f32>> =
            (0..layout.levels()).map(|l| spread(layout.groups(l) * layout.rows(l).len(), 1)).collect();
        let weight: Vec<Vec<f32>> = (0..layout.levels())
            .map(|l| {
                let mut w = spread(layout.weight_len(l), 2);
                let end = w.len();
                w[end - PAD..].fill(0.0);
                w
            })
            .collect();
        let (mean, weight) = (slices(&mean), slices(&weight));
        let model = Gaussians::triangle(&cuda, &layout, &mean, &weight)?;
        let maps = device_maps(bench, &sizes, n, &mut maps)?;
        let work = Work::new(2.0 * n as f64 * floats as f64, 4 * (floats + n * d * side * side + out));
        // One of these, by the number of pictures.
        let kernels = ["4", "8", "16", "32"].map(|pictures| format!("mahalanobis_triangle_{pictures}"));
        let kernels: Vec<(&str, Work)> = kernels.iter().map(|k| (k.as_str(), work)).collect();
        bench.run(op, &shape, work, &kernels, MANY, || model.distance(&maps, n).map(drop))?;
    }
    let (op, rank, cells) = ("mahalanobis_low_rank", 199.min(d - 1), side * side);
    if bench.wants(op, 4 * (cells * rank * d + values)) {
        let layout = Layout::new(&sizes, &channels, false)?;
        let (mean, basis) = (spread(cells * d, 1), spread(cells * rank * d, 2));
        let basis: Vec<f32> = basis.iter().map(|v| v / (d as f32).sqrt()).collect();
        let model = Gaussians::low_rank(&cuda, &layout, &[&mean], &basis, &vec![1.0; cells * rank], 0.01)?;
        let maps = device_maps(bench, &sizes, n, &mut maps)?;
        let flops = 4.0 * n as f64 * basis.len() as f64;
        let work = Work::new(flops, 4 * (basis.len() + n * d * cells + out));
        let shape = [("n", n), ("side", side), ("d", d), ("rank", rank)];
        let kernels = ["1", "4", "8", "wide"].map(|pictures| format!("{op}_{pictures}"));
        let kernels: Vec<(&str, Work)> = kernels.iter().map(|k| (k.as_str(), work)).collect();
        bench.run(op, &shape, work, &kernels, MANY, || model.distance(&maps, n).map(drop))?;
    }
    Ok(())
}

/// Feature maps, made when first asked for.
fn device_maps<'a>(
    bench: &Bench,
    sizes: &[[usize; 3]],
    n: usize,
    maps: &'a mut Option<Vec<Buffer<f32>>>,
) -> CudaResult<Vec<&'a Buffer<f32>>> {
    if maps.is_none() {
        let upload = |s: &[usize; 3]| bench.cuda.upload(&spread(n * s[0] * s[1] * s[2], 3));
        *maps = Some(sizes.iter().map(upload).collect::<Result<_, _>>()?);
    }
    Ok(maps.iter().flatten().collect())
}

fn search(bench: &mut Bench, m: usize, n: usize, d: usize, k: usize) -> CudaResult<()> {
    if !bench.wants("nearest", 6 * (m + n) * d + m * n / 8) {
        return Ok(());
    }
    let bank = Bank::new(&bench.cuda, features(n, d, 1).view())?;
    let m = m.min(bank.group());
    let query = bench.cuda.upload(features(m, d, 2).as_slice().unwrap_or_default())?;
    let wide = d.next_multiple_of(32);
    let flops = |d: usize| 2.0 * m as f64 * n as f64 * d as f64;
    let kernels = [
        ("nearest_quantize", Work::memory(m * (4 * d + 2 * wide))),
        ("nearest_sieve", Work::tensor(flops(wide), 2 * wide * (m + n) + m * n / 8)),
        ("nearest_rerank", Work::memory(m * n / 8 + 4 * m * (d + 2 * k))),
    ];
    let work = Work::tensor(flops(d), 4 * (m + n) * d);
    let shape = [("m", m), ("n", n), ("d", d), ("k", k)];
    bench.run("nearest", &shape, work, &kernels, MANY, || bank.search_device(&query, m, k).map(drop))
}

fn pairwise(bench: &mut Bench, m: usize, n: usize, d: usize) -> CudaResult<()> {
    const OP: &str = "pairwise_squared";
    if !bench.wants(OP, 4 * (m * d + n * d + m * n)) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let (q, b) = (cuda.upload(&spread(m * d, 1))?, cuda.upload(&spread(n * d, 2))?);
    let work = Work::new(3.0 * m as f64 * n as f64 * d as f64, 4 * (m * d + n * d + m * n));
    let call = || nearest::cuda::pairwise_squared(&cuda, &q, &b, [m, n, d]).map(drop);
    bench.run(OP, &[("m", m), ("n", n), ("d", d)], work, &[(OP, work)], MANY, call)
}

fn coreset(bench: &mut Bench, n: usize, d: usize, count: usize) -> CudaResult<()> {
    if !bench.wants("kcenter", 4 * n * (d + 2)) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let points = cuda.upload(features(n, d, 3).as_slice().unwrap_or_default())?;
    let work = Work::new(3.0 * n as f64 * d as f64 * count as f64, 4 * n * d);
    let call = || kcenter::cuda::greedy(&cuda, &points, [n, d], count, 0, &mut |_| true).map(drop);
    let shape = [("n", n), ("d", d), ("count", count)];
    bench.run("kcenter", &shape, work, &[("kcenter_update", work)], FEW, call)
}

fn blurring(bench: &mut Bench, n: usize, side: usize) -> CudaResult<()> {
    let values = n * side * side;
    if !bench.wants("blur", 8 * values) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let maps = cuda.upload(&spread(values, 4))?;
    // Two passes of 33 taps, with one reading and writing of every value.
    let work = Work::new(2.0 * 48.0 * values as f64, 8 * values);
    let call = || blur::cuda::gaussian(&cuda, &maps, [n, side, side], 4.0, Border::Reflect).map(drop);
    bench.run("blur", &[("n", n), ("side", side)], work, &[("blur_tile", work)], MANY, call)
}

fn antialias(bench: &mut Bench, from: usize, to: usize) -> CudaResult<()> {
    if !bench.wants("resize_antialias", 3 * from * (from + 4 * to) + 12 * to * to) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let picture = Array3::from_shape_fn((from, from, 3), |(y, x, c)| ((y * 7 + x * 13 + c * 29) % 251) as u8);
    let (down, across) = (3 * from * from + 12 * to * from, 12 * to * from + 12 * to * to);
    let kernels = [("resize_down_u8", Work::memory(down)), ("resize_across", Work::memory(across))];
    let call = || resize::cuda::antialias_u8(&cuda, picture.view(), (to, to)).map(drop);
    bench.run("resize_antialias", &[("from", from), ("to", to)], Work::memory(down + across), &kernels, MANY, call)
}

fn bilinear(bench: &mut Bench, n: usize, from: usize, c: usize, to: usize) -> CudaResult<()> {
    let (input, output) = (n * from * from * c, n * to * to * c);
    if !bench.wants("resize_bilinear", 4 * (input + output)) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let maps = cuda.upload(&spread(input, 5))?;
    let work = Work::new(9.0 * output as f64, 4 * (input + output));
    let call = || resize::cuda::bilinear(&cuda, &maps, n, [from, from, c], (to, to)).map(drop);
    let shape = [("n", n), ("from", from), ("c", c), ("to", to)];
    bench.run("resize_bilinear", &shape, work, &[("resize_bilinear", work)], MANY, call)
}

/// PatchCore's two layers, the second on half the grid.
fn embedding(bench: &mut Bench, n: usize, side: usize, c1: usize, c2: usize) -> CudaResult<()> {
    let sizes = [[side, side, c1], [side / 2, side / 2, c2]];
    let lens = sizes.map(|[h, w, c]| n * h * w * c);
    let out = n * side * side * (c1 + c2);
    if !bench.wants("embed", 4 * (lens[0] + 2 * lens[1] + out)) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let (first, second) = (cuda.upload(&spread(lens[0], 6))?, cuda.upload(&spread(lens[1], 7))?);
    let pieces = [(&first, sizes[0]), (&second, sizes[1])];
    let work = Work::new(10.0 * out as f64, 4 * (lens[0] + lens[1] + out));
    let kernels = [
        ("embed_mean3", Work::memory(8 * (lens[0] + lens[1]))),
        ("resize_bilinear", Work::memory(4 * (lens[1] + n * side * side * c2))),
    ];
    let shape = [("n", n), ("side", side), ("c1", c1), ("c2", c2)];
    bench.run("embed", &shape, work, &kernels, MANY, || embed(&cuda, n, &pieces).map(drop))
}

fn slices(tensors: &[Vec<f32>]) -> Vec<&[f32]> {
    tensors.iter().map(Vec::as_slice).collect()
}
