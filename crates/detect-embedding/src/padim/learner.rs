use blemish_kernels::mahalanobis::{Layout, Samples};
use blemish_tensor::Device;
use ndarray::Array4;

use super::factor::directions;
use super::{Form, Gaussians};
use crate::Result;
use crate::device::{Moments, Source, with_views};

/// Learns [`Gaussians`] from feature maps, batch after batch (section III.B).
///
/// Memory: two or three times that of the result, whatever the number of pictures.
pub struct Learner {
    maps: Vec<[usize; 3]>,
    epsilon: f64,
    state: State,
}

enum State {
    Moments(Box<Moments>),
    Samples(Samples),
}

impl Learner {
    /// Ready for `images` pictures with feature maps of `[height, width, channels]`; `channels` are counted over all
    /// maps, `epsilon` is what is added to the covariances' diagonals.
    ///
    /// # Errors
    /// A channel out of range or named twice, or sizes of zero.
    pub fn new(maps: &[[usize; 3]], channels: &[usize], images: usize, epsilon: f64, form: Form) -> Result<Self> {
        Learner::on(&Device::cpu(), maps, channels, images, epsilon, form)
    }

    /// As [`new`](Self::new), adding up and factoring on `device` where it is a GPU with room for it. The low-rank form is
    /// learnt on the CPU.
    ///
    /// # Errors
    /// As [`new`](Self::new); what the GPU refuses.
    pub fn on(
        device: &Device,
        maps: &[[usize; 3]],
        channels: &[usize],
        images: usize,
        epsilon: f64,
        form: Form,
    ) -> Result<Self> {
        let layout = Layout::new(maps, channels, form != Form::Triangle)?;
        let rank = images.saturating_sub(1).min(channels.len());
        let low_rank = match form {
            Form::Auto => layout.low_rank_floats(rank) < layout.floats(),
            Form::LowRank => true,
            Form::Nested | Form::Triangle => false,
        };
        let state = if low_rank {
            State::Samples(Samples::new(layout, images))
        } else {
            State::Moments(Box::new(Moments::new(device, layout)?))
        };
        Ok(Learner { maps: maps.to_vec(), epsilon, state })
    }

    /// Adds the feature maps `[n, height, width, channels]` of `n` more pictures.
    ///
    /// # Errors
    /// Maps of other sizes.
    pub fn push(&mut self, maps: &[Array4<f32>]) -> Result<()> {
        self.add(Source::Host(maps))
    }

    /// As [`push`](Self::push), for maps where the network left them.
    pub(super) fn add(&mut self, maps: Source<'_>) -> Result<()> {
        match &mut self.state {
            State::Moments(moments) => moments.push(maps),
            State::Samples(samples) => with_views(maps, |maps| Ok(samples.push(maps)?)),
        }
    }

    /// The Gaussians of everything added.
    ///
    /// # Errors
    /// Fewer than two pictures, or features that are not finite numbers.
    pub fn finish(self) -> Result<Gaussians> {
        let Learner { maps, epsilon, state } = self;
        match state {
            State::Moments(moments) => {
                let layout = moments.layout().clone();
                let (mean, fitted) = moments.finish(epsilon)?;
                Gaussians::triangles(maps, layout, epsilon, mean, fitted)
            }
            State::Samples(samples) => {
                let layout = samples.layout().clone();
                let parts = samples.factor(epsilon, |y| directions(y, epsilon))?;
                Gaussians::low_rank(maps, layout, epsilon, parts)
            }
        }
    }
}
