#![allow(unsafe_code)]
//! Products of linear layers on a GPU, for training: few rows, so that the weights are what moves. In `f32` they agree with
//! [`panel`](super::panel) within rounding, in bf16 with [`pairs`](super::pairs).

use blemish_tensor::cuda::{Buffer, Cuda, Launch, Module};

use crate::KernelError;
use crate::adam::cuda::{Moments, Steps};
use crate::cuda::rows::{Half, HalfMut, Halves};
use crate::cuda::{CudaResult, PRODUCT, PRODUCT_80, check, grid};
use crate::error::shape_error;

/// What a layer reads: two matrices `[n, widths[0]]` and `[n, widths[1]]` side by side, the second of which may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The first columns.
    pub x: Half<'a>,
    /// The others, if there are any.
    pub condition: Option<Half<'a>>,
    /// How many of each; the second counts only where there is a condition.
    pub widths: [usize; 2],
}

impl<'a> Input<'a> {
    /// All columns from one matrix.
    pub fn one(x: Half<'a>, width: usize) -> Self {
        Input { x, condition: None, widths: [width, 0] }
    }

    fn check(&self, op: &'static str, n: usize, inputs: usize) -> Result<[usize; 2], KernelError> {
        let widths = [self.widths[0], if self.condition.is_some() { self.widths[1] } else { 0 }];
        if widths[0].checked_add(widths[1]) != Some(inputs) {
            return Err(shape_error(op, format!("{inputs} columns"), widths));
        }
        self.x.check(op, n, widths[0])?;
        if let Some(condition) = &self.condition {
            condition.check(op, n, widths[1])?;
        }
        Ok(widths)
    }

    fn put<'b>(self, launch: Launch<'b>) -> Launch<'b>
    where
        'a: 'b,
    {
        launch.half(self.x).half_or_null(self.condition)
    }
}

/// How [`Weight::backward`] hands a gradient on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Back<'a> {
    /// Add to what is there instead of writing over it.
    pub add: bool,
    /// Zero where this is not above zero: the outputs of a ReLU, `[n, first]`.
    pub mask: Option<Half<'a>>,
}

/// A weight matrix `[outputs, inputs]` of a linear layer on a GPU, row by row as PyTorch stores it.
#[derive(Debug)]
pub struct Weight {
    cuda: Cuda,
    values: Buffer<f32>,
    outputs: usize,
    inputs: usize,
    reduced: bool,
}

/// The kernel of a layer's forward pass.
#[derive(Clone, Copy)]
enum Form {
    /// For few rows, in the weight's precision.
    Few,
    /// For many rows, in `f32`.
    Many,
}

/// Rows and columns of a block's tile, its threads and its shared memory.
struct Tile {
    rows: usize,
    columns: usize,
    threads: usize,
    shared: usize,
}

impl Weight {
    /// Copies a weight to the GPU. With `bf16` operands are rounded to bf16 as they enter a product, with sums in `f32`; chips
    /// before compute capability 8.0 compute in `f32` all the same.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if the length is not `outputs * inputs`, or for none; the device's.
    pub fn new(cuda: &Cuda, values: &[f32], [outputs, inputs]: [usize; 2], bf16: bool) -> CudaResult<Weight> {
        if check("weight", &[outputs, inputs], values.len())? == 0 {
            return Err(shape_error("weight", "at least one output and one input", (outputs, inputs)).into());
        }
        let reduced = bf16 && possible(cuda);
        Ok(Weight { cuda: cuda.clone(), values: cuda.upload(values)?, outputs, inputs, reduced })
    }

    /// Its rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Its columns.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The numbers, `[outputs, inputs]`.
    pub fn values(&self) -> &Buffer<f32> {
        &self.values
    }

    /// Puts other numbers in their place.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for another length; the device's.
    pub fn set(&mut self, values: &[f32]) -> CudaResult<()> {
        check("weight", &[self.outputs, self.inputs], values.len())?;
        Ok(self.values.write_at(0, values)?)
    }

    /// The tile of a kernel: `plain` names the parameter of its `f32` form, `cores` that of its bf16 form.
    fn tile(&self, reduced: bool, plain: &str, cores: &str) -> CudaResult<Tile> {
        if reduced {
            let [down, across, high, wide, groups] = self.cuda.parameter(PRODUCT_80, cores)?;
            let (rows, columns) = (down * high * 16, across * wide * 8);
            return Ok(Tile::new(rows, columns, groups, down * across * 32, 160 * (rows + columns)));
        }
        let [rows, columns, high, wide, groups] = self.cuda.parameter(PRODUCT, plain)?;
        let threads = rows / high.max(1) * (columns / wide.max(1));
        Ok(Tile::new(rows, columns, groups, threads, 128 * (rows + columns + 8)))
    }

    /// `out = x W^T + bias`, negative values zero with `relu`: `[n, outputs]`. `bias` may be longer. Made for few rows; a row's
    /// result does not depend on how many there are.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    pub fn forward(&self, n: usize, x: Input<'_>, bias: &Buffer<f32>, relu: bool, out: HalfMut<'_>) -> CudaResult<()> {
        self.apply(Form::Few, n, x, bias, relu, out)
    }

    /// As [`forward`](Self::forward), made for many rows and in `f32` whatever the weight was made for.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_f32(
        &self,
        n: usize,
        x: Input<'_>,
        bias: &Buffer<f32>,
        relu: bool,
        out: HalfMut<'_>,
    ) -> CudaResult<()> {
        self.apply(Form::Many, n, x, bias, relu, out)
    }

    fn apply(
        &self,
        form: Form,
        n: usize,
        x: Input<'_>,
        bias: &Buffer<f32>,
        relu: bool,
        out: HalfMut<'_>,
    ) -> CudaResult<()> {
        const OP: &str = "linear layer";
        let [c, k] = x.check(OP, n, self.inputs)?;
        out.check(OP, n, self.outputs)?;
        if bias.len() < self.outputs {
            return Err(shape_error(OP, format!("a bias of {}", self.outputs), bias.len()).into());
        }
        let (reduced, kernel, plain) = match (form, self.reduced) {
            (Form::Many, _) => (false, "product_forward_many_f32", "PRODUCT_MANY"),
            (Form::Few, true) => (true, "product_forward_bf16", ""),
            (Form::Few, false) => (false, "product_forward_f32", "PRODUCT_ROWS"),
        };
        let tile = self.tile(reduced, plain, "PRODUCT_CORES")?;
        let launch = x.put(self.cuda.launch(module(reduced), kernel)?).input(&self.values).input(bias);
        let launch = launch.half_mut(out).int(n).int(c).int(k).int(self.outputs);
        // SAFETY: every matrix has room for its rows at its pitch, W is outputs (c + k), the bias has a number for each output;
        // rows and columns beyond them are neither read nor written; tile, threads and shared memory are the kernel's.
        unsafe { tile.run(launch.int(usize::from(relu)), n, self.outputs) }
    }

    /// The first columns of `g W`, for `g` `[n, outputs]`, into `out` `[n, first]`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room, or more columns than there are inputs; the device's.
    pub fn backward(&self, n: usize, first: usize, g: Half<'_>, how: Back<'_>, out: HalfMut<'_>) -> CudaResult<()> {
        const OP: &str = "gradient of a linear layer's input";
        g.check(OP, n, self.outputs)?;
        out.check(OP, n, first)?;
        if let Some(mask) = &how.mask {
            mask.check(OP, n, first)?;
        }
        if first > self.inputs {
            return Err(shape_error(OP, format!("at most {} columns", self.inputs), first).into());
        }
        let kernel = if self.reduced { "product_backward_bf16" } else { "product_backward_f32" };
        let tile = self.tile(self.reduced, "PRODUCT_ROWS", "PRODUCT_CORES")?;
        let launch = self.cuda.launch(module(self.reduced), kernel)?.half(g).input(&self.values);
        let launch = launch.half_or_null(how.mask).half_mut(out);
        let launch = launch.int(n).int(self.outputs).int(self.inputs).int(first).int(usize::from(how.add));
        // SAFETY: as for `forward`; of W's columns no more are written than `out` has.
        unsafe { tile.run(launch, n, first) }
    }

    /// The gradient `g^T x` of this weight, `[outputs, inputs]`, for `g` `[n, outputs]` and the layer's input.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    pub fn gradient(&mut self, n: usize, g: Half<'_>, x: Input<'_>, gradient: &mut Buffer<f32>) -> CudaResult<()> {
        check("gradient of a weight", &[self.outputs, self.inputs], gradient.len())?;
        self.change(n, g, x, Some(gradient), None)
    }

    /// Adam's next step against the gradient `g^T x`, which is never stored.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    pub fn update(
        &mut self,
        n: usize,
        g: Half<'_>,
        x: Input<'_>,
        steps: &Steps,
        moments: &mut Moments,
    ) -> CudaResult<()> {
        for len in [moments.first.len(), moments.second.len()] {
            check("moments of a weight", &[self.outputs, self.inputs], len)?;
        }
        self.change(n, g, x, None, Some((steps, moments)))
    }

    /// Either of them; all lengths of weights' size are checked.
    fn change<'a>(
        &'a mut self,
        n: usize,
        g: Half<'a>,
        x: Input<'a>,
        gradient: Option<&'a mut Buffer<f32>>,
        step: Option<(&'a Steps, &'a mut Moments)>,
    ) -> CudaResult<()> {
        const OP: &str = "gradient of a weight";
        let [c, k] = x.check(OP, n, self.inputs)?;
        g.check(OP, n, self.outputs)?;
        let kernel = if self.reduced { "product_update_bf16" } else { "product_update_f32" };
        let tile = self.tile(self.reduced, "PRODUCT_UPDATE", "PRODUCT_CORES_UPDATE")?;
        let (outputs, inputs) = (self.outputs, self.inputs);
        let launch = self.cuda.launch(module(self.reduced), kernel)?;
        let launch = match &step {
            Some((steps, _)) => launch.input(steps.numbers()).input(steps.turn()),
            None => launch.null().null(),
        };
        let launch = x.put(launch.half(g));
        let launch = match gradient {
            Some(gradient) => launch.output(gradient),
            None => launch.null(),
        };
        let launch = launch.output(&mut self.values);
        let launch = match step {
            Some((_, moments)) => launch.output(&mut moments.first).output(&mut moments.second),
            None => launch.null().null(),
        };
        let launch = launch.int(n).int(outputs).int(c).int(k);
        // SAFETY: as for `forward`; weight and moments, or the gradient, have outputs (c + k) numbers; the step whose turn it is
        // lies among the numbers of `steps`.
        unsafe { tile.run(launch, outputs, inputs) }
    }
}

impl Tile {
    /// Of `groups` groups, each with so many threads and so much shared memory, in which they also join their sums.
    fn new(rows: usize, columns: usize, groups: usize, threads: usize, shared: usize) -> Tile {
        let joined = 4 * rows * columns * groups.saturating_sub(1);
        Tile { rows, columns, threads: threads * groups, shared: (shared * groups).max(joined) }
    }

    /// Starts a kernel for a result of `rows` by `columns`.
    ///
    /// # Safety
    /// As [`Launch::run`].
    unsafe fn run(&self, launch: Launch<'_>, rows: usize, columns: usize) -> CudaResult<()> {
        let blocks = (grid(rows, self.rows), grid(columns, self.columns));
        // SAFETY: the caller's.
        unsafe { launch.run(blocks, self.threads as u32, self.shared as u32) }?;
        Ok(())
    }
}

fn module(reduced: bool) -> Module {
    if reduced { PRODUCT_80 } else { PRODUCT }
}

/// Whether products can be in bf16 on this chip.
pub fn possible(cuda: &Cuda) -> bool {
    cuda.info().capability >= (8, 0)
}
