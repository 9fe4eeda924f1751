use blemish_tensor::Device;
use ndarray::{Array4, ArrayView4};

use crate::{AnomalyMap, Arithmetic, Image, ModelWriter, Preprocess, Result, Session};

/// A list of pictures that can be read in any order, by several threads at once.
pub trait ImageSource: Sync {
    /// Number of pictures.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The name a user knows picture `index` by (a path, mostly).
    fn name(&self, index: usize) -> String;
    /// Reads picture `index`.
    ///
    /// # Errors
    /// [`CoreError::Image`](crate::CoreError::Image) saying what is wrong with it.
    fn get(&self, index: usize) -> Result<Image>;
}

/// What a detector says of one picture, on its own raw scale; larger is more anomalous.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Raw image score.
    pub score: f32,
    /// Raw score of each pixel of the network input, if the detector gives one.
    pub map: Option<AnomalyMap>,
}

/// Implemented by params: plain data that can learn from good pictures.
pub trait Fit {
    /// What comes out; it cannot exist unfitted.
    type Model: Detect + 'static;

    /// Learns from `normal`. The same seed gives the same bits.
    ///
    /// # Errors
    /// Invalid params, unreadable pictures, too few of them, or an interruption.
    fn fit(&self, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Self::Model>;
}

/// Implemented by fitted models.
pub trait Detect: Send + Sync {
    /// The registry's name, `padim` for instance.
    fn kind(&self) -> &'static str;

    /// How pictures become network input; stored with the model.
    fn preprocess(&self) -> &Preprocess;

    /// Computes on `device` from now on, as far as there is a form for it; the rest stays on the CPU. A new or loaded model
    /// computes on the device of its session, or on the CPU. What does not fit a GPU or fails there is computed on the CPU:
    /// see [`placement`](Self::placement).
    fn use_device(&mut self, device: &Device) {
        let _ = device;
    }

    /// Which part computes where, and why not on the device asked for, in words.
    fn placement(&self) -> String {
        "on the CPU".to_owned()
    }

    /// The numbers its network computes with, where it is now.
    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::F32
    }

    /// Scores preprocessed pictures `[n, height, width, 3]`, as [`Preprocess::apply`] makes them.
    ///
    /// A picture's prediction does not depend on the others in the batch.
    ///
    /// # Errors
    /// A shape this model was not made for.
    fn predict_batch(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Prediction>>;

    /// The two parts of [`Detect::predict_batch`], for models that keep them apart: a pipeline can work at both at once, and
    /// a benchmark can time each.
    fn stages(&self) -> Option<&dyn Stages> {
        None
    }

    /// Scores pictures.
    ///
    /// # Errors
    /// As [`Detect::predict_batch`], and a picture that cannot be preprocessed.
    fn predict(&self, images: &[Image]) -> Result<Vec<Prediction>> {
        images
            .iter()
            .map(|image| {
                let input = self.preprocess().apply(image)?;
                let mut one = self.predict_batch(input.view().insert_axis(ndarray::Axis(0)))?;
                Ok(one.remove(0))
            })
            .collect()
    }

    /// Adds everything the model needs, but thresholds and preprocessing, to `file`.
    ///
    /// # Errors
    /// A tensor name used twice.
    fn save(&self, file: &mut ModelWriter) -> Result<()>;

    /// What a user may want to know of the model, in a line or two.
    fn summary(&self) -> String;
}

/// A detector in two parts: `score(features(input), size)` is what [`Detect::predict_batch`] gives, bit for bit.
pub trait Stages: Send + Sync {
    /// What the network makes of preprocessed pictures `[n, height, width, 3]`: a map `[n, h, w, c]` for each layer.
    ///
    /// # Errors
    /// As [`Detect::predict_batch`].
    fn features(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Array4<f32>>>;

    /// What the features say of the `n` pictures, whose input was `size` (height, width).
    ///
    /// # Errors
    /// Features of a shape that [`Stages::features`] does not give for pictures this model was made for.
    fn score(&self, features: Vec<Array4<f32>>, size: (usize, usize)) -> Result<Vec<Prediction>>;
}

/// [`Fit`] without its associated type, for registries.
pub trait FitDyn: Send + Sync {
    /// Learns from `normal`; see [`Fit::fit`].
    ///
    /// # Errors
    /// As [`Fit::fit`].
    fn fit_dyn(&self, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Box<dyn Detect>>;
}

impl<P: Fit + Send + Sync> FitDyn for P {
    fn fit_dyn(&self, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Box<dyn Detect>> {
        Ok(Box::new(self.fit(session, normal)?))
    }
}
