use ndarray::{Array2, ArrayView2, s};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::cpu_compact::squared_below_of;
use super::cpu_distance::{squared, squared_below, squared_rows};
use super::cpu_isa::Isa;
use super::cpu_tile::{BLOCK, Hit, LANES, products, sieve};
use super::{Bank, Prefix, Rows, Storage, View, Work, pairwise_squared};

/// Rows of a kind that is hard in its own way.
pub(crate) fn rows(kind: usize, n: usize, d: usize, seed: u64) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let uniform = Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0f32..1.0));
    match kind {
        // No structure at all: the bounds leave everything.
        0 => uniform,
        // Ties: an integer grid of few values.
        1 => uniform.mapv(|v| (v * 2.0).round()),
        // Duplicates: few distinct rows.
        2 => Array2::from_shape_fn((n, d), |(i, j)| uniform[[i % 7.min(n), j]]),
        // A large common offset.
        3 => uniform.mapv(|v| v + 1000.0),
        // Squares that underflow.
        4 => uniform.mapv(|v| v * 1e-22),
        // Squares that overflow.
        5 => uniform.mapv(|v| v * 1e25),
        // Low rank, as features are.
        6 => {
            let rank = 4.min(d);
            let directions = uniform.slice(s![..rank.min(n), ..]).to_owned();
            let mut factors = Array2::zeros((n, directions.nrows()));
            factors.mapv_inplace(|_: f32| rng.random_range(-3.0f32..3.0));
            factors.dot(&directions) + &(uniform * 0.01)
        }
        // All rows equal.
        7 => Array2::from_elem((n, d), 0.1),
        // Large but fitting, one direction only, so that nothing is left for the tail.
        _ => Array2::from_shape_fn((n, d), |(i, j)| uniform[[i, 0]] * 1e6 * (1.0 + j as f32)),
    }
}

/// All distances with the portable function, sorted by distance, then index.
fn brute(bank: ArrayView2<'_, f32>, query: ArrayView2<'_, f32>, k: usize) -> Vec<Vec<(f32, u32)>> {
    let isa = Isa::all()[0];
    let one = |q: ndarray::ArrayView1<'_, f32>| {
        let distance = |b: ndarray::ArrayView1<'_, f32>| squared(isa, &q.to_vec(), &b.to_vec());
        let mut all: Vec<(f32, u32)> = bank.rows().into_iter().zip(0..).map(|(b, i)| (distance(b), i)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        all
    };
    query.rows().into_iter().map(one).collect()
}

fn check(isa: Isa, bank: &Array2<f32>, query: &Array2<f32>, k: usize) {
    check_stored(isa, bank, query, k, Storage::F32);
}

/// The search is exact over the rows as they are after rounding.
fn check_stored(isa: Isa, bank: &Array2<f32>, query: &Array2<f32>, k: usize, storage: Storage) {
    let bank = Bank::with_isa(Rows::round(bank.clone(), storage).unwrap(), bank.ncols(), isa).unwrap();
    let found = bank.search(query.view(), k).unwrap();
    let bank = bank.rows();
    for (i, want) in brute(bank.view(), query.view(), k).iter().enumerate() {
        let index: Vec<u32> = want.iter().map(|w| w.1).collect();
        let distance: Vec<u32> = want.iter().map(|w| w.0.sqrt().to_bits()).collect();
        assert_eq!(found.index.row(i).to_vec(), index, "{isa:?}, query {i}");
        let got: Vec<u32> = found.distance.row(i).iter().map(|v| v.to_bits()).collect();
        assert_eq!(got, distance, "{isa:?}, query {i}");
    }
}

#[test]
fn distances_have_the_same_bits_everywhere() {
    let isas = Isa::all();
    for d in (1..70).chain([100, 127, 128, 129, 550, 1536]) {
        let a = rows(0, 11, d, d as u64);
        let a = a.as_slice().unwrap();
        let query = &a[..d];
        let want: Vec<u32> = a.chunks(d).map(|r| squared(isas[0], query, r).to_bits()).collect();
        assert_eq!(want[0], 0);
        let exact: f64 = query.iter().zip(&a[d..]).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        assert!((f64::from(f32::from_bits(want[1])) / exact - 1.0).abs() < 1e-6);
        for &isa in &isas {
            let mut got = vec![0f32; 11];
            squared_rows(isa, query, a, &mut got);
            assert_eq!(got.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want, "{isa:?} {d}");
            for (r, &w) in a.chunks(d).zip(&want) {
                let w = f32::from_bits(w);
                assert_eq!(squared_below(isa, query, r, f32::INFINITY), w);
                assert_eq!(squared_below(isa, query, r, w), w);
                assert!(w == 0.0 || squared_below(isa, query, r, w * 0.5) > w * 0.5);
            }
        }
    }
}

#[test]
fn tiles_multiply_and_sieve() {
    for (depth, p) in [(1, 1), (7, 3), (64, 2), (17, 5)] {
        // Small integers: every variant is exact.
        let values = rows(1, depth + 1, BLOCK + p * LANES, 3);
        let block = Array2::from_shape_fn((depth, BLOCK), |(k, i)| values[[k, i]]);
        let lane = |panel: usize, k: usize, l: usize| values[[k, BLOCK + panel * LANES + l]];
        let panels: Vec<f32> =
            (0..p * depth * LANES).map(|i| lane(i / (depth * LANES), i / LANES % depth, i % LANES)).collect();
        let start: Vec<f32> = (0..p * LANES).map(|i| values[[depth, BLOCK + i]]).collect();
        let threshold: [f32; BLOCK] = std::array::from_fn(|i| i as f32 - 6.0);
        let dot = |row: usize, panel: usize, l: usize| {
            let terms = (0..depth).map(|k| block[[k, row]] * lane(panel, k, l));
            start[panel * LANES + l] + terms.sum::<f32>()
        };
        let mut want = Vec::new();
        for panel in 0..p {
            for row in 0..BLOCK {
                let reached = |l: &usize| dot(row, panel, *l) >= threshold[row];
                let lanes = (0..LANES).filter(reached).fold(0u32, |m, l| m | 1 << l);
                if lanes != 0 {
                    want.push(Hit { row: row as u32, panel: panel as u32, lanes });
                }
            }
        }
        assert!(!want.is_empty());
        for isa in Isa::all() {
            let mut hits = Vec::new();
            sieve(isa, depth, block.as_slice().unwrap(), &threshold, &panels, &start, &mut hits);
            assert_eq!(hits, want, "{isa:?}");
            let mut out = vec![f32::NAN; BLOCK * p * LANES];
            products(isa, depth, block.as_slice().unwrap(), &panels, &start, &mut out);
            for (i, v) in out.iter().enumerate() {
                assert_eq!(*v, dot(i / (p * LANES), i / LANES % p, i % LANES), "{isa:?}");
            }
        }
    }
}

#[test]
fn equals_brute_force_on_hard_rows() {
    for isa in Isa::all() {
        for kind in 0..9 {
            for (n, d, k) in [(1, 1, 1), (5, 3, 5), (600, 1, 3), (700, 3, 9), (900, 40, 1), (801, 100, 32)] {
                check(isa, &rows(kind, n, d, 1), &rows(kind, 15, d, 2), k);
            }
        }
        check(isa, &rows(6, 1100, 550, 1), &rows(6, 30, 550, 2), 1);
        // k near n, and beyond it.
        let bank = rows(1, 520, 4, 5);
        check(isa, &bank, &rows(1, 3, 4, 6), 520);
        check(isa, &bank, &rows(1, 3, 4, 6), 600);
        check(isa, &bank, &rows(1, 3, 4, 6), 65);
    }
}

#[test]
fn fewer_bits_are_searched_exactly() {
    for isa in Isa::all() {
        // Large offsets and overflowing squares do not fit 16 bits, or are what they are in 8.
        for kind in [0, 1, 2, 3, 4, 6, 7] {
            for (n, d, k) in [(1, 1, 1), (600, 17, 3), (900, 40, 1), (801, 100, 32)] {
                for storage in [Storage::F16, Storage::Int8] {
                    check_stored(isa, &rows(kind, n, d, 1), &rows(kind, 13, d, 2), k, storage);
                }
            }
        }
        check_stored(isa, &rows(5, 700, 30, 1), &rows(5, 5, 30, 2), 2, Storage::Int8);
        check_stored(isa, &rows(8, 700, 30, 1), &rows(8, 5, 30, 2), 2, Storage::Int8);
        check_stored(isa, &rows(6, 1100, 550, 1), &rows(6, 30, 550, 2), 1, Storage::Int8);
    }
}

#[test]
fn decoded_in_registers_or_before_is_the_same() {
    for d in [1, 15, 16, 127, 128, 144, 300] {
        let (all, query) = (rows(6, 9, d, 4), rows(6, 1, d, 5));
        let query = query.as_slice().unwrap();
        for storage in [Storage::F32, Storage::F16, Storage::Int8] {
            let stored = Rows::round(all.clone(), storage).unwrap();
            for i in 0..9 {
                let decoded = stored.decode(d, i..i + 1);
                let want = squared(Isa::all()[0], query, &decoded);
                for isa in Isa::all() {
                    let row = stored.view().row(d, i);
                    assert_eq!(
                        squared_below_of(isa, query, row, f32::INFINITY).to_bits(),
                        want.to_bits(),
                        "{storage:?}"
                    );
                    assert_eq!(squared_below_of(isa, query, row, want), want);
                    assert!(want == 0.0 || squared_below_of(isa, query, row, want * 0.5) > want * 0.5);
                }
            }
        }
    }
}

#[test]
fn rounding_errs_as_little_as_stated() {
    let all = rows(6, 300, 24, 1);
    let near = |storage: Storage, most: &dyn Fn(usize, f32) -> f32| {
        let decoded = Rows::round(all.clone(), storage).unwrap().decode(24, 0..300);
        for ((i, v), got) in all.iter().enumerate().zip(&decoded) {
            assert!((got - v).abs() <= most(i % 24, *v) * 1.0001, "{storage:?} {got} {v}");
        }
    };
    near(Storage::F32, &|_, _| 0.0);
    near(Storage::F16, &|_, v| v.abs() / 2048.0 + 6e-8);
    let range = |j: usize| {
        let column = all.column(j);
        column.iter().fold(f32::MIN, |m, v| m.max(*v)) - column.iter().fold(f32::MAX, |m, v| m.min(*v))
    };
    near(Storage::Int8, &|j, _| range(j) / 508.0);
    // Rounding again changes nothing, so that a model may be saved from what was loaded.
    let once = Bank::rounded(all.clone(), Storage::F16).unwrap();
    assert_eq!(Bank::rounded(once.rows().into_owned(), Storage::F16).unwrap().rows(), once.rows());
}

#[test]
fn fewer_bits_take_less_memory() {
    let all = rows(6, 4000, 128, 1);
    let bytes = |storage| Bank::rounded(all.clone(), storage).unwrap().bytes();
    let (f32, f16, int8) = (bytes(Storage::F32), bytes(Storage::F16), bytes(Storage::Int8));
    assert!(f16 < f32 * 3 / 5 && int8 < f16 * 3 / 4, "{f32} {f16} {int8}");
    // Rows without structure need much of the tables; they still take no more than the rows.
    let noise = rows(0, 4000, 128, 1);
    assert!(Bank::rounded(noise, Storage::Int8).unwrap().bytes() <= 2 * 4000 * 128 + 3 * 4 * 4000);
}

#[test]
fn rows_find_themselves() {
    let bank = rows(3, 1500, 64, 9);
    let found = Bank::new(bank.clone()).unwrap().search(bank.view(), 1).unwrap();
    assert!(found.distance.iter().all(|&d| d == 0.0));
    assert!(found.index.iter().zip(0..).all(|(&i, want)| i == want));
}

/// With a pair's own distance as the limit, the bound must let the pair pass.
#[test]
fn bounds_are_never_above_distances() {
    for isa in Isa::all() {
        for kind in 0..9 {
            for (d, k) in [(24, 7), (64, 15), (100, 63), (3, 0)] {
                let (bank, query) = (rows(kind, 640, d, 1), rows(kind, BLOCK, d, 2));
                let (bank, query) = (bank.as_slice().unwrap(), query.as_slice().unwrap());
                let prefix = Prefix::forced(isa, bank, d, k);
                let Some(mapped) = prefix.map_all(isa, View::F32(bank)) else {
                    assert_eq!(kind, 5);
                    continue;
                };
                // Queries like the rows, and rows themselves.
                for queries in [query, &bank[..BLOCK * d]] {
                    let depth = prefix.depth();
                    let mut block = vec![0f32; depth * BLOCK];
                    let half = prefix.map(isa, queries.chunks(d), &mut Work::default(), &mut block).unwrap();
                    let start: Vec<f32> = mapped.half_norm.iter().map(|h| -h).collect();
                    let mut out = vec![0f32; BLOCK * start.len()];
                    products(isa, depth, &block, mapped.panels.as_slice(), &start, &mut out);
                    for (i, q) in queries.chunks(d).enumerate() {
                        for (j, row) in bank.chunks(d).enumerate() {
                            let (got, squared) = (out[i * start.len() + j], squared(isa, q, row));
                            let least = prefix.threshold(half[i], squared);
                            assert!(got >= least, "{isa:?} {kind} {d} {k}: {got} {least} {squared}");
                        }
                    }
                }
            }
        }
    }
}

/// A basis that has nothing to do with the rows must cost time only.
#[test]
fn a_poor_plan_changes_nothing() {
    let isa = Isa::best();
    let mut bank = rows(6, 2100, 48, 1);
    // The rows looked at for planning lie elsewhere.
    for i in 0..2048 {
        bank.row_mut(i * 2100 / 2048).fill(1e-3 * (i % 5) as f32);
    }
    check(isa, &bank, &rows(6, 40, 48, 2), 4);
}

#[test]
fn far_queries_and_near_rows() {
    // Queries much larger than the bank: bounds lose their accuracy, not their truth.
    for scale in [1e3f32, 1e8, 1e17, 1e30] {
        let query = rows(0, 25, 20, 4).mapv(|v| v * scale);
        check(Isa::best(), &rows(6, 700, 20, 3), &query, 3);
    }
}

#[test]
fn depth_follows_the_rows() {
    let (smooth, noise) = (rows(6, 4000, 96, 1), rows(0, 4000, 96, 1));
    let depth = |r: &Array2<f32>| Prefix::plan(Isa::best(), View::F32(r.as_slice().unwrap()), 96, 4000).depth();
    assert_eq!(depth(&smooth), 8);
    assert_eq!(depth(&noise), 96);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn equals_brute_force(kind in 0usize..9, n in 1usize..1300, d in 1usize..70, m in 1usize..60, k in 1usize..40, seed: u64) {
        check(Isa::best(), &rows(kind, n, d, seed), &rows(kind, m, d, seed ^ 1), k);
    }

    #[test]
    fn fewer_bits_equal_brute_force(
        kind in 0usize..9, f16: bool, n in 1usize..1300, d in 1usize..90, m in 1usize..40, k in 1usize..40, seed: u64,
    ) {
        let storage = if f16 { Storage::F16 } else { Storage::Int8 };
        let bank = rows(kind, n, d, seed);
        prop_assume!(!f16 || bank.iter().all(|v| v.abs() < 65504.0));
        check_stored(Isa::best(), &bank, &rows(kind, m, d, seed ^ 1), k, storage);
    }

    #[test]
    fn pairwise_equals_one_by_one(kind in 0usize..9, n in 0usize..40, m in 0usize..40, d in 1usize..40, seed: u64) {
        let (a, b) = (rows(kind, m, d, seed), rows(kind, n, d, seed ^ 1));
        let all = pairwise_squared(a.view(), b.view()).unwrap();
        for ((i, j), v) in all.indexed_iter() {
            let want = squared(Isa::best(), a.row(i).as_slice().unwrap(), b.row(j).as_slice().unwrap());
            prop_assert_eq!(v.to_bits(), want.to_bits());
        }
    }
}
