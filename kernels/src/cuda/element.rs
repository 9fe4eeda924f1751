#![allow(unsafe_code)]
//! Maps `[n, h, w, c]` of a network on the GPU: how their numbers are stored.
//!
//! Channels are padded with zeros to 16 bytes ([`wide`]), which every kernel keeps so.

use blemish_tensor::cuda::{Buffer, Cuda, Plain};

use super::{CudaResult, POOL, THREADS, check, grid};
use crate::KernelError;
use crate::error::shape_error;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u16 {}
}

/// How the numbers of a map are stored: `f32`, or fp16 as its bits in `u16`.
pub trait Element: sealed::Sealed + Plain {
    /// Numbers in 16 bytes.
    const LANES: usize;
    #[doc(hidden)]
    const NAMES: Names;
    #[doc(hidden)]
    fn from_f32(value: f32) -> Self;
}

/// Names of the kernels for one element.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub(crate) pack: &'static str,
    pub(crate) unpack: &'static str,
    pub(crate) depthwise: &'static str,
    pub(crate) max_pool: &'static str,
    pub(crate) avg_pool: &'static str,
    pub(crate) mean: &'static str,
    pub(crate) scale: &'static str,
}

macro_rules! names {
    ($suffix:literal) => {
        Names {
            pack: concat!("map_pack_", $suffix),
            unpack: concat!("map_unpack_", $suffix),
            depthwise: concat!("depthwise_", $suffix),
            max_pool: concat!("max_pool_", $suffix),
            avg_pool: concat!("avg_pool_", $suffix),
            mean: concat!("global_mean_", $suffix),
            scale: concat!("gate_scale_", $suffix),
        }
    };
}

impl Element for f32 {
    const LANES: usize = 4;
    const NAMES: Names = names!("f32");

    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for u16 {
    const LANES: usize = 8;
    const NAMES: Names = names!("f16");

    fn from_f32(value: f32) -> Self {
        half::f16::from_f32(value).to_bits()
    }
}

/// Channels of a map as stored: the next multiple of [`Element::LANES`].
pub fn wide<T: Element>(channels: usize) -> usize {
    channels.next_multiple_of(T::LANES)
}

/// Numbers of a map of these sizes, if a buffer has that many or more and kernels can count them.
pub(crate) fn room<T: Element>(op: &'static str, shape: [usize; 4], len: usize) -> Result<usize, KernelError> {
    let [n, h, w, c] = shape;
    let values = [n, h, w, c.checked_next_multiple_of(T::LANES).unwrap_or(usize::MAX)];
    let product = values.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    match product.filter(|&values| values > 0 && values <= len && values <= i32::MAX as usize) {
        Some(values) => Ok(values),
        None => Err(shape_error(op, format!("at least 1 and below 2^31 numbers of {values:?}"), len)),
    }
}

/// `values`, `[pixels, c]`, as a map of [`wide`] channels.
///
/// # Errors
/// [`KernelError::Shape`] where a length does not fit (`map` may be longer); the device's.
pub fn pack<T: Element>(
    cuda: &Cuda,
    values: &Buffer<f32>,
    [pixels, c]: [usize; 2],
    map: &mut Buffer<T>,
) -> CudaResult<()> {
    check("map", &[pixels, c], values.len())?;
    let all = room::<T>("map", [1, 1, pixels, c], map.len())?;
    let launch = cuda.launch(POOL, T::NAMES.pack)?.input(values).output(map).int(pixels).int(c).int(wide::<T>(c));
    // SAFETY: pixels c numbers in; one thread for each piece of the `all` out, for which there is room.
    unsafe { launch.run((grid(all / T::LANES, THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}

/// The numbers `[pixels, c]` of a map of [`wide`] channels.
///
/// # Errors
/// [`KernelError::Shape`] where a length does not fit (`map` may be longer); the device's.
pub fn unpack<T: Element>(cuda: &Cuda, map: &Buffer<T>, [pixels, c]: [usize; 2]) -> CudaResult<Buffer<f32>> {
    let all = room::<T>("map", [1, 1, pixels, c], map.len())?;
    let mut values = cuda.scratch(pixels * c)?;
    let launch = cuda.launch(POOL, T::NAMES.unpack)?.input(map).output(&mut values);
    let launch = launch.int(pixels).int(c).int(wide::<T>(c));
    // SAFETY: `all` numbers in, one thread for each piece; of its channels those below c are written.
    unsafe { launch.run((grid(all / T::LANES, THREADS as usize), 1), THREADS, 0) }?;
    Ok(values)
}
