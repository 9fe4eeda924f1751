use std::path::PathBuf;

use blemish_core::{Image, ImageSource, Result};

use crate::{Sample, decode};

/// Pictures on disk, decoded when asked for.
#[derive(Clone, Debug, Default)]
pub struct Files {
    samples: Vec<Sample>,
}

impl Files {
    /// The pictures of `samples`, in their order.
    pub fn new(samples: Vec<Sample>) -> Self {
        Files { samples }
    }

    /// Pictures of which nothing is known.
    pub fn unlabelled(paths: Vec<PathBuf>) -> Self {
        let sample = |path| Sample { path, good: None, kind: "unknown".to_owned(), mask: None };
        Files { samples: paths.into_iter().map(sample).collect() }
    }

    /// The samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

impl From<Vec<Sample>> for Files {
    fn from(samples: Vec<Sample>) -> Self {
        Files::new(samples)
    }
}

impl ImageSource for Files {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, index: usize) -> String {
        self.samples.get(index).map_or_else(|| format!("picture {index}"), |s| s.path.display().to_string())
    }

    fn get(&self, index: usize) -> Result<Image> {
        match self.samples.get(index) {
            Some(sample) => decode(&sample.path),
            None => Err(blemish_core::CoreError::Image {
                path: self.name(index),
                why: format!("there are only {}", self.samples.len()),
            }),
        }
    }
}
