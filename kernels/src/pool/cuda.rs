#![allow(unsafe_code)]
//! Pooling and channel gates on maps that stay on the GPU, stored as in [`element`](crate::cuda::element). Buffers may be
//! longer than their maps.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::PoolSpec;
use crate::KernelError;
use crate::conv::cuda::ROWS;
use crate::cuda::element::{Element, room, wide};
use crate::cuda::{CudaResult, POOL, THREADS, check, grid};
use crate::error::shape_error;

/// As [`max_pool`](super::max_pool), `[n, h, w, c]` to `[n, oh, ow, c]`.
///
/// # Errors
/// [`KernelError`] where a buffer is too short or the window does not fit; the device's.
pub fn max_pool<T: Element>(
    cuda: &Cuda,
    input: &Buffer<T>,
    shape: [usize; 4],
    spec: &PoolSpec,
    output: &mut Buffer<T>,
) -> CudaResult<()> {
    windows(cuda, T::NAMES.max_pool, input, shape, spec, false, output)
}

/// As [`avg_pool`](super::avg_pool), `[n, h, w, c]` to `[n, oh, ow, c]`.
///
/// # Errors
/// As [`max_pool`].
pub fn avg_pool<T: Element>(
    cuda: &Cuda,
    input: &Buffer<T>,
    shape: [usize; 4],
    spec: &PoolSpec,
    count_include_pad: bool,
    output: &mut Buffer<T>,
) -> CudaResult<()> {
    windows(cuda, T::NAMES.avg_pool, input, shape, spec, count_include_pad, output)
}

fn windows<T: Element>(
    cuda: &Cuda,
    kernel: &'static str,
    input: &Buffer<T>,
    [n, h, w, c]: [usize; 4],
    spec: &PoolSpec,
    all: bool,
    output: &mut Buffer<T>,
) -> CudaResult<()> {
    const OP: &str = "pool on a GPU";
    let (oh, ow) = spec.output_size(h, w)?;
    room::<T>(OP, [n, h, w, c], input.len())?;
    room::<T>(OP, [n, oh, ow, c], output.len())?;
    let c = wide::<T>(c);
    let launch = cuda.launch(POOL, kernel)?.input(input).output(output);
    let launch = launch.int(n).int(h).int(w).int(c).int(oh).int(ow).int(spec.kernel[0]).int(spec.kernel[1]);
    let launch = launch.int(spec.stride[0]).int(spec.stride[1]).int(spec.padding[0]).int(spec.padding[1]);
    let blocks = (grid(ow * (c / T::LANES), THREADS as usize), (n * oh).min(ROWS) as u32);
    // SAFETY: windows read inside the map of n h w c; one thread for each piece of a row of the output, which has n oh of them.
    unsafe { launch.int(usize::from(all)).run(blocks, THREADS, 0) }?;
    Ok(())
}

const GATE: &str = "squeeze-excite on a GPU";

/// The two dense layers of a squeeze-and-excite gate, on the GPU (Hu et al. 2018, "Squeeze-and-excitation networks").
pub struct SqueezeExcite<T: Element> {
    cuda: Cuda,
    channels: usize,
    reduced: usize,
    gate: Gate,
    reduce: [Buffer<f32>; 2],
    expand: [Buffer<f32>; 2],
    element: std::marker::PhantomData<T>,
}

/// The functions of a gate: after the first layer, and after the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// SiLU and sigmoid.
    SiluSigmoid,
    /// ReLU and `min(max(x + 3, 0), 6) / 6`.
    ReluHardSigmoid,
}

impl<T: Element> std::fmt::Debug for SqueezeExcite<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqueezeExcite({} to {}, {:?})", self.channels, self.reduced, self.gate)
    }
}

impl<T: Element> SqueezeExcite<T> {
    /// From `reduce` `[reduced, channels]` and `expand` `[channels, reduced]`, each with its bias.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where a length does not fit; the device's.
    pub fn new(
        cuda: &Cuda,
        [channels, reduced]: [usize; 2],
        reduce: [&[f32]; 2],
        expand: [&[f32]; 2],
        gate: Gate,
    ) -> CudaResult<Self> {
        for [weight, bias] in [reduce, expand] {
            check(GATE, &[channels, reduced], weight.len())?;
            if bias.is_empty() {
                return Err(shape_error(GATE, "at least one channel", (channels, reduced)).into());
            }
        }
        if reduce[1].len() != reduced || expand[1].len() != channels {
            let got = (reduce[1].len(), expand[1].len());
            return Err(shape_error(GATE, format!("biases of {reduced} and {channels}"), got).into());
        }
        // Rows for channels that only fill up are zero, and so are columns.
        let most = wide::<T>(channels);
        let columns = |weight: &[f32]| -> Vec<f32> {
            let row =
                |row: &[f32]| row.iter().copied().chain(std::iter::repeat_n(0.0, most - channels)).collect::<Vec<_>>();
            weight.chunks_exact(channels).flat_map(row).collect()
        };
        let longer = |values: &[f32], len: usize| {
            let mut values = values.to_vec();
            values.resize(len, 0.0);
            values
        };
        Ok(SqueezeExcite {
            cuda: cuda.clone(),
            channels,
            reduced,
            gate,
            reduce: [cuda.upload(&columns(reduce[0]))?, cuda.upload(reduce[1])?],
            expand: [cuda.upload(&longer(expand[0], most * reduced))?, cuda.upload(&longer(expand[1], most))?],
            element: std::marker::PhantomData,
        })
    }

    /// Gates `map`, `[n, positions, channels]`, in place, or `from` into it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where a buffer is too short; the device's.
    pub fn apply(
        &self,
        from: Option<&Buffer<T>>,
        map: &mut Buffer<T>,
        [n, positions]: [usize; 2],
        work: &mut Work,
    ) -> CudaResult<()> {
        let (cuda, c) = (&self.cuda, wide::<T>(self.channels));
        for len in [Some(map.len()), from.map(Buffer::len)].into_iter().flatten() {
            room::<T>(GATE, [n, 1, positions, c], len)?;
        }
        work.holds(n, c, self.reduced)?;
        let rows = n.min(ROWS) as u32;
        let (hidden_act, gate_act) = match self.gate {
            Gate::SiluSigmoid => (4, 5),
            Gate::ReluHardSigmoid => (1, 6),
        };
        let launch = cuda.launch(POOL, T::NAMES.mean)?;
        let launch = match from {
            Some(from) => launch.input(from),
            None => launch.input(&*map),
        };
        let launch = launch.output(&mut work.mean).int(n).int(positions).int(c);
        let shared = 1024 * T::LANES as u32;
        // SAFETY: n positions c numbers in, n c means out.
        unsafe { launch.run((grid(c, 8 * T::LANES), rows), THREADS, shared) }?;
        self.dense(&self.reduce, &work.mean, &mut work.hidden, [n, c, self.reduced], hidden_act)?;
        // The means are not needed any more.
        self.dense(&self.expand, &work.hidden, &mut work.mean, [n, self.reduced, c], gate_act)?;
        let launch = cuda.launch(POOL, T::NAMES.scale)?;
        let launch = match from {
            Some(from) => launch.input(from),
            None => launch.null(),
        };
        let launch = launch.input(&work.mean).output(map).int(n).int(positions).int(c);
        let blocks = (grid(positions * (c / T::LANES), THREADS as usize), rows);
        // SAFETY: n c gates and n positions c numbers in and out, one thread for each piece.
        unsafe { launch.run(blocks, THREADS, 0) }?;
        Ok(())
    }

    fn dense(
        &self,
        [weight, bias]: &[Buffer<f32>; 2],
        from: &Buffer<f32>,
        to: &mut Buffer<f32>,
        [n, c, o]: [usize; 3],
        act: usize,
    ) -> CudaResult<()> {
        let launch = self.cuda.launch(POOL, "gate_dense")?.input(from).input(weight).input(bias).output(to);
        let launch = launch.int(n).int(c).int(o).int(act);
        // SAFETY: the caller made sure of n c numbers in and n o out; weights are [o, c] in rows of exactly c, or more rows.
        unsafe { launch.run((grid(o, 8), n.min(ROWS) as u32), THREADS, 0) }?;
        Ok(())
    }
}

/// Scratch of [`SqueezeExcite::apply`].
#[derive(Debug)]
pub struct Work {
    mean: Buffer<f32>,
    hidden: Buffer<f32>,
}

impl Work {
    /// For `n` maps of up to `channels` and gates of up to `reduced`.
    ///
    /// # Errors
    /// The device's.
    pub fn new(cuda: &Cuda, n: usize, channels: usize, reduced: usize) -> CudaResult<Self> {
        let mean = cuda.scratch(n.saturating_mul(wide::<u16>(channels)))?;
        Ok(Work { mean, hidden: cuda.scratch(n.saturating_mul(reduced))? })
    }

    fn holds(&self, n: usize, channels: usize, reduced: usize) -> Result<(), KernelError> {
        let (mean, hidden) = (self.mean.len(), self.hidden.len());
        if n.saturating_mul(channels) <= mean && n.saturating_mul(reduced) <= hidden {
            return Ok(());
        }
        Err(shape_error(GATE, format!("scratch of {n} times {channels} and {reduced}"), (mean, hidden)))
    }
}
