use blemish_flow::gpu::{Batches, LinearModel, LinearTrainer};
use blemish_flow::{Flow, FlowError, FlowSpec, Products};
use blemish_grad::optim::{Adam, AdamState};
use blemish_grad::{GradError, Module};
use blemish_kernels::product::cuda::possible;
use blemish_tensor::cuda::Cuda;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{close, open, random};

const LR: f32 = 1e-2;
const POSITIONS: usize = 6;
const CONDITION: usize = 4;

/// With an `eps` beside which gradients of rounding do not turn into steps.
fn adam() -> Adam {
    Adam { lr: LR, eps: 1e-2, weight_decay: 1e-3, ..Adam::default() }
}

/// A flow that is not near the identity.
fn flow(channels: usize, blocks: usize) -> Flow {
    let mut flow = Flow::new(&FlowSpec::linear(channels, CONDITION, blocks), 3).unwrap();
    let mut seed = 0;
    flow.visit_mut(&mut |_, param| {
        seed += 1;
        let more = random(param.data().len(), seed);
        param.data_mut().iter_mut().zip(more).for_each(|(p, v)| *p += 0.3 * v);
    });
    flow
}

fn codes() -> Vec<f32> {
    random(POSITIONS * CONDITION, 50)
}

fn trainer(cuda: &Cuda, flow: Flow, samples: usize, products: Products) -> LinearTrainer {
    let codes = codes();
    let batches = Batches { codes: &codes, pictures: 4, samples };
    LinearTrainer::new(cuda, flow, adam(), products, batches).unwrap()
}

/// Maps of a batch of pictures and the order of their samples.
fn batch(channels: usize, pictures: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<u32>) {
    let maps = (0..pictures).map(|i| random(POSITIONS * channels, seed * 100 + i as u64)).collect();
    let mut order: Vec<u32> = (0..(pictures * POSITIONS) as u32).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    (maps, order)
}

fn slices(maps: &[Vec<f32>]) -> Vec<&[f32]> {
    maps.iter().map(Vec::as_slice).collect()
}

fn parameters(flow: &Flow) -> Vec<(String, Vec<f32>)> {
    flow.state().into_iter().map(|(name, value)| (name, value.into_raw_vec_and_offset().0)).collect()
}

/// The steps of a batch on the CPU.
fn on_cpu(
    trainer: &mut blemish_flow::LinearTrainer,
    channels: usize,
    (maps, order): &(Vec<Vec<f32>>, Vec<u32>),
    sizes: &[usize],
) -> f64 {
    let (codes, mut at, mut sum) = (codes(), 0, 0.0);
    for &n in sizes {
        let samples = &order[at..at + n];
        let one = |values: &[f32], i: usize, width: usize| values[i * width..][..width].to_vec();
        let x: Vec<f32> = samples
            .iter()
            .flat_map(|&i| one(&maps[i as usize / POSITIONS], i as usize % POSITIONS, channels))
            .collect();
        let condition: Vec<f32> =
            samples.iter().flat_map(|&i| one(&codes, i as usize % POSITIONS, CONDITION)).collect();
        sum += f64::from(trainer.step(&x, &condition, LR).unwrap());
        at += n;
    }
    sum
}

#[test]
fn gradients_are_those_of_the_cpu() {
    let Some(cuda) = open() else { return };
    for (channels, blocks, n) in [(6, 3, 9), (9, 2, 11), (2, 1, 1)] {
        let (x, condition) = (random(n * channels, 1), random(n * CONDITION, 2));
        for products in [Products::F32, Products::Bf16] {
            if products == Products::Bf16 && !possible(&cuda) {
                continue;
            }
            let mut cpu = blemish_flow::LinearTrainer::new(flow(channels, blocks), adam()).unwrap();
            let wanted = cpu.gradients(&x, &condition).unwrap();
            let mut gpu = trainer(&cuda, flow(channels, blocks), 8, products);
            assert_eq!(gpu.products(), products);
            let got = gpu.gradients(&x, &condition).unwrap();
            let tolerance = if products == Products::Bf16 { 0.1 } else { 2e-5 };
            assert!((got.loss - wanted.loss).abs() <= tolerance * wanted.loss.abs(), "{} {}", got.loss, wanted.loss);
            let names: Vec<String> = parameters(cpu.flow()).into_iter().map(|(name, _)| name).collect();
            assert_eq!((got.gradients.len(), wanted.gradients.len()), (names.len(), names.len()));
            for ((got, wanted), name) in got.gradients.iter().zip(&wanted.gradients).zip(&names) {
                close(name, got.as_ref().unwrap(), wanted.as_ref().unwrap(), tolerance);
            }
            // Nothing has moved.
            gpu.bring(false).unwrap();
            assert_eq!(parameters(gpu.flow()), parameters(cpu.flow()));
        }
    }
}

#[test]
fn steps_are_those_of_the_cpu() {
    let Some(cuda) = open() else { return };
    let channels = 7;
    let mut cpu = blemish_flow::LinearTrainer::new(flow(channels, 2), adam()).unwrap();
    let mut gpu = trainer(&cuda, flow(channels, 2), 5, Products::F32);
    // 24 samples: four steps, the last with 9; 12: two, without the two left over; 3: one.
    let batches = [(batch(channels, 4, 1), true, vec![5, 5, 5, 9]), (batch(channels, 2, 2), false, vec![5, 5])];
    for (batch, leftovers, sizes) in &batches {
        let wanted = on_cpu(&mut cpu, channels, batch, sizes);
        let (loss, count) = gpu.train(&slices(&batch.0), &batch.1, *leftovers, LR).unwrap();
        assert_eq!(count, sizes.len());
        assert!((loss - wanted).abs() <= 1e-4 * wanted, "{loss}, not {wanted}");
    }
    let few = (batches[0].0.0.clone(), batches[0].0.1[..3].to_vec());
    on_cpu(&mut cpu, channels, &few, &[3]);
    assert_eq!(gpu.train(&slices(&few.0), &few.1, false, LR).unwrap().1, 1);
    gpu.bring(true).unwrap();
    for ((name, got), (_, wanted)) in parameters(gpu.flow()).iter().zip(parameters(cpu.flow())) {
        close(name, got, &wanted, 1e-4);
    }
    let (got, wanted): (&AdamState, &AdamState) = (gpu.state(), cpu.state());
    assert_eq!((&got.steps, got.steps[0]), (&wanted.steps, 7));
    for (got, wanted) in [(&got.exp_avg, &wanted.exp_avg), (&got.exp_avg_sq, &wanted.exp_avg_sq)] {
        for (got, wanted) in got.iter().zip(wanted) {
            close("moments", got, wanted, 2e-4);
        }
    }
}

#[test]
fn what_is_resumed_is_what_was_never_interrupted() {
    let Some(cuda) = open() else { return };
    let channels = 6;
    let batches: Vec<_> = (0..3).map(|i| batch(channels, 4, i)).collect();
    let run = |gpu: &mut LinearTrainer, part: std::ops::Range<usize>| {
        for (maps, order) in &batches[part] {
            gpu.train(&slices(maps), order, true, LR).unwrap();
        }
        gpu.bring(true).unwrap();
    };
    for products in [Products::F32, Products::Bf16] {
        let mut whole = trainer(&cuda, flow(channels, 2), 7, products);
        run(&mut whole, 0..3);
        let mut first = trainer(&cuda, flow(channels, 2), 7, products);
        run(&mut first, 0..2);
        let mut second = trainer(&cuda, flow(channels, 2), 7, products);
        // What it did before is forgotten.
        run(&mut second, 1..2);
        second.resume(first.flow().clone(), first.state().clone()).unwrap();
        run(&mut second, 2..3);
        assert_eq!(parameters(second.flow()), parameters(whole.flow()));
        assert_eq!(second.state().exp_avg, whole.state().exp_avg);
        assert_eq!(second.state().exp_avg_sq, whole.state().exp_avg_sq);
        assert_eq!(second.state().steps, whole.state().steps);
        // On the CPU it goes on as well.
        let mut cpu = blemish_flow::LinearTrainer::new(flow(channels, 2), adam()).unwrap();
        cpu.resume(first.flow().clone(), first.state().clone()).unwrap();
        on_cpu(&mut cpu, channels, &batches[2], &[7, 7, 10]);
        let tolerance = if products == Products::Bf16 { 2e-2 } else { 1e-4 };
        for ((name, got), (_, wanted)) in parameters(cpu.flow()).iter().zip(parameters(whole.flow())) {
            close(name, got, &wanted, tolerance);
        }
        assert_eq!(parameters(&second.into_flow().unwrap()), parameters(whole.flow()));
    }
}

#[test]
fn likelihoods_are_those_of_the_cpu() {
    let Some(cuda) = open() else { return };
    for (channels, blocks, pictures) in [(6, 3, 2), (9, 2, 1), (4, 1, 350)] {
        let flow = flow(channels, blocks);
        let (x, codes) = (random(pictures * POSITIONS * channels, 4), codes());
        let wanted = flow.log_likelihoods(&x, &codes.repeat(pictures)).unwrap();
        let model = LinearModel::new(&cuda, &flow).unwrap();
        let there = cuda.upload(&codes).unwrap();
        let got = model.log_likelihoods_of(&x, &there).unwrap();
        close("likelihoods", &got, &wanted, 1e-5);
        // A picture is scored as if it were alone, and as it was while the flow was trained.
        let each = POSITIONS * channels;
        let last = &x[(pictures - 1) * each..];
        assert_eq!(model.log_likelihoods_of(last, &there).unwrap(), got[(pictures - 1) * POSITIONS..]);
        let training = trainer(&cuda, flow, 3, Products::Bf16);
        assert_eq!(training.log_likelihoods(&x).unwrap(), got);
        assert!(model.log_likelihoods_of(&x[1..], &there).is_err());
        assert!(model.log_likelihoods(&cuda.upload(&x).unwrap(), &cuda.zeros(CONDITION - 1).unwrap()).is_err());
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let Some(cuda) = open() else { return };
    let codes = codes();
    let make = |spec: &FlowSpec, batches: Batches<'_>| {
        LinearTrainer::new(&cuda, Flow::new(spec, 0).unwrap(), adam(), Products::F32, batches).err()
    };
    let right = Batches { codes: &codes, pictures: 2, samples: 3 };
    let spec = FlowSpec::linear(6, CONDITION, 2);
    let rotated = FlowSpec { soft_mixing: true, ..spec.clone() };
    assert!(matches!(make(&rotated, right), Some(FlowError::Params { name: "soft_mixing", .. })));
    let free = FlowSpec::linear(6, 0, 2);
    assert!(matches!(make(&free, right), Some(FlowError::Params { name: "condition", .. })));
    assert!(matches!(make(&FlowSpec::convolutional(6, 2, 1.0, false), right), Some(FlowError::Params { .. })));
    for wrong in [
        Batches { codes: &codes[1..], ..right },
        Batches { codes: &[], ..right },
        Batches { pictures: 0, ..right },
        Batches { samples: 0, ..right },
        Batches { pictures: usize::MAX, ..right },
    ] {
        assert!(matches!(make(&spec, wrong), Some(FlowError::Shape { what: "batches", .. })));
    }
    let limit = cuda.memory_budget();
    cuda.set_memory_budget(cuda.memory_used() + 2000);
    assert!(matches!(make(&spec, right), Some(FlowError::Gpu(_))));
    cuda.set_memory_budget(limit);

    let mut gpu = trainer(&cuda, flow(6, 2), 3, Products::F32);
    let (maps, order) = batch(6, 2, 1);
    let maps = slices(&maps);
    for (maps, order) in
        [(&maps[..1], &order[..]), (&maps[..], &[][..]), (&[][..], &order[..]), (&[&maps[0][1..]][..], &[0][..])]
    {
        assert!(matches!(gpu.train(maps, order, true, LR), Err(FlowError::Shape { what: "batch", .. })));
    }
    assert!(gpu.gradients(&maps[0][..6], &codes[..3]).is_err() && gpu.gradients(maps[0], &codes).is_err());
    let mut state = gpu.state().clone();
    state.steps[1] = 9;
    assert!(gpu.resume(flow(6, 2), state.clone()).is_err());
    state.steps.pop();
    assert!(gpu.resume(flow(6, 2), state).is_err());
    let state = gpu.state().clone();
    assert!(gpu.resume(flow(7, 2), state.clone()).is_err() && gpu.resume(flow(6, 3), state).is_err());
    let broken = vec![f32::NAN; maps[0].len()];
    let error = gpu.train(&[&broken], &[0, 1, 2], true, LR).unwrap_err();
    assert!(matches!(error, FlowError::Grad(GradError::NotFinite { .. })), "{error}");
}
