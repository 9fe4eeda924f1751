#![allow(unsafe_code)]
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute_enum, CUmemPool_attribute_enum};
use cudarc::driver::{CudaContext, CudaStream, result};
use cudarc::nvrtc::Ptx;

use super::budget::Budget;
use super::discover::usable;
use super::event::Watched;
use super::launch::{Loaded, Parameters, Signatures};
use super::recording::{Recorder, Recorders, Recording, record};
use super::staging::Staging;
use super::{Buffer, DeviceInfo, Feed, Launch, Module, NoDevice, Plain, name, refused};
use crate::{Result, TensorError};

/// One GPU; a handle that is cheap to clone.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

struct Inner {
    info: DeviceInfo,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    budget: Arc<Budget>,
    modules: Mutex<HashMap<&'static str, Arc<Loaded>>>,
    recorders: Recorders,
    watched: Mutex<Watched>,
    writes: Mutex<Staging>,
    reads: Mutex<Staging>,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda({}: {})", self.0.info.ordinal, self.0.info)
    }
}

impl PartialEq for Cuda {
    /// The same GPU.
    fn eq(&self, other: &Cuda) -> bool {
        self.0.info.ordinal == other.0.info.ordinal
    }
}

impl Eq for Cuda {}

impl Cuda {
    /// Opens GPU `ordinal`. The memory budget is nine tenths of what is free now.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(ordinal: usize) -> Result<Cuda, NoDevice> {
        let info = usable(ordinal)?;
        let refuse = |error| NoDevice::Device { ordinal, code: name(error) };
        let context = CudaContext::new(ordinal).map_err(refuse)?;
        // SAFETY: events order the work of several streams, and all work of this handle goes through one, but for the copies
        // of a `Feed`, which orders them itself. The context is shared with other handles of the same GPU, but buffers are
        // not: a launch takes those of its own handle alone.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(refuse)?;
        let (free, _) = context.mem_get_info().map_err(refuse)?;
        keep_freed(&context, free / 8);
        let budget = Budget::new(free / 10 * 9);
        Ok(Cuda(Arc::new(Inner {
            info,
            context,
            stream,
            budget,
            modules: Mutex::default(),
            recorders: Recorders::default(),
            watched: Mutex::default(),
            writes: Mutex::default(),
            reads: Mutex::default(),
        })))
    }

    /// What is known of the GPU.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Bytes that buffers may take in all.
    pub fn memory_budget(&self) -> usize {
        self.0.budget.limit()
    }

    /// Changes the budget; buffers that exist stay.
    pub fn set_memory_budget(&self, bytes: usize) {
        self.0.budget.set_limit(bytes);
    }

    /// Bytes that buffers take now.
    pub fn memory_used(&self) -> usize {
        self.0.budget.used()
    }

    /// The most bytes that buffers took at a time.
    pub fn memory_peak(&self) -> usize {
        self.0.budget.peak()
    }

    /// `len` numbers of arbitrary value.
    ///
    /// # Errors
    /// [`TensorError::Budget`], [`TensorError::Cuda`].
    pub fn scratch<T: Plain>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::new(self, len)
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// As [`scratch`](Self::scratch).
    pub fn zeros<T: Plain>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.scratch(len)?;
        buffer.clear()?;
        Ok(buffer)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// As [`scratch`](Self::scratch).
    pub fn upload<T: Plain>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.scratch(values.len())?;
        buffer.write_at(0, values)?;
        Ok(buffer)
    }

    /// Two buffers of `len` numbers that are filled in turn while kernels work.
    ///
    /// # Errors
    /// As [`scratch`](Self::scratch).
    pub fn feed<T: Plain>(&self, len: usize) -> Result<Feed<T>> {
        Feed::new(self, len)
    }

    /// Waits until all work asked for is done.
    ///
    /// # Errors
    /// [`TensorError::Cuda`] for what went wrong in it.
    pub fn synchronize(&self) -> Result<()> {
        self.0.stream.synchronize().map_err(refused("waiting for the GPU"))
    }

    /// Begins a launch of a kernel, loading its module if this is the first.
    ///
    /// # Errors
    /// [`TensorError::Cuda`] if the driver refuses the module, [`TensorError::Launch`] if it has no such kernel.
    pub fn launch(&self, module: Module, kernel: &'static str) -> Result<Launch<'_>> {
        let loaded = self.loaded(module)?;
        Launch::new(self, &loaded, kernel)
    }

    /// A compile-time parameter of a module's kernels, of `N` numbers, as the PTX loaded for this chip has it: what launch
    /// shapes and shared memory are computed from.
    ///
    /// # Errors
    /// As [`launch`](Self::launch); [`TensorError::Launch`] if the PTX does not say it.
    pub fn parameter<const N: usize>(&self, module: Module, name: &str) -> Result<[usize; N]> {
        self.loaded(module)?.parameters.get(name).ok_or_else(|| TensorError::Launch {
            kernel: module.name.to_owned(),
            what: format!("its PTX has no parameter {name} of {N} numbers"),
        })
    }

    /// Records the launches that `work` asks for on this thread, instead of starting them: [`Recording::replay`] then starts
    /// them all at once, any number of times, on the same buffers.
    ///
    /// Launches alone are recorded. Copies, reads and allocations inside `work` happen at once, before any replay, and so do
    /// launches of other threads. Have each kernel run once before, since loading a module may wait for the GPU.
    ///
    /// # Errors
    /// Those of `work`; [`TensorError::Cuda`] from the driver, [`TensorError::Launch`] inside another recording.
    pub fn record<E: From<TensorError>>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<Recording, E> {
        record(self, &self.0.recorders, work)
    }

    fn loaded(&self, module: Module) -> Result<Arc<Loaded>> {
        let mut modules = self.modules();
        if let Some(loaded) = modules.get(module.name) {
            return Ok(Arc::clone(loaded));
        }
        let loaded = self.load(module.name, module.for_chip(self.0.info.capability))?;
        modules.insert(module.name, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The recording this thread makes.
    pub(super) fn recorder(&self) -> Option<Arc<Recorder>> {
        self.0.recorders.own()
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// Loads `text` in place of the module of this name, which must not have been used yet: to try a variant of its kernels
    /// with the same names and parameters.
    ///
    /// # Errors
    /// [`TensorError::Launch`] if the module is in use already; as [`launch`](Self::launch).
    pub fn substitute(&self, name: &'static str, text: &str) -> Result<()> {
        if self.modules().contains_key(name) {
            return Err(TensorError::Launch { kernel: name.to_owned(), what: "it is loaded already".to_owned() });
        }
        let loaded = self.load(name, text)?;
        self.modules().insert(name, loaded);
        Ok(())
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<&'static str, Arc<Loaded>>> {
        // A panic elsewhere leaves the map whole.
        self.0.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, name: &str, text: &str) -> Result<Arc<Loaded>> {
        if text.contains('\0') {
            return Err(TensorError::Launch { kernel: name.to_owned(), what: "its PTX holds a zero".to_owned() });
        }
        let handle = self.0.context.load_module(Ptx::from_src(text));
        let handle = handle.map_err(refused(format!("loading the kernels of {name}")))?;
        Ok(Arc::new(Loaded { handle, signatures: Signatures::read(text), parameters: Parameters::read(text) }))
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        // As for the modules.
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What large writes go through, one at a time.
    pub(super) fn writes(&self) -> MutexGuard<'_, Staging> {
        // As for the modules.
        self.0.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What large reads go through, one at a time. Apart from the writes, since a read waits for the GPU's work and a write of
    /// another thread need not.
    pub(super) fn reads(&self) -> MutexGuard<'_, Staging> {
        // As for the modules.
        self.0.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn same(&self, other: &Cuda) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.0.budget
    }
}

/// Has the driver keep up to `bytes` of freed memory for buffers to come. As it is, it gives everything back whenever something
/// waits for the GPU, and a buffer of some size takes it longer to map again than kernels take to fill.
fn keep_freed(context: &CudaContext, bytes: usize) {
    let supported = context.attribute(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED);
    if !supported.is_ok_and(|supported| supported > 0) {
        return;
    }
    let mut bytes = bytes as u64;
    let kind = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device is that of a context, the pool is its own, and this attribute is a number of 64 bits. Without it buffers
    // are slower to come by, and nothing else.
    let _ = unsafe {
        result::device::get_default_mem_pool(context.cu_device())
            .and_then(|pool| result::mem_pool::set_attribute(pool, kind, std::ptr::from_mut(&mut bytes).cast()))
    };
}
