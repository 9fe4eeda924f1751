//! Splits a product into blocks of a fixed size and hands each to the `gemm` crate.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::{Mat, Sum};
use crate::Par;

/// Work of one task, in multiply-adds; large enough to hide the packing, small enough to share.
const TASK: usize = 1 << 21;
/// Rows and columns of a block are multiples of this, so that no register tile is cut.
const STEP: usize = 96;

/// A pointer to the output; the tasks write disjoint blocks.
#[derive(Clone, Copy)]
struct Out(*mut f32);
// SAFETY: only `matmul` makes one, from an exclusive slice that outlives its tasks, and no two tasks write one element.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// A method, so that closures capture the wrapper and not the bare pointer.
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Sizes were checked by the caller; `k` is not zero.
pub(super) fn matmul(a: Mat<'_>, b: Mat<'_>, out: &mut [f32], sum: Sum, par: Par) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    // The split depends on the sizes alone, so that the bits do not depend on the threads.
    let pieces = (m * n / 1024 * k / (TASK / 1024)).clamp(1, 16);
    let (block_m, block_n) = if m >= n {
        (m.div_ceil(pieces).next_multiple_of(STEP).min(m), n)
    } else {
        (m, n.div_ceil(pieces).next_multiple_of(STEP).min(n))
    };
    let (rows, cols) = (m.div_ceil(block_m), n.div_ceil(block_n));
    let out = Out(out.as_mut_ptr());
    let task = |i: usize| {
        let (y, x) = (i / cols * block_m, i % cols * block_n);
        let (h, w) = (block_m.min(m - y), block_n.min(n - x));
        let left = a.data[y * a.row_stride..].as_ptr();
        let right = b.data[x * b.col_stride..].as_ptr();
        // SAFETY: `Mat` guarantees that every element of `a` and `b` lies in its slice, and the block lies inside both;
        // `out` holds m * n values, the block is inside it, and no other task writes it.
        unsafe {
            gemm::gemm(
                h,
                w,
                k,
                out.at(y * n + x),
                1,
                n as isize,
                sum == Sum::Add,
                left,
                a.col_stride as isize,
                a.row_stride as isize,
                right,
                b.col_stride as isize,
                b.row_stride as isize,
                1.0f32,
                1.0f32,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    };
    match par {
        Par::Rayon if rows * cols > 1 => (0..rows * cols).into_par_iter().for_each(task),
        _ => (0..rows * cols).for_each(task),
    }
}
