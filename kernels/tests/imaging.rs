//! Resize and blur: golden vectors and properties.

use std::path::PathBuf;

use blemish_kernels::{blur, resize};
use ndarray::{Array2, Array3, Array4, ArrayView3, Axis};
use proptest::prelude::*;
use safetensors::SafeTensors;

fn small(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn full(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference").join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not there", path.display());
    }
    bytes
}

fn floats(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = file.tensor(name).expect(name);
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (tensor.shape().to_vec(), values)
}

fn picture(file: &SafeTensors<'_>, name: &str) -> Array3<u8> {
    let tensor = file.tensor(name).expect(name);
    let shape = tensor.shape();
    Array3::from_shape_vec((shape[0], shape[1], shape[2]), tensor.data().to_vec()).expect(name)
}

/// Largest difference between ours `[h, w, c]` in 0..255 and theirs `[c, h, w]` in 0..1.
fn difference(ours: ArrayView3<'_, f32>, theirs: &(Vec<usize>, Vec<f32>)) -> f32 {
    let (h, w, c) = ours.dim();
    assert_eq!(theirs.0, [c, h, w]);
    let ours = ours.permuted_axes([2, 0, 1]);
    ours.iter().zip(&theirs.1).map(|(a, b)| (a / 255.0 - b).abs()).fold(0.0, f32::max)
}

fn check_resizes(bytes: &[u8], cases: &[(&str, &str, (usize, usize))]) {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    for (source, target, size) in cases {
        let source = picture(&file, source);
        let theirs = floats(&file, &format!("{target}/float_antialias"));
        let ours = resize::antialias_u8(source.view(), *size).expect("a valid resize");
        let d = difference(ours.view(), &theirs);
        assert!(d < 3e-5, "{target}: {d}");
        // The same picture in 16 bits, scaled exactly.
        let wide = resize::antialias_u16(source.mapv(|v| u16::from(v) * 257).view(), *size).expect("a valid resize");
        let d = difference(wide.mapv(|v| v / 257.0).view(), &theirs);
        assert!(d < 3e-5, "{target}, 16 bits: {d}");
        if file.tensor(&format!("{target}/float_no_antialias")).is_ok() {
            let theirs = floats(&file, &format!("{target}/float_no_antialias"));
            let input = source.mapv(f32::from).insert_axis(Axis(0));
            let ours = resize::bilinear(input.view(), *size).expect("a valid resize");
            let d = difference(ours.index_axis(Axis(0), 0), &theirs);
            assert!(d < 3e-5, "{target}, not antialiased: {d}");
        }
    }
}

#[test]
fn resize_agrees_with_torchvision() {
    let one = [("decoded/rgb_301x257.png", "resize_257x301_to_64x48", (64, 48))];
    check_resizes(&small("transforms/small.safetensors"), &one);
    if let Some(bytes) = full("transforms.safetensors") {
        let more = [
            ("decoded/rgb_301x257.png", "resize_257x301_to_256x256", (256, 256)),
            ("decoded/rgb_97x61.png", "resize_61x97_to_130x150", (130, 150)),
        ];
        check_resizes(&bytes, &[one[0], more[0], more[1]]);
    }
}

#[test]
fn bilinear_and_nearest_agree_with_torch() {
    let Some(bytes) = full("autodiff.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut seen = 0;
    for name in file.names() {
        let Some(case) = name.strip_suffix("/out").filter(|c| c.starts_with("interpolate/")) else { continue };
        let input = file.names().into_iter().find(|n| n.starts_with(&format!("{case}/in/"))).expect("an input");
        let (shape, values) = floats(&file, input);
        let (out_shape, expected) = floats(&file, name);
        let nchw = Array4::from_shape_vec((shape[0], shape[1], shape[2], shape[3]), values).expect("4 axes");
        let nhwc = nchw.permuted_axes([0, 2, 3, 1]);
        let size = (out_shape[2], out_shape[3]);
        let ours = if case.contains("nearest") {
            resize::nearest(nhwc.view(), size)
        } else if case.contains("align_true") {
            resize::bilinear_with(nhwc.view(), size, resize::Corners::Centres)
        } else {
            resize::bilinear(nhwc.view(), size)
        };
        let ours = ours.expect(case).permuted_axes([0, 3, 1, 2]);
        let d = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(d < 1e-5 && ours.len() == expected.len(), "{case}: {d}");
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} cases");
}

fn check_blur(bytes: &[u8]) {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let mut seen = 0;
    for name in file.names() {
        let Some(case) = name.strip_suffix("/in") else { continue };
        let ((shape, input), (_, expected)) = (floats(&file, name), floats(&file, &format!("{case}/out")));
        let pixels = shape[2] * shape[3];
        let rms = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        for c in 0..shape[1] {
            let part = c * pixels..(c + 1) * pixels;
            let map = Array2::from_shape_vec((shape[2], shape[3]), input[part.clone()].to_vec()).expect("a map");
            let ours = blur::gaussian(map.view(), 4.0).expect("a valid blur");
            let d = ours.iter().zip(&expected[part]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(d < 2e-5 * rms, "{case}, channel {c}: {d} with rms {rms}");
        }
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn blur_agrees_with_anomalib() {
    check_blur(&small("blur/small.safetensors"));
    if let Some(bytes) = full("blur.safetensors") {
        check_blur(&bytes);
    }
}

#[test]
fn bad_arguments_are_refused() {
    let some = Array3::<u8>::zeros((4, 4, 3));
    for size in [(0, 4), (4, 0), (usize::MAX, 2), (1 << 20, 1 << 20)] {
        assert!(resize::antialias_u8(some.view(), size).is_err(), "{size:?}");
        assert!(resize::nearest_2d(Array2::zeros((2, 2)).view(), size).is_err(), "{size:?}");
        assert!(resize::bilinear_2d(Array2::zeros((2, 2)).view(), size).is_err(), "{size:?}");
    }
    for shape in [(0, 4, 1), (4, 0, 3), (4, 4, 0), (4, 4, 2), (4, 4, 4)] {
        assert!(resize::antialias_u8(Array3::zeros(shape).view(), (2, 2)).is_err(), "{shape:?}");
        assert!(resize::antialias_u16(Array3::zeros(shape).view(), (2, 2)).is_err(), "{shape:?}");
    }
    assert!(resize::nearest(Array4::zeros((1, 0, 2, 3)).view(), (2, 2)).is_err());
    assert!(resize::bilinear(Array4::zeros((1, 2, 0, 3)).view(), (2, 2)).is_err());
    assert_eq!(resize::nearest(Array4::zeros((0, 2, 2, 3)).view(), (4, 4)).expect("no maps").dim(), (0, 4, 4, 3));
    assert_eq!(resize::bilinear(Array4::zeros((2, 2, 2, 0)).view(), (4, 4)).expect("no channels").dim(), (2, 4, 4, 0));
}

#[test]
fn views_of_any_layout_are_taken() {
    let a = Array3::from_shape_fn((20, 14, 3), |(y, x, c)| (y * 11 + x * 5 + c * 70) as u8);
    let turned = a.view().permuted_axes([1, 0, 2]);
    let straight = turned.as_standard_layout().into_owned();
    let resize = |v| resize::antialias_u8(v, (5, 9)).expect("a valid resize");
    assert_eq!(resize(turned), resize(straight.view()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_constant_stays_constant(v in 0u8.., h in 1usize..70, w in 1usize..70, oh in 1usize..70, ow in 1usize..70) {
        let ours = resize::antialias_u8(Array3::from_elem((h, w, 3), v).view(), (oh, ow)).expect("a valid resize");
        prop_assert_eq!(ours.dim(), (oh, ow, 3));
        prop_assert!(ours.iter().all(|o| (o - f32::from(v)).abs() < 1e-3));
    }

    #[test]
    fn resizing_keeps_order_and_range(seed in 0u32.., oh in 1usize..50, ow in 1usize..50) {
        let low = Array3::from_shape_fn((23, 31, 1), |(y, x, _)| ((y * 97 + x * 31) as u32 ^ seed) as u8 / 2);
        let high = low.mapv(|v| v + (v % 7));
        let a = resize::antialias_u8(low.view(), (oh, ow)).expect("a valid resize");
        let b = resize::antialias_u8(high.view(), (oh, ow)).expect("a valid resize");
        prop_assert!(a.iter().zip(&b).all(|(a, b)| *a <= b + 1e-3));
        prop_assert!(a.iter().all(|a| (-1e-3..=128.0).contains(a)));
    }

    #[test]
    fn the_three_channels_are_resized_alike(oh in 1usize..50, ow in 1usize..50) {
        let grey = Array3::from_shape_fn((29, 37, 1), |(y, x, _)| (y * 53 + x * 17) as u8);
        let rgb = grey.broadcast((29, 37, 3)).expect("broadcast").to_owned();
        let one = resize::antialias_u8(grey.view(), (oh, ow)).expect("a valid resize");
        let three = resize::antialias_u8(rgb.view(), (oh, ow)).expect("a valid resize");
        prop_assert!(three.indexed_iter().all(|((y, x, _), v)| *v == one[[y, x, 0]]));
    }

    #[test]
    fn blur_keeps_a_constant_and_the_range(h in 1usize..50, w in 1usize..50, sigma in 0.1f32..6.0) {
        let flat = blur::gaussian(Array2::from_elem((h, w), 3.5).view(), sigma).expect("a valid blur");
        prop_assert!(flat.iter().all(|v| (v - 3.5).abs() < 1e-5));
        let map = Array2::from_shape_fn((h, w), |(y, x)| ((y * 7 + x * 13) % 10) as f32);
        let soft = blur::gaussian(map.view(), sigma).expect("a valid blur");
        prop_assert!(soft.iter().all(|v| (-1e-4..=9.0001).contains(v)));
    }
}
