//! Times nearest-neighbour search and greedy k-center.
//!
//! ```text
//! cargo run --release -p blemish-kernels --example search_speed -- nearest [BANK.f32 QUERIES.f32 DIM] [--save INDEX.u32]
//! cargo run --release -p blemish-kernels --example search_speed -- kcenter [POINTS.f32 DIM] [--ratio 0.01] [--save ROWS.f32]
//! ```
//!
//! Files hold raw little-endian f32 rows. Without files, rows like patch features are made up: smooth, of low rank, and
//! with noise. Threads: `RAYON_NUM_THREADS`.

use std::time::Instant;

use blemish_kernels::kcenter;
use blemish_kernels::nearest::{Bank, Storage, pairwise_squared};
use ndarray::{Array2, ArrayView2, s};
use rand::{Rng, SeedableRng};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let ratio = option(&mut arguments, "--ratio").map_or(Ok(0.01), |r| r.parse())?;
    let save = option(&mut arguments, "--save");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    println!("{} threads", rayon::current_num_threads());
    match arguments[..] {
        ["nearest", bank, queries, dim] => search(read(bank, dim.parse()?)?, read(queries, dim.parse()?)?.view(), save),
        ["nearest"] => {
            for (n, d) in [(25_088, 128), (250_880, 128), (25_088, 1536)] {
                let rows = made_up(n + 784, d);
                let bank = rows.slice(s![..n, ..]).to_owned();
                search(bank, rows.slice(s![n.., ..]), None)?;
            }
            Ok(())
        }
        ["kcenter", points, dim] => pick(read(points, dim.parse()?)?.view(), ratio, save),
        ["kcenter"] => pick(made_up(250_880, 128).view(), ratio, save),
        _ => Err("nearest [BANK QUERIES DIM] or kcenter [POINTS DIM] [--ratio R]".into()),
    }
}

fn search(rows: Array2<f32>, queries: ArrayView2<'_, f32>, save: Option<String>) -> Result<(), Error> {
    let (n, d) = rows.dim();
    let query = queries.slice(s![..queries.nrows().min(784), ..]);
    for storage in [Storage::F32, Storage::F16, Storage::Int8] {
        let rows = rows.clone();
        let start = Instant::now();
        let bank = Bank::rounded(rows, storage)?;
        let (ms, mb) = (start.elapsed().as_secs_f64() * 1e3, bank.bytes() as f64 * 1e-6);
        println!("bank {n} x {d}: {bank:?}, {mb:.1} MB, built in {ms:.0} ms");
        for k in [1, 9] {
            let ms = median(|| bank.search(query, k).map(|_| ()))?;
            println!("  {} queries, k = {k}: {ms:.2} ms", query.nrows());
        }
        let ms = median(|| bank.search(query.slice(s![..1, ..]), 9).map(|_| ()))?;
        println!("  1 query, k = 9: {ms:.2} ms");
        let some = query.slice(s![..query.nrows().min(96), ..]);
        let all = pairwise_squared(some, bank.rows().view())?;
        let found = bank.search(some, 1)?;
        let wrong = all.rows().into_iter().zip(found.index.rows()).filter(|(all, found)| {
            let best = all.iter().enumerate().fold(0, |best, (i, v)| if *v < all[best] { i } else { best });
            best != found[0] as usize
        });
        println!("  {} of {} queries differ from all distances", wrong.count(), some.nrows());
        if storage == Storage::F32 {
            let ms = median(|| pairwise_squared(some, bank.rows().view()).map(|_| ()))?;
            println!("  all distances of {} queries: {ms:.1} ms", some.nrows());
            if let Some(path) = &save {
                let index = bank.search(query, 1)?.index;
                std::fs::write(path, index.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>())?;
            }
        }
    }
    Ok(())
}

fn pick(points: ArrayView2<'_, f32>, ratio: f64, save: Option<String>) -> Result<(), Error> {
    let (n, d) = points.dim();
    let count = (n as f64 * ratio) as usize;
    let start = Instant::now();
    let found = kcenter::greedy(points, count, 12_345.min(n - 1), &mut |_| true)?;
    let hash = found.picks.iter().fold(0u32, |h, &p| h.wrapping_mul(31).wrapping_add(p as u32));
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} of {n} x {d}: {seconds:.2} s, last pick {:?}, hash {hash}", found.picks.last());
    if let Some(path) = save {
        let rows = found.picks.iter().flat_map(|&p| points.row(p).to_vec());
        std::fs::write(path, rows.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
    }
    Ok(())
}

/// Takes `name VALUE` out of the arguments.
fn option(arguments: &mut Vec<String>, name: &str) -> Option<String> {
    let at = arguments.iter().position(|a| a == name).filter(|at| at + 1 < arguments.len())?;
    let value = arguments.remove(at + 1);
    arguments.remove(at);
    Some(value)
}

/// Median of seven runs after a first one, in milliseconds.
fn median(mut f: impl FnMut() -> blemish_kernels::Result<()>) -> Result<f64, Error> {
    f()?;
    let mut times = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[3])
}

fn read(path: &str, dim: usize) -> Result<Array2<f32>, Error> {
    let bytes = std::fs::read(path)?;
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let rows = values.len() / dim;
    Ok(Array2::from_shape_vec((rows, dim), values)?)
}

/// Rows `[n, d]` of rank 24 with decaying strength, slowly changing from row to row, and noise.
fn made_up(n: usize, d: usize) -> Array2<f32> {
    const RANK: usize = 24;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let directions = Array2::from_shape_fn((RANK, d), |_| rng.random_range(-1.0f32..1.0));
    let mut state = [0f32; RANK];
    let mut factors = Array2::zeros((n, RANK));
    for mut row in factors.rows_mut() {
        for (j, v) in row.iter_mut().enumerate() {
            state[j] = 0.9 * state[j] + rng.random_range(-1.0f32..1.0) / (1.0 + j as f32).sqrt();
            *v = state[j];
        }
    }
    let mut rows = factors.dot(&directions);
    rows.mapv_inplace(|v| v + rng.random_range(-0.3f32..0.3));
    rows
}
