//! Matrices on a GPU whose rows need not follow each other at once.

use blemish_tensor::cuda::{Buffer, Launch};

use crate::KernelError;
use crate::error::shape_error;

/// A matrix `[rows, width]` whose rows begin `pitch` numbers apart.
#[derive(Clone, Copy, Debug)]
pub struct Half<'a> {
    /// `rows` times `pitch` numbers or more.
    pub buffer: &'a Buffer<f32>,
    /// From one row to the next, at least the width.
    pub pitch: usize,
}

/// A [`Half`] to be written.
#[derive(Debug)]
pub struct HalfMut<'a> {
    /// `rows` times `pitch` numbers or more.
    pub buffer: &'a mut Buffer<f32>,
    /// From one row to the next, at least the width; what lies between rows stays.
    pub pitch: usize,
}

impl HalfMut<'_> {
    pub(crate) fn check(&self, op: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        Half { buffer: self.buffer, pitch: self.pitch }.check(op, rows, width)
    }
}

impl Half<'_> {
    /// Whether there is room for `[rows, width]`, at least one row and one column.
    pub(crate) fn check(&self, op: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        let needed = rows.checked_mul(self.pitch).filter(|n| *n <= self.buffer.len() && *n <= i32::MAX as usize);
        if needed.is_some() && rows > 0 && width > 0 && width <= self.pitch {
            return Ok(());
        }
        let wanted = format!("[{rows}, {width}], none of them 0, below 2^31 numbers");
        Err(shape_error(op, wanted, format!("{} numbers at a pitch of {}", self.buffer.len(), self.pitch)))
    }
}

/// Matrices with their pitch, as kernels take them.
pub(crate) trait Halves<'a>: Sized {
    fn half(self, half: Half<'a>) -> Self;
    fn half_mut(self, half: HalfMut<'a>) -> Self;
    /// A matrix that may be missing.
    fn half_or_null(self, half: Option<Half<'a>>) -> Self;
}

impl<'a> Halves<'a> for Launch<'a> {
    fn half(self, half: Half<'a>) -> Self {
        self.input(half.buffer).int(half.pitch)
    }

    fn half_mut(self, half: HalfMut<'a>) -> Self {
        self.output(half.buffer).int(half.pitch)
    }

    fn half_or_null(self, half: Option<Half<'a>>) -> Self {
        match half {
            Some(half) => self.half(half),
            None => self.null().int(0),
        }
    }
}
