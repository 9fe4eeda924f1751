//! Pictures to feature maps: a frozen network with the preprocessing that feeds it. [`device`] has what detectors keep on a GPU
//! beside it.
//!
//! ```no_run
//! use blemish_core::{ImageSource, Session};
//! use blemish_embed::{EmbedError, Embedder};
//!
//! # fn demo(pictures: &dyn ImageSource) -> Result<(), EmbedError> {
//! let layers = ["layer2".to_owned(), "layer3".to_owned()];
//! let embedder = Embedder::new("resnet18", &layers, None, 0, Default::default())?;
//! embedder.stream(&Session::quiet(0), "features", pictures, 8, &mut |first, maps| {
//!     println!("picture {first} and on: {:?}", maps[0].dim());
//!     Ok::<(), EmbedError>(())
//! })
//! # }
//! ```

pub mod device;
mod embedder;
mod error;
mod maps;
mod place;

#[cfg(feature = "cuda")]
pub use blemish_backbone::GpuMap;
pub use blemish_backbone::Precision;
pub use embedder::{Embedder, FeatureSink, MapSink};
pub use error::{EmbedError, Result};
pub use maps::Maps;
