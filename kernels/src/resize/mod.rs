//! Resizing of pictures and of maps.
//!
//! | function | input | how |
//! |---|---|---|
//! | [`antialias_u8`], [`antialias_u16`] | picture `[h, w, c]` | triangle filter as wide as the reduction, in f32 |
//! | [`bilinear`], [`bilinear_2d`] | `[n, h, w, c]`, `[h, w]` | two neighbours each way; [`Corners`] says how grids meet |
//! | [`nearest`], [`nearest_2d`] | `[n, h, w, c]`, `[h, w]` | index `floor(i * in / out)` |
//!
//! ```
//! let picture = ndarray::Array3::from_elem((64, 48, 1), 7u8);
//! let small = blemish_kernels::resize::antialias_u8(picture.view(), (16, 16))?;
//! assert!(small.iter().all(|v| (v - 7.0).abs() < 1e-5));
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod map;
mod taps;

use ndarray::{Array3, ArrayView3};

pub use self::map::{Corners, bilinear, bilinear_2d, bilinear_2d_with, bilinear_with, nearest, nearest_2d};
use self::taps::Taps;
use crate::{KernelError, Result, error::shape_error};

/// Most values a result may have.
const MAX_VALUES: usize = 1 << 30;

/// Antialiased bilinear resize of an 8-bit picture `[h, w, c]`, one or three channels, to `[size.0, size.1, c]`, in the
/// units of the source (0 to 255), not rounded; what torchvision does on float tensors.
///
/// # Errors
/// [`KernelError::Shape`] for an empty picture or another number of channels, [`KernelError::Parameter`] for a size of
/// zero or one too large to hold.
pub fn antialias_u8(picture: ArrayView3<'_, u8>, size: (usize, usize)) -> Result<Array3<f32>> {
    antialias(picture, size)
}

/// As [`antialias_u8`] for 16 bits (0 to 65535).
///
/// # Errors
/// As [`antialias_u8`].
pub fn antialias_u16(picture: ArrayView3<'_, u16>, size: (usize, usize)) -> Result<Array3<f32>> {
    antialias(picture, size)
}

fn antialias<T: Copy + Into<f32>>(picture: ArrayView3<'_, T>, size: (usize, usize)) -> Result<Array3<f32>> {
    const OP: &str = "antialiased resize";
    let (h, w, c) = picture.dim();
    if h == 0 || w == 0 {
        return Err(shape_error(OP, "[h >= 1, w >= 1, 1 or 3 channels]", picture.shape()));
    }
    check_size(OP, size, c)?;
    let (rows, columns) = (Taps::new(h, size.0), Taps::new(w, size.1));
    let source = picture.as_standard_layout();
    let source = source.as_slice().unwrap_or_default();
    let mut output = vec![0.0; size.0 * size.1 * c];
    match c {
        1 => cpu::antialias::<T, 1>(source, w, &rows, &columns, &mut output),
        3 => cpu::antialias::<T, 3>(source, w, &rows, &columns, &mut output),
        _ => return Err(shape_error(OP, "[h >= 1, w >= 1, 1 or 3 channels]", picture.shape())),
    }
    Array3::from_shape_vec((size.0, size.1, c), output).map_err(|e| shape_error(OP, "[h, w, c]", e))
}

/// Refuses sizes of zero and results beyond [`MAX_VALUES`]; `each` is the number of values at each pixel.
fn check_size(op: &'static str, (h, w): (usize, usize), each: usize) -> Result<()> {
    let values = h.checked_mul(w).and_then(|n| n.checked_mul(each));
    if h == 0 || w == 0 || values.is_none_or(|n| n > MAX_VALUES) {
        let what = format!("a size of {h}x{w} with {each} values a pixel; 1 to {MAX_VALUES} values are possible");
        return Err(KernelError::Parameter { op, what });
    }
    Ok(())
}
