use ndarray::{Array3, ArrayView3};

use crate::{CoreError, Result};

/// The samples of a picture, `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// 0..=255.
    U8(Array3<u8>),
    /// 0..=65535.
    U16(Array3<u16>),
}

/// A decoded picture: at least one pixel, one channel (grey) or three (RGB), C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pixels: Pixels,
}

impl Image {
    /// Takes decoded samples.
    ///
    /// # Errors
    /// [`CoreError::Shape`] if a side is zero or there are not one or three channels.
    pub fn new(pixels: Pixels) -> Result<Self> {
        let pixels = match pixels {
            Pixels::U8(a) => Pixels::U8(standard(a)?),
            Pixels::U16(a) => Pixels::U16(standard(a)?),
        };
        Ok(Image { pixels })
    }

    /// Takes 8-bit samples `[height, width, channels]`.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn from_u8(samples: Array3<u8>) -> Result<Self> {
        Image::new(Pixels::U8(samples))
    }

    /// The samples.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The 8-bit samples, if it is an 8-bit picture.
    pub fn as_u8(&self) -> Option<ArrayView3<'_, u8>> {
        match &self.pixels {
            Pixels::U8(a) => Some(a.view()),
            Pixels::U16(_) => None,
        }
    }

    /// Height, width and channels.
    pub fn dim(&self) -> (usize, usize, usize) {
        match &self.pixels {
            Pixels::U8(a) => a.dim(),
            Pixels::U16(a) => a.dim(),
        }
    }
}

fn standard<T: Clone>(a: Array3<T>) -> Result<Array3<T>> {
    let (h, w, c) = a.dim();
    if h == 0 || w == 0 || !(c == 1 || c == 3) {
        return Err(CoreError::Shape {
            what: "image",
            wanted: "[height >= 1, width >= 1, 1 or 3 channels]".to_owned(),
            got: format!("{:?}", a.shape()),
        });
    }
    Ok(a.as_standard_layout().into_owned())
}
