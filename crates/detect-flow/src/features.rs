use std::borrow::Cow;

use blemish_core::{CoreError, Image, ImageSource, Pixels, Session};
use blemish_embed::Embedder;
use ndarray::{Array4, Axis};
use rayon::prelude::*;

use crate::{FlowDetectorError, Result};

/// Checks a cache size in gigabytes.
pub(crate) fn check_cache(gigabytes: f64) -> Result<()> {
    if gigabytes >= 0.0 {
        return Ok(());
    }
    Err(FlowDetectorError::Params { name: "cache_gigabytes", why: format!("{gigabytes}; 0 or more") })
}

/// The feature maps of one picture, each `[h, w, c]` in C order.
pub(crate) type Maps = Vec<Vec<f32>>;

/// `(h, w, c)` of a feature map.
pub(crate) type Size = (usize, usize, usize);

/// The features of all training pictures: kept, or computed again each time. The values are the same bit for bit.
pub(crate) struct Features<'a> {
    embedder: &'a Embedder,
    source: &'a dyn ImageSource,
    pub(crate) sizes: Vec<Size>,
    /// A hash of the first picture, by which a checkpoint of other pictures is noticed.
    pub(crate) first: String,
    cache: Option<Vec<Maps>>,
}

impl<'a> Features<'a> {
    /// Reads the first picture for the sizes, then all of them if their features fit into the cache.
    pub(crate) fn new(
        embedder: &'a Embedder,
        session: &Session<'_>,
        source: &'a dyn ImageSource,
        gigabytes: f64,
        batch_size: usize,
    ) -> Result<Features<'a>> {
        if source.is_empty() {
            return Err(CoreError::TooFewImages { wanted: "one good picture or more".to_owned(), got: 0 }.into());
        }
        let image = source.get(0)?;
        let first = format!("{:016x}", hash(&image));
        let sizes = sizes(&features(embedder, &image)?);
        let each: usize = sizes.iter().map(|(h, w, c)| h * w * c).sum();
        let mut features = Features { embedder, source, sizes, first, cache: None };
        if source.len() as f64 * each as f64 * 4e-9 <= gigabytes {
            let mut all = Vec::with_capacity(source.len());
            embedder.stream(session, "features", source, batch_size, &mut |_, maps| -> Result<()> {
                let n = maps.first().map_or(0, |m| m.dim().0);
                all.extend((0..n).map(|i| one(&maps, i)));
                Ok(())
            })?;
            features.cache = Some(all);
        }
        Ok(features)
    }

    /// Those of all pictures, if they are kept.
    pub(crate) fn kept(&self) -> Option<&[Maps]> {
        self.cache.as_deref()
    }

    /// The features of some pictures.
    pub(crate) fn get(&self, pictures: &[usize]) -> Result<Vec<Cow<'_, Maps>>> {
        if let Some(cache) = &self.cache {
            return Ok(pictures.iter().filter_map(|i| cache.get(*i)).map(Cow::Borrowed).collect());
        }
        let computed = pictures.par_iter().map(|&i| {
            let maps = features(self.embedder, &self.source.get(i)?)?;
            if sizes(&maps) != self.sizes {
                let why = "it comes out at another size than the first picture; resize to a fixed size, or crop";
                return Err(CoreError::Image { path: self.source.name(i), why: why.to_owned() }.into());
            }
            Ok(Cow::Owned(one(&maps, 0)))
        });
        computed.collect()
    }
}

fn features(embedder: &Embedder, image: &Image) -> Result<Vec<Array4<f32>>> {
    let input = embedder.preprocess().apply(image)?;
    Ok(embedder.features(input.view().insert_axis(Axis(0)))?)
}

/// FNV-1a over size and samples.
fn hash(image: &Image) -> u64 {
    let step = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    let (h, w, c) = image.dim();
    let start = [h, w, c].iter().fold(0xcbf2_9ce4_8422_2325, |hash, n| step(hash, *n as u64));
    match image.pixels() {
        Pixels::U8(samples) => samples.iter().fold(start, |hash, v| step(hash, u64::from(*v))),
        Pixels::U16(samples) => samples.iter().fold(start, |hash, v| step(hash, u64::from(*v))),
    }
}

pub(crate) fn sizes(maps: &[Array4<f32>]) -> Vec<Size> {
    maps.iter().map(|m| (m.dim().1, m.dim().2, m.dim().3)).collect()
}

/// The maps of picture `i` of a batch, where they lie.
pub(crate) fn borrowed<'a>(maps: &'a [Array4<f32>], i: usize) -> Vec<Cow<'a, [f32]>> {
    let map = |map: &'a Array4<f32>| {
        let map = map.view().index_axis_move(Axis(0), i);
        map.to_slice().map_or_else(|| Cow::Owned(map.iter().copied().collect()), Cow::Borrowed)
    };
    maps.iter().map(map).collect()
}

/// A copy of the maps of picture `i` of a batch.
pub(crate) fn one(maps: &[Array4<f32>], i: usize) -> Maps {
    maps.iter().map(|map| map.index_axis(Axis(0), i).iter().copied().collect()).collect()
}
