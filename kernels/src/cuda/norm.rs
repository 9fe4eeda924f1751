#![allow(unsafe_code)]
//! The layer norm over whole feature maps on a GPU, split into the two halves of a flow's channels.

use blemish_tensor::cuda::{Buffer, Cuda, Launch};

use super::rows::{Half, HalfMut};
use super::{CudaResult, NORM, THREADS, check, grid, strips};
use crate::KernelError;
use crate::adam::cuda::Steps;
use crate::error::shape_error;

const OP: &str = "norm of maps";
/// Numbers of a part of a picture's sums, and parts at most.
const PART: usize = 16_384;
const PARTS: usize = 32;

/// The pictures of a batch: `count` of the `maps`, each `[pixels, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Pictures<'a> {
    /// `[.., pixels, channels]`.
    pub maps: &'a Buffer<f32>,
    /// Positions of each map.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Pictures of the batch.
    pub count: usize,
    /// Which of the maps; the first ones otherwise.
    pub chosen: Option<Chosen<'a>>,
}

/// A table of maps, of which each turn of `steps` takes `each`: its batch begins at `each` times the turn.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Numbers of maps, which the caller answers for.
    pub table: &'a Table,
    /// Whose turn it is; the first turn otherwise.
    pub steps: Option<&'a Steps>,
    /// From one batch to the next.
    pub each: usize,
}

/// Numbers of maps on the GPU, all below a bound.
#[derive(Debug)]
pub struct Table {
    numbers: Buffer<u32>,
    bound: usize,
}

impl Table {
    /// Room for `len` numbers below `bound`; they are all 0 at first.
    ///
    /// # Errors
    /// [`KernelError::Shape`] without a map; the device's.
    pub fn new(cuda: &Cuda, len: usize, bound: usize) -> CudaResult<Table> {
        if bound == 0 || bound > u32::MAX as usize || len > i32::MAX as usize {
            return Err(shape_error("table of maps", "at least one map", (len, bound)).into());
        }
        Ok(Table { numbers: cuda.zeros(len)?, bound })
    }

    /// Puts numbers at the beginning.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a number that is not below the bound; the device's.
    pub fn set(&mut self, numbers: &[u32]) -> CudaResult<()> {
        match numbers.iter().find(|n| **n as usize >= self.bound) {
            Some(n) => Err(shape_error("table of maps", format!("numbers below {}", self.bound), n).into()),
            None => Ok(self.numbers.write_at(0, numbers)?),
        }
    }
}

impl Pictures<'_> {
    /// Numbers of a map, if all of it is there.
    fn values(&self, op: &'static str) -> Result<usize, KernelError> {
        let bad = || shape_error(op, "whole maps of 2 channels or more, below 2^31 numbers", self);
        let values = self.pixels.checked_mul(self.channels).filter(|n| *n > 0 && *n <= i32::MAX as usize);
        let values = values.ok_or_else(bad)?;
        let maps = match &self.chosen {
            None => self.count,
            // The turn is below the steps' capacity.
            Some(Chosen { table, steps, each }) => {
                let turns = steps.map_or(1, Steps::capacity);
                let last = (turns - 1).checked_mul(*each).and_then(|n| n.checked_add(self.count));
                if last.is_none_or(|last| last > table.numbers.len()) {
                    return Err(shape_error(op, format!("{turns} turns of {each}"), table.numbers.len()));
                }
                table.bound
            }
        };
        let fits = maps.checked_mul(values).is_some_and(|n| n <= self.maps.len());
        if fits && self.count > 0 && self.count <= i32::MAX as usize && self.channels > 1 {
            Ok(values)
        } else {
            Err(bad())
        }
    }

    fn start<'a>(&'a self, cuda: &'a Cuda, kernel: &'static str) -> CudaResult<Launch<'a>> {
        let launch = cuda.launch(NORM, kernel)?.input(self.maps);
        Ok(match &self.chosen {
            None => launch.null().null().int(0),
            Some(Chosen { table, steps, each }) => {
                let launch = launch.input(&table.numbers);
                let launch = match steps {
                    Some(steps) => launch.input(steps.turn()),
                    None => launch.null(),
                };
                launch.int(*each)
            }
        })
    }

    fn halves(&self) -> [usize; 2] {
        [self.channels - self.channels / 2, self.channels / 2]
    }
}

/// Working memory of the norm of up to `images` pictures, and their means and inverse deviations.
#[derive(Debug)]
pub struct Norm {
    sums: Buffer<f64>,
    squares: Buffer<f64>,
    moments: Buffer<f64>,
    images: usize,
    parts: usize,
}

impl Norm {
    /// For maps of `pixels` positions and `channels` channels.
    ///
    /// # Errors
    /// The device's.
    pub fn new(cuda: &Cuda, images: usize, pixels: usize, channels: usize) -> CudaResult<Norm> {
        let parts = pixels.saturating_mul(channels).div_ceil(PART).clamp(1, PARTS);
        let len = images.saturating_mul(parts);
        let (sums, squares) = (cuda.scratch(len)?, cuda.scratch(len)?);
        Ok(Norm { sums, squares, moments: cuda.scratch(images.saturating_mul(2))?, images, parts })
    }

    fn check(&self, op: &'static str, images: usize) -> Result<(), KernelError> {
        if images <= self.images { Ok(()) } else { Err(shape_error(op, format!("at most {}", self.images), images)) }
    }

    /// Normalises pictures, with a weight and a bias for each number of a map, into `x` `[count pixels, c - c / 2]` and
    /// `[.., c / 2]`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    pub fn apply(
        &mut self,
        pictures: Pictures<'_>,
        weight: &Buffer<f32>,
        bias: &Buffer<f32>,
        x: [HalfMut<'_>; 2],
    ) -> CudaResult<()> {
        let values = pictures.values(OP)?;
        self.check(OP, pictures.count)?;
        check(OP, &[values], weight.len())?;
        check(OP, &[values], bias.len())?;
        let cuda = weight.cuda().clone();
        let (n, blocks) = (pictures.count, (self.parts as u32, strips(pictures.count)));
        let launch = pictures.start(&cuda, "norm_sums")?.null().output(&mut self.sums).int(n).int(values);
        // SAFETY: the pictures are maps that are there; there is room for `parts` sums of each, the width of the grid; 257 f64 of
        // shared memory, which keep 2064 bytes aligned.
        unsafe { launch.run(blocks, THREADS, 2064) }?;
        let launch = pictures.start(&cuda, "norm_sums")?.input(&self.sums).output(&mut self.squares).int(n).int(values);
        // SAFETY: as above.
        unsafe { launch.run(blocks, THREADS, 2064) }?;
        let launch = pictures.start(&cuda, "norm_apply")?.input(&self.sums).input(&self.squares).input(weight);
        split(launch.input(bias).output(&mut self.moments), &pictures, values, self.parts, x)
    }

    /// The gradients of weight and bias from those of the outputs of the last [`apply`](Self::apply), with the same pictures; with
    /// `add` they are added to what is there.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn gradient(
        &self,
        pictures: Pictures<'_>,
        g: [Half<'_>; 2],
        weight: &mut Buffer<f32>,
        bias: &mut Buffer<f32>,
        add: bool,
    ) -> CudaResult<()> {
        let values = pictures.values(OP)?;
        self.check(OP, pictures.count)?;
        check(OP, &[values], weight.len())?;
        check(OP, &[values], bias.len())?;
        let [c1, c2] = pictures.halves();
        let rows = pictures.count.saturating_mul(pictures.pixels);
        g[0].check(OP, rows, c1)?;
        g[1].check(OP, rows, c2)?;
        let cuda = weight.cuda().clone();
        let launch = pictures.start(&cuda, "norm_gradient")?.input(&self.moments).input(g[0].buffer).input(g[1].buffer);
        let launch = launch.output(weight).output(bias).int(pictures.count).int(values).int(pictures.channels);
        let launch = launch.int(g[0].pitch).int(g[1].pitch).int(usize::from(add));
        // SAFETY: the pictures are maps that are there, with moments of each; the halves have room for their rows; one thread for
        // each number of the map.
        unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }?;
        Ok(())
    }
}

/// Pictures as they are, into the two halves of their channels.
///
/// # Errors
/// As [`Norm::apply`].
pub fn halves(cuda: &Cuda, pictures: Pictures<'_>, x: [HalfMut<'_>; 2]) -> CudaResult<()> {
    let values = pictures.values(OP)?;
    let launch = pictures.start(cuda, "norm_apply")?.null().null().null().null().null();
    split(launch, &pictures, values, 0, x)
}

fn split(
    launch: Launch<'_>,
    pictures: &Pictures<'_>,
    values: usize,
    parts: usize,
    [x1, x2]: [HalfMut<'_>; 2],
) -> CudaResult<()> {
    let [c1, c2] = pictures.halves();
    let all = pictures.count.saturating_mul(pictures.pixels);
    x1.check(OP, all, c1)?;
    x2.check(OP, all, c2)?;
    let launch = launch.output(x1.buffer).output(x2.buffer).int(pictures.count).int(values).int(parts);
    let launch = launch.int(pictures.channels).int(x1.pitch).int(x2.pitch);
    // SAFETY: the pictures are maps that are there; weight and bias, if given, have a number for each of theirs; the halves have room
    // for all rows at their pitch; one block for 4096 numbers;
    // shared memory holds two moments and the sums of all parts.
    unsafe { launch.run((grid(values, 4096), strips(pictures.count)), THREADS, (16 + 16 * parts) as u32) }?;
    Ok(())
}
