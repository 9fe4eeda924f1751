#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
use crate::{NoDevice, Result, TensorError};

/// Where the work is done. A value, not a type parameter: chosen at run time.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Device(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl Device {
    /// The processor; always there.
    pub fn cpu() -> Self {
        Device(Kind::Cpu)
    }

    /// A GPU.
    #[cfg(feature = "cuda")]
    pub fn cuda(cuda: Cuda) -> Self {
        Device(Kind::Cuda(cuda))
    }

    /// The GPU, if this is one.
    #[cfg(feature = "cuda")]
    pub fn as_cuda(&self) -> Option<&Cuda> {
        match &self.0 {
            Kind::Cpu => None,
            Kind::Cuda(cuda) => Some(cuda),
        }
    }

    /// Reads `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N` (GPU `N`, counted from 0). `auto` is the first GPU where the
    /// program was built with the feature `cuda` and there is one that can be used, else the CPU.
    ///
    /// # Errors
    /// [`TensorError::NoDevice`] for an unknown word, and for `cuda` where there is no GPU to use.
    pub fn parse(text: &str) -> Result<Self> {
        let ordinal = match text {
            "auto" => return Ok(open(0).unwrap_or_else(|_| Device::cpu())),
            "cpu" => return Ok(Device::cpu()),
            "cuda" => Ok(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or(NoDevice::Word),
        };
        ordinal.and_then(open).map_err(|why| TensorError::NoDevice { wanted: text.to_owned(), why })
    }

    /// The GPUs there are, in words.
    ///
    /// # Errors
    /// Why there is none.
    pub fn gpus() -> Result<Vec<String>, NoDevice> {
        #[cfg(feature = "cuda")]
        return Ok(crate::cuda::devices()?.iter().map(ToString::to_string).collect());
        #[cfg(not(feature = "cuda"))]
        Err(NoDevice::NotBuilt)
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.0 == Kind::Cpu
    }
}

#[cfg(feature = "cuda")]
fn open(ordinal: usize) -> Result<Device, NoDevice> {
    Cuda::open(ordinal).map(Device::cuda)
}

#[cfg(not(feature = "cuda"))]
fn open(_ordinal: usize) -> Result<Device, NoDevice> {
    Err(NoDevice::NotBuilt)
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Cpu => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Kind::Cuda(cuda) => write!(f, "cuda:{}", cuda.info().ordinal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert!(Device::parse("auto").is_ok());
        assert_eq!(Device::parse("cpu").unwrap().to_string(), "cpu");
        for word in ["cuda:x", "cuda:-1", "gpu", ""] {
            let error = Device::parse(word).unwrap_err().to_string();
            assert!(error.contains("choices") && error.contains(word), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_no_gpu_is_asked_for() {
        assert_eq!(Device::parse("auto").unwrap(), Device::cpu());
        assert_eq!(Device::gpus(), Err(NoDevice::NotBuilt));
        for word in ["cuda", "cuda:1"] {
            let error = Device::parse(word).unwrap_err().to_string();
            assert!(
                error.contains("feature `cuda`") && error.contains("--features cuda") && error.contains(word),
                "{error}"
            );
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_or_a_reason() {
        match Device::parse("cuda:0") {
            Ok(device) => {
                assert_eq!(device.to_string(), "cuda:0");
                assert_eq!(Device::parse("auto").unwrap(), device);
                assert!(!Device::gpus().unwrap().is_empty());
            }
            Err(error) => assert!(error.to_string().contains("cuda:0"), "{error}"),
        }
        assert!(Device::parse("cuda:999").is_err());
    }
}
