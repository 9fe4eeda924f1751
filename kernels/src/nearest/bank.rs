use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use rayon::prelude::*;

use super::cpu_compact::{squared_below_of, squared_rows_of};
use super::cpu_isa::Isa;
use super::cpu_tile::{BLOCK, Hit, LANES, products, sieve};
use super::finite;
use super::prefix::{Mapped, Prefix, Work, strided};
use super::rows::{Rows, Storage, View};
use super::top::{Found, Top};
use crate::error::shape_error;
use crate::{KernelError, Result};

/// Banks below this size are scanned row by row.
const SMALL: usize = 512;
/// Blocks of queries that go over a strip of the bank together.
const BLOCKS: usize = 4;
/// Floats of a strip's panels: half of a usual second-level cache.
const STRIP: usize = 1 << 16;

/// The nearest rows of each query.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// Row numbers `[m, k]`, nearest first.
    pub index: Array2<u32>,
    /// Euclidean distances `[m, k]`, ascending; of equal ones the lower index comes first.
    pub distance: Array2<f32>,
}

/// Rows `[n, d]` and what makes searching them fast.
///
/// The tables take `n (k + 1)` floats beside the rows, with `k` of 7 to 63 chosen by estimated cost.
pub struct Bank {
    rows: Rows,
    n: usize,
    d: usize,
    isa: Isa,
    index: Option<(Prefix, Mapped, Vec<f32>)>,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let depth = self.index.as_ref().map(|(p, ..)| p.depth());
        write!(f, "Bank([{}, {}] in {:?}, depth {depth:?})", self.n, self.d, self.rows.storage())
    }
}

impl Bank {
    /// Prepares `rows` `[n, d]`, kept as they are.
    ///
    /// # Errors
    /// [`KernelError::Shape`] without rows or columns, or with more rows than a `u32` counts; [`KernelError::NotFinite`].
    pub fn new(rows: Array2<f32>) -> Result<Self> {
        Bank::rounded(rows, Storage::F32)
    }

    /// Prepares `rows` `[n, d]`, rounded to `storage`.
    ///
    /// # Errors
    /// As [`Bank::new`] and [`Rows::round`].
    pub fn rounded(rows: Array2<f32>, storage: Storage) -> Result<Self> {
        let d = rows.ncols();
        Bank::with_isa(Rows::round(rows, storage)?, d, Isa::best())
    }

    /// Prepares rows of `d` numbers that are stored already; they are not copied.
    ///
    /// # Errors
    /// As [`Bank::new`]; [`KernelError::Shape`] too if they do not fill rows of `d`.
    pub fn stored(rows: Rows, d: usize) -> Result<Self> {
        Bank::with_isa(rows, d, Isa::best())
    }

    pub(super) fn with_isa(rows: Rows, d: usize, isa: Isa) -> Result<Self> {
        let n = rows.check(d)?;
        let index = if n < SMALL {
            None
        } else {
            let prefix = Prefix::plan(isa, rows.view(), d, n);
            let mapped = prefix.map_all(isa, rows.view());
            mapped.map(|mapped| {
                let start = mapped.half_norm.iter().map(|h| -h).collect();
                (prefix, mapped, start)
            })
        };
        Ok(Bank { rows, n, d, isa, index })
    }

    /// The values of the rows `[n, d]`: where they are, or decoded.
    pub fn rows(&self) -> CowArray<'_, f32, Ix2> {
        let shape = (self.n, self.d);
        let view = match self.rows.view() {
            View::F32(values) => ArrayView2::from_shape(shape, values).map(CowArray::from),
            _ => Array2::from_shape_vec(shape, self.rows.decode(self.d, 0..self.n)).map(CowArray::from),
        };
        // The shape was checked when the bank was made.
        view.unwrap_or_else(|_| CowArray::from(Array2::zeros((0, self.d))))
    }

    /// The values of some rows, `[len, d]`; rows that are not there are left out.
    pub fn select(&self, rows: &[usize]) -> Array2<f32> {
        let (mut values, mut buffer) = (Vec::with_capacity(rows.len() * self.d), Vec::new());
        for &i in rows.iter().filter(|&&i| i < self.n) {
            values.extend_from_slice(self.rows.view().span(self.d, i..i + 1, &mut buffer));
        }
        let shape = (values.len() / self.d, self.d);
        Array2::from_shape_vec(shape, values).unwrap_or_else(|_| Array2::zeros((0, self.d)))
    }

    /// Number of rows and of their coordinates.
    pub fn dim(&self) -> (usize, usize) {
        (self.n, self.d)
    }

    /// The rows as they are kept.
    pub fn as_stored(&self) -> &Rows {
        &self.rows
    }

    /// Bytes of the rows and of the tables beside them.
    pub fn bytes(&self) -> usize {
        let tables = self.index.as_ref().map_or(0, |(p, m, _)| 4 * m.half_norm.len() * (p.depth() + 2));
        self.rows.bytes() + tables
    }

    /// The `k` nearest rows (at most `n`) of each row of `query` `[m, d]`; exact.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if the rows differ in length, [`KernelError::Parameter`] for `k = 0`,
    /// [`KernelError::NotFinite`].
    pub fn search(&self, query: ArrayView2<'_, f32>, k: usize) -> Result<Neighbors> {
        const OP: &str = "nearest search";
        let (n, d) = self.dim();
        if query.ncols() != d {
            return Err(shape_error(OP, format!("queries [m, {d}]"), query.shape()));
        }
        if k == 0 {
            return Err(KernelError::Parameter { op: OP, what: "k = 0; at least 1".to_owned() });
        }
        let (m, k) = (query.nrows(), k.min(n));
        let query = query.as_standard_layout();
        let queries = finite(OP, "the query", &query)?;
        let rows = self.rows.view();
        let (mut index, mut distance) = (Array2::zeros((m, k)), Array2::zeros((m, k)));
        if let (Some(index), Some(distance)) = (index.as_slice_mut(), distance.as_slice_mut()) {
            let group = BLOCKS * BLOCK;
            index
                .par_chunks_mut(group * k)
                .zip(distance.par_chunks_mut(group * k))
                .zip(queries.par_chunks(group * d))
                .for_each(|((index, distance), queries)| {
                    let sieved = match &self.index {
                        // Keeping a large part of the bank in order costs more than a scan.
                        Some(tables) if k <= n / 8 => self.sieved(tables, rows, queries, k),
                        _ => None,
                    };
                    let tops = sieved.unwrap_or_else(|| self.scanned(rows, queries, k));
                    for (i, found) in tops.iter().flatten().enumerate() {
                        index[i] = found.row;
                        distance[i] = found.squared.sqrt();
                    }
                });
        }
        Ok(Neighbors { index, distance })
    }

    /// All distances, then a selection.
    fn scanned(&self, rows: View<'_>, queries: &[f32], k: usize) -> Vec<Vec<Found>> {
        let (n, d) = self.dim();
        let mut squared = vec![0f32; n];
        let order = |a: &Found, b: &Found| a.squared.total_cmp(&b.squared).then(a.row.cmp(&b.row));
        let mut best = |query: &[f32]| {
            squared_rows_of(self.isa, query, rows, &mut squared);
            let all = squared.iter().enumerate().map(|(i, &squared)| Found { squared, row: i as u32 });
            if k == 1 {
                return all.reduce(|a, b| if b.better(&a) { b } else { a }).into_iter().collect();
            }
            let mut all: Vec<Found> = all.collect();
            if k < n {
                all.select_nth_unstable_by(k - 1, order);
                all.truncate(k);
            }
            all.sort_unstable_by(order);
            all
        };
        queries.chunks_exact(d).map(&mut best).collect()
    }

    /// Bounds first; `None` if a query is too large for them.
    fn sieved(
        &self,
        (prefix, mapped, start): &(Prefix, Mapped, Vec<f32>),
        rows: View<'_>,
        queries: &[f32],
        k: usize,
    ) -> Option<Vec<Vec<Found>>> {
        let (d, depth) = (self.d, prefix.depth());
        let panels = mapped.panels.as_slice();
        let mut work = Work::default();
        let mut group = Vec::with_capacity(BLOCKS);
        for queries in queries.chunks(BLOCK * d) {
            let mut block = vec![0f32; depth * BLOCK];
            let half_norm = prefix.map(self.isa, queries.chunks_exact(d), &mut work, &mut block)?;
            let tops = (0..queries.len() / d).map(|_| Top::new(k)).collect();
            let mut task = Task { queries, block, half_norm, tops };
            self.seed(&mut task, rows, panels, start, k);
            group.push(task);
        }
        let strip = (STRIP / (depth * LANES)).max(1);
        let mut hits: Vec<Hit> = Vec::new();
        for (s, start) in start.chunks(strip * LANES).enumerate() {
            for task in &mut group {
                let mut threshold = [f32::INFINITY; BLOCK];
                for ((t, h), top) in threshold.iter_mut().zip(&task.half_norm).zip(&task.tops) {
                    *t = prefix.threshold(*h, top.limit());
                }
                hits.clear();
                let panels = &panels[s * strip * depth * LANES..];
                sieve(self.isa, depth, &task.block, &threshold, panels, start, &mut hits);
                for hit in &hits {
                    let mut lanes = hit.lanes;
                    while lanes != 0 {
                        let lane = lanes.trailing_zeros() as usize;
                        lanes &= lanes - 1;
                        let row = (s * strip + hit.panel as usize) * LANES + lane;
                        self.finish(task, rows, hit.row as usize, row);
                    }
                }
            }
        }
        Some(group.into_iter().flat_map(|task| task.tops).map(|top| top.found().to_vec()).collect())
    }

    /// Gives each query a first limit: the exact distances of the most promising rows of some panels.
    fn seed(&self, task: &mut Task<'_>, rows: View<'_>, panels: &[f32], start: &[f32], k: usize) {
        let (depth, count) = (task.block.len() / BLOCK, start.len() / LANES);
        let some = strided(count, (count / 12).clamp(2, 64).max(2 * k.div_ceil(LANES)));
        let mut product = vec![0f32; some.len() * BLOCK * LANES];
        for (&p, out) in some.iter().zip(product.chunks_exact_mut(BLOCK * LANES)) {
            let panel = &panels[p * depth * LANES..][..depth * LANES];
            products(self.isa, depth, &task.block, panel, &start[p * LANES..][..LANES], out);
        }
        let largest_first = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0);
        for q in 0..task.tops.len() {
            let lanes = |s: usize| &product[(s * BLOCK + q) * LANES..][..LANES];
            let at = |s: usize, l: usize| some[s] * LANES + l;
            // One row from each panel if that is enough of them.
            let mut chosen: Vec<(f32, usize)> = if k <= some.len() {
                let best = |s: usize| {
                    let most = lanes(s).iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
                    (most, s)
                };
                (0..some.len()).map(best).collect()
            } else {
                (0..some.len()).flat_map(|s| lanes(s).iter().enumerate().map(move |(l, v)| (*v, at(s, l)))).collect()
            };
            if k < chosen.len() {
                chosen.select_nth_unstable_by(k - 1, largest_first);
                chosen.truncate(k);
            }
            for (value, place) in chosen {
                let row = if k > some.len() {
                    Some(place)
                } else {
                    lanes(place).iter().position(|v| *v == value).map(|l| at(place, l))
                };
                if let Some(row) = row {
                    self.finish(task, rows, q, row);
                }
            }
        }
    }

    /// The exact distance of one row that a bound left, or chose.
    fn finish(&self, task: &mut Task<'_>, rows: View<'_>, q: usize, row: usize) {
        let (n, d) = self.dim();
        let Some(top) = task.tops.get_mut(q).filter(|_| row < n) else { return };
        let limit = top.limit();
        let squared = squared_below_of(self.isa, &task.queries[q * d..][..d], rows.row(d, row), limit);
        if squared <= limit {
            top.offer(Found { squared, row: row as u32 });
        }
    }
}

/// A block of queries and what was found for them.
struct Task<'a> {
    queries: &'a [f32],
    block: Vec<f32>,
    half_norm: [f32; BLOCK],
    tops: Vec<Top>,
}
