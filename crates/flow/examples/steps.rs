//! Time of training steps: `cargo run --release -p blemish-flow --example steps -- [cflow|fastflow] [bf16] [samples]
//! [channels ..]`.
//!
//! The flows of a network's layers are trained side by side, those of CFlow-AD one after the other if they are large, as the
//! detectors do it; without channels, those of ResNet-18.
//! For FastFlow, `samples` are pictures of 256 x 256.

use std::time::Instant;

use blemish_flow::{ConvTrainer, Flow, FlowSpec, LinearTrainer, MapFlow, PackedFlow, Products};
use blemish_grad::Module;
use blemish_grad::optim::Adam;
use rayon::prelude::*;

const CONDITION: usize = 128;

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// The shortest of several runs, in milliseconds.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..runs).map(one).fold(f64::INFINITY, f64::min)
}

struct Job {
    trainer: LinearTrainer,
    x: Vec<f32>,
    codes: Vec<f32>,
}

impl Job {
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.trainer.step(&self.x, &self.codes, 1e-4).expect("the sizes fit");
        }
    }
}

fn cflow(samples: usize, channels: &[usize], products: Products) {
    let mut jobs: Vec<Job> = channels
        .iter()
        .map(|&c| {
            let flow = Flow::new(&FlowSpec::linear(c, CONDITION, 8), 0).expect("a flow");
            let (x, codes) = (values(samples * c), values(samples * CONDITION));
            let trainer = LinearTrainer::with_products(flow, Adam::default(), products).expect("a trainer");
            Job { trainer, x, codes }
        })
        .collect();
    // Steps of each layer as a batch of pictures has them: four times fewer pixels from layer to layer.
    let steps: Vec<usize> = (0..jobs.len()).map(|i| 4usize.pow((jobs.len() - 1 - i) as u32)).collect();
    jobs.iter_mut().for_each(|job| job.run(2));
    for job in &mut jobs {
        let ms = best(20, || job.run(1));
        let (count, c) = (job.trainer.flow().count(), job.x.len() / samples);
        let rate = 6.0 * count as f64 * samples as f64 / ms * 1e-6;
        println!("{c} channels, {count} parameters, {samples} samples: {ms:.2} ms, {rate:.0} Gflop/s");
    }
    let together = LinearTrainer::side_by_side(jobs.iter().map(|job| &job.trainer));
    let ms = best(5, || {
        if together {
            jobs.par_iter_mut().zip(&steps).for_each(|(job, steps)| job.run(*steps));
        } else {
            jobs.iter_mut().zip(&steps).for_each(|(job, steps)| job.run(*steps));
        }
    });
    let all: usize = steps.iter().sum();
    println!("all layers, {steps:?} steps: {ms:.1} ms, {:.2} ms a step", ms / all as f64);
}

fn fastflow(pictures: usize, channels: &[usize]) {
    let mut jobs: Vec<(ConvTrainer, Vec<f32>)> = channels
        .iter()
        .enumerate()
        .map(|(i, &c)| {
            let side = 64 >> i;
            let model =
                MapFlow::new(&FlowSpec::convolutional(c, 8, 1.0, false), (side, side), true, 0).expect("a flow");
            let x = values(pictures * side * side * c);
            (ConvTrainer::new(model, Adam::default()).expect("a trainer"), x)
        })
        .collect();
    let step = |(trainer, x): &mut (ConvTrainer, Vec<f32>)| {
        let images: Vec<&[f32]> = x.chunks_exact(x.len() / pictures).collect();
        trainer.step(&images, 1e-4).expect("the sizes fit");
    };
    for job in &mut jobs {
        let ms = best(3, || step(job)) / pictures as f64;
        println!("{:?}: {} parameters, {ms:.1} ms a picture", job.0.model().dim(), job.0.model().count());
    }
    let ms = best(3, || jobs.par_iter_mut().for_each(step)) / pictures as f64;
    println!("all layers side by side, batch {pictures}: {ms:.1} ms a picture");
    let packed: Vec<(PackedFlow, &[f32])> = jobs
        .iter()
        .map(|(trainer, x)| {
            let packed = PackedFlow::new(trainer.model().clone()).expect("a flow");
            (packed, &x[..x.len() / pictures])
        })
        .collect();
    let ms = best(10, || {
        packed.par_iter().for_each(|(flow, x)| {
            flow.latent(x).expect("the sizes fit");
        });
    });
    println!("forward only, one picture: {ms:.1} ms");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let which = arguments.next().unwrap_or_else(|| "cflow".to_owned());
    let arguments: Vec<String> = arguments.collect();
    let products = if arguments.iter().any(|a| a == "bf16") { Products::Bf16 } else { Products::F32 };
    let mut numbers = arguments.iter().filter_map(|a| a.parse::<usize>().ok());
    let samples = numbers.next();
    let channels: Vec<usize> = numbers.collect();
    let or = |default: [usize; 3]| if channels.is_empty() { default.to_vec() } else { channels.clone() };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    pool.install(|| match which.as_str() {
        "fastflow" => fastflow(samples.unwrap_or(8), &or([64, 128, 256])),
        _ => cflow(samples.unwrap_or(64), &or([128, 256, 512]), products),
    });
}
