//! Data sets for anomaly detection: readers, decoding, and a procedural demo set.
//!
//! | item | what it is |
//! |---|---|
//! | [`DataSpec`], [`Dataset`], [`Protocol`] | which data; its training, validation and test parts |
//! | [`decode`], [`decode_bytes`], [`read_mask`] | PNG, JPEG, BMP, TIFF and WebP, told apart by content |
//! | [`Files`] | pictures on disk as an [`ImageSource`](blemish_core::ImageSource) |
//! | [`expand`] | files, folders and patterns of a command line |
//! | [`mvtec`] | the MVTec layout: categories, licence, how to get it, a check |
//! | [`demo`] | two procedural categories with exact masks |
//!
//! ```no_run
//! use blemish_datasets::{DataSpec, Dataset, Files};
//!
//! let spec = DataSpec { category: Some("screw".into()), ..DataSpec::default() };
//! let data = Dataset::open(&spec, 0)?;
//! let train = Files::new(data.train);
//! # Ok::<(), blemish_datasets::DataError>(())
//! ```

mod container;
mod dataset;
mod decode;
mod error;
mod files;
mod folder;
mod manifest;
mod masks;
mod split;
mod walk;

pub mod demo;
pub mod mvtec;

pub use dataset::{DataSpec, Dataset, Protocol, Sample, Split};
pub use decode::{decode, decode_bytes, read_mask};
pub use error::{DataError, Result};
pub use files::Files;
pub use walk::expand;
