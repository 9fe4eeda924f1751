#![allow(unsafe_code)]
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream, result};

use super::{Cuda, refused};
use crate::{Result, TensorError};

/// Launches that were recorded once and start together, as one graph (see [`Cuda::record`]).
///
/// It keeps the memory of all buffers its kernels were given, even of those that are dropped.
pub struct Recording {
    // Before the memory it uses, since fields are dropped in this order.
    graph: Mutex<Graph>,
    kept: Vec<Arc<Keep>>,
    launches: usize,
    cuda: Cuda,
}

/// `None` if nothing was launched.
struct Graph(Option<CudaGraph>);

// SAFETY: the driver asks that a graph be used by one thread at a time, whichever; it is behind a mutex, or owned.
unsafe impl Send for Graph {}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({} launches, {} buffers)", self.launches, self.kept.len())
    }
}

impl Recording {
    /// How many launches it holds.
    pub fn launches(&self) -> usize {
        self.launches
    }

    /// Starts all of it, after the work asked for before.
    ///
    /// # Errors
    /// [`TensorError::Cuda`]; faults of the kernels are reported by a later call that waits for them.
    pub fn replay(&self) -> Result<()> {
        let graph = locked(&self.graph);
        let Some(graph) = &graph.0 else { return Ok(()) };
        let failed = || refused("starting recorded launches");
        self.cuda.context().bind_to_thread().map_err(failed())?;
        // SAFETY: graph and stream are alive. Its kernels were checked as they were recorded, and their buffers are kept.
        unsafe { result::graph::launch(graph.cu_graph_exec(), self.cuda.stream().cu_stream()) }.map_err(failed())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The graph may be at work. An error here is told by the next call to the driver as well.
        let _ = self.cuda.synchronize();
    }
}

/// Where a dropped buffer leaves its memory while a recording still needs it.
#[derive(Default)]
pub(super) struct Keep(Mutex<Option<Box<dyn Any + Send>>>);

impl Keep {
    pub(super) fn leave(&self, memory: impl Any + Send) {
        *locked(&self.0) = Some(Box::new(memory));
    }
}

/// A recording being made.
pub(super) struct Recorder {
    pub(super) stream: Arc<CudaStream>,
    kept: Mutex<(usize, Vec<Arc<Keep>>)>,
}

impl Recorder {
    /// Notes a launch and the buffers it was given.
    pub(super) fn note(&self, buffers: Vec<Arc<Keep>>) {
        let mut kept = locked(&self.kept);
        kept.0 += 1;
        for buffer in buffers {
            if !kept.1.iter().any(|other| Arc::ptr_eq(other, &buffer)) {
                kept.1.push(buffer);
            }
        }
    }
}

/// The recordings being made, each by one thread.
#[derive(Default)]
pub(super) struct Recorders(Mutex<HashMap<ThreadId, Arc<Recorder>>>);

impl Recorders {
    /// That of this thread.
    pub(super) fn own(&self) -> Option<Arc<Recorder>> {
        locked(&self.0).get(&std::thread::current().id()).cloned()
    }
}

/// Ends the recording of this thread however the work ends.
struct Ending<'a> {
    recorders: &'a Recorders,
    stream: Arc<CudaStream>,
    ended: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        locked(&self.recorders.0).remove(&std::thread::current().id());
        if !self.ended {
            // What was recorded is thrown away.
            let _ = self.stream.end_capture(CUgraphInstantiate_flags(0));
        }
    }
}

/// See [`Cuda::record`].
pub(super) fn record<E: From<TensorError>>(
    cuda: &Cuda,
    recorders: &Recorders,
    work: impl FnOnce() -> Result<(), E>,
) -> Result<Recording, E> {
    let failed = || refused("recording launches");
    if recorders.own().is_some() {
        let what = "this thread is recording already".to_owned();
        return Err(TensorError::Launch { kernel: "recording".to_owned(), what }.into());
    }
    let stream = cuda.context().new_stream().map_err(failed())?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(failed())?;
    let recorder = Arc::new(Recorder { stream: stream.clone(), kept: Mutex::default() });
    locked(&recorders.0).insert(std::thread::current().id(), recorder.clone());
    let mut ending = Ending { recorders, stream: stream.clone(), ended: false };
    work()?;
    ending.ended = true;
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    drop(ending);
    let graph = Mutex::new(Graph(graph.map_err(failed())?));
    let (launches, kept) = std::mem::take(&mut *locked(&recorder.kept));
    Ok(Recording { graph, kept, launches, cuda: cuda.clone() })
}

/// A panic elsewhere leaves what is behind these locks whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
