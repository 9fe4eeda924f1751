//! CNN feature extractors (ResNet, MobileNet, EfficientNet) with batch norm folded, on the CPU or a GPU.
//!
//! | item | what it is |
//! |---|---|
//! | [`Backbone`] | a frozen network that stops after the deepest layer asked for |
//! | [`Precision`], [`Ranges`] | `f32`, bf16 or int8, and what int8 is calibrated with |
//! | [`GpuPrecision`] | how it computes on a GPU |
//! | `GpuMap` (feature `cuda`) | features that stay on a GPU |
//! | [`LayerInfo`] | name, channels and stride of one layer |
//! | [`WeightSet`], [`Origin`] | weights from safetensors, PyTorch `.pth`, memory, or a seed |
//! | [`catalogue`] | the networks known here and their official weight files |
//! | [`spec`] | the networks as data: a graph of convolutions, pools and squeeze-and-excite gates |
//! | [`BackboneError`] | what can go wrong |
//!
//! Maps are `[n, h, w, c]` throughout. Layer and weight names are timm's; torchvision's names are read too.
//! A picture's features do not depend on the rest of the batch or on the number of threads.
//!
//! ```
//! use blemish_backbone::{Backbone, WeightSet};
//! let weights = WeightSet::untrained("resnet18", 0)?;
//! let backbone = Backbone::new("resnet18", &["layer1".into(), "layer2".into()], &weights)?;
//! let features = backbone.features(ndarray::Array4::zeros((1, 64, 64, 3)).view())?;
//! assert_eq!(features[0].dim(), (1, 16, 16, 64));
//! assert_eq!(features[1].dim(), (1, 8, 8, 128));
//! # Ok::<(), blemish_backbone::BackboneError>(())
//! ```

mod error;

pub mod catalogue;
mod frozen;
pub mod spec;
mod weights;

pub use error::{BackboneError, Result};
#[cfg(feature = "cuda")]
pub use frozen::GpuMap;
pub use frozen::{Backbone, GpuPrecision, LayerInfo, Precision, Ranges};
pub use weights::{Naming, Origin, WeightSet};
