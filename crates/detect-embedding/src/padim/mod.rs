//! PaDiM (Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", ICPR
//! 2021): a Gaussian of the features of good parts at every position; a position is as anomalous as its Mahalanobis
//! distance.
//!
//! | item | what it is |
//! |---|---|
//! | [`PadimParams`] | settings; `fit` makes a [`Padim`] |
//! | [`Padim`] | the fitted detector |
//! | [`Learner`] | feature maps in, batch after batch, [`Gaussians`] out (section III.B) |
//! | [`Gaussians`] | feature maps to distances (section III.C) |
//! | [`Form`] | how they are kept: nested triangles, plain triangles, low rank; all exact |
//!
//! The arithmetic is [`blemish_kernels::mahalanobis`].
//!
//! ```no_run
//! use blemish_core::{Detect, Fit, ImageSource, Session};
//! use blemish_detect_embedding::PadimParams;
//!
//! # fn demo(good: &dyn ImageSource, image: blemish_core::Image) -> blemish_core::Result<()> {
//! let params = PadimParams { weights: Some("resnet18-f37072fd.pth".into()), ..PadimParams::default() };
//! let model = params.fit(&Session::quiet(0), good)?;
//! println!("{}: {:.3}", model.summary(), model.predict(&[image])?[0].score);
//! # Ok(())
//! # }
//! ```

mod factor;
mod fit;
mod gaussians;
mod learner;
mod model;
mod params;

pub(crate) use factor::extend;
pub use gaussians::Gaussians;
pub use learner::Learner;
pub use model::Padim;
pub use params::{Form, PadimParams};

/// The registry's name of this detector.
pub const KIND: &str = "padim";
