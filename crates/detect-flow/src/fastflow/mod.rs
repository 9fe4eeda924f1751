//! FastFlow (Yu, Zheng, Wang, Li, Wu, Zhao, Wu, "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
//! Flows", 2021): for each layer a convolutional flow of the whole feature map; where that is unlikely is anomalous.
//!
//! | item | what it is |
//! |---|---|
//! | [`FastflowParams`] | settings; `fit` makes a [`Fastflow`] |
//! | [`Fastflow`] | the fitted detector |
//! | [`MapOf`], [`anomaly_map`] | latents to a map (section 3.2) |
//!
//! ```no_run
//! use blemish_core::{Detect, Fit, ImageSource, Session};
//! use blemish_detect_flow::FastflowParams;
//!
//! # fn demo(good: &dyn ImageSource, image: blemish_core::Image) -> blemish_core::Result<()> {
//! let model = FastflowParams { epochs: 60, ..FastflowParams::default() }.fit(&Session::quiet(0), good)?;
//! println!("{}: {:.3}", model.summary(), model.predict(&[image])?[0].score);
//! # Ok(())
//! # }
//! ```

mod fit;
mod flows;
mod map;
mod model;
mod params;
mod trainer;

pub use map::{MapOf, anomaly_map};
pub use model::Fastflow;
pub use params::FastflowParams;

/// The registry's name of this detector.
pub const KIND: &str = "fastflow";
