use blemish_flow::gpu::{MapBatch, MapModel, MapTrainer};
use blemish_flow::{ConvTrainer, FlowSpec, Latent, MapFlow, PackedFlow, Recomputed};
use blemish_grad::Module;
use blemish_grad::optim::{Adam, Decay};
use blemish_tensor::cuda::Cuda;

use super::*;

const ADAM: Adam = Adam { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2, decay: Decay::L2 };
/// Size of the maps and channels.
const SHAPES: [((usize, usize), usize, bool); 3] = [((3, 5), 9, true), ((4, 3), 16, false), ((1, 3), 2, true)];

/// A flow whose parameters are no longer those of a fresh one.
fn model(size: (usize, usize), channels: usize, norm: bool) -> MapFlow {
    let spec = FlowSpec { clamp: 2.0, ..FlowSpec::convolutional(channels, 3, 1.3, false) };
    let mut model = MapFlow::new(&spec, size, norm, 11).unwrap();
    let mut seed = 100;
    model.visit_mut(&mut |_, param| {
        seed += 1;
        let noise = random(param.data().len(), seed);
        param.data_mut().iter_mut().zip(noise).for_each(|(p, n)| *p += 0.05 * n);
    });
    model
}

fn maps(count: usize, (h, w): (usize, usize), channels: usize) -> Vec<Vec<f32>> {
    (0..count).map(|i| random(h * w * channels, 7 + i as u64).iter().map(|v| 2.0 * v + 0.5).collect()).collect()
}

fn slices(maps: &[Vec<f32>]) -> Vec<&[f32]> {
    maps.iter().map(Vec::as_slice).collect()
}

fn same_parameters(what: &str, got: &MapFlow, wanted: &MapFlow, tolerance: f32) {
    let wanted = wanted.state();
    for ((name, got), (_, wanted)) in got.state().iter().zip(&wanted) {
        close(&format!("{what}: {name}"), got.as_slice().unwrap(), wanted.as_slice().unwrap(), tolerance);
    }
}

/// Memory for one picture at a time, for three, for all.
fn trainers(cuda: &Cuda, model: &MapFlow, images: usize) -> Vec<MapTrainer> {
    let (h, w, c) = model.dim();
    let some = [0, 2 * 4 * h * w * (6 * (c + 6) + 3 * (2 * c + 16) + 4 * c + 24), usize::MAX];
    some.into_iter().map(|bytes| MapTrainer::new(cuda, model.clone(), ADAM, images, bytes).unwrap()).collect()
}

#[test]
fn latents_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for (size, channels, norm) in SHAPES {
        let model = model(size, channels, norm);
        let (gpu, cpu) = (MapModel::new(&cuda, &model).unwrap(), PackedFlow::new(model).unwrap());
        let maps = maps(10, size, channels);
        let together = gpu.latents_of(&maps.concat()).unwrap();
        assert_eq!(together.len(), maps.len());
        for (map, got) in maps.iter().zip(&together) {
            let wanted = cpu.latent(map).unwrap();
            close("energy", &got.energy, &wanted.energy, 1e-5);
            assert!(
                (got.log_det - wanted.log_det).abs() < 1e-5 * map.len() as f64,
                "{} {}",
                got.log_det,
                wanted.log_det
            );
            assert!((got.loss - wanted.loss).abs() < 1e-5 * map.len() as f64, "{} {}", got.loss, wanted.loss);
            let spread = got.log_dets.iter().zip(&wanted.log_dets).all(|(a, b)| (a - b).abs() < 1e-5 * channels as f32);
            assert!(spread, "{:?} {:?}", got.log_dets, wanted.log_dets);
            // Alone it is the same.
            let alone = gpu.latents_of(map).unwrap();
            let of = |latent: &Latent| (latent.energy.clone(), latent.log_dets.clone(), latent.log_det);
            assert_eq!(of(&alone[0]), of(got));
        }
        assert!(gpu.latents_of(&[]).unwrap().is_empty());
        assert!(gpu.latents_of(&maps[0][1..]).is_err());
        assert_eq!(gpu.dim(), cpu.model().dim());
    }
}

#[test]
fn gradients_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for (size, channels, norm) in SHAPES {
        let (model, maps) = (model(size, channels, norm), maps(5, size, channels));
        let wanted = ConvTrainer::new(model.clone(), ADAM).unwrap().gradients(&slices(&maps)).unwrap();
        let mut names = Vec::new();
        model.visit(&mut |name, _| names.push(name.to_owned()));
        for mut trainer in trainers(&cuda, &model, 5) {
            let Recomputed { loss, gradients } = trainer.gradients(MapBatch::Maps(&slices(&maps))).unwrap();
            assert!(
                (loss - wanted.loss).abs() < 1e-5 * wanted.loss.abs().max(maps[0].len() as f32),
                "{loss} {}",
                wanted.loss
            );
            assert_eq!(gradients.len(), wanted.gradients.len());
            for ((got, wanted), name) in gradients.iter().zip(&wanted.gradients).zip(&names) {
                close(name, got.as_ref().unwrap(), wanted.as_ref().unwrap(), 2e-5);
            }
        }
    }
}

#[test]
fn steps_agree_with_the_cpu_and_go_on_after_a_checkpoint() {
    let Some(cuda) = open() else { return };
    let (size, channels) = ((3, 5), 9);
    let (model, maps) = (model(size, channels, true), maps(5, size, channels));
    let all = slices(&maps);
    // Batches of 5, 3 and 5 pictures and so on.
    let batch = |step: usize| if step.is_multiple_of(2) { &all[..] } else { &all[1..4] };
    let mut cpu = ConvTrainer::new(model.clone(), ADAM).unwrap();
    let losses: Vec<f32> = (0..5).map(|s| cpu.step(batch(s), 1e-3).unwrap()).collect();
    for mut gpu in trainers(&cuda, &model, 5) {
        let mut found = Vec::new();
        for s in 0..5 {
            found.push(gpu.step(MapBatch::Maps(batch(s)), 1e-3).unwrap());
        }
        close("losses", &found, &losses, 1e-5);
        gpu.bring(true).unwrap();
        same_parameters("after five steps", gpu.model(), cpu.model(), 1e-3);
        assert_eq!(gpu.state().steps, cpu.state().steps);
        for (got, wanted) in gpu.state().exp_avg.iter().zip(&cpu.state().exp_avg) {
            close("first moment", got, wanted, 1e-3);
        }
    }
    // A checkpoint after two steps gives the same bits in the end.
    let mut three = [0; 3].map(|_| MapTrainer::new(&cuda, model.clone(), ADAM, 5, 0).unwrap());
    let [reference, first, second] = &mut three;
    for s in 0..4 {
        reference.step(MapBatch::Maps(batch(s)), 1e-3).unwrap();
    }
    for s in 0..2 {
        first.step(MapBatch::Maps(batch(s)), 1e-3).unwrap();
    }
    first.bring(true).unwrap();
    second.step(MapBatch::Maps(batch(0)), 1e-2).unwrap();
    second.resume(first.model().clone(), first.state().clone()).unwrap();
    for s in 2..4 {
        second.step(MapBatch::Maps(batch(s)), 1e-3).unwrap();
    }
    let [wanted, _, got] = three.map(|t| t.into_model().unwrap().state());
    assert_eq!(got, wanted);
    // The CPU's checkpoint on the GPU, with latents on the way.
    let mut gpu = MapTrainer::new(&cuda, model, ADAM, 5, usize::MAX).unwrap();
    gpu.resume(cpu.model().clone(), cpu.state().clone()).unwrap();
    let packed = PackedFlow::new(cpu.model().clone()).unwrap();
    for (got, map) in gpu.latents(&all).unwrap().iter().zip(&all) {
        close("energy", &got.energy, &packed.latent(map).unwrap().energy, 1e-5);
    }
    let wanted = cpu.step(&all, 1e-3).unwrap();
    let found = gpu.step(MapBatch::Maps(&all), 1e-3).unwrap();
    close("loss", &[found], &[wanted], 1e-5);
    same_parameters("resumed", &gpu.into_model().unwrap(), cpu.model(), 1e-3);
}

#[test]
fn held_maps_give_the_same_bits() {
    let Some(cuda) = open() else { return };
    let (size, channels) = ((3, 4), 6);
    let (model, maps) = (model(size, channels, true), maps(7, size, channels));
    let order = [[4, 0, 6], [1, 1, 5], [3, 2, 0]];
    for (mut given, mut held) in trainers(&cuda, &model, 3).into_iter().zip(trainers(&cuda, &model, 3)) {
        held.hold(maps.iter().map(Vec::as_slice)).unwrap();
        assert!(held.holds() && !given.holds());
        for batch in order {
            let own: Vec<&[f32]> = batch.iter().map(|i| maps[*i].as_slice()).collect();
            let wanted = given.step(MapBatch::Maps(&own), 1e-2).unwrap();
            assert_eq!(held.step(MapBatch::Held(&batch), 1e-2).unwrap(), wanted);
        }
        assert!(held.step(MapBatch::Held(&[7]), 1e-2).is_err());
        assert!(held.step(MapBatch::Maps(&[&maps[0]]), 1e-2).is_err());
        assert!(given.step(MapBatch::Held(&[0]), 1e-2).is_err());
        assert_eq!(given.into_model().unwrap().state(), held.into_model().unwrap().state());
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let Some(cuda) = open() else { return };
    let (size, channels) = ((3, 2), 4);
    let (model, maps) = (model(size, channels, true), maps(3, size, channels));
    let mut trainer = MapTrainer::new(&cuda, model.clone(), ADAM, 2, usize::MAX).unwrap();
    let all = slices(&maps);
    assert!(trainer.step(MapBatch::Maps(&[]), 1e-3).is_err());
    assert!(trainer.step(MapBatch::Maps(&all), 1e-3).is_err(), "more than a batch");
    assert!(trainer.step(MapBatch::Maps(&[&all[0][1..]]), 1e-3).is_err());
    assert!(trainer.latents(&[&all[0][1..]]).is_err());
    assert!(trainer.hold(std::iter::empty()).is_err());
    let mut bad = maps[0].clone();
    bad[5] = f32::NAN;
    let error = trainer.step(MapBatch::Maps(&[all[1], &bad]), 1e-3).unwrap_err();
    assert!(error.to_string().contains("loss"), "{error}");
    trainer.bring(false).unwrap();
    assert_eq!(trainer.model().state(), model.state());
    assert!(MapTrainer::new(&cuda, model.clone(), ADAM, 0, 1).is_err());
    assert!(MapTrainer::new(&cuda, model.clone(), Adam { betas: [1.0, 0.9], ..ADAM }, 1, 1).is_err());
    let other = MapFlow::new(&FlowSpec::convolutional(6, 3, 1.3, false), size, true, 1).unwrap();
    let state = trainer.state().clone();
    assert!(trainer.resume(other, state.clone()).is_err());
    let mut uneven = state;
    uneven.steps[1] = 3;
    assert!(trainer.resume(model, uneven).is_err());
}
