use std::sync::{Mutex, OnceLock, PoisonError};

use blemish_tensor::Device;

use super::{Gpu, Refused, Tried, gpu};

/// A device and a copy of flows that is kept there, made when it is first needed.
pub(crate) struct Kept<T> {
    device: Device,
    making: Mutex<()>,
    /// `None` if it does not fit.
    made: OnceLock<Option<T>>,
    /// The first refusal of the GPU.
    why: OnceLock<String>,
}

impl<T> Kept<T> {
    pub(crate) fn new(device: &Device) -> Self {
        Kept { device: device.clone(), making: Mutex::default(), made: OnceLock::new(), why: OnceLock::new() }
    }

    /// Forgets what is kept elsewhere.
    pub(crate) fn use_device(&mut self, device: &Device) {
        if self.device != *device {
            *self = Kept::new(device);
        }
    }

    /// The copy, if the device is a GPU that has room for it.
    pub(crate) fn get(&self, make: impl FnOnce(&Gpu) -> Tried<T>) -> Option<&T> {
        let gpu = gpu(&self.device)?;
        if let Some(made) = self.made.get() {
            return made.as_ref();
        }
        // Two copies at a time might not fit where one does.
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.made.get_or_init(|| self.noted(make(gpu))).as_ref()
    }

    /// What was found; a refusal of the GPU is remembered.
    pub(crate) fn noted<R>(&self, tried: Tried<R>) -> Option<R> {
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
