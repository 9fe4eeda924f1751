//! Detectors that keep the embeddings of good parts: no gradients anywhere.
//!
//! | detector | paper | what is kept |
//! |---|---|---|
//! | [`padim`] | Defard et al., ICPR 2021 | a Gaussian for each position |
//! | [`patchcore`] | Roth et al., CVPR 2022 | a coreset of all patches |
//!
//! Both read a frozen CNN through an [`Embedder`], learn in one pass over the pictures and are saved as one file.
//!
//! With the feature `cuda`, searches, coresets and distances are computed on the GPU that the session, or later
//! `Detect::use_device`, names.

mod device;
mod error;
mod mode;
pub mod padim;
pub mod patchcore;

pub use blemish_embed::{Embedder, FeatureSink};
pub use error::EmbeddingError;
pub use mode::Mode;
pub use padim::{Padim, PadimParams};
pub use patchcore::{Patchcore, PatchcoreParams};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, EmbeddingError>;
