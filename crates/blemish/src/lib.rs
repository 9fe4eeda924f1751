//! Industrial anomaly detection: learns from pictures of good parts, finds and shows defects.
//!
//! | item | what it is |
//! |---|---|
//! | [`Config`] | everything a run depends on, from YAML or TOML, flags or code |
//! | [`Engine`] | train, test, predict |
//! | [`Model`] | a fitted detector with its thresholds, as saved in one file |
//! | [`registry`] | the only list of detectors |
//! | [`store`] | weight files of the backbones: found, imported, downloaded on request |
//! | [`regions`] | connected defect areas in original pixels |
//! | [`results`] | the folder a run leaves behind |
//!
//! The crates it is made of can be used by themselves: [`core`], [`backbone`], [`datasets`], [`detect_embedding`],
//! [`detect_flow`], [`kernels`], [`linalg`], [`metrics`], [`tensor`]. With the feature `cuda` it computes on NVIDIA GPUs where
//! there are some.
//!
//! ```no_run
//! use blemish::{Config, Engine, core::NoProgress};
//! let mut config = Config::default();
//! config.data.data = Some("screws".into());
//! let engine = Engine::new(&config)?;
//! let trained = engine.train(&config, &NoProgress)?;
//! println!("{}", trained.model.summary());
//! # Ok::<(), blemish::Error>(())
//! ```

pub mod config;
pub mod engine;
mod error;
mod model;
pub mod regions;
pub mod registry;
pub mod results;
pub mod store;

pub use blemish_backbone as backbone;
pub use blemish_core as core;
pub use blemish_datasets as datasets;
pub use blemish_detect_embedding as detect_embedding;
pub use blemish_detect_flow as detect_flow;
pub use blemish_kernels as kernels;
pub use blemish_linalg as linalg;
pub use blemish_metrics as metrics;
pub use blemish_tensor as tensor;

pub use config::Config;
pub use engine::Engine;
pub use error::{Error, Result};
pub use model::Model;
