//! Working memory of a linear flow on a GPU: activations in rows.

use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_tensor::cuda::{Buffer, Cuda};

use crate::train::panels::Sizes;

/// A matrix `[rows, width]` on a GPU, its rows 16 bytes aligned.
#[derive(Debug)]
pub(super) struct Rows {
    buffer: Buffer<f32>,
    pitch: usize,
}

impl Rows {
    pub(super) fn new(cuda: &Cuda, rows: usize, width: usize) -> CudaResult<Rows> {
        let pitch = width.max(1).next_multiple_of(4);
        Ok(Rows { buffer: cuda.scratch(rows.saturating_mul(pitch))?, pitch })
    }

    pub(super) fn half(&self) -> Half<'_> {
        Half { buffer: &self.buffer, pitch: self.pitch }
    }

    pub(super) fn half_mut(&mut self) -> HalfMut<'_> {
        HalfMut { buffer: &mut self.buffer, pitch: self.pitch }
    }
}

/// The two halves of a block's channels.
#[derive(Debug)]
pub(super) struct Pair([Rows; 2]);

impl Pair {
    pub(super) fn new(cuda: &Cuda, rows: usize, sizes: Sizes) -> CudaResult<Pair> {
        Ok(Pair([Rows::new(cuda, rows, sizes.first())?, Rows::new(cuda, rows, sizes.second())?]))
    }

    pub(super) fn halves(&self) -> [Half<'_>; 2] {
        self.0.each_ref().map(Rows::half)
    }

    pub(super) fn halves_mut(&mut self) -> [HalfMut<'_>; 2] {
        self.0.each_mut().map(Rows::half_mut)
    }
}

/// What a block keeps for the way back.
#[derive(Debug)]
pub(super) struct Slot {
    /// The block's input.
    pub(super) x: Pair,
    /// The subnet's hidden layer.
    pub(super) hidden: Rows,
    /// Log-scales.
    pub(super) s: Buffer<f32>,
}

/// Activations of at most `rows` samples. With a slot for each block, every one keeps its own; one is enough to go forward only.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) rows: usize,
    pub(super) slots: Vec<Slot>,
    /// The output of the block that is last in a slot.
    pub(super) z: Pair,
    /// The conditions.
    pub(super) condition: Rows,
    /// The subnet's output, later its gradient.
    pub(super) a: Rows,
    /// Of each row.
    pub(super) log_det: Buffer<f32>,
    pub(super) value: Buffer<f32>,
}

impl Room {
    pub(super) fn new(cuda: &Cuda, rows: usize, slots: usize, sizes: Sizes) -> CudaResult<Room> {
        let slot = |_| -> CudaResult<Slot> {
            Ok(Slot {
                x: Pair::new(cuda, rows, sizes)?,
                hidden: Rows::new(cuda, rows, sizes.hidden)?,
                s: cuda.scratch(rows.saturating_mul(sizes.second()))?,
            })
        };
        Ok(Room {
            rows,
            slots: (0..slots).map(slot).collect::<CudaResult<_>>()?,
            z: Pair::new(cuda, rows, sizes)?,
            condition: Rows::new(cuda, rows, sizes.condition)?,
            a: Rows::new(cuda, rows, 2 * sizes.second())?,
            log_det: cuda.scratch(rows)?,
            value: cuda.scratch(rows)?,
        })
    }
}
