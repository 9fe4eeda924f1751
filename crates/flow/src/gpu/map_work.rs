//! Working memory of a convolutional flow on a GPU. Rows are pixels, those of one picture after those of another; channels are
//! padded with zeros to the width that convolutions want.

use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::element::wide;
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_tensor::cuda::{Buffer, Cuda};

/// The shape of the feature maps and of the flow's halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    /// The widest hidden layer of all blocks.
    pub(super) hidden: usize,
}

impl Shape {
    pub(super) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Numbers of a map.
    pub(super) fn values(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Channels of the two halves.
    pub(super) fn halves(&self) -> [usize; 2] {
        [self.channels - self.channels / 2, self.channels / 2]
    }

    /// The same as stored.
    pub(super) fn pitches(&self) -> [usize; 2] {
        self.halves().map(wide::<f32>)
    }

    /// Numbers of a pixel's row of the subnet's output.
    pub(super) fn output(&self) -> usize {
        wide::<f32>(2 * self.halves()[1])
    }
}

/// The two halves of all pixels' channels.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) both: [Buffer<f32>; 2],
    pitches: [usize; 2],
}

impl Pair {
    fn new(cuda: &Cuda, rows: usize, shape: &Shape) -> CudaResult<Pair> {
        let [p1, p2] = shape.pitches();
        Ok(Pair { both: [zeros(cuda, rows, p1)?, zeros(cuda, rows, p2)?], pitches: [p1, p2] })
    }

    pub(super) fn halves(&self) -> [Half<'_>; 2] {
        let ([first, second], [p1, p2]) = (&self.both, self.pitches);
        [Half { buffer: first, pitch: p1 }, Half { buffer: second, pitch: p2 }]
    }

    pub(super) fn halves_mut(&mut self) -> [HalfMut<'_>; 2] {
        let ([first, second], [p1, p2]) = (&mut self.both, self.pitches);
        [HalfMut { buffer: first, pitch: p1 }, HalfMut { buffer: second, pitch: p2 }]
    }
}

/// What a block keeps for the way back.
#[derive(Debug)]
pub(super) struct Kept {
    /// The subnet's hidden layer.
    pub(super) hidden: Buffer<f32>,
    /// The log-scales.
    pub(super) s: Buffer<f32>,
}

/// The activations of up to `images` pictures.
#[derive(Debug)]
pub(super) struct Work {
    /// Input of each block and latent, or two that take turns.
    pub(super) slots: Vec<Pair>,
    /// Of each block, or one for all.
    pub(super) kept: Vec<Kept>,
    /// The subnet's output, later its gradient.
    pub(super) a: Buffer<f32>,
    /// Of each pixel.
    pub(super) log_det: Buffer<f32>,
    pub(super) energy: Buffer<f32>,
}

impl Work {
    /// With slots for `blocks` blocks, or for as many as wanted in turns.
    pub(super) fn new(cuda: &Cuda, shape: &Shape, images: usize, blocks: Option<usize>) -> CudaResult<Work> {
        let rows = images.saturating_mul(shape.pixels());
        let kept = |_| -> CudaResult<Kept> {
            let hidden = zeros(cuda, rows, wide::<f32>(shape.hidden))?;
            Ok(Kept { hidden, s: zeros(cuda, rows, shape.halves()[1])? })
        };
        Ok(Work {
            slots: (0..blocks.map_or(2, |b| b + 1)).map(|_| Pair::new(cuda, rows, shape)).collect::<CudaResult<_>>()?,
            kept: (0..blocks.unwrap_or(1)).map(kept).collect::<CudaResult<_>>()?,
            a: zeros(cuda, rows, shape.output())?,
            log_det: cuda.zeros(rows)?,
            energy: cuda.zeros(rows)?,
        })
    }
}

/// Gradients on their way back.
#[derive(Debug)]
pub(super) struct Way {
    /// Of a block's output.
    pub(super) g: Pair,
    /// Of its input, as far as they are known.
    pub(super) next: Pair,
    /// Of its hidden layer.
    pub(super) hidden: Buffer<f32>,
    /// Of each pixel's log-determinant.
    pub(super) slope: Buffer<f32>,
    pub(super) loss: Buffer<f64>,
}

impl Way {
    pub(super) fn new(cuda: &Cuda, shape: &Shape, images: usize) -> CudaResult<Way> {
        let rows = images.saturating_mul(shape.pixels());
        Ok(Way {
            g: Pair::new(cuda, rows, shape)?,
            next: Pair::new(cuda, rows, shape)?,
            hidden: zeros(cuda, rows, wide::<f32>(shape.hidden))?,
            slope: cuda.zeros(rows)?,
            loss: cuda.zeros(rows)?,
        })
    }
}

fn zeros(cuda: &Cuda, rows: usize, width: usize) -> CudaResult<Buffer<f32>> {
    Ok(cuda.zeros(rows.saturating_mul(width))?)
}
