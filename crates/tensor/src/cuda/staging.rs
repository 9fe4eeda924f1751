#![allow(unsafe_code)]
use std::thread;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};

use super::{Cuda, refused};
use crate::{Result, TensorError};

/// Page-locked memory that large copies of a [`Cuda`] go through, in one direction: while one piece is on its way, others are
/// filled or emptied by several threads, since one alone is slower than the bus, and slower still at memory nobody used before.
#[derive(Default)]
pub(super) struct Staging(Vec<[Piece; 2]>);

/// Bytes of a piece.
const PIECE: usize = 512 << 10;
/// The fewest bytes that a thread is started for; what is smaller as a whole is left to the driver.
pub(super) const LARGE: usize = 1 << 20;
/// The most threads that fill or empty pieces.
const THREADS: usize = 8;

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
    ///
    /// # Safety
    /// There is so much memory at `to`, until the stream gets there.
    unsafe fn send(&mut self, stream: &CudaStream, bytes: &[u8], to: CUdeviceptr) -> Result<()> {
        let failed = || refused("writing GPU memory");
        self.copied.synchronize().map_err(failed())?;
        let host = &mut self.host.as_mut_slice().map_err(failed())?[..bytes.len()];
        host.copy_from_slice(bytes);
        stream.context().bind_to_thread().map_err(failed())?;
        // SAFETY: the caller has the memory. The piece stays as it is until `copied`, which is waited for before it is filled
        // again or given back.
        unsafe { result::memcpy_htod_async(to, host, stream.cu_stream()) }.map_err(failed())?;
        self.copied.record(stream).map_err(failed())
    }

    /// Begins to copy `len` bytes, at most a piece, after the work before; [`take`](Self::take) waits for them.
    ///
    /// # Safety
    /// There is so much memory at `from`, until the stream gets there.
    unsafe fn fetch(&mut self, stream: &CudaStream, from: CUdeviceptr, len: usize) -> Result<()> {
        let failed = || refused("reading GPU memory");
        let host = &mut self.host.as_mut_slice().map_err(failed())?[..len];
        stream.context().bind_to_thread().map_err(failed())?;
        // SAFETY: the caller has the memory. Nobody looks at the piece or gives it back before `copied`, which comes after this
        // copy and those before, also of a read that failed, since all go through one stream.
        unsafe { result::memcpy_dtoh_async(host, from, stream.cu_stream()) }.map_err(failed())?;
        self.copied.record(stream).map_err(failed())
    }

    /// What was fetched last, or its beginning.
    fn take(&self, bytes: &mut [u8]) -> Result<()> {
        self.copied.synchronize().map_err(refused("waiting for the GPU"))?;
        let host = self.host.as_slice().map_err(refused("reading GPU memory"))?;
        bytes.copy_from_slice(&host[..bytes.len()]);
        Ok(())
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
        let threads = threads(bytes.len());
        self.grow(cuda, threads)?;
        // Every `threads`-th piece, from `first` on.
        all_at_once(self.0.iter_mut().take(threads).enumerate(), |(first, own)| {
            for (turn, (i, part)) in bytes.chunks(PIECE).enumerate().skip(first).step_by(threads).enumerate() {
                // SAFETY: a part of the caller's memory.
                unsafe { own[turn % 2].send(cuda.stream(), part, to + (i * PIECE) as CUdeviceptr) }?;
            }
            Ok(())
        })
    }

    /// Reads `bytes` from the memory at `from`, after all work of the stream. `false`, with nothing read, if there is no
    /// page-locked memory to be had.
    ///
    /// # Safety
    /// There is so much memory, and it lives until the stream gets there.
    pub(super) unsafe fn read(&mut self, cuda: &Cuda, bytes: &mut [u8], from: CUdeviceptr) -> Result<bool> {
        let threads = threads(bytes.len());
        if self.grow(cuda, threads).is_err() {
            return Ok(false);
        }
        // Neighbouring pieces are one thread's: two that touch a large page first would both clear it, one in vain.
        let each = bytes.len().div_ceil(PIECE).div_ceil(threads) * PIECE;
        let shares = bytes.chunks_mut(each).zip(&mut self.0).enumerate();
        let mut shares: Vec<Share<'_>> =
            shares.map(|(i, (to, own))| Share { to, from: from + (i * each) as CUdeviceptr, own }).collect();
        for turn in 0..2 {
            for share in &mut shares {
                // SAFETY: the caller has the memory.
                unsafe { share.fetch(cuda.stream(), turn) }?;
            }
        }
        // The work before is waited for here, not by every thread.
        if let Some(first) = shares.first() {
            first.own[0].copied.synchronize().map_err(refused("waiting for the GPU"))?;
        }
        // SAFETY: the caller has the memory.
        all_at_once(shares, |share| unsafe { share.finish(cuda.stream()) })?;
        Ok(true)
    }

    /// Has pieces for so many threads.
    fn grow(&mut self, cuda: &Cuda, threads: usize) -> Result<()> {
        while self.0.len() < threads {
            self.0.push([Piece::new(cuda)?, Piece::new(cuda)?]);
        }
        Ok(())
    }
}

/// The part of a read that one thread does.
struct Share<'a> {
    to: &'a mut [u8],
    from: CUdeviceptr,
    own: &'a mut [Piece; 2],
}

impl Share<'_> {
    /// Begins to copy piece `i`, if the share has so many.
    ///
    /// # Safety
    /// There is all the share's memory, until the stream gets there.
    unsafe fn fetch(&mut self, stream: &CudaStream, i: usize) -> Result<()> {
        let at = i * PIECE;
        let len = self.to.len().saturating_sub(at).min(PIECE);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: a part of the share's memory.
        unsafe { self.own[i % 2].fetch(stream, self.from + at as CUdeviceptr, len) }
    }

    /// Takes all pieces, of which the first two are on their way.
    ///
    /// # Safety
    /// As for [`fetch`](Self::fetch).
    unsafe fn finish(mut self, stream: &CudaStream) -> Result<()> {
        for i in 0..self.to.len().div_ceil(PIECE) {
            let end = self.to.len().min((i + 1) * PIECE);
            self.own[i % 2].take(&mut self.to[i * PIECE..end])?;
            // SAFETY: as the caller says.
            unsafe { self.fetch(stream, i + 2) }?;
        }
        Ok(())
    }
}

/// How many threads copy so many bytes.
fn threads(bytes: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (bytes / LARGE).clamp(1, THREADS.min(processors))
}

/// Does `work` on every item, each on a thread of its own, the first on this one. Gives the first error, once all have ended.
fn all_at_once<I: Send>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> Result<()> + Sync) -> Result<()> {
    let failed = |what: &str, code: String| TensorError::Cuda { what: what.to_owned(), code };
    let (mut items, work) = (items.into_iter(), &work);
    thread::scope(|scope| {
        let mut result = Ok(());
        let mut started = Vec::new();
        let mine = items.next();
        for item in items {
            match thread::Builder::new().spawn_scoped(scope, move || work(item)) {
                Ok(handle) => started.push(handle),
                Err(error) => {
                    result = Err(failed("starting a thread that copies page-locked memory", error.to_string()));
                }
            }
        }
        if let Some(item) = mine {
            result = result.and(work(item));
        }
        for handle in started {
            let ended = || failed("copying page-locked memory", "a panic".to_owned());
            result = result.and(handle.join().unwrap_or_else(|_| Err(ended())));
        }
        result
    })
}
