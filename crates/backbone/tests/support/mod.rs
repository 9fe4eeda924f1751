//! Formula weights, golden files and a writer of PyTorch archives.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blemish_backbone::catalogue::Net;
use blemish_tensor::{DType, MappedFile, Tensor};
use ndarray::{Array4, ArrayView4};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

pub(crate) fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

pub(crate) fn unit(key: u64, i: usize) -> f32 {
    let k = splitmix64(key.wrapping_add(i as u64)) >> 40;
    (k as i64 - (1 << 23)) as f32 * 2f32.powi(-23)
}

fn checksum(values: &[f32]) -> u64 {
    let each = values.iter().enumerate();
    each.fold(0, |sum, (i, v)| sum.wrapping_add(splitmix64(u64::from(v.to_bits()).wrapping_add((i as u64) << 32))))
}

pub(crate) fn gain(id: &str) -> f64 {
    match id {
        "resnet18" => 1.2,
        "resnet50" | "wide_resnet50_2" => 1.1,
        "mobilenetv2_100" => 1.26,
        "mobilenetv3_large_100" => 1.35,
        _ => 1.5,
    }
}

/// Names and shapes of what follows the last layer in the whole classifier.
fn head(id: &str) -> Vec<(String, Vec<usize>)> {
    let linear = |name: &str, from: usize| {
        vec![(format!("{name}.weight"), vec![1000, from]), (format!("{name}.bias"), vec![1000])]
    };
    let conv = |to: usize, from: usize| ("conv_head.weight".to_owned(), vec![to, from, 1, 1]);
    let norm = |c| ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("bn2.{part}"), vec![c]));
    match id {
        "resnet18" => linear("fc", 512),
        "resnet50" | "wide_resnet50_2" => linear("fc", 2048),
        "mobilenetv3_large_100" => {
            let bias = ("conv_head.bias".to_owned(), vec![1280]);
            [vec![conv(1280, 960), bias], linear("classifier", 1280)].concat()
        }
        "mobilenetv2_100" => [vec![conv(1280, 320)], norm(1280).to_vec(), linear("classifier", 1280)].concat(),
        _ => [vec![conv(2048, 512)], norm(2048).to_vec(), linear("classifier", 2048)].concat(),
    }
}

/// Every `f32` tensor of the whole classifier by formula, and its checksum.
pub(crate) fn formula_state(id: &str) -> (Vec<(String, Tensor)>, u64) {
    let graph = (Net::find(id).unwrap().graph)();
    let mut shapes: Vec<(String, Vec<usize>)> =
        graph.tensors(graph.nodes.len() - 1).into_iter().map(|spec| (spec.timm, spec.shape)).collect();
    shapes.extend(head(id));
    let made: Vec<(u64, (String, Tensor))> = shapes
        .into_par_iter()
        .map(|(name, shape)| {
            let key = fnv1a64(&name);
            let fan_in: usize = shape.iter().skip(1).product();
            let scale = (gain(id) * (3.0 / fan_in as f64).sqrt()) as f32;
            let value = |u: f32| {
                if name.ends_with("running_var") {
                    1.0 + 0.2 * u.abs()
                } else if name.ends_with("running_mean") || name.ends_with(".bias") {
                    0.1 * u
                } else if shape.len() == 1 {
                    1.0 + 0.1 * u
                } else {
                    scale * u
                }
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(unit(key, i))).collect();
            let sum = splitmix64(key ^ checksum(&values));
            (sum, (name, Tensor::from_vec(shape, values).unwrap()))
        })
        .collect();
    let sum = made.iter().fold(0u64, |sum, (s, _)| sum.wrapping_add(*s));
    (made.into_iter().map(|(_, t)| t).collect(), sum)
}

/// The formula input `[n, h, w, 3]` of an NCHW shape.
pub(crate) fn formula_input([n, c, h, w]: [usize; 4]) -> Array4<f32> {
    let key = fnv1a64(&format!("input:{n}x{c}x{h}x{w}"));
    Array4::from_shape_fn((n, h, w, c), |(i, y, x, ch)| 2.0 * unit(key, ((i * c + ch) * h + y) * w + x))
}

/// A `[n, h, w, c]` map in NCHW order.
pub(crate) fn nchw(map: ArrayView4<'_, f32>) -> Vec<f32> {
    map.permuted_axes([0, 3, 1, 2]).iter().copied().collect()
}

pub(crate) fn shared() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"))
}

pub(crate) fn golden() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/backbones"))
}

/// A golden file: tensors and the `info` text.
pub(crate) struct Golden {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) info: serde_json::Value,
}

impl Golden {
    /// `None` (and a line that says so) where the file is not there.
    pub(crate) fn open(path: &Path) -> Option<Golden> {
        if !path.is_file() {
            eprintln!("skipped: no {}", path.display());
            return None;
        }
        let file = MappedFile::open(path).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(file.bytes()).unwrap();
        let info = metadata.metadata().as_ref().unwrap()["info"].clone();
        let mut tensors = BTreeMap::new();
        for (name, t) in metadata.tensors() {
            let dtype = match t.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F64 => DType::F64,
                Dtype::I64 => DType::I64,
                _ => DType::U8,
            };
            let range = header + 8 + t.data_offsets.0..header + 8 + t.data_offsets.1;
            tensors.insert(name, Tensor::from_mapped(&file, range, dtype, t.shape.clone()).unwrap());
        }
        Some(Golden { tensors, info: serde_json::from_str(&info).unwrap() })
    }

    pub(crate) fn f32(&self, name: &str) -> &[f32] {
        self.tensors[name].as_slice().unwrap()
    }

    pub(crate) fn i64(&self, name: &str) -> Vec<usize> {
        self.tensors[name].as_slice::<i64>().unwrap().iter().map(|&x| x as usize).collect()
    }

    pub(crate) fn f64(&self, name: &str) -> &[f64] {
        self.tensors[name].as_slice().unwrap()
    }
}

/// Largest difference over the root mean square of `wanted`.
pub(crate) fn error(got: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let rms = (wanted.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / wanted.len() as f64).sqrt();
    got.iter().zip(wanted).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).fold(0.0, f64::max) / rms
}

/// A zip archive with stored entries, as `torch.save` lays it out.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let header = out.len() as u32;
        let sizes = [(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        let common =
            [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &sizes, &(name.len() as u16).to_le_bytes()].concat();
        out.extend([b"PK\x03\x04", &common[..], &[0, 0], name.as_bytes(), data].concat());
        directory
            .extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 12], &header.to_le_bytes(), name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, at) = ((directory.len() as u32).to_le_bytes(), (out.len() as u32).to_le_bytes());
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &at, &[0, 0]].concat());
    out
}

/// The PyTorch archive of a state dictionary of `f32` tensors.
pub(crate) fn pth(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let text = |s: &str| [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat();
    let int = |n: usize| [b"J", &(n as u32).to_le_bytes()[..]].concat();
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(
            [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&index.to_string()), text("cpu")].concat(),
        );
        pickle.extend([int(tensor.len()), b"tQ".to_vec(), int(0), b"(".to_vec()].concat());
        tensor.shape().iter().for_each(|&d| pickle.extend(int(d)));
        pickle.extend(b"t(");
        (0..tensor.shape().len()).for_each(|i| pickle.extend(int(tensor.shape()[i + 1..].iter().product())));
        pickle.extend(b"t\x89NtR");
    }
    pickle.extend(b"u.");
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("archive/data/{i}")).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("archive/data.pkl", &pickle)];
    entries.extend(names.iter().zip(tensors).map(|(name, (_, tensor))| (name.as_str(), tensor.bytes())));
    zip(&entries)
}
