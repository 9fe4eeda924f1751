//! What can be told of a picture file without decoding it.

use std::io::Cursor;

use image::ImageFormat;

/// The format, by content.
pub(crate) fn format(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    match image::guess_format(bytes) {
        Ok(f @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::Tiff | ImageFormat::WebP)) => {
            Ok(f)
        }
        Ok(other) => Err(format!("is a {} file; PNG, JPEG, BMP, TIFF and WebP are read", name(other))),
        Err(_) => {
            let text = bytes.iter().take(64).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
            let what = if text { "is text" } else { "is no picture" };
            Err(format!("{what}; PNG, JPEG, BMP, TIFF and WebP are read, whatever their name"))
        }
    }
}

/// What users call a format.
pub(crate) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        _ => "different picture",
    }
}

/// The EXIF (or TIFF) orientation, 1 to 8; 1 where there is none.
pub(crate) fn orientation(bytes: &[u8], format: ImageFormat) -> u32 {
    let may_have = match format {
        ImageFormat::Png => png_chunks(bytes).any(|(kind, _)| kind == *b"eXIf"),
        ImageFormat::Jpeg | ImageFormat::Tiff | ImageFormat::WebP => true,
        _ => false,
    };
    if !may_have {
        return 1;
    }
    let Ok(exif) = exif::Reader::new().read_from_container(&mut Cursor::new(bytes)) else { return 1 };
    let field = exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY);
    field.and_then(|f| f.value.get_uint(0)).filter(|o| (1..=8).contains(o)).unwrap_or(1)
}

/// Kind and whole length of each PNG chunk that begins in the file.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], u64)> + '_ {
    let mut at = 8u64;
    std::iter::from_fn(move || {
        let header = bytes.get(usize::try_from(at).ok()?..)?.first_chunk::<8>()?;
        let [a, b, c, d, kind @ ..] = *header;
        let end = at + 12 + u64::from(u32::from_be_bytes([a, b, c, d]));
        at = end;
        Some((kind, end))
    })
}

/// Whether a PNG stops before its last chunk is whole.
pub(crate) fn png_ends_early(bytes: &[u8]) -> bool {
    !png_chunks(bytes).any(|(kind, end)| kind == *b"IEND" && end <= bytes.len() as u64)
}

/// Whether a WebP is shorter than it says.
pub(crate) fn webp_ends_early(bytes: &[u8]) -> bool {
    let Some(&[_, _, _, _, a, b, c, d]) = bytes.first_chunk::<8>() else { return true };
    (bytes.len() as u64) < u64::from(u32::from_le_bytes([a, b, c, d])) + 8
}

/// Whether a JPEG has no end marker behind its picture data.
pub(crate) fn jpeg_ends_early(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(marker) = next_marker(bytes, &mut at) else { return true };
        match marker {
            0xD9 => return false,
            0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some(&[a, b]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return true };
                at += usize::from(u16::from_be_bytes([a, b])).max(2);
            }
        }
    }
}

/// Moves behind the next marker that is not picture data (`FF 00`) and returns it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        *at += rest.iter().position(|b| *b == 0xFF)? + 1;
        while bytes.get(*at) == Some(&0xFF) {
            *at += 1;
        }
        let marker = *bytes.get(*at)?;
        *at += 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}
