use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayView, Data, Dimension};

use crate::{DType, Element, MappedFile, Result, TensorError};

/// Numbers in C order with a shape. Cloning shares the storage.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Owned(Arc<dyn Bytes>),
    Mapped(MappedFile, Range<usize>),
}

trait Bytes: Send + Sync {
    fn bytes(&self) -> &[u8];
}

impl<T: Element> Bytes for Vec<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl Tensor {
    /// A tensor that owns `values`, laid out in C order.
    ///
    /// # Errors
    /// [`TensorError::Length`] if `values` does not have the product of `shape` elements.
    pub fn from_vec<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self> {
        let wanted = elements(&shape);
        if wanted != Some(values.len()) {
            return Err(TensorError::Length { shape, wanted: wanted.unwrap_or(usize::MAX), got: values.len() });
        }
        Ok(Tensor { dtype: T::DTYPE, shape, storage: Storage::Owned(Arc::new(values)) })
    }

    /// A tensor with the values of `array`, copied in C order.
    pub fn from_array<T, S, D>(array: &ArrayBase<S, D>) -> Self
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        let values: Vec<T> = array.iter().copied().collect();
        Tensor { dtype: T::DTYPE, shape: array.shape().to_vec(), storage: Storage::Owned(Arc::new(values)) }
    }

    /// A tensor over bytes of a mapped file; copied only if they are not aligned for the type.
    ///
    /// # Errors
    /// [`TensorError::Range`] if the range lies outside the file or its length does not fit `shape` and `dtype`.
    pub fn from_mapped(file: &MappedFile, range: Range<usize>, dtype: DType, shape: Vec<usize>) -> Result<Self> {
        let all = file.bytes();
        let wanted = elements(&shape).and_then(|n| n.checked_mul(dtype.size()));
        let bytes = match all.get(range.clone()) {
            Some(bytes) if Some(bytes.len()) == wanted => bytes,
            _ => return Err(TensorError::Range { start: range.start, end: range.end, length: all.len(), dtype }),
        };
        if bytes.as_ptr().align_offset(dtype.size()) == 0 {
            return Ok(Tensor { dtype, shape, storage: Storage::Mapped(file.clone(), range) });
        }
        Tensor::from_bytes(dtype, shape, bytes)
    }

    /// A tensor that owns a copy of little-endian `bytes`.
    ///
    /// # Errors
    /// [`TensorError::Length`] if they do not fill `shape` exactly.
    pub fn from_bytes(dtype: DType, shape: Vec<usize>, bytes: &[u8]) -> Result<Self> {
        fn owned<T: Element>(shape: Vec<usize>, bytes: &[u8]) -> Result<Tensor> {
            if !bytes.len().is_multiple_of(size_of::<T>()) {
                let wanted = elements(&shape).unwrap_or(usize::MAX);
                return Err(TensorError::Length { shape, wanted, got: bytes.len() / size_of::<T>() });
            }
            Tensor::from_vec(shape, bytemuck::pod_collect_to_vec::<u8, T>(bytes))
        }
        match dtype {
            DType::F32 => owned::<f32>(shape, bytes),
            DType::F64 => owned::<f64>(shape, bytes),
            DType::F16 => owned::<half::f16>(shape, bytes),
            DType::BF16 => owned::<half::bf16>(shape, bytes),
            DType::U8 => owned::<u8>(shape, bytes),
            DType::I8 => owned::<i8>(shape, bytes),
            DType::U32 => owned::<u32>(shape, bytes),
            DType::I64 => owned::<i64>(shape, bytes),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as little-endian bytes (on every platform supported here).
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(values) => values.bytes(),
            Storage::Mapped(file, range) => &file.bytes()[range.clone()],
        }
    }

    /// The values in C order.
    ///
    /// # Errors
    /// [`TensorError::Type`] if the tensor holds another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(TensorError::Type { wanted: T::DTYPE, got: self.dtype });
        }
        Ok(bytemuck::cast_slice(self.bytes()))
    }

    /// The values as an array view.
    ///
    /// # Errors
    /// [`TensorError::Type`] or [`TensorError::Rank`] if type or number of axes differ.
    pub fn view<T: Element, D: Dimension>(&self) -> Result<ArrayView<'_, T, D>> {
        let rank = || TensorError::Rank { wanted: D::NDIM.unwrap_or(0), got: self.shape.clone() };
        let view = ArrayView::from_shape(self.shape.clone(), self.as_slice::<T>()?).map_err(|_| rank())?;
        view.into_dimensionality::<D>().map_err(|_| rank())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_types_are_checked() {
        assert!(Tensor::from_vec(vec![2, 2], vec![1u8; 3]).is_err());
        assert!(Tensor::from_vec(vec![usize::MAX, 2], vec![1u8; 3]).is_err());
        let t = Tensor::from_vec(vec![2, 2], vec![1u8, 2, 3, 4]).unwrap();
        assert!(t.as_slice::<i8>().is_err());
        assert!(t.view::<u8, ndarray::Ix3>().is_err());
        assert_eq!(t.view::<u8, ndarray::Ix2>().unwrap()[[1, 1]], 4);
        assert!(Tensor::from_bytes(DType::F32, vec![1], &[0; 5]).is_err());
        assert!(Tensor::from_bytes(DType::F32, vec![2], &[0; 4]).is_err());
    }

    #[test]
    fn mapped_reads_what_was_written_even_unaligned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut bytes = vec![7u8];
        bytes.extend_from_slice(bytemuck::cast_slice(&[1.5f32, -2.0]));
        std::fs::write(&path, &bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        let t = Tensor::from_mapped(&file, 1..9, DType::F32, vec![2]).unwrap();
        assert_eq!(t.as_slice::<f32>().unwrap(), [1.5, -2.0]);
        assert!(Tensor::from_mapped(&file, 1..10, DType::F32, vec![2]).is_err());
        assert!(Tensor::from_mapped(&file, 5..13, DType::F32, vec![2]).is_err());
        assert!(MappedFile::open(&dir.path().join("none")).is_err());
        assert!(MappedFile::open(dir.path()).is_err());
    }
}
