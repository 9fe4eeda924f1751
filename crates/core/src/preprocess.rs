use std::ops::Range;

use blemish_kernels::resize;
use ndarray::{Array2, Array3, Array4, ArrayView2, s};
use serde::{Deserialize, Serialize};

use crate::{CoreError, Image, Pixels, Result};

/// How a picture is brought to size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resize {
    /// To exactly this size, whatever the aspect (anomalib's way).
    Stretch {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The shorter edge to this size, the longer one in proportion, truncated (torchvision's way with one number).
    ShorterEdge {
        /// Pixels of the shorter edge.
        size: usize,
    },
    /// Not at all.
    None,
}

/// The one path from a decoded picture to network input: resize (antialiased bilinear in f32, as torchvision on float
/// tensors), centre crop, scale to 0..1, normalise. Grey becomes three equal channels.
///
/// 16-bit samples are divided by 65535, so that a picture means the same in 8 and 16 bits (anomalib clips them at 255).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// Resizing.
    pub resize: Resize,
    /// Centre crop after resizing, `[height, width]`; a crop larger than the picture pads with black.
    pub crop: Option<[usize; 2]>,
    /// Subtracted from each channel (0..1 scale).
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
}

impl Default for Preprocess {
    /// 256x256 stretched, no crop, ImageNet's mean and deviation: anomalib's default.
    fn default() -> Self {
        Preprocess {
            resize: Resize::Stretch { height: 256, width: 256 },
            crop: None,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

/// Where network input pixels lie in the original picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Height and width of the original.
    pub original: (usize, usize),
    /// Height and width after resizing.
    pub resized: (usize, usize),
    /// Row and column, in the resized picture, of the input's first pixel; negative where the crop pads.
    pub offset: (isize, isize),
    /// Height and width of the network input.
    pub input: (usize, usize),
}

impl Geometry {
    /// The original-pixel coordinates `(y, x)` of a point of the network input (pixel edges, not centres), unclipped.
    pub fn to_original(&self, y: f64, x: f64) -> (f64, f64) {
        let scale = |v: f64, offset: isize, original: usize, resized: usize| {
            (v + offset as f64) * original as f64 / resized as f64
        };
        (
            scale(y, self.offset.0, self.original.0, self.resized.0),
            scale(x, self.offset.1, self.original.1, self.resized.1),
        )
    }
}

impl Geometry {
    /// First row of the input that lies in the resized picture, and the rows of the picture shown from there on.
    fn rows(&self) -> (usize, Range<usize>) {
        shown(self.offset.0, self.input.0, self.resized.0)
    }

    /// As [`Geometry::rows`], for columns.
    fn columns(&self) -> (usize, Range<usize>) {
        shown(self.offset.1, self.input.1, self.resized.1)
    }
}

/// Refuses to make a picture of more pixels than this (a lying header, a slip in a setting).
const MAX_SIDE: usize = 16_384;

impl Preprocess {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`CoreError::Params`] for a size of zero or beyond 16,384, or a mean or deviation that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(CoreError::Params { name, why });
        let sides = match self.resize {
            Resize::Stretch { height, width } => vec![height, width],
            Resize::ShorterEdge { size } => vec![size],
            Resize::None => vec![],
        };
        for side in sides {
            if side == 0 || side > MAX_SIDE {
                return bad("resize", format!("a side of {side} pixels; 1 to {MAX_SIDE} are possible"));
            }
        }
        for side in self.crop.into_iter().flatten() {
            if side == 0 || side > MAX_SIDE {
                return bad("crop", format!("a side of {side} pixels; 1 to {MAX_SIDE} are possible"));
            }
        }
        if self.mean.iter().any(|m| !m.is_finite()) || self.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return bad(
                "mean/std",
                format!("{:?} / {:?}; finite numbers and positive deviations", self.mean, self.std),
            );
        }
        Ok(())
    }

    /// The geometry for a picture of `original` height and width.
    ///
    /// # Errors
    /// [`CoreError::Params`] as [`Preprocess::validate`], or if the longer edge grows beyond 16,384 pixels.
    pub fn geometry(&self, original: (usize, usize)) -> Result<Geometry> {
        self.validate()?;
        let (h, w) = original;
        let resized = match self.resize {
            Resize::Stretch { height, width } => (height, width),
            Resize::None => (h, w),
            Resize::ShorterEdge { size } if h <= w => (size, size * w / h.max(1)),
            Resize::ShorterEdge { size } => (size * h / w.max(1), size),
        };
        if h == 0 || w == 0 || resized.0 > MAX_SIDE || resized.1 > MAX_SIDE {
            let why = format!("a picture of {h}x{w} would become {}x{}", resized.0, resized.1);
            return Err(CoreError::Params { name: "resize", why });
        }
        let input = self.crop.map_or(resized, |[ch, cw]| (ch, cw));
        let offset = (centre(resized.0, input.0), centre(resized.1, input.1));
        Ok(Geometry { original, resized, offset, input })
    }

    /// Network input `[height, width, 3]` of one picture.
    ///
    /// # Errors
    /// As [`Preprocess::geometry`].
    pub fn apply(&self, image: &Image) -> Result<Array3<f32>> {
        let (h, w, _) = image.dim();
        let geometry = self.geometry((h, w))?;
        let (pixels, full) = match image.pixels() {
            Pixels::U8(a) => (resize::antialias_u8(a.view(), geometry.resized)?, 255.0),
            Pixels::U16(a) => (resize::antialias_u16(a.view(), geometry.resized)?, 65535.0),
        };
        // (v / full - mean) / std as one product and one sum.
        let scale = self.std.map(|std| 1.0 / (full * std));
        let shift: [f32; 3] = std::array::from_fn(|c| -self.mean[c] / self.std[c]);
        let (rows, columns) = (geometry.rows(), geometry.columns());
        let stride = geometry.input.1 * 3;
        let mut out: Vec<f32> = shift.repeat(geometry.input.0 * geometry.input.1);
        for (line, y) in out.chunks_exact_mut(stride).skip(rows.0).zip(rows.1) {
            let source = pixels.slice(s![y, columns.1.clone(), ..]);
            let line = line.get_mut(columns.0 * 3..).unwrap_or_default();
            match source.as_slice() {
                Some(grey) if pixels.dim().2 == 1 => {
                    for (out, v) in line.as_chunks_mut::<3>().0.iter_mut().zip(grey) {
                        *out = std::array::from_fn(|c| v * scale[c] + shift[c]);
                    }
                }
                source => {
                    let source = source.unwrap_or_default().as_chunks::<3>().0;
                    for (out, rgb) in line.as_chunks_mut::<3>().0.iter_mut().zip(source) {
                        *out = std::array::from_fn(|c| rgb[c] * scale[c] + shift[c]);
                    }
                }
            }
        }
        let out = Array3::from_shape_vec((geometry.input.0, geometry.input.1, 3), out).map_err(|e| {
            CoreError::Shape { what: "network input", wanted: format!("{:?}", geometry.input), got: e.to_string() }
        })?;
        Ok(out)
    }

    /// Network input `[n, height, width, 3]` of several pictures, made in parallel.
    ///
    /// # Errors
    /// As [`Preprocess::apply`], or [`CoreError::Shape`] if the pictures come out at different sizes.
    pub fn batch(&self, images: &[Image]) -> Result<Array4<f32>> {
        use rayon::prelude::*;
        let inputs = images.par_iter().map(|image| self.apply(image)).collect::<Result<Vec<_>>>()?;
        Preprocess::stack(&inputs)
    }

    /// A mask taken along the same way: nearest (index `floor(i * in / out)`), then the crop; padding is background.
    ///
    /// # Errors
    /// As [`Preprocess::geometry`].
    pub fn apply_mask(&self, mask: ArrayView2<'_, bool>) -> Result<Array2<bool>> {
        let g = self.geometry(mask.dim())?;
        let pick = |i: usize, offset: isize, resized: usize, original: usize| {
            let at = i as isize + offset;
            (0..resized as isize).contains(&at).then(|| (at as usize * original / resized).min(original - 1))
        };
        Ok(Array2::from_shape_fn(g.input, |(y, x)| {
            let y = pick(y, g.offset.0, g.resized.0, g.original.0);
            let x = pick(x, g.offset.1, g.resized.1, g.original.1);
            y.zip(x).is_some_and(|(y, x)| mask[[y, x]])
        }))
    }

    /// Puts inputs of one size into a batch `[n, height, width, 3]`.
    ///
    /// # Errors
    /// [`CoreError::Shape`] if the sizes differ.
    pub fn stack(inputs: &[Array3<f32>]) -> Result<Array4<f32>> {
        let Some(first) = inputs.first() else { return Ok(Array4::zeros((0, 0, 0, 3))) };
        let (h, w, c) = first.dim();
        let mut out = Array4::zeros((inputs.len(), h, w, c));
        for (i, input) in inputs.iter().enumerate() {
            if input.dim() != first.dim() {
                return Err(CoreError::Shape {
                    what: "batch",
                    wanted: format!("inputs of {h}x{w}, as the first"),
                    got: format!("{}x{} at position {i}", input.dim().0, input.dim().1),
                });
            }
            out.slice_mut(s![i, .., .., ..]).assign(input);
        }
        Ok(out)
    }
}

/// A window of `inner` that begins at `offset`, over a line of `outer`: where the line begins in it, and what it shows.
fn shown(offset: isize, inner: usize, outer: usize) -> (usize, Range<usize>) {
    let before = offset.min(0).unsigned_abs();
    let first = offset.max(0).unsigned_abs().min(outer);
    let last = (first + inner.saturating_sub(before)).min(outer);
    (before, first..last)
}

/// First index of a centred window: `(outer - inner) / 2` rounded half to even, as torchvision does; negative for padding.
fn centre(outer: usize, inner: usize) -> isize {
    let difference = outer as isize - inner as isize;
    if difference < 0 {
        return -(-difference / 2);
    }
    let half = difference / 2;
    if difference % 2 != 0 && half % 2 != 0 { half + 1 } else { half }
}
