//! PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022): a coreset of the patch
//! features of good parts; a patch is as anomalous as it is far from the coreset.
//!
//! | item | what it is |
//! |---|---|
//! | [`PatchcoreParams`] | settings; `fit` makes a [`Patchcore`] |
//! | [`Patchcore`] | the fitted detector |
//! | [`embed`] | feature maps to patch features (section 3.1) |
//! | [`MemoryBank`] | patch features to scores and maps (section 3.3) |
//!
//! The coreset (section 3.2) is [`blemish_kernels::kcenter::greedy`].
//!
//! ```no_run
//! use blemish_core::{Detect, Fit, ImageSource, Session};
//! use blemish_detect_embedding::PatchcoreParams;
//!
//! # fn demo(good: &dyn ImageSource, image: blemish_core::Image) -> blemish_core::Result<()> {
//! let params = PatchcoreParams { coreset_ratio: 0.01, ..PatchcoreParams::default() };
//! let model = params.fit(&Session::quiet(0), good)?;
//! println!("{}: {:.3}", model.summary(), model.predict(&[image])?[0].score);
//! # Ok(())
//! # }
//! ```

mod collect;
mod embed;
mod fit;
pub(crate) mod locally_aware;
mod memory;
mod model;
mod params;

pub use embed::{embed, width};
pub use memory::{BankStorage, MemoryBank, Scoring};
pub use model::Patchcore;
pub use params::PatchcoreParams;

/// The registry's name of this detector.
pub const KIND: &str = "patchcore";
