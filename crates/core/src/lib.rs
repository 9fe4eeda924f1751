//! What every detector of blemish is made of: images in, predictions out, one model file.
//!
//! | item | what it is |
//! |---|---|
//! | [`Image`] | a decoded picture, 8 or 16 bit, grey or RGB |
//! | [`Preprocess`] | the one path from a picture to network input, stored in every model |
//! | [`Session`], [`Progress`] | device, seed, progress and interruption of one piece of work |
//! | [`Epoch`], [`Judge`] | a point of a training curve, told to [`Progress`]; what else may choose the best |
//! | [`Fit`], [`Detect`], [`FitDyn`] | params -> fit -> fitted model |
//! | [`Arithmetic`] | the numbers a network computes with, and how far scores may differ between them |
//! | [`Stages`] | a detector's network and its scoring, apart |
//! | [`Prediction`], [`AnomalyMap`] | a raw score and where it comes from |
//! | [`ModelFile`], [`ModelWriter`] | one safetensors file, written atomically |
//! | [`Decision`], [`Calibration`], [`Verdict`] | raw score, calibrated score, threshold and label, always together |

mod arithmetic;
mod detect;
mod epoch;
mod error;
mod image;
mod map;
mod model_file;
mod preprocess;
mod session;
mod verdict;

pub use arithmetic::Arithmetic;
pub use detect::{Detect, Fit, FitDyn, ImageSource, Prediction, Stages};
pub use epoch::Epoch;
pub use error::CoreError;
pub use image::{Image, Pixels};
pub use map::AnomalyMap;
pub use model_file::{FORMAT_VERSION, ModelFile, ModelWriter};
pub use preprocess::{Geometry, Preprocess, Resize};
pub use session::{Judge, NoProgress, Progress, Session, Task};
pub use verdict::{Calibration, Decision, Label, ThresholdSource, Verdict};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, CoreError>;
