//! A tensor out of its storage.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use blemish_tensor::{DType, MappedFile, Tensor};

use super::pickle::TensorRef;

/// The bytes of one storage.
pub(super) enum Bytes {
    /// They lie in the file.
    Mapped(Range<usize>),
    /// They were compressed.
    Owned(Vec<u8>),
}

/// Storages by key.
pub(super) type Storages = HashMap<Rc<str>, Bytes>;

/// Element type and bytes of one element of a storage type.
pub(super) fn element(kind: &str) -> (Option<DType>, usize) {
    match kind {
        "FloatStorage" => (Some(DType::F32), 4),
        "DoubleStorage" => (Some(DType::F64), 8),
        "HalfStorage" => (Some(DType::F16), 2),
        "BFloat16Storage" => (Some(DType::BF16), 2),
        "LongStorage" => (Some(DType::I64), 8),
        "CharStorage" => (Some(DType::I8), 1),
        "ByteStorage" | "BoolStorage" => (Some(DType::U8), 1),
        "IntStorage" => (None, 4),
        _ => (None, 2),
    }
}

/// The values of `tensor` in C order; without a copy where they already lie so.
pub(super) fn tensor(file: &MappedFile, storages: &Storages, tensor: &TensorRef) -> Result<Tensor, String> {
    let TensorRef { storage, offset, shape, strides } = tensor;
    let (dtype, size) = element(storage.kind);
    let dtype = dtype.ok_or_else(|| format!("is of type {}, which is not read", storage.kind))?;
    let place = storages.get(&storage.key).ok_or_else(|| format!("its storage {} is missing", storage.key))?;
    let bytes = match place {
        Bytes::Mapped(range) => file.bytes().get(range.clone()).unwrap_or_default(),
        Bytes::Owned(bytes) => bytes,
    };
    let window = Window::new(*offset, shape, strides).ok_or("has an impossible shape")?;
    let present = bytes.len() / size;
    if storage.elements > present || window.end > storage.elements || window.count > storage.elements {
        return Err(format!(
            "needs elements {offset}..{} of its storage, which has {}",
            window.end,
            present.min(storage.elements)
        ));
    }
    if window.contiguous {
        let (start, end) = (offset * size, (offset + window.count) * size);
        if window.count == 0 {
            return Tensor::from_bytes(dtype, shape.clone(), &[]).map_err(|e| e.to_string());
        }
        return match place {
            Bytes::Mapped(range) => {
                Tensor::from_mapped(file, range.start + start..range.start + end, dtype, shape.clone())
            }
            Bytes::Owned(bytes) => Tensor::from_bytes(dtype, shape.clone(), &bytes[start..end]),
        }
        .map_err(|e| e.to_string());
    }
    let mut values = Vec::with_capacity(window.count * size);
    let mut index = vec![0; shape.len()];
    let mut at = *offset;
    for _ in 0..window.count {
        values.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Tensor::from_bytes(dtype, shape.clone(), &values).map_err(|e| e.to_string())
}

/// What a shape and its strides span, in elements.
struct Window {
    count: usize,
    /// One past the last element touched.
    end: usize,
    contiguous: bool,
}

impl Window {
    fn new(offset: usize, shape: &[usize], strides: &[usize]) -> Option<Self> {
        if shape.len() != strides.len() {
            return None;
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if count == 0 {
            return Some(Window { count, end: 0, contiguous: true });
        }
        let (mut last, mut expected, mut contiguous) = (offset, 1usize, true);
        for (&d, &stride) in shape.iter().zip(strides).rev() {
            last = last.checked_add((d - 1).checked_mul(stride)?)?;
            // One past the end of the axis, which the walk touches before it steps back.
            d.checked_mul(stride)?.checked_add(last)?;
            contiguous &= d == 1 || stride == expected;
            expected = expected.checked_mul(d)?;
        }
        Some(Window { count, end: last.checked_add(1)?, contiguous })
    }
}
