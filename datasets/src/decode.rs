use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use blemish_core::{CoreError, Image, Pixels, Result};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use ndarray::{Array2, Array3, ArrayView3, Axis, s};

use crate::container;

/// Longest side of a picture.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture.
const MAX_PIXELS: u64 = 256 << 20;
/// Longest file.
const MAX_BYTES: u64 = 2 << 30;
/// Deflate makes at most about 1032 bytes of one; a header that promises more lies.
const MAX_DEFLATE_RATIO: u64 = 1040;

/// Reads a picture: PNG, JPEG, BMP, TIFF or WebP, told apart by content, not by name.
///
/// 8 and 16 bits are kept. Grey stays one channel, a palette becomes RGB, transparency is dropped (not blended), and
/// the EXIF orientation is applied.
///
/// # Errors
/// [`CoreError::Image`] saying what is wrong with the file: missing, unreadable, a folder, empty, no picture, truncated,
/// damaged, or larger than 16,384 pixels a side (refused before memory is taken).
pub fn decode(path: &Path) -> Result<Image> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|why| CoreError::Image { path: name.clone(), why })?;
    decode_bytes(&name, &bytes)
}

/// As [`decode`], from memory; `name` is what the error calls the picture.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(name: &str, bytes: &[u8]) -> Result<Image> {
    // A decoder that trips over a damaged file must not take a whole folder of pictures with it.
    catch_unwind(AssertUnwindSafe(|| decode_inner(bytes)))
        .unwrap_or_else(|_| Err("damaged: the decoder gave up on it".to_owned()))
        .map_err(|why| CoreError::Image { path: name.to_owned(), why })
}

/// Reads a mask `[h, w]`: every pixel with a value above zero in any channel is foreground.
///
/// # Errors
/// As [`decode`].
pub fn read_mask(path: &Path) -> Result<Array2<bool>> {
    let image = decode(path)?;
    Ok(match image.pixels() {
        Pixels::U8(a) => foreground(a.view()),
        Pixels::U16(a) => foreground(a.view()),
    })
}

/// Height and width of a picture as it will be decoded, from its first bytes alone.
///
/// # Errors
/// As [`decode`]; damage behind the header is not noticed.
pub(crate) fn read_size(path: &Path) -> Result<(usize, usize)> {
    let name = path.display().to_string();
    let size = || {
        let bytes = read(path)?;
        let format = container::format(&bytes)?;
        let decoder = decoder(&bytes, format)?;
        let (w, h) = decoder.dimensions();
        let turned = container::orientation(&bytes, format) >= 5;
        let (h, w) = if turned { (w, h) } else { (h, w) };
        Ok((h as usize, w as usize))
    };
    size().map_err(|why| CoreError::Image { path: name, why })
}

fn foreground<T: Copy + Default + PartialEq>(samples: ArrayView3<'_, T>) -> Array2<bool> {
    samples.map_axis(Axis(2), |pixel| pixel.iter().any(|v| *v != T::default()))
}

/// The whole file; refuses what is not a file, and files no picture is as long as.
fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    use std::io::ErrorKind;
    let explain = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "may not be read (permission denied)".to_owned(),
        _ => format!("cannot be read: {e}"),
    };
    let about = std::fs::metadata(path).map_err(explain)?;
    if about.is_dir() {
        return Err("is a folder, not a picture".to_owned());
    }
    if !about.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if about.len() > MAX_BYTES {
        return Err(format!("is {} bytes long; pictures of up to {MAX_BYTES} bytes are read", about.len()));
    }
    std::fs::read(path).map_err(explain)
}

type Decoder<'a> = Box<dyn ImageDecoder + 'a>;

/// A decoder that has read the header, with the size checked.
fn decoder(bytes: &[u8], format: ImageFormat) -> std::result::Result<Decoder<'_>, String> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let decoder = reader.into_decoder().map_err(|e| explain(&e, bytes, format))?;
    let (w, h) = decoder.dimensions();
    let name = container::name(format);
    if w == 0 || h == 0 {
        return Err(format!("{name} of {w}x{h} pixels: there is nothing in it"));
    }
    if w > MAX_SIDE || h > MAX_SIDE || u64::from(w) * u64::from(h) > MAX_PIXELS {
        return Err(format!("{name} of {w}x{h} pixels is too large; up to {MAX_SIDE} pixels a side are read"));
    }
    if format == ImageFormat::Png {
        // Bits of the smallest PNG pixel, so that packed and palette pictures pass.
        let least = u64::from(w) * u64::from(h) / 8;
        if least > bytes.len() as u64 * MAX_DEFLATE_RATIO {
            let len = bytes.len();
            return Err(format!(
                "PNG says it has {w}x{h} pixels, but {len} bytes cannot hold them; it ends early or lies"
            ));
        }
    }
    Ok(Box::new(decoder))
}

fn decode_inner(bytes: &[u8]) -> std::result::Result<Image, String> {
    let format = container::format(bytes)?;
    let decoder = decoder(bytes, format)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|e| explain(&e, bytes, format))?;
    if format == ImageFormat::Jpeg && container::jpeg_ends_early(bytes) {
        // The decoder fills what is missing with grey.
        return Err(ends_early(bytes, format));
    }
    let (h, w) = (decoded.height() as usize, decoded.width() as usize);
    let orientation = container::orientation(bytes, format);
    let pixels = match decoded {
        DynamicImage::ImageLuma8(b) => Pixels::U8(samples(b.into_raw(), (h, w, 1), orientation)?),
        DynamicImage::ImageLumaA8(b) => Pixels::U8(samples(b.into_raw(), (h, w, 2), orientation)?),
        DynamicImage::ImageRgb8(b) => Pixels::U8(samples(b.into_raw(), (h, w, 3), orientation)?),
        DynamicImage::ImageRgba8(b) => Pixels::U8(samples(b.into_raw(), (h, w, 4), orientation)?),
        DynamicImage::ImageLuma16(b) => Pixels::U16(samples(b.into_raw(), (h, w, 1), orientation)?),
        DynamicImage::ImageLumaA16(b) => Pixels::U16(samples(b.into_raw(), (h, w, 2), orientation)?),
        DynamicImage::ImageRgb16(b) => Pixels::U16(samples(b.into_raw(), (h, w, 3), orientation)?),
        DynamicImage::ImageRgba16(b) => Pixels::U16(samples(b.into_raw(), (h, w, 4), orientation)?),
        other => return Err(format!("pixels of type {:?} are not supported; 8 and 16 bits are", other.color())),
    };
    Image::new(pixels).map_err(|e| e.to_string())
}

/// Without alpha, the right way up.
fn samples<T: Clone>(
    raw: Vec<T>,
    (h, w, c): (usize, usize, usize),
    orientation: u32,
) -> std::result::Result<Array3<T>, String> {
    let mut a = Array3::from_shape_vec((h, w, c), raw).map_err(|e| e.to_string())?;
    if c == 2 || c == 4 {
        a = a.slice_move(s![.., .., ..c - 1]);
    }
    if orientation >= 5 {
        a.swap_axes(0, 1);
    }
    // After the transposition of 5 to 8: which way each axis runs.
    if matches!(orientation, 3 | 4 | 7 | 8) {
        a.invert_axis(Axis(0));
    }
    if matches!(orientation, 2 | 3 | 6 | 7) {
        a.invert_axis(Axis(1));
    }
    Ok(if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() })
}

fn ends_early(bytes: &[u8], format: ImageFormat) -> String {
    format!("{} ends early, after {} bytes", container::name(format), bytes.len())
}

/// A decoder's error in the user's words.
fn explain(error: &ImageError, bytes: &[u8], format: ImageFormat) -> String {
    let name = container::name(format);
    let early = match format {
        ImageFormat::Png => container::png_ends_early(bytes),
        ImageFormat::Jpeg => container::jpeg_ends_early(bytes),
        ImageFormat::WebP => container::webp_ends_early(bytes),
        _ => false,
    };
    match error {
        _ if early => ends_early(bytes, format),
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ends_early(bytes, format),
        ImageError::Limits(_) => format!("{name} needs more memory than is allowed for a picture"),
        ImageError::Unsupported(e) => format!("this kind of {name} is not supported: {e}"),
        ImageError::Decoding(e) => format!("damaged {name}: {}", inner_text(e)),
        other => format!("damaged {name}: {other}"),
    }
}

/// The message of the cause, if there is one: the wrapper only repeats the format's name.
fn inner_text(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
