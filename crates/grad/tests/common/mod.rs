//! Reads golden vectors.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::path::PathBuf;

use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors};

pub struct Golden {
    pub tensors: HashMap<String, ArrayD<f32>>,
    pub integers: HashMap<String, Vec<i64>>,
    pub wide: HashMap<String, Vec<f64>>,
    pub info: serde_json::Value,
}

impl Golden {
    /// The file of this name, from the folder beside the repository or, where that is missing, from the repository.
    pub fn open(name: &str) -> Option<Golden> {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let places = [root.join("../shared/reference").join(name), root.join("tests/golden").join(name)];
        let Some(path) = places.iter().find(|p| p.exists()) else {
            eprintln!("skipped: no {name} at {places:?}");
            return None;
        };
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let info = header.metadata().as_ref().and_then(|m| serde_json::from_str(&m["info"]).ok()).unwrap_or_default();
        let mut golden = Golden { tensors: HashMap::new(), integers: HashMap::new(), wide: HashMap::new(), info };
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let name = name.to_owned();
            let data = view.data();
            match view.dtype() {
                Dtype::F32 => {
                    let values = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                    golden.tensors.insert(name, ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap());
                }
                Dtype::I64 => {
                    let values = data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
                    golden.integers.insert(name, values);
                }
                Dtype::F64 => {
                    let values = data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
                    golden.wide.insert(name, values);
                }
                other => assert_eq!(other, Dtype::U8),
            }
        }
        Some(golden)
    }

    pub fn get(&self, name: &str) -> &ArrayD<f32> {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} is not in the file"))
    }
}

/// `[n, c, h, w]` to `[n, h, w, c]`; other ranks stay.
pub fn nhwc(x: &ArrayD<f32>) -> ArrayD<f32> {
    if x.ndim() != 4 {
        return x.clone();
    }
    x.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).as_standard_layout().into_owned()
}

/// Asserts `max |got - want| <= relative * rms(want) + absolute`.
pub fn near(what: &str, got: &[f32], want: &ArrayD<f32>, relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    let rms = (want.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / want.len().max(1) as f64).sqrt();
    let worst = got.iter().zip(want.iter()).map(|(g, w)| f64::from(g - w).abs()).fold(0.0, f64::max);
    assert!(worst <= relative * rms + absolute, "{what}: off by {worst:e}, rms {rms:e}");
}
