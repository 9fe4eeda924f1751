use std::sync::{Mutex, OnceLock, PoisonError};

use blemish_tensor::Device;

use super::{Refused, Tried, gpu};

/// A device and the copy of a table that is kept there, made when it is first needed.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    device: Device,
    making: Mutex<()>,
    /// `None` if it does not fit.
    made: OnceLock<Option<T>>,
    /// The first refusal of the GPU.
    why: OnceLock<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { device: Device::cpu(), making: Mutex::default(), made: OnceLock::new(), why: OnceLock::new() }
    }
}

impl<T> Kept<T> {
    /// Forgets what is kept elsewhere.
    pub(crate) fn use_device(&mut self, device: &Device) {
        if self.device != *device {
            *self = Kept { device: device.clone(), ..Kept::default() };
        }
    }

    /// The copy, if the device is a GPU that has room for it.
    pub(super) fn get(&self, make: impl FnOnce(&gpu::Gpu) -> Tried<T>) -> Option<&T> {
        let gpu = gpu::of(&self.device)?;
        if let Some(made) = self.made.get() {
            return made.as_ref();
        }
        // Two copies at a time might not fit where one does.
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.made.get_or_init(|| self.noted(make(gpu))).as_ref()
    }

    /// What was found; a refusal of the GPU is remembered.
    pub(super) fn noted<R>(&self, tried: Tried<R>) -> Option<R> {
        match tried {
            Ok(found) => Some(found),
            Err(Refused::Arguments) => None,
            Err(Refused::Device(why)) => {
                let _ = self.why.set(why);
                None
            }
        }
    }

    /// In words: `on cuda:0`, `on the CPU`, or that and why.
    pub(crate) fn words(&self) -> String {
        match (self.why.get(), self.device.is_cpu()) {
            (_, true) => "on the CPU".to_owned(),
            (None, false) => format!("on {}", self.device),
            (Some(why), false) => format!("on the CPU ({}: {why})", self.device),
        }
    }
}
