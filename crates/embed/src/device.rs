//! What detectors keep on a GPU beside the network, and what becomes of a refusal.
//!
//! Every step has a form for the CPU, which is what counts. Its form for a GPU is used where one was asked for; what does not fit there
//! or fails is done by the form for the CPU, and the reason is kept for the user.

use std::sync::{Mutex, OnceLock, PoisonError};

use blemish_tensor::Device;

/// A GPU.
#[cfg(feature = "cuda")]
pub type Gpu = blemish_tensor::cuda::Cuda;

/// In a program without GPU code there is none.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub enum Gpu {}

/// The GPU, if the device is one.
#[cfg(feature = "cuda")]
pub fn gpu(device: &Device) -> Option<&Gpu> {
    device.as_cuda()
}

/// The GPU, if the device is one.
#[cfg(not(feature = "cuda"))]
pub fn gpu(_: &Device) -> Option<&Gpu> {
    None
}

/// Why a GPU form gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Arguments that it does not take; the CPU form does, or says what is wrong with them.
    Arguments,
    /// The GPU, its memory or its driver.
    Device(String),
}

/// Results of GPU forms.
pub type Tried<T> = Result<T, Refused>;

#[cfg(feature = "cuda")]
impl From<blemish_kernels::cuda::CudaError> for Refused {
    fn from(error: blemish_kernels::cuda::CudaError) -> Self {
        match error {
            blemish_kernels::cuda::CudaError::Device(error) => error.into(),
            _ => Refused::Arguments,
        }
    }
}

#[cfg(feature = "cuda")]
impl From<blemish_tensor::TensorError> for Refused {
    fn from(error: blemish_tensor::TensorError) -> Self {
        Refused::Device(error.to_string())
    }
}

/// A device and the copy of something that is kept there, made when it is first needed.
#[derive(Debug)]
pub struct Kept<T> {
    device: Device,
    making: Mutex<()>,
    /// `None` if it does not fit.
    made: OnceLock<Option<T>>,
    /// The first refusal of the GPU.
    why: OnceLock<String>,
}

impl<T> Default for Kept<T> {
    /// On the CPU, where nothing is kept twice.
    fn default() -> Self {
        Kept::new(&Device::cpu())
    }
}

impl<T> Kept<T> {
    /// Nothing yet, to be made on `device`.
    pub fn new(device: &Device) -> Self {
        Kept { device: device.clone(), making: Mutex::default(), made: OnceLock::new(), why: OnceLock::new() }
    }

    /// What was made on `device` already.
    pub fn holding(device: &Device, made: T) -> Self {
        let kept = Kept::new(device);
        let _ = kept.made.set(Some(made));
        kept
    }

    /// Whether it is kept on `device`, or would be.
    pub fn is_on(&self, device: &Device) -> bool {
        self.device == *device
    }

    /// The copy, if there is one by now.
    pub fn made(&self) -> Option<&T> {
        self.made.get().and_then(Option::as_ref)
    }

    /// Forgets what is kept on another device.
    pub fn use_device(&mut self, device: &Device) {
        if !self.is_on(device) {
            *self = Kept::new(device);
        }
    }

    /// The copy, if the device is a GPU that has room for it.
    pub fn get(&self, make: impl FnOnce(&Gpu) -> Tried<T>) -> Option<&T> {
        let gpu = gpu(&self.device)?;
        if let Some(made) = self.made.get() {
            return made.as_ref();
        }
        // Two copies at a time might not fit where one does.
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.made.get_or_init(|| self.noted(make(gpu))).as_ref()
    }

    /// What was found; a refusal of the GPU is remembered.
    pub fn noted<R>(&self, tried: Tried<R>) -> Option<R> {
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
    pub fn words(&self) -> String {
        match (self.why.get(), self.device.is_cpu()) {
            (_, true) => "on the CPU".to_owned(),
            (None, false) => format!("on {}", self.device),
            (Some(why), false) => format!("on the CPU ({}: {why})", self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_nothing_is_kept_and_words_say_so() {
        let mut kept = Kept::<u8>::default();
        assert_eq!((kept.get(|_| Ok(1)), kept.words().as_str()), (None, "on the CPU"));
        assert_eq!((kept.noted(Ok(2)), kept.noted::<u8>(Err(Refused::Arguments))), (Some(2), None));
        assert_eq!(kept.noted::<u8>(Err(Refused::Device("full".to_owned()))), None);
        kept.use_device(&Device::cpu());
        // The CPU is what was asked for: a reason from elsewhere is no part of it.
        assert_eq!((kept.why.get().map(String::as_str), kept.words().as_str()), (Some("full"), "on the CPU"));
    }
}
