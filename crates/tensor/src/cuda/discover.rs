#![allow(unsafe_code)]
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};

use super::name;
use crate::NoDevice;

/// The oldest driver that reads the PTX of this workspace (version 8.4).
const DRIVER: (i32, i32) = (12, 4);
/// The oldest chips it is written for.
const CHIP: (i32, i32) = (7, 5);

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its number.
    pub ordinal: usize,
    /// The vendor's name of it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Most bytes of shared memory a block can have.
    pub shared_memory: u32,
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = self.memory as f64 / (1u64 << 30) as f64;
        write!(f, "{}, {gib:.1} GiB, sm_{}{}", self.name, self.capability.0, self.capability.1)
    }
}

/// The GPUs that can be used, or would be but for [`NoDevice::TooOldChip`].
///
/// # Errors
/// Why there is none.
pub fn devices() -> Result<Vec<DeviceInfo>, NoDevice> {
    let count = start()?;
    (0..count).map(info).collect()
}

/// What is known of a device that can be used.
pub(super) fn usable(ordinal: usize) -> Result<DeviceInfo, NoDevice> {
    let count = start()?;
    if ordinal >= count {
        return Err(NoDevice::Ordinal { wanted: ordinal, count });
    }
    let info = info(ordinal)?;
    if info.capability < CHIP {
        return Err(NoDevice::TooOldChip { name: info.name, capability: info.capability, wanted: CHIP });
    }
    Ok(info)
}

/// Loads and starts the driver; how many devices it has.
fn start() -> Result<usize, NoDevice> {
    // SAFETY: opens the driver's library, if there is one, which has no requirements. Any other call into cudarc panics where
    // there is none, so this comes first.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoDevice::Library);
    }
    let init = |error: DriverError| NoDevice::Init { code: name(error) };
    let mut version = 0;
    // SAFETY: writes one integer, which outlives the call; may be called before the driver is started.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(init)?;
    // Written as 1000 * major + 10 * minor.
    let found = (version / 1000, version % 1000 / 10);
    if found < DRIVER {
        return Err(NoDevice::TooOld { found, wanted: DRIVER });
    }
    match result::init().and_then(|()| CudaContext::device_count()) {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Err(NoDevice::None),
        Err(error) => Err(init(error)),
        Ok(count) => usize::try_from(count).ok().filter(|&count| count > 0).ok_or(NoDevice::None),
    }
}

fn info(ordinal: usize) -> Result<DeviceInfo, NoDevice> {
    let read = || {
        let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
        // SAFETY: `device` comes from the driver, which is started.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let count = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        Ok(DeviceInfo {
            ordinal,
            name: result::device::get_name(device)?,
            capability: (major, minor),
            // SAFETY: as above.
            memory: unsafe { result::device::total_mem(device) }?,
            multiprocessors: count.unsigned_abs(),
            shared_memory: shared.unsigned_abs(),
        })
    };
    read().map_err(|error| NoDevice::Device { ordinal, code: name(error) })
}
