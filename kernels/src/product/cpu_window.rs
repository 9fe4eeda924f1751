//! Register tiles of six input channels and up to four vectors of output channels.
#![allow(unsafe_code)]

use super::cpu_panel::across_rows;
use super::cpu_target::tile_rows;
use super::window::Window;
use crate::gemm::{Isa, Kernel, Vector, dispatch};

/// The part of the sum for one tap and input channels from `first` on: `[channels, outputs]`.
pub(super) struct Task<'a> {
    pub(super) window: Window,
    pub(super) tap: (usize, usize),
    pub(super) first: usize,
    pub(super) sum: &'a mut [f32],
}

/// Floats of a band of rows that stay in the second-level cache, input and gradient together.
const NEAR: usize = 64 * 1024;

/// The lengths were checked by the caller; `outputs` is a multiple of 16.
pub(super) fn run(isa: Isa, task: Task<'_>, x: &[f32], g: &[f32]) {
    let Window { height, width, inputs, outputs, kernel } = task.window;
    assert!(x.len() == height * width * inputs && g.len() == height * width * outputs && outputs.is_multiple_of(16));
    assert!(task.first + task.sum.len() / outputs <= inputs && task.tap.0 < kernel && task.tap.1 < kernel);
    // SAFETY: the instructions are there; rows, columns and channels stay inside the sizes checked above.
    unsafe { dispatch(isa, Job { task, x: x.as_ptr(), g: g.as_ptr() }) }
}

struct Job<'a> {
    task: Task<'a>,
    x: *const f32,
    g: *const f32,
}

/// Rows `y` of the output and columns `x`, whose inputs at a tap lie inside the image.
#[derive(Clone, Copy)]
struct Span {
    y: (usize, usize),
    x: (usize, usize),
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let Window { height, width, outputs, inputs, kernel } = self.task.window;
        let half = kernel / 2;
        let inside = |tap: usize, n: usize| (half.saturating_sub(tap), n.min((n + half).saturating_sub(tap)));
        let (rows, columns) = (inside(self.task.tap.0, height), inside(self.task.tap.1, width));
        if columns.0 >= columns.1 {
            return;
        }
        let band = (NEAR / (width * (inputs + outputs))).max(1);
        let channels = self.task.sum.len() / outputs;
        let mut y = rows.0;
        while y < rows.1 {
            let span = Span { y: (y, rows.1.min(y + band)), x: columns };
            let mut channel = 0;
            while channel < channels {
                let count = tile_rows(channels - channel, V::ROWS);
                let mut output = 0;
                while output < outputs {
                    let left = (outputs - output) / V::LANES;
                    let vectors = if left >= 4 && V::VECTORS == 4 { 4 } else { left.min(2) };
                    // SAFETY: channels and outputs are in range.
                    unsafe {
                        match (count, vectors) {
                            (6, 4) => self.tile::<V, 6, 4>(span, channel, output),
                            (4, 4) => self.tile::<V, 4, 4>(span, channel, output),
                            (2, 4) => self.tile::<V, 2, 4>(span, channel, output),
                            (_, 4) => self.tile::<V, 1, 4>(span, channel, output),
                            (6, 2) => self.tile::<V, 6, 2>(span, channel, output),
                            (4, 2) => self.tile::<V, 4, 2>(span, channel, output),
                            (2, 2) => self.tile::<V, 2, 2>(span, channel, output),
                            (_, 2) => self.tile::<V, 1, 2>(span, channel, output),
                            (6, _) => self.tile::<V, 6, 1>(span, channel, output),
                            (4, _) => self.tile::<V, 4, 1>(span, channel, output),
                            (2, _) => self.tile::<V, 2, 1>(span, channel, output),
                            (..) => self.tile::<V, 1, 1>(span, channel, output),
                        }
                    }
                    output += vectors * V::LANES;
                }
                channel += count;
            }
            y += band;
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&mut self, span: Span, channel: usize, output: usize) {
        let Window { width, inputs, outputs, kernel, .. } = self.task.window;
        let half = kernel / 2;
        // SAFETY: as for the caller; the input row and column of a tap are inside the image for all of `span`.
        unsafe {
            let to = self.task.sum.as_mut_ptr().add(channel * outputs + output);
            let mut sum: [[V; N]; R] =
                std::array::from_fn(|i| std::array::from_fn(|j| V::load(to.add(i * outputs + j * V::LANES))));
            for y in span.y.0..span.y.1 {
                let source = (y + self.task.tap.0 - half) * width + span.x.0 + self.task.tap.1 - half;
                let a = self.x.add(source * inputs + self.task.first + channel);
                let b = self.g.add((y * width + span.x.0) * outputs + output);
                sum = across_rows::<V, R, N>(sum, a, inputs, b, outputs, span.x.1 - span.x.0);
            }
            for (i, line) in sum.into_iter().enumerate() {
                for (j, v) in line.into_iter().enumerate() {
                    v.store(to.add(i * outputs + j * V::LANES));
                }
            }
        }
    }
}
