//! PaDiM against anomalib 2.7, from feature maps to scores and maps: a part of the reference vectors always, all of them
//! where they are.

use blemish_core::AnomalyMap;
use blemish_detect_embedding::padim::{Form, Gaussians, Learner};
use blemish_kernels::mahalanobis::{Layout, Moments};
use ndarray::{Array2, Array4, ArrayD, Ix2, Ix4, s};
use safetensors::{Dtype, SafeTensors};

const PART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/padim/padim.safetensors");
const WHOLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/padim.safetensors");
const EPSILON: f64 = 0.01 + 1e-5;
const FORMS: [Form; 4] = [Form::Nested, Form::Triangle, Form::LowRank, Form::Auto];

struct Golden(Vec<u8>);

impl Golden {
    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }

    fn get(&self, name: &str) -> ArrayD<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        fn each<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect()
        }
        let values = match tensor.dtype() {
            Dtype::F32 => each(tensor.data(), |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => each(tensor.data(), f64::from_le_bytes),
            Dtype::I32 => each(tensor.data(), |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I64 => each(tensor.data(), |b| i64::from_le_bytes(b) as f64),
            other => panic!("{name} is {other:?}"),
        };
        ArrayD::from_shape_vec(tensor.shape(), values).unwrap()
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.get(name).iter().map(|&i| i as usize).collect()
    }

    /// Feature maps `[n, h, w, c]` of the three layers.
    fn maps(&self, split: &str) -> Vec<Array4<f32>> {
        let layer = |k| self.get(&format!("{split}/layer{k}")).mapv(|v| v as f32).into_dimensionality::<Ix4>().unwrap();
        (1..=3).map(|k| layer(k).permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned()).collect()
    }
}

fn sizes(maps: &[Array4<f32>]) -> Vec<[usize; 3]> {
    maps.iter().map(|m| [m.dim().1, m.dim().2, m.dim().3]).collect()
}

fn learn(maps: &[Array4<f32>], index: &[usize], form: Form) -> Gaussians {
    let n = maps[0].dim().0;
    let mut learner = Learner::new(&sizes(maps), index, n, EPSILON, form).unwrap();
    for first in (0..n).step_by(7) {
        let part: Vec<_> = maps.iter().map(|m| m.slice(s![first..n.min(first + 7), .., .., ..]).to_owned()).collect();
        learner.push(&part).unwrap();
    }
    learner.finish().unwrap()
}

/// The largest difference over the root mean square of `want`.
fn error(got: impl IntoIterator<Item = f64>, want: &ArrayD<f64>) -> f64 {
    let rms = want.iter().map(|w| w * w).sum::<f64>() / want.len() as f64;
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((g - w).abs())) / rms.sqrt()
}

/// Where each reference channel lies in ours.
fn order(ours: &[usize], index: &[usize]) -> Vec<usize> {
    index.iter().map(|c| ours.iter().position(|o| o == c).unwrap()).collect()
}

fn reorder(matrix: &Array2<f64>, order: &[usize]) -> Array2<f64> {
    Array2::from_shape_fn(matrix.dim(), |(r, c)| matrix[[order[r], order[c]]])
}

fn check(golden: &Golden) {
    let (train, test, index) = (golden.maps("train"), golden.maps("test"), golden.indices("index"));
    let side = train[0].dim().1;
    let all: Vec<usize> = (0..side * side).collect();
    let positions = if golden.has("positions") { golden.indices("positions") } else { all.clone() };

    let mut moments = Moments::new(Layout::new(&sizes(&train), &index, true).unwrap());
    moments.push(&train.iter().map(|m| m.view()).collect::<Vec<_>>()).unwrap();
    let place = order(moments.layout().channels(), &index);
    let covariances = positions.iter().map(|p| reorder(&moments.covariance(p / side, p % side).unwrap(), &place));
    let covariances: Vec<f64> = covariances.flatten().collect();
    assert!(error(covariances, &golden.get("covariance_raw")) < 2e-5);

    for form in FORMS {
        let model = learn(&train, &index, form);
        let place = order(model.channels(), &index);
        let mean: Vec<Vec<f32>> = all.iter().map(|p| model.mean(p / side, p % side).unwrap().to_vec()).collect();
        let mean: Vec<f64> = place.iter().flat_map(|&c| mean.iter().map(move |m| f64::from(m[c]))).collect();
        assert!(error(mean, &golden.get("mean")) < 1e-5, "{form:?}");
        let inverse = positions.iter().map(|p| reorder(&model.inverse_covariance(p / side, p % side).unwrap(), &place));
        let worst = error(inverse.flatten().collect::<Vec<_>>(), &golden.get("inverse_covariance"));
        assert!(worst < 3e-4, "{form:?}: {worst:e}");
        let distance = model.distance(&test).unwrap();
        let worst = error(distance.iter().map(|d| f64::from(*d)), &golden.get("distance_f64"));
        assert!(worst < 1e-5, "{form:?}: {worst:e}");
    }

    // The mean of one picture seen twice is its embedding, to the bit.
    let embedding = golden.get("test/embedding");
    for picture in 0..4 {
        let twice: Vec<_> = test.iter().map(|m| m.select(ndarray::Axis(0), &[picture, picture])).collect();
        for form in FORMS {
            let model = learn(&twice, &index, form);
            let place = order(model.channels(), &index);
            for p in &all {
                let (y, x) = (p / side, p % side);
                let mean = model.mean(y, x).unwrap();
                assert!(place.iter().enumerate().all(|(i, &c)| f64::from(mean[c]) == embedding[[picture, i, y, x]]));
            }
        }
    }

    let grids = golden.get(if golden.has("map_in") { "map_in" } else { "distance" }).mapv(|v| v as f32);
    for (size, name, step) in [((64, 64), "64x64", 1), ((100, 75), "100x75", 10)] {
        let (want, scores) = (golden.get(&format!("map_{name}")), golden.get(&format!("score_{name}")));
        let step = if want.shape()[2] == size.0 { 1 } else { step };
        for (i, grid) in grids.outer_iter().enumerate() {
            let grid = grid.index_axis(ndarray::Axis(0), 0).into_dimensionality::<Ix2>().unwrap();
            let map = AnomalyMap::from_patches(grid, size, false, 4.0).unwrap();
            let rows = map.view().slice(s![..;step, ..]).to_owned();
            let want = want.slice(s![i, 0, .., ..]).to_owned().into_dyn();
            assert!(error(rows.iter().map(|v| f64::from(*v)), &want) < 1e-4, "{name}");
            let score = f64::from(map.max().unwrap());
            assert!((score / scores[[i, 0]] - 1.0).abs() < 1e-4, "{name}");
        }
    }
}

#[test]
fn a_part_of_the_reference() {
    check(&Golden(std::fs::read(PART).expect(PART)));
}

#[test]
fn all_of_the_reference() {
    match std::fs::read(WHOLE) {
        Ok(bytes) => check(&Golden(bytes)),
        Err(_) => eprintln!("skipped: no folder `shared` with the reference vectors beside the repository"),
    }
}

#[test]
fn constant_channels_and_equal_pictures_do_no_harm() {
    let mut maps = vec![Array4::<f32>::zeros((6, 4, 4, 5)), Array4::<f32>::from_elem((6, 2, 2, 4), 7.5)];
    // Pictures 0 to 2 are equal, 3 to 5 too; channel 4 never changes.
    maps[0].indexed_iter_mut().for_each(|((i, y, x, c), v)| *v = ((i / 3 * (c % 4) * 3 + y + x + c) % 5) as f32);
    let index: Vec<usize> = (0..9).collect();
    let mut test: Vec<_> = maps.iter().map(|m| m.slice(s![..2, .., .., ..]).to_owned()).collect();
    test[0][[1, 2, 3, 4]] += 1.0;
    let distances = FORMS.map(|form| learn(&maps, &index, form).distance(&test).unwrap());
    for other in &distances[1..] {
        assert!(distances[0].iter().zip(other).all(|(a, b)| (a - b).abs() <= 1e-4 * a.max(1e-3)), "{distances:?}");
    }
    // A constant channel's variance is epsilon alone.
    let d = |i: usize| f64::from(distances[0][[i, 2, 3]]);
    assert!((d(1).powi(2) - d(0).powi(2) - 1.0 / EPSILON).abs() < 1e-2);
}

#[test]
fn auto_counts_floats() {
    let form = |n: usize, maps: &[[usize; 3]]| {
        let index: Vec<usize> = (0..maps.iter().map(|m| m[2]).sum()).collect();
        let maps: Vec<_> = maps.iter().map(|m| Array4::<f32>::zeros((n, m[0], m[1], m[2]))).collect();
        let model = learn(&maps, &index, Form::Auto);
        (model.form(), model.floats_per_position())
    };
    // 20 channels at 16 positions and 20 at 4: (820 - 210) + 210 / 4 floats, and means.
    assert_eq!(form(20, &[[4, 4, 20], [2, 2, 20]]), (Form::Nested, 610.0 + 52.5 + 25.0));
    assert_eq!(form(5, &[[4, 4, 20], [2, 2, 20]]), (Form::LowRank, 4.0 * 41.0 + 25.0));
    assert_eq!(form(40, &[[4, 4, 20]]), (Form::Triangle, 210.0 + 20.0));
}
