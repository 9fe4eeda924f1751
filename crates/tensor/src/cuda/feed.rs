#![allow(unsafe_code)]
use std::sync::Arc;
use std::thread;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};

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

/// Page-locked memory that large writes of a [`Cuda`] go through: while one piece is on its way, the next is filled, by several
/// threads, since one alone is slower than the bus.
#[derive(Default)]
pub(super) struct Staging(Vec<[Piece; 2]>);

/// Bytes of a piece.
const PIECE: usize = 512 << 10;
/// The fewest bytes that a thread is started for; what is smaller as a whole is left to the driver.
pub(super) const LARGE: usize = 1 << 20;
/// The most threads that fill pieces.
const FILLERS: usize = 8;

struct Piece {
    host: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Piece {
    fn new(cuda: &Cuda) -> Result<Piece> {
        // SAFETY: the contents are arbitrary, which bytes may be; it is neither empty nor too long.
        let host = unsafe { cuda.context().alloc_pinned_with_flags(PIECE, 0) };
        let host = host.map_err(refused(format!("{PIECE} bytes of page-locked memory")))?;
        let copied = cuda.stream().record_event(None).map_err(refused("an event"))?;
        Ok(Piece { host, copied })
    }

    /// Begins to copy `bytes`, at most a piece, once what was in it before has left.
    fn send(&mut self, stream: &CudaStream, bytes: &[u8], to: CUdeviceptr) -> Result<()> {
        let failed = || refused("writing GPU memory");
        self.copied.synchronize().map_err(failed())?;
        let host = &mut self.host.as_mut_slice().map_err(failed())?[..bytes.len()];
        host.copy_from_slice(bytes);
        stream.context().bind_to_thread().map_err(failed())?;
        // SAFETY: the caller has so much memory at `to`. The piece stays as it is until `copied`, which is waited for before it is
        // filled again or given back.
        unsafe { result::memcpy_htod_async(to, host, stream.cu_stream()) }.map_err(failed())?;
        self.copied.record(stream).map_err(failed())
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // An error here is told by the next call to the driver as well.
        let _ = self.copied.synchronize();
    }
}

impl Staging {
    /// Writes `bytes` to the memory at `to`, in the order of the stream; `bytes` is free again on return.
    ///
    /// # Safety
    /// There is so much memory, and it lives until the stream gets there.
    pub(super) unsafe fn write(&mut self, cuda: &Cuda, bytes: &[u8], to: CUdeviceptr) -> Result<()> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let fillers = (bytes.len() / LARGE).clamp(1, FILLERS.min(processors));
        while self.0.len() < fillers {
            self.0.push([Piece::new(cuda)?, Piece::new(cuda)?]);
        }
        // Every `fillers`-th piece, from `first` on.
        let fill = |own: &mut [Piece; 2], first: usize| -> Result<()> {
            for (turn, (i, part)) in bytes.chunks(PIECE).enumerate().skip(first).step_by(fillers).enumerate() {
                own[turn % 2].send(cuda.stream(), part, to + (i * PIECE) as CUdeviceptr)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let mut result = Ok(());
            let mut started = Vec::new();
            let mut own = self.0.iter_mut().take(fillers).enumerate();
            // The first share is this thread's own.
            let mine = own.next();
            for (first, own) in own {
                let fill = &fill;
                match thread::Builder::new().spawn_scoped(scope, move || fill(own, first)) {
                    Ok(handle) => started.push(handle),
                    Err(error) => {
                        let what = "starting a thread that fills page-locked memory".to_owned();
                        result = Err(TensorError::Cuda { what, code: error.to_string() });
                    }
                }
            }
            if let Some((first, own)) = mine {
                result = result.and(fill(own, first));
            }
            for handle in started {
                let ended =
                    || TensorError::Cuda { what: "filling page-locked memory".to_owned(), code: "a panic".to_owned() };
                result = result.and(handle.join().unwrap_or_else(|_| Err(ended())));
            }
            result
        })
    }
}
