#![allow(unsafe_code)]
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr, ValidAsZeroBits};

use super::budget::Share;
use super::recording::Keep;
use super::staging::LARGE;
use super::{Cuda, refused};
use crate::{Result, TensorError};

mod sealed {
    pub trait Sealed {}
}

/// Numbers of which every pattern of bits is one, the same on the GPU and here.
pub trait Plain:
    sealed::Sealed + DeviceRepr + ValidAsZeroBits + bytemuck::Pod + Default + Send + Sync + 'static
{
}

macro_rules! plain {
    ($($t:ty),*) => { $(impl sealed::Sealed for $t {} impl Plain for $t {})* };
}
plain!(u8, u16, u32, u64, i32, f32, f64);

/// `len` numbers in a GPU's memory. Dropping it gives the memory back.
pub struct Buffer<T: Plain> {
    cuda: Cuda,
    slice: ManuallyDrop<CudaSlice<T>>,
    len: usize,
    share: ManuallyDrop<Share>,
    keep: Arc<Keep>,
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: nothing takes them but this, and nothing uses them afterwards.
        let memory = unsafe { (ManuallyDrop::take(&mut self.slice), ManuallyDrop::take(&mut self.share)) };
        // A recording that uses it holds the other count; it frees the memory.
        if Arc::strong_count(&self.keep) > 1 {
            self.keep.leave(memory);
        }
    }
}

impl<T: Plain> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer<{}>({})", std::any::type_name::<T>(), self.len)
    }
}

impl<T: Plain> Buffer<T> {
    pub(super) fn new(cuda: &Cuda, len: usize) -> Result<Self> {
        // The driver refuses to give no memory at all.
        let held = len.max(1);
        let bytes = held.saturating_mul(size_of::<T>());
        let share = cuda.budget().reserve(bytes)?;
        // SAFETY: the contents are arbitrary, which a `Plain` may be.
        let slice =
            unsafe { cuda.stream().alloc::<T>(held) }.map_err(refused(format!("{bytes} bytes of GPU memory")))?;
        let (slice, share) = (ManuallyDrop::new(slice), ManuallyDrop::new(share));
        Ok(Buffer { cuda: cuda.clone(), slice, len, share, keep: Arc::default() })
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The GPU it lies on.
    pub fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    pub(super) fn keep(&self) -> Arc<Keep> {
        Arc::clone(&self.keep)
    }

    pub(super) fn slice(&self) -> &CudaSlice<T> {
        &self.slice
    }

    pub(super) fn slice_mut(&mut self) -> &mut CudaSlice<T> {
        &mut self.slice
    }

    /// All numbers, once the work before is done.
    ///
    /// # Errors
    /// [`TensorError::Cuda`], also for what went wrong in that work.
    pub fn read(&self) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.len];
        self.read_at(0, &mut values)?;
        Ok(values)
    }

    /// As [`read`](Self::read), the numbers from `at` on, as many as `values` holds.
    ///
    /// # Errors
    /// [`TensorError::Launch`] if there are not so many; as [`read`](Self::read).
    pub fn read_at(&self, at: usize, values: &mut [T]) -> Result<()> {
        let part = self.part(at, values.len())?;
        let stream = self.cuda.stream();
        if values.is_empty() {
            return Ok(());
        }
        let view = self.slice.slice(part);
        if size_of_val(values) >= LARGE {
            let (from, _order) = view.device_ptr(stream);
            let bytes = bytemuck::cast_slice_mut::<T, u8>(values);
            // SAFETY: the part is as large as the values; it is freed in the order of the stream.
            if unsafe { self.cuda.reads().read(&self.cuda, bytes, from) }? {
                return Ok(());
            }
        }
        stream.memcpy_dtoh(&view, values).map_err(refused("reading GPU memory"))?;
        stream.synchronize().map_err(refused("waiting for the GPU"))
    }

    /// Writes `values` from `at` on.
    ///
    /// # Errors
    /// [`TensorError::Launch`] if there is no room; [`TensorError::Cuda`].
    pub fn write_at(&mut self, at: usize, values: &[T]) -> Result<()> {
        let part = self.part(at, values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        let stream = self.cuda.stream().clone();
        let bytes = bytemuck::cast_slice::<T, u8>(values);
        if bytes.len() < LARGE {
            return stream.memcpy_htod(values, &mut self.slice.slice_mut(part)).map_err(refused("writing GPU memory"));
        }
        let cuda = self.cuda.clone();
        let mut view = self.slice.slice_mut(part);
        let (to, _order) = view.device_ptr_mut(&stream);
        // SAFETY: the part has room for the values; it is freed in the order of the stream.
        unsafe { cuda.writes().write(&cuda, bytes, to) }
    }

    /// Sets every number to zero.
    ///
    /// # Errors
    /// [`TensorError::Cuda`].
    pub fn clear(&mut self) -> Result<()> {
        let stream = self.cuda.stream().clone();
        stream.memset_zeros(&mut *self.slice).map_err(refused("clearing GPU memory"))
    }

    fn part(&self, at: usize, len: usize) -> Result<std::ops::Range<usize>> {
        match at.checked_add(len).filter(|end| *end <= self.len) {
            Some(end) => Ok(at..end),
            None => {
                let what = format!("{len} numbers from {at} on, of a buffer of {}", self.len);
                Err(TensorError::Launch { kernel: "copy".to_owned(), what })
            }
        }
    }
}
