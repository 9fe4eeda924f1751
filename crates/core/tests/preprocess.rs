//! Preprocessing: golden vectors and properties.

use std::path::PathBuf;

use blemish_core::{Image, Pixels, Preprocess, Resize};
use ndarray::{Array2, Array3, Axis};
use proptest::prelude::*;
use safetensors::SafeTensors;

fn small() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/transforms/small.safetensors");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn full() -> Option<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/transforms.safetensors");
    let bytes = std::fs::read(path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {path} is not there");
    }
    bytes
}

fn plain(resize: Resize, crop: Option<[usize; 2]>) -> Preprocess {
    Preprocess { resize, crop, mean: [0.0; 3], std: [1.0; 3] }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).expect(name).data();
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn picture(file: &SafeTensors<'_>, name: &str) -> Image {
    let tensor = file.tensor(name).expect(name);
    let shape = tensor.shape();
    let array = Array3::from_shape_vec((shape[0], shape[1], shape[2]), tensor.data().to_vec()).expect(name);
    Image::from_u8(array).expect("an image")
}

/// Largest difference between ours `[h, w, 3]` and theirs `[c, h, w]`.
fn difference(ours: &Array3<f32>, theirs: &[f32], channels: usize) -> f32 {
    let ours = ours.slice(ndarray::s![.., .., ..channels]).permuted_axes([2, 0, 1]);
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn stretch_agrees_with_torchvision() {
    let bytes = small();
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let image = picture(&file, "decoded/rgb_301x257.png");
    let ours = plain(Resize::Stretch { height: 64, width: 48 }, None).apply(&image).expect("preprocessing");
    let d = difference(&ours, &floats(&file, "resize_257x301_to_64x48/float_antialias"), 1);
    assert!(d < 3e-5, "{d}");
}

#[test]
fn shorter_edge_crop_and_normalisation_agree_with_torchvision() {
    let Some(bytes) = full() else { return };
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let image = picture(&file, "decoded/rgb_301x257.png");
    let resize = Resize::ShorterEdge { size: 256 };
    let ours = plain(resize, Some([224, 224])).apply(&image).expect("preprocessing");
    let d = difference(&ours, &floats(&file, "shorter256_crop224"), 3);
    assert!(d < 3e-5, "{d}");
    let normalised = Preprocess { resize, crop: Some([224, 224]), ..Preprocess::default() };
    let d = difference(
        &normalised.apply(&image).expect("preprocessing"),
        &floats(&file, "shorter256_crop224_normalised"),
        3,
    );
    assert!(d < 2e-4, "{d}");
}

/// `HxW_to_S` of a tensor's name.
fn sizes(name: &str) -> ((usize, usize), usize) {
    let (from, to) = name.split_once("_to_").expect(name);
    let (h, w) = from.split_once('x').expect(name);
    let number = |t: &str| t.parse().expect(name);
    ((number(h), number(w)), number(to))
}

#[test]
fn shorter_edge_sizes_and_crop_offsets_are_exact() {
    let bytes = small();
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut seen = (0, 0);
    for name in file.names() {
        let pair = || {
            let data = file.tensor(name).expect(name).data();
            let at = |i: usize| i64::from_le_bytes(std::array::from_fn(|k| data[8 * i + k])) as isize;
            (at(0), at(1))
        };
        if let Some(rest) = name.strip_prefix("shorter_edge/") {
            let (from, size) = sizes(rest);
            let g = plain(Resize::ShorterEdge { size }, None).geometry(from).expect("a geometry");
            assert_eq!((g.resized.0 as isize, g.resized.1 as isize), pair(), "{name}");
            seen.0 += 1;
        } else if let Some(rest) = name.strip_prefix("center_crop/") {
            let (from, size) = sizes(rest);
            let g = plain(Resize::None, Some([size, size])).geometry(from).expect("a geometry");
            assert_eq!(g.offset, pair(), "{name}");
            seen.1 += 1;
        }
    }
    assert!(seen.0 >= 5 && seen.1 >= 10, "{seen:?}");
}

#[test]
fn a_crop_larger_than_the_picture_pads_as_torchvision() {
    let bytes = small();
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let input = floats(&file, "center_crop_padding/input");
    // The reference holds small numbers; give each its own level.
    let levels: Vec<u8> = (1..=12).map(|i| i * 20).collect();
    let expected: Vec<f32> = floats(&file, "center_crop_padding/to_6x7")
        .iter()
        .map(|v| input.iter().position(|i| i == v && *v != 0.0).map_or(0.0, |p| f32::from(levels[p]) / 255.0))
        .collect();
    // An input of zero is indistinguishable from padding.
    let levels: Vec<u8> = levels.iter().zip(&input).map(|(l, v)| if *v == 0.0 { 0 } else { *l }).collect();
    for channels in [1, 3] {
        let grey = Array3::from_shape_vec((3, 4, 1), levels.clone()).expect("3x4");
        let image = Image::from_u8(grey.broadcast((3, 4, channels)).expect("grey").to_owned()).expect("an image");
        let ours = plain(Resize::None, Some([6, 7])).apply(&image).expect("preprocessing");
        assert!(difference(&ours, &expected, 1) < 1e-6, "{ours:?}");
    }
}

#[test]
fn masks_agree_with_torchvision() {
    let bytes = small();
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = file.tensor("mask/values").expect("mask").data();
    for (h, w) in [(40, 50), (100, 75)] {
        let name = format!("mask/v2_resize_{h}x{w}");
        let expected = file.tensor(&name).expect("mask").data();
        // A label map, one label after the other.
        let labels: std::collections::BTreeSet<u8> = values.iter().copied().collect();
        assert!(labels.len() > 1);
        for label in labels {
            let of =
                |v: &[u8], h, w| Array2::from_shape_vec((h, w), v.iter().map(|v| *v == label).collect()).expect("mask");
            let ours = plain(Resize::Stretch { height: h, width: w }, None).apply_mask(of(values, 61, 97).view());
            assert_eq!(ours.expect("a mask"), of(expected, h, w), "{name}, label {label}");
        }
    }
}

#[test]
fn eight_and_sixteen_bits_and_grey_and_colour_mean_the_same() {
    let grey = Array3::from_shape_fn((40, 30, 1), |(y, x, _)| (y * 31 + x * 7) as u8);
    let wide = Image::new(Pixels::U16(grey.mapv(|v| u16::from(v) * 257))).expect("an image");
    let colour = Image::from_u8(grey.broadcast((40, 30, 3)).expect("grey").to_owned()).expect("an image");
    let grey = Image::from_u8(grey).expect("an image");
    let p = Preprocess { resize: Resize::Stretch { height: 16, width: 20 }, ..Preprocess::default() };
    let a = p.apply(&grey).expect("preprocessing");
    for other in [wide, colour] {
        let b = p.apply(&other).expect("preprocessing");
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn a_batch_is_its_pictures() {
    let image = |k: usize| {
        let samples = Array3::from_shape_fn((20 + k, 30, 3), |(y, x, c)| (y * 5 + x * 3 + c * 50 + k) as u8);
        Image::from_u8(samples).expect("an image")
    };
    let images: Vec<Image> = (0..5).map(image).collect();
    let p = Preprocess { resize: Resize::Stretch { height: 8, width: 8 }, ..Preprocess::default() };
    let batch = p.batch(&images).expect("a batch");
    for (i, image) in images.iter().enumerate() {
        assert_eq!(batch.index_axis(Axis(0), i), p.apply(image).expect("preprocessing"));
    }
    let different = Preprocess { resize: Resize::None, ..Preprocess::default() };
    let error = different.batch(&images).expect_err("different sizes").to_string();
    assert!(error.contains("position 1") && error.contains("21x30"), "{error}");
}

#[test]
fn bad_settings_are_refused() {
    let image = Image::from_u8(Array3::zeros((4, 400, 1))).expect("an image");
    let d = Preprocess::default;
    let cases = [
        Preprocess { resize: Resize::Stretch { height: 0, width: 8 }, ..d() },
        Preprocess { resize: Resize::Stretch { height: 8, width: 100_000 }, ..d() },
        Preprocess { resize: Resize::ShorterEdge { size: 0 }, ..d() },
        Preprocess { resize: Resize::ShorterEdge { size: 1000 }, ..d() },
        Preprocess { crop: Some([0, 4]), ..d() },
        Preprocess { std: [0.0, 1.0, 1.0], ..d() },
        Preprocess { mean: [f32::NAN, 0.0, 0.0], ..d() },
    ];
    for case in cases {
        assert!(case.apply(&image).is_err(), "{case:?}");
        assert!(case.apply_mask(Array2::from_elem((4, 400), true).view()).is_err(), "{case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_constant_stays_constant_inside_and_black_outside(
        h in 1usize..40, w in 1usize..40, size in 1usize..40, ch in 1usize..60, cw in 1usize..60, v in 1u8..
    ) {
        let image = Image::from_u8(Array3::from_elem((h, w, 1), v)).expect("an image");
        let p = plain(Resize::ShorterEdge { size }, Some([ch, cw]));
        let g = p.geometry((h, w)).expect("a geometry");
        let out = p.apply(&image).expect("preprocessing");
        prop_assert_eq!(out.dim(), (ch, cw, 3));
        // A mask of the whole picture is true exactly where the picture is.
        let mask = p.apply_mask(Array2::from_elem((h, w), true).view()).expect("a mask");
        for ((y, x), inside) in mask.indexed_iter() {
            let (sy, sx) = (y as isize + g.offset.0, x as isize + g.offset.1);
            let expected = sy >= 0 && sx >= 0 && sy < g.resized.0 as isize && sx < g.resized.1 as isize;
            prop_assert_eq!(*inside, expected);
            let level = if expected { f32::from(v) / 255.0 } else { 0.0 };
            prop_assert!((out[[y, x, 0]] - level).abs() < 1e-5 && out[[y, x, 0]] == out[[y, x, 2]]);
        }
    }

    #[test]
    fn corners_of_the_input_are_corners_of_the_picture(h in 1usize..500, w in 1usize..500, oh in 1usize..300, ow in 1usize..300) {
        let g = plain(Resize::Stretch { height: oh, width: ow }, None).geometry((h, w)).expect("a geometry");
        let (y, x) = g.to_original(oh as f64, ow as f64);
        prop_assert!(g.to_original(0.0, 0.0) == (0.0, 0.0) && (y - h as f64).abs() < 1e-9 && (x - w as f64).abs() < 1e-9);
    }
}
