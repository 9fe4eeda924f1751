#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
use crate::{Result, TensorError};

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

    /// Reads `auto`, `cpu`, `cuda` or `cuda:N` (GPU `N`, counted from 0). `auto` is the CPU, on which every detector
    /// computes.
    ///
    /// # Errors
    /// [`TensorError::NoDevice`] for an unknown word, and for `cuda` where there is no GPU to use or the program was built
    /// without the feature `cuda`.
    pub fn parse(text: &str) -> Result<Self> {
        let ordinal = match text {
            "auto" | "cpu" => return Ok(Device::cpu()),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        let why = match ordinal {
            None => "the choices are auto, cpu, cuda and cuda:N".to_owned(),
            Some(ordinal) => match open(ordinal) {
                Ok(device) => return Ok(device),
                Err(why) => why,
            },
        };
        Err(TensorError::NoDevice { wanted: text.to_owned(), why })
    }
}

#[cfg(feature = "cuda")]
fn open(ordinal: usize) -> Result<Device, String> {
    Cuda::open(ordinal).map(Device::cuda).map_err(|why| why.to_string())
}

#[cfg(not(feature = "cuda"))]
fn open(_ordinal: usize) -> Result<Device, String> {
    Err("this version computes on the CPU only".to_owned())
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
        assert_eq!(Device::parse("auto").unwrap(), Device::cpu());
        assert_eq!(Device::parse("cpu").unwrap().to_string(), "cpu");
        for word in ["cuda:x", "cuda:-1", "gpu", ""] {
            let error = Device::parse(word).unwrap_err().to_string();
            assert!(error.contains("choices") && error.contains(word), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_no_gpu_is_asked_for() {
        for word in ["cuda", "cuda:1"] {
            let error = Device::parse(word).unwrap_err().to_string();
            assert!(error.contains("CPU only") && error.contains(word), "{error}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_or_a_reason() {
        match Device::parse("cuda:0") {
            Ok(device) => assert_eq!(device.to_string(), "cuda:0"),
            Err(error) => assert!(error.to_string().contains("cuda:0"), "{error}"),
        }
        assert!(Device::parse("cuda:999").is_err());
    }
}
