//! How the rows of a bank are kept.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::Array2;
use rayon::prelude::*;

use super::finite_values;
use crate::error::shape_error;
use crate::{KernelError, Result};

const OP: &str = "nearest bank";

/// How many bits a number of a row takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// As given.
    #[default]
    F32,
    /// Half precision, rounded to nearest even: relative error 2^-11 at most.
    F16,
    /// One byte: 255 steps between the least and the greatest value of each coordinate; error half a step at most.
    Int8,
}

/// Rows `[n, d]` as they are kept, in C order. A search is exact over what [`Rows::decode`] gives.
pub enum Rows {
    /// As they are.
    F32(Vec<f32>),
    /// Each number is the f32 of the same value.
    F16(Vec<f16>),
    /// Coordinate `j` of a row is `code * scale[j] + offset[j]`, with one rounding (fused).
    Int8 {
        /// `[n, d]`.
        codes: Vec<i8>,
        /// `[d]`.
        scale: Vec<f32>,
        /// `[d]`.
        offset: Vec<f32>,
    },
}

impl Rows {
    /// Rounds `rows` `[n, d]` to `storage`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`]; [`KernelError::Parameter`] for values beyond 65,504 in [`Storage::F16`].
    pub fn round(rows: Array2<f32>, storage: Storage) -> Result<Rows> {
        let (count, d) = (rows.len(), rows.ncols());
        let rows = if rows.is_standard_layout() { rows } else { rows.as_standard_layout().into_owned() };
        let values = match rows.into_raw_vec_and_offset() {
            (values, None | Some(0)) if values.len() == count => values,
            (values, first) => values[first.unwrap_or(0)..][..count].to_vec(),
        };
        finite_values(OP, "the bank", &values)?;
        match storage {
            Storage::F32 => Ok(Rows::F32(values)),
            Storage::F16 => {
                let halves: Vec<f16> = values.par_iter().map(|v| f16::from_f32(*v)).collect();
                if let Some(at) = halves.iter().position(|h| !h.is_finite()) {
                    let what = format!("{} does not fit 16 bits (65,504 at most); keep the rows in 32", values[at]);
                    return Err(KernelError::Parameter { op: OP, what });
                }
                Ok(Rows::F16(halves))
            }
            Storage::Int8 => {
                let (mut least, mut most) = (vec![f32::INFINITY; d], vec![f32::NEG_INFINITY; d]);
                for row in values.chunks_exact(d.max(1)) {
                    least.iter_mut().zip(row).for_each(|(l, v)| *l = l.min(*v));
                    most.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(*v));
                }
                let both = || least.iter().zip(&most).map(|(l, m)| (f64::from(*l), f64::from(*m)));
                let scale: Vec<f32> = both().map(|(l, m)| ((m - l) / 254.0) as f32).collect();
                let offset: Vec<f32> = both().map(|(l, m)| (0.5 * (l + m)) as f32).collect();
                let mut codes = vec![0i8; values.len()];
                codes.par_chunks_mut(d.max(1)).zip(values.par_chunks(d.max(1))).for_each(|(codes, row)| {
                    for (j, (code, v)) in codes.iter_mut().zip(row).enumerate() {
                        // A coordinate that never changes has no steps: 0 / 0 becomes code 0.
                        *code = ((v - offset[j]) / scale[j]).round().clamp(-127.0, 127.0) as i8;
                    }
                });
                Ok(Rows::Int8 { codes, scale, offset })
            }
        }
    }

    /// How they are kept.
    pub fn storage(&self) -> Storage {
        match self {
            Rows::F32(_) => Storage::F32,
            Rows::F16(_) => Storage::F16,
            Rows::Int8 { .. } => Storage::Int8,
        }
    }

    /// Numbers in all rows.
    pub fn values(&self) -> usize {
        self.view().values()
    }

    /// Bytes that all rows take.
    pub fn bytes(&self) -> usize {
        self.values() * self.view().width()
    }

    /// The values of some rows of `d` numbers.
    ///
    /// # Panics
    /// Rows that are not there.
    pub fn decode(&self, d: usize, rows: Range<usize>) -> Vec<f32> {
        let mut out = Vec::new();
        self.view().span(d, rows, &mut out).to_vec()
    }

    pub(super) fn view(&self) -> View<'_> {
        match self {
            Rows::F32(values) => View::F32(values),
            Rows::F16(values) => View::F16(values),
            Rows::Int8 { codes, scale, offset } => View::Int8 { codes, scale, offset },
        }
    }

    /// Checks that they are `d` wide and finite; gives their number.
    pub(super) fn check(&self, d: usize) -> Result<usize> {
        let values = self.values();
        let n = values.checked_div(d).unwrap_or(0);
        if n == 0 || !values.is_multiple_of(d) || u32::try_from(n).is_err() {
            return Err(shape_error(OP, "rows [n, d] with 1 <= n < 2^32 and d >= 1", [n, d]));
        }
        let infinite = |index| KernelError::NotFinite { op: OP, what: "the bank", index };
        match self.view() {
            View::F32(values) => finite_values(OP, "the bank", values)?,
            View::F16(values) => {
                values.par_iter().position_first(|v| !v.is_finite()).map_or(Ok(()), |i| Err(infinite(i)))?;
            }
            View::Int8 { scale, offset, .. } => {
                if scale.len() != d || offset.len() != d {
                    let got = (scale.len(), offset.len());
                    return Err(shape_error(OP, format!("a scale and an offset for each of {d} coordinates"), got));
                }
                // What the outermost codes give bounds what all give.
                let ends =
                    |j: &usize| [i8::MIN, i8::MAX].iter().all(|c| dequantise(*c, scale[*j], offset[*j]).is_finite());
                (0..d).find(|j| !ends(j)).map_or(Ok(()), |j| Err(infinite(j)))?;
            }
        }
        Ok(n)
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}[{}]", self.storage(), self.values())
    }
}

/// The value of a code.
#[inline]
pub(super) fn dequantise(code: i8, scale: f32, offset: f32) -> f32 {
    f32::from(code).mul_add(scale, offset)
}

/// Borrowed rows, or one of them.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Int8 { codes: &'a [i8], scale: &'a [f32], offset: &'a [f32] },
}

impl<'a> View<'a> {
    pub(super) fn values(&self) -> usize {
        match self {
            View::F32(values) => values.len(),
            View::F16(values) => values.len(),
            View::Int8 { codes, .. } => codes.len(),
        }
    }

    /// Bytes of a number.
    pub(super) fn width(&self) -> usize {
        match self {
            View::F32(_) => 4,
            View::F16(_) => 2,
            View::Int8 { .. } => 1,
        }
    }

    /// Row `i`, as it is kept.
    pub(super) fn row(self, d: usize, i: usize) -> View<'a> {
        let range = i * d..(i + 1) * d;
        match self {
            View::F32(values) => View::F32(&values[range]),
            View::F16(values) => View::F16(&values[range]),
            View::Int8 { codes, scale, offset } => View::Int8 { codes: &codes[range], scale, offset },
        }
    }

    /// The values of some rows: where they are, or decoded to `buffer`.
    pub(super) fn span<'b>(self, d: usize, rows: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let range = rows.start * d..rows.end * d;
        buffer.clear();
        match self {
            View::F32(values) => return &values[range],
            View::F16(values) => {
                let values = &values[range];
                buffer.resize(values.len(), 0.0);
                values.convert_to_f32_slice(buffer);
            }
            View::Int8 { codes, scale, offset } => {
                for row in codes[range].chunks_exact(d) {
                    let one = |(c, (s, o)): (&i8, (&f32, &f32))| dequantise(*c, *s, *o);
                    buffer.extend(row.iter().zip(scale.iter().zip(offset)).map(one));
                }
            }
        }
        buffer
    }
}
