//! CFlow-AD (Gudovskiy, Ishizaka, Kozuka, "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
//! Conditional Normalizing Flows", WACV 2022): for each layer a flow of the feature vectors given their position; what is
//! unlikely is anomalous.
//!
//! | item | what it is |
//! |---|---|
//! | [`CflowParams`] | settings; `fit` makes a [`Cflow`] |
//! | [`Cflow`] | the fitted detector |
//! | [`anomaly_map`] | log-likelihoods to a map (section 3.4) |
//!
//! ```no_run
//! use blemish_core::{Detect, Fit, ImageSource, Session};
//! use blemish_detect_flow::CflowParams;
//!
//! # fn demo(good: &dyn ImageSource, image: blemish_core::Image) -> blemish_core::Result<()> {
//! let params = CflowParams { epochs: 10, checkpoint: Some("run.checkpoint".into()), resume: true, ..CflowParams::default() };
//! let model = params.fit(&Session::quiet(0), good)?;
//! println!("{}: {:.3}", model.summary(), model.predict(&[image])?[0].score);
//! # Ok(())
//! # }
//! ```

mod codes;
mod fit;
mod flows;
mod map;
mod model;
mod params;
mod trainer;

pub use map::anomaly_map;
pub use model::Cflow;
pub use params::CflowParams;

/// The registry's name of this detector.
pub const KIND: &str = "cflow";
