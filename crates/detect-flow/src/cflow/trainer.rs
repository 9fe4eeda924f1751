//! A flow in training, on the CPU or on a GPU.

use blemish_flow::{Flow, LinearTrainer};
use blemish_grad::optim::AdamState;

use crate::Result;
use crate::device::linear;

/// Sum of the losses of a batch and the number of steps.
pub(super) type Losses = (f64, usize);

pub(super) enum Trainer {
    Cpu(Box<LinearTrainer>),
    Gpu(Box<linear::LinearTrainer>),
}

/// How the feature vectors of some maps become steps.
pub(super) struct Order<'a> {
    /// Feature vectors in the order in which they are seen: picture times positions plus position.
    pub(super) fibres: &'a [u32],
    /// How many of them a step has.
    pub(super) each: usize,
    /// What is left over joins the last step (anomalib) or is left out (the authors' code).
    pub(super) leftovers: bool,
    /// Channels of the features and of the codes.
    pub(super) widths: [usize; 2],
}

impl Trainer {
    /// One step for each part of `order`, on maps `[positions, c]` with codes `[positions, k]`.
    pub(super) fn train(&mut self, maps: &[&[f32]], codes: &[f32], order: &Order<'_>, lr: f32) -> Result<Losses> {
        match self {
            Trainer::Cpu(trainer) => steps(trainer, maps, codes, order, lr),
            Trainer::Gpu(trainer) => Ok(trainer.train(maps, order.fibres, order.leftovers, lr)?),
        }
    }

    pub(super) fn log_likelihoods(&self, x: &[f32], codes: &[f32]) -> Result<Vec<f32>> {
        Ok(match self {
            Trainer::Cpu(trainer) => trainer.flow().log_likelihoods(x, codes)?,
            Trainer::Gpu(trainer) => trainer.log_likelihoods(x)?,
        })
    }

    /// Makes [`flow`](Self::flow) and [`state`](Self::state) what they are now.
    pub(super) fn bring(&mut self) -> Result<()> {
        match self {
            Trainer::Cpu(_) => Ok(()),
            Trainer::Gpu(trainer) => Ok(trainer.bring(true)?),
        }
    }

    pub(super) fn flow(&self) -> &Flow {
        match self {
            Trainer::Cpu(trainer) => trainer.flow(),
            Trainer::Gpu(trainer) => trainer.flow(),
        }
    }

    pub(super) fn state(&self) -> &AdamState {
        match self {
            Trainer::Cpu(trainer) => trainer.state(),
            Trainer::Gpu(trainer) => trainer.state(),
        }
    }

    pub(super) fn resume(&mut self, flow: Flow, state: AdamState) -> Result<()> {
        match self {
            Trainer::Cpu(trainer) => trainer.resume(flow, state)?,
            Trainer::Gpu(trainer) => trainer.resume(flow, state)?,
        }
        Ok(())
    }

    pub(super) fn into_flow(self) -> Result<Flow> {
        Ok(match self {
            Trainer::Cpu(trainer) => trainer.into_flow(),
            Trainer::Gpu(trainer) => trainer.into_flow()?,
        })
    }

    pub(super) fn on_gpu(&self) -> bool {
        matches!(self, Trainer::Gpu(_))
    }

    /// Whether the flows are better trained side by side.
    pub(super) fn side_by_side<'a>(trainers: impl IntoIterator<Item = &'a Trainer>) -> bool {
        let cpu = |trainer: &'a Trainer| match trainer {
            Trainer::Cpu(trainer) => Some(&**trainer),
            Trainer::Gpu(_) => None,
        };
        // A GPU has one stream of work for all.
        let all: Option<Vec<&LinearTrainer>> = trainers.into_iter().map(cpu).collect();
        all.is_some_and(LinearTrainer::side_by_side)
    }
}

fn steps(
    trainer: &mut LinearTrainer,
    maps: &[&[f32]],
    codes: &[f32],
    &Order { fibres, each, leftovers, widths: [c, k] }: &Order<'_>,
    lr: f32,
) -> Result<Losses> {
    let positions = codes.len() / k;
    let count = (fibres.len() / each).max(1);
    let (mut x, mut conditions) = (Vec::new(), Vec::new());
    let mut total = 0.0;
    for step in 0..count {
        let first = step * each;
        let last = if step + 1 == count && (leftovers || count == 1) { fibres.len() } else { first + each };
        x.clear();
        conditions.clear();
        for &fibre in &fibres[first..last.min(fibres.len())] {
            let (picture, position) = (fibre as usize / positions, fibre as usize % positions);
            x.extend_from_slice(&maps[picture][position * c..][..c]);
            conditions.extend_from_slice(&codes[position * k..][..k]);
        }
        total += f64::from(trainer.step(&x, &conditions, lr)?);
    }
    Ok((total, count))
}
