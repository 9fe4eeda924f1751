#![allow(unsafe_code)]
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};

use super::{Buffer, Cuda, Plain, refused};
use crate::{Result, TensorError};

/// Two buffers filled in turn through page-locked memory, by a stream of their own: while kernels work on one, the next
/// values are copied into the other.
///
/// ```no_run
/// # fn demo(cuda: &blemish_tensor::cuda::Cuda, parts: &[&[f32]]) -> blemish_tensor::Result<()> {
/// let mut feed = cuda.feed::<f32>(1000)?;
/// for i in 0..=parts.len() {
///     if let Some(part) = parts.get(i) {
///         feed.send(part)?;
///     }
///     if i > 0 {
///         let buffer = feed.receive()?; // the part before, while the copy just begun goes on
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Feed<T: Plain> {
    cuda: Cuda,
    copies: Arc<CudaStream>,
    slots: [Slot<T>; 2],
    sent: usize,
    received: usize,
}

struct Slot<T: Plain> {
    host: PinnedHostSlice<T>,
    buffer: Buffer<T>,
    copied: CudaEvent,
}

impl<T: Plain> Feed<T> {
    /// Buffers of `len` numbers each.
    pub(super) fn new(cuda: &Cuda, len: usize) -> Result<Self> {
        let copies = cuda.context().new_stream().map_err(refused("a stream for copies"))?;
        let slot = || -> Result<Slot<T>> {
            let buffer = cuda.scratch(len)?;
            let bytes = len.saturating_mul(size_of::<T>());
            if bytes >= isize::MAX as usize {
                return Err(TensorError::Budget { wanted: bytes, used: 0, budget: isize::MAX as usize });
            }
            // SAFETY: the contents are arbitrary, which a `Plain` may be; it is neither empty nor too long.
            let host = unsafe { cuda.context().alloc_pinned_with_flags(len.max(1), 0) };
            let host = host.map_err(refused(format!("{bytes} bytes of page-locked memory")))?;
            let copied = copies.record_event(None).map_err(refused("an event"))?;
            Ok(Slot { host, buffer, copied })
        };
        Ok(Feed { cuda: cuda.clone(), slots: [slot()?, slot()?], copies, sent: 0, received: 0 })
    }

    /// Begins to copy `values`, at most as many as a buffer holds, into the next buffer. Work on what it held before must have
    /// been asked for by now; the copy waits for it.
    ///
    /// # Errors
    /// [`TensorError::Launch`] for too many values, or if both buffers were sent and not yet received; [`TensorError::Cuda`].
    pub fn send(&mut self, values: &[T]) -> Result<()> {
        let slot = &mut self.slots[self.sent % 2];
        if values.len() > slot.buffer.len() || self.sent - self.received >= 2 {
            let what = format!("{} numbers, where two buffers of {} are in turn", values.len(), slot.buffer.len());
            return Err(TensorError::Launch { kernel: "feed".to_owned(), what });
        }
        let failed = || refused("copying to GPU memory");
        // Until the copy before has left this memory. The event in `host` would tell, but none is recorded there by a context that
        // leaves the order of streams to its user.
        slot.copied.synchronize().map_err(failed())?;
        let host = slot.host.as_mut_slice().map_err(failed())?;
        host[..values.len()].copy_from_slice(values);
        self.copies.join(self.cuda.stream()).map_err(failed())?;
        self.copies.memcpy_htod(&slot.host, slot.buffer.slice_mut()).map_err(failed())?;
        slot.copied.record(&self.copies).map_err(failed())?;
        self.sent += 1;
        Ok(())
    }

    /// The buffer sent first of those not yet received. Work asked for from now on finds the values there, and whatever else
    /// beyond the values that were sent.
    ///
    /// # Errors
    /// [`TensorError::Launch`] if nothing was sent; [`TensorError::Cuda`].
    pub fn receive(&mut self) -> Result<&Buffer<T>> {
        if self.received == self.sent {
            return Err(TensorError::Launch { kernel: "feed".to_owned(), what: "nothing was sent".to_owned() });
        }
        let slot = &self.slots[self.received % 2];
        self.cuda.stream().wait(&slot.copied).map_err(refused("waiting for a copy"))?;
        self.received += 1;
        Ok(&slot.buffer)
    }
}

impl<T: Plain> Drop for Feed<T> {
    fn drop(&mut self) {
        // Buffers are freed in the order of another stream, which may not have waited for the last copy. An error here is
        // told by the next call to the driver as well.
        let _ = self.copies.synchronize();
    }
}
