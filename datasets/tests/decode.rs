//! Decoding: golden pictures and bad files.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use blemish_core::{Image, Pixels};
use blemish_datasets::{decode, decode_bytes, read_mask};
use image::{DynamicImage, ImageFormat};
use ndarray::{Array2, Array3, s};
use safetensors::SafeTensors;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/transforms")
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Array3<u8> {
    let t = file.tensor(name).expect(name);
    Array3::from_shape_vec((t.shape()[0], t.shape()[1], t.shape()[2]), t.data().to_vec()).expect(name)
}

/// Largest difference in levels; grey stands for three equal channels.
fn difference(image: &Image, expected: &Array3<u8>) -> u8 {
    let ours = image.as_u8().expect("8 bits");
    let ours = ours.broadcast(expected.dim()).map_or_else(|| ours.to_owned(), |v| v.to_owned());
    assert_eq!(ours.dim(), expected.dim());
    ours.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("encoding");
    bytes.into_inner()
}

fn sample() -> DynamicImage {
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(37, 23, |x, y| {
        image::Rgb([x as u8 * 5, y as u8 * 9, (x * y) as u8])
    }))
}

#[test]
fn small_goldens_are_decoded_exactly() {
    let bytes = fs::read(golden().join("small.safetensors")).expect("golden file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    for name in ["rgb_97x61.png", "palette_97x61.png"] {
        let image = decode(&golden().join(name)).expect(name);
        assert_eq!(difference(&image, &tensor(&file, &format!("decoded/{name}"))), 0, "{name}");
        assert_eq!(image.dim().2, 3);
    }
    for i in 1..=8 {
        let name = format!("exif{i}_24x16.jpg");
        let image = decode(&golden().join(&name)).expect(&name);
        let d = difference(&image, &tensor(&file, &format!("exif_transposed/{name}")));
        assert!(d <= 4, "{name}: {d} levels");
    }
    let image = decode(&golden().join("grey16_97x61.png")).expect("16 bits");
    let Pixels::U16(ours) = image.pixels() else { panic!("16 bits were lost") };
    let expected = file.tensor("decoded_u16/grey16_97x61.png").expect("tensor");
    let expected: Vec<i32> =
        expected.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert!(ours.dim() == (61, 97, 1) && ours.iter().map(|v| i32::from(*v)).eq(expected));
    let mask = read_mask(&golden().join("mask_97x61.png")).expect("mask");
    let decoded = file.tensor("mask/decoded").expect("tensor").data();
    let expected = Array2::from_shape_vec((61, 97), decoded.iter().map(|v| *v > 0).collect()).expect("61x97");
    assert_eq!(mask, expected);
}

#[test]
fn all_goldens_are_decoded() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let Ok(bytes) = fs::read(reference.join("transforms.safetensors")) else {
        eprintln!("skipped: {} is not there", reference.display());
        return;
    };
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut seen = 0;
    for full_name in file.names() {
        let Some(name) = full_name.strip_prefix("decoded/") else { continue };
        // 16 bits are kept here and orientation is applied: other tensors hold those.
        if name.starts_with("grey16") || name.starts_with("exif") {
            continue;
        }
        let image = decode(&reference.join("images").join(name)).expect(name);
        let d = difference(&image, &tensor(&file, full_name));
        let allowed = if name.ends_with(".jpg") { 4 } else { 0 };
        assert!(d <= allowed, "{name}: {d} levels");
        let grey = name.starts_with("grey") || name.starts_with("bilevel");
        assert_eq!(image.dim().2, if grey { 1 } else { 3 }, "{name}");
        seen += 1;
    }
    assert!(seen >= 14, "{seen}");
}

#[test]
fn every_format_is_told_by_content() {
    let image = sample();
    let expected = Array3::from_shape_vec((23, 37, 3), image.to_rgb8().into_raw()).expect("23x37");
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let ours = decode_bytes("picture.txt", &encoded(&image, format)).expect("a picture");
        assert_eq!(difference(&ours, &expected), 0, "{format:?}");
    }
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let rgba16 = encoded(&DynamicImage::ImageRgba16(image.to_rgba16()), format);
        let ours = decode_bytes("x", &rgba16).expect("a picture");
        let Pixels::U16(ours) = ours.pixels() else { panic!("16 bits were lost") };
        assert!(ours.dim() == (23, 37, 3) && ours.iter().zip(&expected).all(|(a, b)| *a == u16::from(*b) * 257));
    }
}

#[test]
fn alpha_is_dropped_not_blended() {
    let rgba = image::RgbaImage::from_fn(5, 4, |x, y| image::Rgba([x as u8 * 50, y as u8 * 60, 9, x as u8]));
    let ours =
        decode_bytes("x", &encoded(&DynamicImage::ImageRgba8(rgba.clone()), ImageFormat::Png)).expect("a picture");
    let all = Array3::from_shape_vec((4, 5, 4), rgba.into_raw()).expect("4x5");
    assert_eq!(ours.as_u8().expect("8 bits"), all.slice(s![.., .., ..3]));
    let grey = image::GrayAlphaImage::from_fn(5, 4, |x, y| image::LumaA([(x * 40 + y) as u8, 0]));
    let ours = decode_bytes("x", &encoded(&DynamicImage::ImageLumaA8(grey), ImageFormat::Png)).expect("a picture");
    assert_eq!(ours.dim(), (4, 5, 1));
    assert_eq!(ours.as_u8().expect("8 bits")[[1, 2, 0]], 81);
}

/// A PNG that is nothing but a header of this size and an end.
fn bomb(width: u32, height: u32, data: usize) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = !0u32;
        for byte in kind.iter().chain(data) {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &(!crc).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let parts =
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &vec![0; data]), chunk(b"IEND", &[])];
    parts.concat()
}

#[test]
fn bad_files_are_refused_in_words() {
    let png = encoded(&sample(), ImageFormat::Png);
    let jpeg = encoded(&sample(), ImageFormat::Jpeg);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = png.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let other = |format| half(&encoded(&sample(), format));
    let cases: [(&str, Vec<u8>, &str); 19] = [
        ("empty", vec![], "empty"),
        ("text", b"Not a picture at all, but a note.\n".to_vec(), "is text"),
        ("noise", (0..200u8).map(|i| i.wrapping_mul(91) ^ 0xd3).collect(), "is no picture"),
        ("signature alone", png[..8].to_vec(), "PNG ends early"),
        ("half a PNG", half(&png), "PNG ends early, after"),
        ("PNG without its end", png[..png.len() - 30].to_vec(), "PNG ends early"),
        ("damaged PNG", with(60, &[0xff; 8]), "damaged PNG"),
        ("half a JPEG", half(&jpeg), "JPEG ends early"),
        ("JPEG without its end", jpeg[..jpeg.len() - 2].to_vec(), "JPEG ends early"),
        ("JPEG header", jpeg[..20].to_vec(), "JPEG ends early"),
        ("half a BMP", other(ImageFormat::Bmp), "BMP"),
        ("half a TIFF", other(ImageFormat::Tiff), "TIFF"),
        ("half a WebP", other(ImageFormat::WebP), "WebP ends early"),
        ("bomb", bomb(60_000, 60_000, 100), "60000x60000 pixels is too large"),
        ("long bomb", bomb(1, 20_000, 100), "too large"),
        ("lying header", bomb(16_000, 16_000, 100), "cannot hold them"),
        ("zero width", bomb(0, 10, 100), "PNG"),
        ("zeros for data", bomb(10, 10, 100), "PNG"),
        ("GIF", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;".to_vec(), "GIF"),
    ];
    for (name, bytes, wanted) in cases {
        let error = decode_bytes(name, &bytes).expect_err(name).to_string();
        assert!(error.starts_with(&format!("{name}: ")) && error.contains(wanted), "{name}: {error}");
        assert!(error.len() < 220, "{name}: {error}");
    }
}

#[test]
fn what_is_no_file_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("note.png"), "hello, this is text").expect("writing");
    for (path, wanted) in [
        (folder.path().to_path_buf(), "is a folder"),
        (folder.path().join("none.png"), "no such file"),
        (folder.path().join("note.png"), "is text"),
    ] {
        let error = decode(&path).expect_err("bad").to_string();
        assert!(error.contains(wanted) && error.contains(&path.display().to_string()), "{error}");
        assert!(read_mask(&path).is_err());
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_panics() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let whole = encoded(&sample(), format);
        for end in (0..whole.len()).step_by(7) {
            let result = decode_bytes("x", &whole[..end]);
            // Only the end of a container may be missing, never pixels.
            assert!(result.is_err() || end + 40 > whole.len(), "{format:?} cut at {end} of {}", whole.len());
        }
        for at in (0..whole.len()).step_by(11) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            if let Err(e) = decode_bytes("x", &bytes) {
                assert!(!e.to_string().contains("gave up"), "{format:?}: byte {at} made a decoder panic");
            }
        }
    }
}

#[test]
fn any_value_above_zero_is_foreground() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.png");
    let mask = image::GrayImage::from_fn(4, 3, |x, y| image::Luma([if (x, y) == (2, 1) { 1 } else { 0 }]));
    mask.save(&path).expect("saving");
    let mask = read_mask(&path).expect("a mask");
    assert!(mask.dim() == (3, 4) && mask.indexed_iter().all(|(at, v)| *v == (at == (1, 2))));
}
