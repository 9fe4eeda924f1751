use blemish_flow::gpu::{MapBatch, MapModel, MapTrainer};
use blemish_flow::{FlowError, FlowSpec, MapFlow};
use blemish_grad::optim::Adam;
use serde_json::json;

use crate::{Bench, device};

/// Channels, height and width of the map: ResNet-18's and Wide ResNet-50-2's first three layers at 256 x 256.
const REAL: [[usize; 2]; 6] = [[64, 64], [128, 32], [256, 16], [256, 64], [512, 32], [1024, 16]];
const TINY: [[usize; 2]; 1] = [[6, 3]];
/// Bytes of working memory, as the detector takes them.
const WORKING: usize = 1 << 30;

pub(crate) fn all(bench: &mut Bench<'_>) -> Result<(), FlowError> {
    for &[channels, side] in if bench.program.tiny { &TINY[..] } else { &REAL[..] } {
        let (blocks, pictures) = if bench.program.tiny { (2, 2) } else { (8, 32) };
        let flow = MapFlow::new(&FlowSpec::convolutional(channels, blocks, 1.0, false), (side, side), true, 1)?;
        let value = |i: usize| (i % 97) as f32 / 48.0 - 1.0;
        let maps: Vec<Vec<f32>> =
            (0..pictures).map(|p| (0..side * side * channels).map(|i| value(i + p)).collect()).collect();
        let shape = json!({"channels": channels, "side": side, "pictures": pictures, "blocks": blocks});
        // Features that lie on the GPU already, as after the first steps of a training.
        let mut trainer = MapTrainer::new(&bench.program.cuda, flow.clone(), Adam::default(), pictures, WORKING)?;
        trainer.hold(maps.iter().map(Vec::as_slice))?;
        let numbers: Vec<usize> = (0..pictures).collect();
        bench.run("fastflow_step", shape.clone(), 1, || trainer.step(MapBatch::Held(&numbers), 1e-4).map(drop))?;
        drop(trainer);
        let model = MapModel::new(&bench.program.cuda, &flow)?;
        let features = bench.program.cuda.upload(&maps.concat()).map_err(device)?;
        bench.run("fastflow_score", shape, 1, || model.latents(&features).map(drop))?;
    }
    Ok(())
}
