#![allow(unsafe_code)]
use blemish_tensor::cuda::{Buffer, Cuda};
use ndarray::{Array2, ArrayView2};

use super::pairwise;
use crate::KernelError;
use crate::cuda::{CudaResult, NEAREST, NEAREST_80, NEAREST_90, THREADS, grid};
use crate::error::shape_error;
use crate::nearest::{Neighbors, finite};

pub(super) const OP: &str = "nearest search on a GPU";
/// Nearest rows a search can give, at most: one for each lane of a warp.
pub const MOST: usize = 32;
/// Banks below this size are scanned.
pub(super) const SMALL: usize = 512;
/// Rows a block bounds together, and the tile of the sieve.
pub(super) const BLOCK: usize = 64;
/// Rows of the bank in a tile of the sieve.
const TILE: usize = 256;
/// Queries of a tile, and shared bytes, of the sieve for Hopper.
const WIDE: (usize, usize) = (128, 196_608);
/// Shared bytes that the sieve may take, whatever its tile.
const SHARED: u32 = 98_304;
/// Shared bytes of `nearest_rerank`.
const RERANK: u32 = 6496;
/// Bytes of distances or bounds that a search holds at a time, at most: queries go in groups.
const WORK: usize = 256 << 20;

/// Rows `[n, d]` on a GPU and what makes searching them fast.
///
/// Beside the rows, 2 bytes a value: their fp16 forms, about a centre, with bounds on what that loses.
pub struct Bank {
    cuda: Cuda,
    rows: Buffer<f32>,
    n: usize,
    d: usize,
    sieve: Option<Sieve>,
}

/// The fp16 forms of the rows.
pub(super) struct Sieve {
    centre: Buffer<f32>,
    scale: f32,
    /// What the f32 distances themselves may lose where they are so small that squares vanish, scaled.
    floor: f32,
    half: Buffer<u16>,
    norm: Buffer<f32>,
    block: Buffer<f32>,
    k: usize,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bank([{}, {}] on {:?}, sieve {})", self.n, self.d, self.cuda, self.sieve.is_some())
    }
}

impl Bank {
    /// Copies `rows` `[n, d]` to the GPU and prepares them.
    ///
    /// # Errors
    /// [`KernelError::Shape`] without rows or columns, or with 2^31 rows or more; [`KernelError::NotFinite`]; the device's.
    pub fn new(cuda: &Cuda, rows: ArrayView2<'_, f32>) -> CudaResult<Self> {
        Bank::with_small(cuda, rows, SMALL)
    }

    /// As [`new`](Self::new), with a sieve from `small` rows on; the results are the same.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_small(cuda: &Cuda, rows: ArrayView2<'_, f32>, small: usize) -> CudaResult<Self> {
        let (n, d) = rows.dim();
        if n == 0 || d == 0 || n > i32::MAX as usize - TILE || d > 1 << 24 {
            return Err(shape_error(OP, "rows [n, d] with 1 <= n < 2^31 - 256 and 1 <= d <= 2^24", rows.shape()).into());
        }
        let rows = rows.as_standard_layout();
        let values = finite(OP, "the bank", &rows)?;
        let device = cuda.upload(values)?;
        let sieve = if tensor_cores(cuda) && n >= small { Sieve::new(cuda, values, &device, [n, d])? } else { None };
        Ok(Bank { cuda: cuda.clone(), rows: device, n, d, sieve })
    }

    /// Rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        (self.n, self.d)
    }

    /// The `k` nearest rows (at most `n`) of each row of `query` `[m, d]`; exact.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if the rows differ in length, [`KernelError::Parameter`] unless `k` is 1 to 32,
    /// [`KernelError::NotFinite`]; the device's.
    pub fn search(&self, query: ArrayView2<'_, f32>, k: usize) -> CudaResult<Neighbors> {
        let (m, d) = query.dim();
        if d != self.d {
            return Err(shape_error(OP, format!("queries [m, {}]", self.d), query.shape()).into());
        }
        let query = query.as_standard_layout();
        let values = finite(OP, "the query", &query)?;
        let (mut index, mut distance) = (Vec::with_capacity(m * k), Vec::with_capacity(m * k));
        for group in values.chunks(self.group() * d) {
            let device = self.cuda.upload(group)?;
            let found = self.search_device(&device, group.len() / d, k)?;
            index.extend(found.0.read()?);
            distance.extend(found.1.read()?);
        }
        let shape = (m, self.kept(k)?);
        let shaped = |e| shape_error(OP, "[m, k]", e);
        let index = Array2::from_shape_vec(shape, index).map_err(shaped)?;
        Ok(Neighbors { index, distance: Array2::from_shape_vec(shape, distance).map_err(shaped)? })
    }

    /// As [`search`](Self::search) for up to [`group`](Self::group) finite queries that are on the GPU; row numbers and
    /// distances `[m, k]` stay there.
    ///
    /// # Errors
    /// As [`search`](Self::search), but that values are not looked at.
    pub fn search_device(&self, query: &Buffer<f32>, m: usize, k: usize) -> CudaResult<(Buffer<u32>, Buffer<f32>)> {
        let kept = self.kept(k)?;
        if m > self.group() || m.checked_mul(self.d) != Some(query.len()) {
            let wanted = format!("queries [m <= {}, {}]", self.group(), self.d);
            return Err(shape_error(OP, wanted, (m, query.len())).into());
        }
        let part = Part { cuda: &self.cuda, rows: &self.rows, n: self.n, d: self.d, sieve: self.sieve.as_ref() };
        part.search(query, m, kept)
    }

    /// Bytes that a bank of `rows` `[n, d]` takes on a GPU, about.
    pub fn bytes(n: usize, d: usize) -> usize {
        n.saturating_mul(4 * d + 2 * d.next_multiple_of(32) + 8)
    }

    /// The most queries of one [`search_device`](Self::search_device).
    pub fn group(&self) -> usize {
        let each = if self.sieve.is_some() { 8 * self.n.div_ceil(BLOCK) } else { 4 * self.n };
        (WORK.min(self.cuda.memory_budget() / 8) / each).clamp(1, 1 << 15)
    }

    fn kept(&self, k: usize) -> Result<usize, KernelError> {
        if k == 0 || k > MOST {
            return Err(KernelError::Parameter { op: OP, what: format!("k = {k}; 1 to {MOST} are possible") });
        }
        Ok(k.min(self.n))
    }
}

/// Whether the sieve runs on this GPU.
pub(super) fn tensor_cores(cuda: &Cuda) -> bool {
    cuda.info().capability >= (8, 0) && cuda.info().shared_memory >= SHARED
}

/// A bank, or a part of one, in whatever buffer: the first `n` rows of `rows`.
pub(super) struct Part<'a> {
    pub(super) cuda: &'a Cuda,
    pub(super) rows: &'a Buffer<f32>,
    pub(super) n: usize,
    pub(super) d: usize,
    pub(super) sieve: Option<&'a Sieve>,
}

impl Part<'_> {
    /// Row numbers and distances `[m, kept]`; `query` has m d values, `kept` is at most `n` and [`MOST`].
    pub(super) fn search(&self, query: &Buffer<f32>, m: usize, kept: usize) -> CudaResult<Found> {
        let (index, distance) = (self.cuda.scratch(m * kept)?, self.cuda.scratch(m * kept)?);
        if m == 0 {
            return Ok((index, distance));
        }
        match self.sieve {
            Some(sieve) => sieve.search(self, query, m, kept, (index, distance)),
            None => self.scan(query, m, kept, (index, distance)),
        }
    }

    fn scan(&self, query: &Buffer<f32>, m: usize, kept: usize, mut found: Found) -> CudaResult<Found> {
        let (cuda, n) = (self.cuda, self.n);
        let mut all = cuda.scratch::<f32>(m.saturating_mul(n))?;
        pairwise::into(cuda, query, self.rows, [m, n, self.d], &mut all)?;
        let launch = cuda.launch(NEAREST, "nearest_select")?.input(&all).output(&mut found.0).output(&mut found.1);
        let launch = launch.int(m).int(n).int(kept);
        // SAFETY: m n distances in, m kept results out, kept <= min(32, n).
        unsafe { launch.run((grid(m, 8), 1), THREADS, 0) }?;
        Ok(found)
    }
}

type Found = (Buffer<u32>, Buffer<f32>);

impl Sieve {
    /// `None` if the rows are too large or too small for fp16 at any scale.
    pub(super) fn new(cuda: &Cuda, values: &[f32], rows: &Buffer<f32>, [n, d]: [usize; 2]) -> CudaResult<Option<Self>> {
        let mut sum = vec![0f64; d];
        for row in values.chunks_exact(d) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        }
        let centre: Vec<f32> = sum.iter().map(|s| (s / n as f64) as f32).collect();
        let largest = values.chunks_exact(d).flat_map(|row| row.iter().zip(&centre).map(|(v, c)| (v - c).abs()));
        let largest = largest.fold(0f32, f32::max);
        // A power of two that takes the largest coordinate to 2^10: queries may lie a good deal farther out.
        let power = 10.0 - f64::from(largest.max(1e-20)).log2().ceil();
        if !(-60.0..=60.0).contains(&power) {
            return Ok(None);
        }
        let scale = power.exp2() as f32;
        let floor = scale * 1e-20 * (d as f32).sqrt();
        let (k, blocks) = (d.next_multiple_of(32), n.div_ceil(BLOCK));
        let mut sieve = Sieve {
            centre: cuda.upload(&centre)?,
            scale,
            floor,
            half: cuda.scratch(n.saturating_mul(k))?,
            norm: cuda.scratch(n)?,
            block: cuda.zeros(2 * blocks)?,
            k,
        };
        let mut loss = cuda.scratch::<f32>(n)?;
        let launch = cuda.launch(NEAREST_80, "nearest_quantize")?.input(rows).input(&sieve.centre);
        let launch = launch.output(&mut sieve.half).output(&mut sieve.norm).output(&mut loss).output(&mut sieve.block);
        let launch = launch.float(scale).float(floor).int(n).int(d).int(k);
        // SAFETY: n d rows and d of the centre in; n k, n, n and 2 ceil(n / 64) values out.
        unsafe { launch.run((grid(n, 8), 1), THREADS, 0) }?;
        Ok(Some(sieve))
    }

    fn search(
        &self,
        bank: &Part<'_>,
        query: &Buffer<f32>,
        m: usize,
        kept: usize,
        mut found: Found,
    ) -> CudaResult<Found> {
        let (cuda, n, d, k) = (bank.cuda, bank.n, bank.d, self.k);
        let (mut half, mut norm, mut loss) =
            (cuda.scratch::<u16>(m * k)?, cuda.scratch::<f32>(m)?, cuda.scratch::<f32>(m)?);
        let launch = cuda.launch(NEAREST_80, "nearest_quantize")?.input(query).input(&self.centre);
        let launch = launch.output(&mut half).output(&mut norm).output(&mut loss).null();
        let launch = launch.float(self.scale).float(self.floor).int(m).int(d).int(k);
        // SAFETY: m d queries and d of the centre in; m k, m and m values out.
        unsafe { launch.run((grid(m, 8), 1), THREADS, 0) }?;
        let mut values = cuda.scratch::<f32>(2 * n.div_ceil(BLOCK) * m)?;
        self.products(cuda, &half, &mut values, m, n)?;
        let launch = cuda.launch(NEAREST_80, "nearest_rerank")?.input(query).input(bank.rows).input(&norm).input(&loss);
        let launch = launch.input(&self.block).input(&values).output(&mut found.0).output(&mut found.1);
        // Fewer queries for each block of threads where there would be too few blocks for the chip.
        let enough = 2 * cuda.info().multiprocessors as usize;
        let per = [8, 4, 2].into_iter().find(|per| m.div_ceil(*per) >= enough).unwrap_or(1);
        let launch = launch.float(self.scale).int(m).int(n).int(d).int(k).int(kept).int(per);
        // SAFETY: the sizes are those above; m kept results out, kept <= min(32, n); per is a power of two up to 8.
        unsafe { launch.run((grid(m, per), 1), THREADS, RERANK) }?;
        Ok(found)
    }

    /// The two smallest bounds of each query and block of the bank.
    fn products(
        &self,
        cuda: &Cuda,
        half: &Buffer<u16>,
        values: &mut Buffer<f32>,
        m: usize,
        n: usize,
    ) -> CudaResult<()> {
        let ([used], [rows], [stages]) = (
            cuda.parameter(NEAREST_80, "NEAREST_WIDE")?,
            cuda.parameter(NEAREST_80, "NEAREST_ROWS")?,
            cuda.parameter(NEAREST_80, "NEAREST_STAGES")?,
        );
        let can = cuda.info().capability == (9, 0) && cuda.info().shared_memory as usize >= WIDE.1;
        let (module, rows, shared) = if used == 1 && can {
            (NEAREST_90, WIDE.0, WIDE.1)
        } else {
            (NEAREST_80, rows, stages * (rows + TILE) * 64)
        };
        let launch = cuda.launch(module, "nearest_sieve")?;
        let launch = launch.input(half).input(&self.half).input(&self.norm).output(values).int(m).int(n).int(self.k);
        // SAFETY: m k and n k halves in rows of a multiple of 32, from allocations aligned to 256 bytes; 2 ceil(n / 64) m
        // values out.
        unsafe { launch.run((grid(m, rows).saturating_mul(grid(n, TILE)), 1), THREADS, shared as u32) }?;
        Ok(())
    }
}
