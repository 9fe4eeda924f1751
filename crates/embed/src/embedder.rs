use std::path::Path;

use blemish_backbone::{Backbone, LayerInfo, Origin, Precision, Ranges, WeightSet};
use blemish_core::{Arithmetic, CoreError, ImageSource, ModelFile, ModelWriter, Preprocess, Session};
use blemish_tensor::Device;
use ndarray::{Array4, ArrayView4};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::{EmbedError, Maps, Result};

/// Takes the features of pictures `first..first + n`: one `[n, h, w, c]` map for each layer. `E` is the error of the detector.
pub type FeatureSink<'a, E> = dyn FnMut(usize, Vec<Array4<f32>>) -> std::result::Result<(), E> + Send + 'a;

/// As [`FeatureSink`], with maps where the network left them.
pub type MapSink<'a, E> = dyn FnMut(usize, Maps) -> std::result::Result<(), E> + Send + 'a;

/// A frozen network with the preprocessing that feeds it.
pub struct Embedder {
    backbone: Backbone,
    place: Place,
    preprocess: Preprocess,
    origin: String,
}

/// What a model file says of its network.
#[derive(Serialize, Deserialize)]
struct Identity {
    id: String,
    layers: Vec<String>,
    fingerprint: String,
    origin: String,
    #[serde(default)]
    precision: Precision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<Ranges>,
}

/// Most pictures that int8 is calibrated with.
const CALIBRATION: usize = 64;

impl Embedder {
    /// The network `backbone` up to the deepest of `layers`, with weights from a file or, without one, untrained ones
    /// drawn from `seed`.
    ///
    /// # Errors
    /// An unknown network or layer, unusable weights, or preprocessing settings out of range.
    pub fn new(
        backbone: &str,
        layers: &[String],
        weights: Option<&Path>,
        seed: u64,
        preprocess: Preprocess,
    ) -> Result<Self> {
        preprocess.validate()?;
        let weights = match weights {
            Some(path) => WeightSet::open(path)?,
            None => WeightSet::untrained(backbone, seed)?,
        };
        let origin = match weights.origin() {
            Origin::File { path } => {
                path.file_name().map_or_else(|| "file".to_owned(), |n| n.to_string_lossy().into_owned())
            }
            Origin::Untrained { seed } => format!("untrained, seed {seed}"),
            Origin::Embedded => "embedded".to_owned(),
        };
        let backbone = Backbone::new(backbone, layers, &weights)?;
        Ok(Embedder { backbone, place: Place::default(), preprocess, origin })
    }

    /// The same with its network on `device`; see [`use_device`](Self::use_device).
    #[must_use]
    pub fn with_device(mut self, device: &Device) -> Self {
        self.use_device(device);
        self
    }

    /// Moves the network to `device`: `f32` as it is, bf16 as fp16 with sums in `f32`, int8 not at all. Where the GPU refuses,
    /// for want of memory for instance, now or later, the network computes on the CPU, and [`placement`](Self::placement) says
    /// why.
    pub fn use_device(&mut self, device: &Device) {
        self.place = Place::new(&mut self.backbone, device);
    }

    /// Where the network computes, in what numbers, and why not as asked for, if so: `on cuda:0 in fp16`, for instance.
    pub fn placement(&self) -> String {
        self.place.words(&self.backbone)
    }

    /// Whether the next pictures go through the network on a GPU.
    pub fn on_gpu(&self) -> bool {
        self.place.on_gpu(&self.backbone)
    }

    /// The numbers the network computes with, where it is now.
    pub fn arithmetic(&self) -> Arithmetic {
        self.place.arithmetic(&self.backbone)
    }

    /// The network, for features that stay on a GPU.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// The same network in another precision; int8 is calibrated with the first of `pictures`, at most 64.
    ///
    /// bf16 falls back to `f32` where the processor lacks the instructions: see [`computes_in`](Self::computes_in).
    ///
    /// # Errors
    /// For int8, pictures that cannot be read or whose features are not finite, no pictures at all, or an interruption.
    pub fn with_precision(
        mut self,
        precision: Precision,
        session: &Session<'_>,
        pictures: &dyn ImageSource,
    ) -> Result<Self> {
        self.backbone = self.backbone.with_precision(precision)?;
        if precision == Precision::Int8 {
            let total = pictures.len().min(CALIBRATION);
            let progress = session.task("calibration", total);
            let mut ranges = Ranges::default();
            for index in 0..total {
                let input = Preprocess::stack(&[self.preprocess.apply(&pictures.get(index)?)?])?;
                ranges = ranges.merge(&self.backbone.ranges(input.view())?);
                progress.step(1)?;
            }
            self.backbone.set_calibration(ranges)?;
        }
        Ok(self)
    }

    /// The precision asked for.
    pub fn precision(&self) -> Precision {
        self.backbone.precision()
    }

    /// The precision in use: `f32` where bf16 is asked for and the processor cannot do it.
    pub fn computes_in(&self) -> Precision {
        self.backbone.computes_in()
    }

    /// The layers read, in the order asked for.
    pub fn layers(&self) -> &[LayerInfo] {
        self.backbone.layers()
    }

    /// The network's name and where its weights came from.
    pub fn describe(&self) -> String {
        let precision = match (self.precision(), self.computes_in()) {
            (Precision::F32, _) => String::new(),
            (asked, _) if self.on_gpu() => format!(", {asked}"),
            (asked, used) if asked == used => format!(", {asked}"),
            (asked, used) => format!(", {used}: this processor has no {asked}"),
        };
        format!("{} ({}{precision})", self.backbone.id(), self.origin)
    }

    /// SHA-256 (hex) of the network's weights.
    pub fn fingerprint(&self) -> &str {
        self.backbone.fingerprint()
    }

    /// How pictures become network input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The feature maps `[n, h, w, c]` of preprocessed pictures `[n, height, width, 3]`, one for each layer.
    ///
    /// # Errors
    /// An input too small for the network.
    pub fn features(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Array4<f32>>> {
        self.here(self.maps(input)?, input)
    }

    /// [`maps`](Self::maps) of `input` in the CPU's memory: a copy of what is on a GPU, or, if that cannot be had, computed anew.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "nothing is anywhere else"))]
    pub fn here(&self, maps: Maps, input: ArrayView4<'_, f32>) -> Result<Vec<Array4<f32>>> {
        match maps {
            Maps::Host(maps) => Ok(maps),
            #[cfg(feature = "cuda")]
            maps => maps.into_host().or_else(|error| self.place.give_up(&self.backbone, input, &error)),
        }
    }

    /// As [`features`](Self::features), the maps being left where the network is.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn maps(&self, input: ArrayView4<'_, f32>) -> Result<Maps> {
        self.place.maps(&self.backbone, input)
    }

    /// Hands the features of all pictures to `sink`, `batch_size` at a time and in order; the next batch is decoded
    /// while the current one is computed.
    ///
    /// # Errors
    /// The first unreadable picture, pictures that come out at different sizes, an interruption, or an error of `sink`.
    pub fn stream<E: From<EmbedError> + Send>(
        &self,
        session: &Session<'_>,
        task: &'static str,
        source: &dyn ImageSource,
        batch_size: usize,
        sink: &mut FeatureSink<'_, E>,
    ) -> std::result::Result<(), E> {
        self.stream_maps(session, task, source, batch_size, &mut |first, maps| sink(first, maps.into_host()?))
    }

    /// As [`stream`](Self::stream), the maps being left where the network is.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_maps<E: From<EmbedError> + Send>(
        &self,
        session: &Session<'_>,
        task: &'static str,
        source: &dyn ImageSource,
        batch_size: usize,
        sink: &mut MapSink<'_, E>,
    ) -> std::result::Result<(), E> {
        let (total, step) = (source.len(), batch_size.max(1));
        let progress = session.task(task, total);
        let load = |first: usize| -> Result<Array4<f32>> {
            let range = first..(first + step).min(total);
            let pictures = range.into_par_iter().map(|i| source.get(i).and_then(|image| self.preprocess.apply(&image)));
            Ok(Preprocess::stack(&pictures.collect::<blemish_core::Result<Vec<_>>>()?)?)
        };
        let mut input = load(0)?;
        let mut size = None;
        for first in (0..total).step_by(step) {
            let (_, height, width, _) = input.dim();
            if *size.get_or_insert((height, width)) != (height, width) {
                return Err(EmbedError::from(self.uneven(source, first)).into());
            }
            let next = first + step;
            let mut work = || sink(first, self.maps(input.view())?);
            let (done, loaded) = rayon::join(&mut work, || if next < total { load(next).map(Some) } else { Ok(None) });
            done?;
            progress.step(next.min(total) - first).map_err(EmbedError::from)?;
            if let Some(loaded) = loaded? {
                input = loaded;
            }
        }
        Ok(())
    }

    fn uneven(&self, source: &dyn ImageSource, index: usize) -> CoreError {
        let why =
            "it comes out at another size than the pictures before it; resize to a fixed size, or crop".to_owned();
        CoreError::Image { path: source.name(index), why }
    }

    /// Adds network name, layers, fingerprint, precision, calibration and weights to a model file.
    ///
    /// # Errors
    /// A tensor name used twice.
    pub fn save(&self, file: &mut ModelWriter) -> Result<()> {
        let layers = self.layers().iter().map(|layer| layer.name.clone()).collect();
        let (id, fingerprint) = (self.backbone.id().to_owned(), self.backbone.fingerprint().to_owned());
        let (precision, calibration) = (self.precision(), self.backbone.calibration().cloned());
        let origin = self.origin.clone();
        file.set("backbone", &Identity { id, layers, fingerprint, origin, precision, calibration })?;
        file.set("preprocess", &self.preprocess)?;
        for (name, tensor) in self.backbone.weights() {
            file.add(&format!("backbone.{name}"), tensor.clone())?;
        }
        Ok(())
    }

    /// The network and preprocessing of a model file.
    ///
    /// # Errors
    /// Missing or damaged entries, or weights that are not those of the fingerprint.
    pub fn load(file: &ModelFile) -> Result<Self> {
        let identity: Identity = file.get("backbone")?;
        let preprocess: Preprocess = file.get("preprocess")?;
        preprocess.validate()?;
        let tensors =
            file.tensors().filter_map(|(name, t)| Some((name.strip_prefix("backbone.")?.to_owned(), t.clone())));
        let weights = WeightSet::from_tensors(tensors)?;
        let mut backbone = Backbone::new(&identity.id, &identity.layers, &weights)?;
        if backbone.fingerprint() != identity.fingerprint {
            return Err(file.bad("its network weights are not those it was trained with").into());
        }
        backbone = backbone.with_precision(identity.precision)?;
        match identity.calibration {
            Some(ranges) => backbone.set_calibration(ranges)?,
            None if identity.precision == Precision::Int8 => {
                return Err(file.bad("its network is int8, but the calibration is missing").into());
            }
            None => {}
        }
        Ok(Embedder { backbone, place: Place::default(), preprocess, origin: identity.origin })
    }
}
