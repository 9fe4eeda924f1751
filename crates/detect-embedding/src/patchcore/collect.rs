use blemish_core::{CoreError, ImageSource, Session};
use blemish_kernels::kcenter::{KCenter, SparseProjection};
use blemish_tensor::Device;
use ndarray::Array2;

use super::PatchcoreParams;
use super::embed::{embed, grid, width};
use crate::device::{self, Patches, Refused, Store};
use crate::{Embedder, EmbeddingError, Result};

/// The embeddings of all patches of all pictures, `[n h w, c]`: in this memory, or in that of the GPU that made them.
pub(super) enum Collected {
    Here(Array2<f32>),
    There(Store),
}

/// What was collected so far.
#[derive(Default)]
struct Collecting {
    there: Option<Store>,
    here: Vec<f32>,
    /// Floats there will be, if all pictures are alike.
    floats: usize,
    width: usize,
}

impl Collected {
    /// Reads all pictures.
    pub(super) fn new(
        params: &PatchcoreParams,
        embedder: &Embedder,
        session: &Session<'_>,
        normal: &dyn ImageSource,
    ) -> Result<Collected> {
        let mut so_far = Collecting::default();
        embedder.stream_maps(session, "features", normal, params.batch_size, &mut |first, maps| -> Result<()> {
            let (h, w) = grid(&maps);
            let patches = Patches::of(&maps, params.mode);
            if first == 0 {
                let rows = normal.len().saturating_mul(h * w);
                let channels: Vec<usize> = maps.shapes().iter().map(|shape| shape[3]).collect();
                so_far.width = width(&channels, params.mode);
                so_far.floats = rows.saturating_mul(so_far.width);
                so_far.there = patches.as_ref().and_then(|patches| patches.store(rows));
                if so_far.there.is_none() {
                    so_far.reserve(normal.len(), (h, w))?;
                }
            }
            if let (Some(store), Some(patches)) = (&mut so_far.there, &patches)
                && store.push(patches)
            {
                return Ok(());
            }
            // What does not go on there goes on here, with what is there already.
            if let Some(store) = so_far.there.take() {
                so_far.reserve(normal.len(), (h, w))?;
                so_far.here.extend_from_slice(&store.all()?);
            }
            let rows = match patches.and_then(|patches| patches.all()) {
                Some(rows) => rows,
                None => embed(&maps.into_host()?, params.mode)?,
            };
            match rows.as_slice() {
                Some(rows) => so_far.here.extend_from_slice(rows),
                None => so_far.here.extend(rows.iter()),
            }
            Ok(())
        })?;
        match so_far.there {
            Some(store) if store.is_full() => Ok(Collected::There(store)),
            Some(store) => host(store.all()?, store.dim().1),
            None => host(so_far.here, so_far.width),
        }
    }

    /// Rows and columns.
    pub(super) fn dim(&self) -> (usize, usize) {
        match self {
            Collected::Here(rows) => rows.dim(),
            Collected::There(store) => store.dim(),
        }
    }

    /// The coreset, and why it was not picked on the GPU asked for.
    pub(super) fn coreset(
        &self,
        device: &Device,
        projection: Option<&SparseProjection>,
        count: usize,
        start: usize,
        on_progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(KCenter, Option<String>)> {
        let store = match self {
            Collected::Here(rows) => {
                return device::coreset(device, rows.view(), projection, count, start, on_progress);
            }
            Collected::There(store) => store,
        };
        let why = match store.coreset(projection, count, start, on_progress) {
            Ok(found) => return Ok((found, None)),
            Err(Refused::Device(why)) => Some(why),
            Err(Refused::Arguments) => None,
        };
        let rows = array(store.all()?, store.dim().1)?;
        let (found, _) = device::coreset(&Device::cpu(), rows.view(), projection, count, start, on_progress)?;
        Ok((found, why))
    }

    /// The rows `at`.
    pub(super) fn select(&self, at: &[u32]) -> Result<Array2<f32>> {
        match self {
            Collected::Here(rows) => {
                let at: Vec<usize> = at.iter().map(|&i| i as usize).collect();
                Ok(rows.select(ndarray::Axis(0), &at))
            }
            Collected::There(store) => array(store.select(at)?, store.dim().1),
        }
    }
}

impl Collecting {
    /// Room for all rows here, asked for once: growing would take up to three times as much.
    fn reserve(&mut self, pictures: usize, (h, w): (usize, usize)) -> Result<()> {
        self.here.try_reserve_exact(self.floats).map_err(|_| EmbeddingError::Params {
            name: "layers",
            why: format!(
                "the embeddings of {pictures} pictures ({h} x {w} patches of {}) need {:.1} GB; take fewer or smaller \
                 pictures, or layers with fewer channels",
                self.width,
                self.floats as f64 * 4e-9
            ),
        })
    }
}

fn host(rows: Vec<f32>, width: usize) -> Result<Collected> {
    Ok(Collected::Here(array(rows, width)?))
}

/// Rows of `width` numbers.
fn array(rows: Vec<f32>, width: usize) -> Result<Array2<f32>> {
    let shape = (rows.len() / width.max(1), width);
    let wrong = |e: ndarray::ShapeError| CoreError::Shape {
        what: "patch embeddings",
        wanted: format!("{shape:?}"),
        got: e.to_string(),
    };
    Ok(Array2::from_shape_vec(shape, rows).map_err(wrong)?)
}
