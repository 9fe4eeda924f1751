#![allow(unsafe_code)]
//! Products of a block of 12 rows with panels of 32 rows: the inner loop of every bound.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::cpu_isa::{Isa, Level};

/// Rows of a panel, one for each lane; a panel is `[depth, LANES]`.
pub(crate) const LANES: usize = 32;
/// Rows of a block, read one number at a time; a block is `[depth, BLOCK]`.
pub(crate) const BLOCK: usize = 12;

/// 64 bytes that begin a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

// SAFETY: sixteen floats without padding; any bit pattern is valid.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// A zeroed buffer of floats that begins at a cache line, so that no vector load crosses one.
pub(crate) struct Aligned(Vec<Line>, usize);

impl Aligned {
    pub(crate) fn zeros(len: usize) -> Self {
        Aligned(vec![Line([0.0; 16]); len.div_ceil(16)], len)
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[..self.1]
    }
}

/// Lanes of a panel that reached the threshold of one row of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Row of the block.
    pub(crate) row: u32,
    /// Panel, counted from the first one given.
    pub(crate) panel: u32,
    /// Bit `l` for lane `l`.
    pub(crate) lanes: u32,
}

/// Finds all lanes where `start[panel, lane] + block[row] . panel[lane] >= threshold[row]`; panels in order.
///
/// `block` is `[depth, BLOCK]`, `panels` `[p, depth, LANES]`, `start` `[p, LANES]`.
pub(crate) fn sieve(
    isa: Isa,
    depth: usize,
    block: &[f32],
    threshold: &[f32; BLOCK],
    panels: &[f32],
    start: &[f32],
    hits: &mut Vec<Hit>,
) {
    let p = start.len() / LANES;
    assert!(block.len() >= depth * BLOCK && panels.len() >= p * depth * LANES, "sieve operands");
    match isa.level() {
        Level::Portable => {
            for panel in 0..p {
                let acc = portable(depth, block, &panels[panel * depth * LANES..], &start[panel * LANES..]);
                for (row, acc) in acc.iter().enumerate() {
                    let mut lanes = 0;
                    for (l, v) in acc.iter().enumerate() {
                        lanes |= u32::from(*v >= threshold[row]) << l;
                    }
                    if lanes != 0 {
                        hits.push(Hit { row: row as u32, panel: panel as u32, lanes });
                    }
                }
            }
        }
        // SAFETY: the instructions are there and the lengths were checked.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2_sieve(depth, block, threshold, panels, start, hits) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512_sieve(depth, block, threshold, panels, start, hits) },
    }
}

/// Writes `start[panel, lane] + block[row] . panel[lane]` to `out[row, panel, lane]`, `[BLOCK, p, LANES]`.
pub(crate) fn products(isa: Isa, depth: usize, block: &[f32], panels: &[f32], start: &[f32], out: &mut [f32]) {
    let p = start.len() / LANES;
    assert!(block.len() >= depth * BLOCK && panels.len() >= p * depth * LANES, "product operands");
    assert!(out.len() >= BLOCK * p * LANES, "product output");
    match isa.level() {
        Level::Portable => {
            for panel in 0..p {
                let acc = portable(depth, block, &panels[panel * depth * LANES..], &start[panel * LANES..]);
                for (row, acc) in acc.iter().enumerate() {
                    out[(row * p + panel) * LANES..][..LANES].copy_from_slice(acc);
                }
            }
        }
        // SAFETY: the instructions are there and the lengths were checked.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2_products(depth, block, panels, start, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512_products(depth, block, panels, start, out) },
    }
}

fn portable(depth: usize, block: &[f32], panel: &[f32], start: &[f32]) -> [[f32; LANES]; BLOCK] {
    let mut acc = [[0f32; LANES]; BLOCK];
    for acc in &mut acc {
        acc.copy_from_slice(&start[..LANES]);
    }
    for (block, panel) in block.chunks_exact(BLOCK).zip(panel.chunks_exact(LANES)).take(depth) {
        for (acc, b) in acc.iter_mut().zip(block) {
            for (acc, p) in acc.iter_mut().zip(panel) {
                *acc += b * p;
            }
        }
    }
    acc
}

#[cfg(target_arch = "x86_64")]
type Wide = [[__m512; 2]; BLOCK];

/// # Safety
/// `block`, `panel` and `start` hold `depth * BLOCK`, `depth * LANES` and `LANES` floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn avx512_tile(depth: usize, block: *const f32, panel: *const f32, start: *const f32) -> Wide {
    // SAFETY: by the contract above, all offsets lie inside.
    unsafe {
        let mut acc = [[_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(16))]; BLOCK];
        for k in 0..depth {
            let (low, high) = (_mm512_loadu_ps(panel.add(k * LANES)), _mm512_loadu_ps(panel.add(k * LANES + 16)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let b = _mm512_set1_ps(*block.add(k * BLOCK + i));
                acc[0] = _mm512_fmadd_ps(b, low, acc[0]);
                acc[1] = _mm512_fmadd_ps(b, high, acc[1]);
            }
        }
        acc
    }
}

/// # Safety
/// Lengths as [`sieve`] checks them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_sieve(
    depth: usize,
    block: &[f32],
    threshold: &[f32; BLOCK],
    panels: &[f32],
    start: &[f32],
    hits: &mut Vec<Hit>,
) {
    for p in 0..start.len() / LANES {
        // SAFETY: panel p lies inside `panels` and `start`, as checked by the caller.
        let acc = unsafe {
            avx512_tile(depth, block.as_ptr(), panels.as_ptr().add(p * depth * LANES), start.as_ptr().add(p * LANES))
        };
        let mut lanes = [0u32; BLOCK];
        let mut any = 0;
        for i in 0..BLOCK {
            let t = _mm512_set1_ps(threshold[i]);
            let low = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(acc[i][0], t);
            let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(acc[i][1], t);
            lanes[i] = u32::from(low) | u32::from(high) << 16;
            any |= lanes[i];
        }
        if any != 0 {
            for (row, &lanes) in lanes.iter().enumerate() {
                if lanes != 0 {
                    hits.push(Hit { row: row as u32, panel: p as u32, lanes });
                }
            }
        }
    }
}

/// # Safety
/// Lengths as [`products`] checks them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_products(depth: usize, block: &[f32], panels: &[f32], start: &[f32], out: &mut [f32]) {
    let count = start.len() / LANES;
    for p in 0..count {
        // SAFETY: panel p lies inside all operands, as checked by the caller.
        unsafe {
            let (panel, start) = (panels.as_ptr().add(p * depth * LANES), start.as_ptr().add(p * LANES));
            let acc = avx512_tile(depth, block.as_ptr(), panel, start);
            for (i, acc) in acc.iter().enumerate() {
                let to = out.as_mut_ptr().add((i * count + p) * LANES);
                _mm512_storeu_ps(to, acc[0]);
                _mm512_storeu_ps(to.add(16), acc[1]);
            }
        }
    }
}

/// Rows of a block that fit the 16 registers together with a whole panel.
#[cfg(target_arch = "x86_64")]
const SMALL: usize = 3;

/// Rows `first..first + SMALL` of the block.
///
/// # Safety
/// As [`avx512_tile`], and `first + SMALL <= BLOCK`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn avx2_tile(
    depth: usize,
    block: *const f32,
    first: usize,
    panel: *const f32,
    start: *const f32,
) -> [[__m256; 4]; SMALL] {
    // SAFETY: by the contract above, all offsets lie inside.
    unsafe {
        let load = |p: *const f32, q: usize| _mm256_loadu_ps(p.add(8 * q));
        let mut acc = [[load(start, 0), load(start, 1), load(start, 2), load(start, 3)]; SMALL];
        for k in 0..depth {
            let at = block.add(k * BLOCK + first);
            let b = [_mm256_set1_ps(*at), _mm256_set1_ps(*at.add(1)), _mm256_set1_ps(*at.add(2))];
            for q in 0..4 {
                let p = load(panel.add(k * LANES), q);
                for i in 0..SMALL {
                    acc[i][q] = _mm256_fmadd_ps(b[i], p, acc[i][q]);
                }
            }
        }
        acc
    }
}

/// # Safety
/// Lengths as [`sieve`] checks them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_sieve(
    depth: usize,
    block: &[f32],
    threshold: &[f32; BLOCK],
    panels: &[f32],
    start: &[f32],
    hits: &mut Vec<Hit>,
) {
    for p in 0..start.len() / LANES {
        for first in (0..BLOCK).step_by(SMALL) {
            // SAFETY: panel p lies inside `panels` and `start`; BLOCK is a multiple of SMALL.
            let acc = unsafe {
                let (panel, start) = (panels.as_ptr().add(p * depth * LANES), start.as_ptr().add(p * LANES));
                avx2_tile(depth, block.as_ptr(), first, panel, start)
            };
            for (i, acc) in acc.iter().enumerate() {
                let t = _mm256_set1_ps(threshold[first + i]);
                let mut lanes = 0;
                for (q, acc) in acc.iter().enumerate() {
                    let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(*acc, t)) as u32;
                    lanes |= mask << (8 * q);
                }
                if lanes != 0 {
                    hits.push(Hit { row: (first + i) as u32, panel: p as u32, lanes });
                }
            }
        }
    }
}

/// # Safety
/// Lengths as [`products`] checks them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_products(depth: usize, block: &[f32], panels: &[f32], start: &[f32], out: &mut [f32]) {
    let count = start.len() / LANES;
    for p in 0..count {
        for first in (0..BLOCK).step_by(SMALL) {
            // SAFETY: panel p lies inside all operands; BLOCK is a multiple of SMALL.
            unsafe {
                let (panel, start) = (panels.as_ptr().add(p * depth * LANES), start.as_ptr().add(p * LANES));
                let acc = avx2_tile(depth, block.as_ptr(), first, panel, start);
                for (i, acc) in acc.iter().enumerate() {
                    for (q, acc) in acc.iter().enumerate() {
                        _mm256_storeu_ps(out.as_mut_ptr().add(((first + i) * count + p) * LANES + 8 * q), *acc);
                    }
                }
            }
        }
    }
}
