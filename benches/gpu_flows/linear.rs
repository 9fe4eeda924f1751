use blemish_flow::gpu::{Batches, LinearModel, LinearTrainer};
use blemish_flow::{Flow, FlowError, FlowSpec, Products, positional_encoding};
use blemish_grad::optim::Adam;
use blemish_kernels::product::cuda::possible;
use serde_json::json;

use crate::{Bench, device};

/// Channels, height and width of the map, pictures, samples of a step: ResNet-18's first and Wide ResNet-50-2's three layers at
/// 256 x 256, steps of anomalib's and of the authors' sizes, 32 or 64 of them.
const REAL: [[usize; 4]; 6] =
    [[64, 64, 1, 64], [512, 32, 4, 64], [1024, 16, 16, 64], [2048, 8, 32, 64], [512, 32, 16, 256], [2048, 8, 32, 256]];
const TINY: [[usize; 4]; 1] = [[6, 3, 2, 4]];

pub(crate) fn all(bench: &mut Bench<'_>) -> Result<(), FlowError> {
    for &[channels, side, pictures, samples] in if bench.program.tiny { &TINY[..] } else { &REAL[..] } {
        let (blocks, condition) = if bench.program.tiny { (2, 4) } else { (8, 128) };
        let flow = Flow::new(&FlowSpec::linear(channels, condition, blocks), 1)?;
        let codes = positional_encoding(condition, side, side)?.into_raw_vec_and_offset().0;
        let positions = side * side;
        let value = |i: usize| (i % 97) as f32 / 48.0 - 1.0;
        let maps: Vec<Vec<f32>> =
            (0..pictures).map(|p| (0..positions * channels).map(|i| value(i + p)).collect()).collect();
        let maps: Vec<&[f32]> = maps.iter().map(Vec::as_slice).collect();
        // A walk over all samples that is no order of theirs.
        let m = pictures * positions;
        let order: Vec<u32> = (0..m).map(|i| (i * 40_503 % m) as u32).collect();
        for products in [Products::Bf16, Products::F32] {
            if products == Products::Bf16 && !possible(&bench.program.cuda) {
                eprintln!("SKIPPED: flows in bf16, which wants compute capability 8.0");
                continue;
            }
            let word = if products == Products::Bf16 { "bf16" } else { "f32" };
            let shape = json!({"channels": channels, "samples": samples, "blocks": blocks, "condition": condition, "precision": word});
            let batches = Batches { codes: &codes, pictures, samples };
            let cuda = bench.program.cuda.clone();
            let mut trainer = LinearTrainer::new(&cuda, flow.clone(), Adam::default(), products, batches)?;
            let steps = (m / samples).max(1);
            // A batch of pictures with its copy to the GPU, over its steps.
            bench.run("cflow_step", shape, steps, || trainer.train(&maps, &order, true, 1e-4).map(drop))?;
        }
        if samples == 64 || bench.program.tiny {
            let model = LinearModel::new(&bench.program.cuda, &flow)?;
            let features = bench.program.cuda.upload(&maps.concat()).map_err(device)?;
            let codes = bench.program.cuda.upload(&codes).map_err(device)?;
            let shape = json!({"channels": channels, "samples": m, "blocks": blocks, "condition": condition});
            bench.run("cflow_score", shape, 1, || model.log_likelihoods(&features, &codes).map(drop))?;
        }
    }
    Ok(())
}
