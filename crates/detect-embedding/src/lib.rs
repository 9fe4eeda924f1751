//! Detectors that keep the embeddings of good parts: no gradients anywhere.
//!
//! | detector | paper | what is kept |
//! |---|---|---|
//! | [`padim`] | Defard et al., ICPR 2021 | a Gaussian for each position |
//! | [`patchcore`] | Roth et al., CVPR 2022 | a coreset of all patches |
//!
//! Both read a frozen CNN through an [`Embedder`], learn in one pass over the pictures and are saved as one file.

mod embedder;
mod error;
mod mode;
pub mod padim;
pub mod patchcore;

pub use embedder::{Embedder, FeatureSink};
pub use error::EmbeddingError;
pub use mode::Mode;
pub use padim::{Padim, PadimParams};
pub use patchcore::{Patchcore, PatchcoreParams};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, EmbeddingError>;
