#![allow(unsafe_code)]
//! Adam on a GPU: the bits of the CPU.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::AdamStep;
use crate::cuda::{ADAM, CudaResult, THREADS, check, grid};
use crate::error::shape_error;

/// Numbers of a step in the GPU's memory.
const NUMBERS: usize = 8;

/// The steps to come: what is different in each of them lies in the GPU's memory, so that the launches of one step can be
/// recorded once ([`Cuda::record`]) and started again for every other.
#[derive(Debug)]
pub struct Steps {
    numbers: Buffer<f32>,
    turn: Buffer<u32>,
    losses: Buffer<f64>,
    loaded: usize,
}

impl Steps {
    /// Room for `capacity` steps.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) for none or too many; the device's.
    pub fn new(cuda: &Cuda, capacity: usize) -> CudaResult<Steps> {
        let len = capacity.saturating_mul(NUMBERS);
        if capacity == 0 || len > i32::MAX as usize {
            return Err(shape_error("steps", "at least one, below 2^28", capacity).into());
        }
        Ok(Steps { numbers: cuda.zeros(len)?, turn: cuda.zeros(1)?, losses: cuda.zeros(capacity)?, loaded: 0 })
    }

    /// Takes the next steps; the first of them is next.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) for none, or more than there is room for; the device's.
    pub fn load(&mut self, steps: &[AdamStep]) -> CudaResult<()> {
        if steps.is_empty() || steps.len() > self.losses.len() {
            let wanted = format!("1 to {} of them", self.losses.len());
            return Err(shape_error("steps", wanted, steps.len()).into());
        }
        let one = |s: &AdamStep| [s.betas[0], s.betas[1], s.size, s.root, s.eps, s.l2, s.shrink, 0.0];
        self.numbers.write_at(0, &steps.iter().flat_map(one).collect::<Vec<_>>())?;
        self.turn.write_at(0, &[0])?;
        self.loaded = steps.len();
        Ok(())
    }

    /// The losses of the first `steps` steps since they were taken, once the work before is done.
    ///
    /// # Errors
    /// [`TensorError::Launch`](blemish_tensor::TensorError::Launch) if there are not so many; the device's.
    pub fn losses(&self, steps: usize) -> CudaResult<Vec<f64>> {
        let mut losses = vec![0.0; steps];
        self.losses.read_at(0, &mut losses)?;
        Ok(losses)
    }

    /// How many were taken last.
    pub fn len(&self) -> usize {
        self.loaded
    }

    /// Whether none was taken yet.
    pub fn is_empty(&self) -> bool {
        self.loaded == 0
    }

    /// Steps there is room for.
    pub fn capacity(&self) -> usize {
        self.losses.len()
    }

    pub(crate) fn numbers(&self) -> &Buffer<f32> {
        &self.numbers
    }

    pub(crate) fn turn(&self) -> &Buffer<u32> {
        &self.turn
    }

    /// The counter and the losses, to be written.
    pub(crate) fn ending(&mut self) -> (&mut Buffer<u32>, &mut Buffer<f64>) {
        (&mut self.turn, &mut self.losses)
    }
}

/// The two moments of a parameter.
#[derive(Debug)]
pub struct Moments {
    /// Mean of the gradients.
    pub first: Buffer<f32>,
    /// Mean of their squares.
    pub second: Buffer<f32>,
}

impl Moments {
    /// Zeros for `len` values.
    ///
    /// # Errors
    /// The device's.
    pub fn new(cuda: &Cuda, len: usize) -> CudaResult<Moments> {
        Ok(Moments { first: cuda.zeros(len)?, second: cuda.zeros(len)? })
    }
}

/// The next of `steps` on `p` against its gradient `g`, and on its moments.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the lengths differ; the device's.
pub fn adam(steps: &Steps, p: &mut Buffer<f32>, moments: &mut Moments, g: &Buffer<f32>) -> CudaResult<()> {
    const OP: &str = "adam";
    let n = p.len();
    for len in [moments.first.len(), moments.second.len(), g.len()] {
        check(OP, &[n], len)?;
    }
    let cuda = p.cuda().clone();
    let launch = cuda.launch(ADAM, "adam_step")?.input(steps.numbers()).input(steps.turn()).output(p);
    let launch = launch.output(&mut moments.first).output(&mut moments.second).input(g).int(n);
    // SAFETY: four buffers of n values, one thread for each; the step that is next lies in `numbers`, since a turn ends only
    // after a step.
    unsafe { launch.run((grid(n.max(1), THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}
