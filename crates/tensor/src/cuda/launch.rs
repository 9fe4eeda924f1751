#![allow(unsafe_code)]
use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{CudaFunction, CudaModule, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg};

use super::recording::Keep;
use super::{Buffer, Cuda, Plain, refused};
use crate::{Result, TensorError};

/// Shared memory every block can have without asking.
const SHARED: u32 = 48 << 10;

/// Kernels as PTX text.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// A name of its own.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
    /// Texts for chips on which other parameters are faster, by compute capability (90 for 9.0).
    pub tuned: &'static [(u32, &'static str)],
}

impl Module {
    /// The text for a chip.
    pub(super) fn for_chip(&self, (major, minor): (i32, i32)) -> &'static str {
        let own = |(chip, _): &&(u32, &str)| i64::from(*chip) == i64::from(major) * 10 + i64::from(minor);
        self.tuned.iter().find(own).map_or(self.text, |(_, text)| text)
    }
}

/// A module in a context.
pub(super) struct Loaded {
    pub(super) handle: Arc<CudaModule>,
    pub(super) signatures: Signatures,
    pub(super) parameters: Parameters,
}

/// The compile-time parameters of the kernels, from the line `// tuned NAME=1,2 OTHER=3` of the PTX.
pub(super) struct Parameters(HashMap<String, Vec<usize>>);

impl Parameters {
    pub(super) fn read(ptx: &str) -> Self {
        let line = ptx.lines().take(4).find_map(|line| line.strip_prefix("// tuned ")).unwrap_or_default();
        let one = |word: &str| {
            let (name, values) = word.split_once('=')?;
            let values = values.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
            Some((name.to_owned(), values.ok()?))
        };
        Parameters(line.split_whitespace().filter_map(one).collect())
    }

    pub(super) fn get<const N: usize>(&self, name: &str) -> Option<[usize; N]> {
        self.0.get(name)?.as_slice().try_into().ok()
    }
}

/// The types of every kernel's parameters, as the PTX declares them.
pub(super) struct Signatures(HashMap<String, Vec<String>>);

impl Signatures {
    pub(super) fn read(ptx: &str) -> Self {
        let entry = |part: &str| {
            let (name, tail) = part.split_once('(')?;
            let parameters = tail.split(')').next()?.split(".param .").skip(1);
            let types = parameters.filter_map(|p| p.split_whitespace().next()).map(str::to_owned).collect();
            Some((name.trim().to_owned(), types))
        };
        Signatures(ptx.split(".entry ").skip(1).filter_map(entry).collect())
    }
}

/// A kernel and the arguments it gets, in the order in which they are given.
///
/// Number and types of the arguments are compared with the PTX, buffers must lie on the GPU of the launch, and grid and
/// shared memory must be possible; what a kernel then does with its arguments is for the caller to answer for.
pub struct Launch<'a> {
    cuda: &'a Cuda,
    kernel: &'static str,
    function: CudaFunction,
    wanted: Vec<String>,
    arguments: Vec<Argument>,
    fault: Option<String>,
    kept: Vec<Arc<Keep>>,
    buffers: std::marker::PhantomData<&'a mut ()>,
}

#[derive(Clone, Copy, Debug)]
enum Argument {
    Pointer(u64),
    Int(i32),
    Float(f32),
}

impl<'a> Launch<'a> {
    pub(super) fn new(cuda: &'a Cuda, module: &Loaded, kernel: &'static str) -> Result<Self> {
        let Some(wanted) = module.signatures.0.get(kernel).cloned() else {
            return Err(TensorError::Launch {
                kernel: kernel.to_owned(),
                what: "its module has no such kernel".to_owned(),
            });
        };
        let function = module.handle.load_function(kernel).map_err(refused(format!("loading kernel {kernel}")))?;
        let (arguments, fault) = (Vec::with_capacity(wanted.len()), None);
        let (kept, buffers) = (Vec::new(), std::marker::PhantomData);
        Ok(Launch { cuda, kernel, function, wanted, arguments, fault, kept, buffers })
    }

    /// A buffer the kernel reads.
    pub fn input<T: Plain>(mut self, buffer: &'a Buffer<T>) -> Self {
        self.owns(buffer.cuda());
        self.kept.push(buffer.keep());
        let (pointer, _order) = buffer.slice().device_ptr(self.cuda.stream());
        self.arguments.push(Argument::Pointer(pointer));
        self
    }

    /// A buffer the kernel writes, and may read.
    pub fn output<T: Plain>(mut self, buffer: &'a mut Buffer<T>) -> Self {
        self.owns(buffer.cuda());
        self.kept.push(buffer.keep());
        let (pointer, _order) = buffer.slice_mut().device_ptr_mut(self.cuda.stream());
        self.arguments.push(Argument::Pointer(pointer));
        self
    }

    /// A null pointer, for a buffer that is optional.
    pub fn null(mut self) -> Self {
        self.arguments.push(Argument::Pointer(0));
        self
    }

    /// A whole number.
    pub fn int(mut self, value: usize) -> Self {
        match i32::try_from(value) {
            Ok(value) => self.arguments.push(Argument::Int(value)),
            Err(_) => self.fault = Some(format!("{value} is beyond the kernel's whole numbers")),
        }
        self
    }

    /// A number.
    pub fn float(mut self, value: f32) -> Self {
        self.arguments.push(Argument::Float(value));
        self
    }

    /// How many blocks of `threads` and `shared` bytes run at a time on the whole GPU: the largest cooperative grid.
    ///
    /// # Errors
    /// [`TensorError::Cuda`].
    pub fn resident(&self, threads: u32, shared: u32) -> Result<u32> {
        self.ask_for(shared)?;
        let blocks = self.function.occupancy_max_active_blocks_per_multiprocessor(threads, shared as usize, None);
        Ok(blocks.map_err(refused(format!("occupancy of {}", self.kernel)))? * self.cuda.info().multiprocessors)
    }

    /// Starts the kernel with `grid` blocks of `threads` threads and `shared` bytes of shared memory.
    ///
    /// # Errors
    /// [`TensorError::Launch`] for what cannot be right, [`TensorError::Cuda`] for what the driver refuses. Faults of the
    /// kernel itself are reported by a later call that waits for it.
    ///
    /// # Safety
    /// The kernel must stay inside the buffers it gets, write no other than those given as outputs, and read no value
    /// that was never written in a way that its contract forbids.
    pub unsafe fn run(self, grid: (u32, u32), threads: u32, shared: u32) -> Result<()> {
        // SAFETY: the caller answers for it.
        unsafe { self.start(grid, threads, shared, false) }
    }

    /// As [`run`](Self::run), all blocks at once, so that they can wait for each other.
    ///
    /// # Errors
    /// As [`run`](Self::run); a grid that does not fit the GPU is refused.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub unsafe fn run_cooperative(self, grid: u32, threads: u32, shared: u32) -> Result<()> {
        // SAFETY: the caller answers for it.
        unsafe { self.start((grid, 1), threads, shared, true) }
    }

    unsafe fn start(self, grid: (u32, u32), threads: u32, shared: u32, cooperative: bool) -> Result<()> {
        self.check(grid, threads, shared)?;
        self.ask_for(shared)?;
        let config =
            LaunchConfig { grid_dim: (grid.0, grid.1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared };
        let recorder = self.cuda.recorder();
        // What is only recorded takes no time.
        let before = if recorder.is_some() { None } else { self.cuda.before_launch()? };
        let stream = recorder.as_ref().map_or(self.cuda.stream(), |recorder| &recorder.stream);
        let mut builder = stream.launch_builder(&self.function);
        for argument in &self.arguments {
            match argument {
                Argument::Pointer(v) => builder.arg(v),
                Argument::Int(v) => builder.arg(v),
                Argument::Float(v) => builder.arg(v),
            };
        }
        // SAFETY: number and types of the arguments are those of the PTX, as `check` found out; buffers outlive the launch
        // in the order of the stream, in which they are also freed, or are kept by the recording; the rest is the caller's
        // promise.
        let started = unsafe { if cooperative { builder.launch_cooperative(config) } else { builder.launch(config) } };
        started.map_err(refused(format!("launching {}", self.kernel)))?;
        if let Some(recorder) = recorder {
            recorder.note(self.kept);
        }
        self.cuda.after_launch(self.kernel, before)
    }

    fn owns(&mut self, other: &Cuda) {
        if !self.cuda.same(other) {
            self.fault = Some("a buffer belongs to another GPU or another handle of it".to_owned());
        }
    }

    fn ask_for(&self, shared: u32) -> Result<()> {
        if shared <= SHARED {
            return Ok(());
        }
        let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
        let set = self.function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
        set.map_err(refused(format!("{shared} bytes of shared memory for {}", self.kernel)))
    }

    fn check(&self, grid: (u32, u32), threads: u32, shared: u32) -> Result<()> {
        let largest = self.cuda.info().shared_memory;
        let fault = self.fault.clone().or_else(|| mismatch(&self.wanted, &self.arguments));
        match fault.or_else(|| impossible(grid, threads, shared, largest)) {
            Some(what) => Err(TensorError::Launch { kernel: self.kernel.to_owned(), what }),
            None => Ok(()),
        }
    }
}

/// What is wrong with arguments for parameters of these types.
fn mismatch(wanted: &[String], arguments: &[Argument]) -> Option<String> {
    let given: Vec<&str> = arguments.iter().map(Argument::ptx_type).collect();
    (given != wanted).then(|| format!("it takes {wanted:?}, given {given:?}"))
}

/// What is wrong with a shape that no GPU, or not this one, can run.
fn impossible((x, y): (u32, u32), threads: u32, shared: u32, largest: u32) -> Option<String> {
    if x == 0 || y == 0 || x > i32::MAX as u32 || y > 65_535 || !(1..=1024).contains(&threads) {
        return Some(format!("a grid of {x} by {y} blocks of {threads} threads"));
    }
    let most = largest.max(SHARED);
    (shared > most).then(|| format!("{shared} bytes of shared memory, where a block can have {most}"))
}

impl Argument {
    fn ptx_type(&self) -> &'static str {
        match self {
            Argument::Pointer(_) => "u64",
            Argument::Int(_) => "u32",
            Argument::Float(_) => "f32",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_in_a_line_of_the_ptx() {
        let found = Parameters::read("// stamp source=a text=b\n// tuned ROWS=128 TILE=2,4 ODD=x\n.version 8.4\n");
        assert_eq!(found.get("ROWS"), Some([128]));
        assert_eq!(found.get("TILE"), Some([2, 4]));
        assert_eq!((found.get::<1>("TILE"), found.get::<1>("ODD"), found.get::<1>("NONE")), (None, None, None));
        assert_eq!(Parameters::read(".version 8.4\n").get::<1>("ROWS"), None);
    }

    #[test]
    fn a_chip_gets_its_own_text() {
        let module = Module { name: "m", text: "any", tuned: &[(90, "nine")] };
        assert_eq!((module.for_chip((9, 0)), module.for_chip((8, 0))), ("nine", "any"));
    }

    #[test]
    fn parameters_are_read_from_the_ptx() {
        let text = ".version 8.4\n.visible .entry f(\n\t.param .u64 f_param_0,\n\t.param .u32 f_param_1\n)\n{ ret; }\n\
            .visible .entry g(\n\t.param .f32 g_param_0\n)\n.maxntid 256, 1, 1\n{ ret; }\n.entry h()\n{ ret; }";
        let read = Signatures::read(text);
        assert_eq!(read.0["f"], ["u64", "u32"]);
        assert_eq!(read.0["g"], ["f32"]);
        assert!(read.0["h"].is_empty());
    }

    #[test]
    fn arguments_that_the_ptx_does_not_declare_are_refused() {
        let wanted = ["u64", "u32", "f32"].map(str::to_owned);
        let right = [Argument::Pointer(8), Argument::Int(1), Argument::Float(0.5)];
        assert_eq!(mismatch(&wanted, &right), None);
        let [a, b, c] = right;
        for wrong in [&[a, b][..], &[a, c, b], &[a, b, c, c], &[]] {
            assert!(mismatch(&wanted, wrong).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn shapes_that_cannot_run_are_refused() {
        assert_eq!(impossible((1 << 30, 65_535), 1024, 99 << 10, 99 << 10), None);
        for (grid, threads, shared) in [
            ((0, 1), 32, 0),
            ((1, 0), 32, 0),
            ((1 << 31, 1), 32, 0),
            ((1, 65_536), 32, 0),
            ((1, 1), 0, 0),
            ((1, 1), 1025, 0),
        ] {
            assert!(impossible(grid, threads, shared, 99 << 10).is_some(), "{grid:?} {threads} {shared}");
        }
        assert!(impossible((1, 1), 32, (99 << 10) + 1, 99 << 10).is_some());
    }
}
