use blemish_kernels::Par;
use blemish_kernels::adam::AdamStep;
use blemish_kernels::adam::cuda::Steps;
use blemish_kernels::conv::cuda::{After, Layer};
use blemish_kernels::conv::{Activation, Conv2d, ConvSpec};
use blemish_kernels::coupling::cuda::next;
use blemish_kernels::cuda::element::{pack, unpack, wide};
use blemish_kernels::cuda::norm::{Chosen, Norm, Pictures, Table, halves};
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_kernels::product::window::{Window, gradient};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::*;

fn map(cuda: &Cuda, values: &[f32], c: usize) -> Buffer<f32> {
    let pixels = values.len() / c;
    let mut map = cuda.scratch(pixels * wide::<f32>(c)).unwrap();
    pack(cuda, &cuda.upload(values).unwrap(), [pixels, c], &mut map).unwrap();
    map
}

fn close(what: &str, got: &[f32], wanted: &[f32], size: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= 1e-5 * (size + w.abs()), "{what} at {i}: {g}, not {w}");
    }
}

/// The convolution of the CPU.
fn convolution(spec: ConvSpec, weight: &[f32], bias: &[f32], relu: bool, input: &[f32], size: [usize; 3]) -> Vec<f32> {
    let [n, h, w] = size;
    let activation = if relu { Activation::Relu } else { Activation::None };
    let cpu = Conv2d::new(spec, weight, bias, activation).unwrap();
    let mut out = vec![0.0; n * h * w * spec.out_channels];
    let mut scratch = vec![0.0; cpu.workspace(n, h, w)];
    cpu.forward(input, n, h, w, None, &mut out, &mut scratch, Par::Serial).unwrap();
    out
}

#[test]
fn layers_in_training_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for ([n, h, w], c, o, k) in
        [([2, 9, 7], 12, 20, 3), ([1, 5, 6], 7, 70, 1), ([3, 16, 12], 5, 3, 3), ([2, 2, 1], 8, 66, 5)]
    {
        let (pixels, taps, size) = (n * h * w, k * k, [n, h, w]);
        let spec = ConvSpec {
            in_channels: c,
            out_channels: o,
            kernel: [k; 2],
            stride: [1; 2],
            padding: [k / 2; 4],
            groups: 1,
        };
        let (weight, bias) = (random(o * c * taps, 1).to_vec(), random(o, 2).to_vec());
        let (x, g) = (random(pixels * c, 3).to_vec(), random(pixels * o, 4).to_vec());
        let layer = Layer::new(&cuda, c, o, k).unwrap();
        let packed = layer.pack(&weight).unwrap();
        assert_eq!(layer.unpack(&packed).unwrap(), weight);
        let weights = cuda.upload(&packed).unwrap();
        let padded = |bias: &[f32]| {
            let mut padded = bias.to_vec();
            padded.resize(wide::<f32>(bias.len()), 0.0);
            cuda.upload(&padded).unwrap()
        };
        let biases = padded(&bias);
        let (xd, gd) = (map(&cuda, &x, c), map(&cuda, &g, o));
        let read = |map: &Buffer<f32>, c: usize| unpack(&cuda, map, [pixels, c]).unwrap().read().unwrap();
        // Forward.
        let wanted = convolution(spec, &weight, &bias, true, &x, size);
        let mut out = cuda.scratch(pixels * wide::<f32>(o)).unwrap();
        layer.forward(&xd, size, (&weights, &biases), After::Relu, &mut out).unwrap();
        close("forward", &read(&out, o), &wanted, (c * taps) as f32);
        // Back to the input, through the ReLU of another map or added to one.
        let mut turned = vec![0.0; weight.len()];
        for (at, v) in weight.iter().enumerate() {
            let (out, i, tap) = (at / (c * taps), at / taps % c, at % taps);
            turned[(i * o + out) * taps + taps - 1 - tap] = *v;
        }
        let back = ConvSpec { in_channels: o, out_channels: c, ..spec };
        let plain = convolution(back, &turned, &vec![0.0; c], false, &g, size);
        let mut turned = cuda.scratch(layer.numbers()).unwrap();
        layer.turn(&weights, &mut turned).unwrap();
        let (zeros, mut gx) = (padded(&vec![0.0; c]), cuda.scratch(pixels * wide::<f32>(c)).unwrap());
        let scale = (o * taps) as f32;
        layer.back().forward(&gd, size, (&turned, &zeros), After::Nothing, &mut gx).unwrap();
        close("back", &read(&gx, c), &plain, scale);
        layer.back().forward(&gd, size, (&turned, &zeros), After::Add(&xd), &mut gx).unwrap();
        let wanted: Vec<f32> = plain.iter().zip(&x).map(|(g, x)| g + x).collect();
        close("added", &read(&gx, c), &wanted, scale);
        layer.back().forward(&gd, size, (&turned, &zeros), After::Mask(&xd), &mut gx).unwrap();
        let wanted: Vec<f32> = plain.iter().zip(&x).map(|(g, x)| if *x > 0.0 { *g } else { 0.0 }).collect();
        close("masked", &read(&gx, c), &wanted, scale);
        // The gradient of the weight, twice, the second time added.
        let mut sum = vec![0.0; taps * c * o];
        for (x, g) in x.chunks(h * w * c).zip(g.chunks(h * w * o)) {
            let window = Window { height: h, width: w, inputs: c, outputs: o, kernel: k };
            gradient(window, x, g, &mut sum, Par::Serial).unwrap();
        }
        let mut work = cuda.scratch(layer.workspace(size)).unwrap();
        let mut found = cuda.scratch(layer.numbers()).unwrap();
        for (add, times) in [(false, 1.0), (true, 2.0)] {
            layer.gradient(size, &xd, &gd, &mut work, &mut found, add).unwrap();
            let got = layer.unpack(&found.read().unwrap()).unwrap();
            let wanted: Vec<f32> = (0..weight.len())
                .map(|at| times * sum[(at % taps * c + at / taps % c) * o + at / (c * taps)])
                .collect();
            close("gradient", &got, &wanted, pixels as f32);
        }
        for smaller in 1..=n {
            assert!(layer.workspace([smaller, h, w]) <= layer.workspace(size));
        }
        // What does not fit.
        let mut short = cuda.scratch(layer.numbers() - 1).unwrap();
        assert!(layer.gradient(size, &xd, &gd, &mut work, &mut short, false).is_err());
        assert!(layer.gradient([n + 1, h, w], &xd, &gd, &mut work, &mut found, false).is_err());
        assert!(layer.turn(&weights, &mut short).is_err());
        assert!(layer.forward(&xd, size, (&short, &biases), After::Nothing, &mut out).is_err());
        assert!(layer.forward(&xd, size, (&weights, &weights), After::Nothing, &mut out).is_err());
        assert!(layer.pack(&weight[1..]).is_err() && layer.unpack(&packed[1..]).is_err());
    }
    assert!(Layer::new(&cuda, 4, 4, 2).is_err());
}

#[test]
fn norms_of_maps_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for (n, pixels, c) in [(3, 20, 7), (1, 700, 64), (2, 1, 2)] {
        let (values, c1, c2) = (pixels * c, c - c / 2, c / 2);
        let (p1, p2) = (wide::<f32>(c1), wide::<f32>(c2));
        let maps = random(values * (n + 3), 1).mapv(|v| 3.0 * v + 5.0).to_vec();
        let (weight, bias) = (random(values, 2).to_vec(), random(values, 3).to_vec());
        let (g1, g2) = (random(n * pixels * c1, 4).to_vec(), random(n * pixels * c2, 5).to_vec());
        let device = cuda.upload(&maps).unwrap();
        let (wd, bd) = (cuda.upload(&weight).unwrap(), cuda.upload(&bias).unwrap());
        let mut x1 = cuda.zeros(n * pixels * p1).unwrap();
        let mut x2 = cuda.zeros(n * pixels * p2).unwrap();
        let mut norm = Norm::new(&cuda, n, pixels, c).unwrap();
        let mut table = Table::new(&cuda, 3 * n, n + 3).unwrap();
        let chosen: Vec<u32> = (0..3 * n as u32).map(|i| (i * 7 + 2) % (n as u32 + 3)).collect();
        table.set(&chosen).unwrap();
        assert!(table.set(&[n as u32 + 3]).is_err());
        // Two turns go by.
        let mut steps = Steps::new(&cuda, 3).unwrap();
        steps.load(&[AdamStep::new(0.1, [0.9, 0.99], 1e-8, 0.0, false, 1); 3]).unwrap();
        let loss = cuda.zeros(1).unwrap();
        for (turn, which) in [None, Some(0), Some(1)].into_iter().enumerate() {
            let choice = which.map(|_| Chosen { table: &table, steps: Some(&steps), each: n });
            let pictures = Pictures { maps: &device, pixels, channels: c, count: n, chosen: choice };
            let numbers: Vec<usize> = match which {
                None => (0..n).collect(),
                Some(turn) => chosen[turn * n..][..n].iter().map(|i| *i as usize).collect(),
            };
            let (mut wanted, mut by_weight, mut by_bias) =
                ([vec![], vec![]], vec![0.0f32; values], vec![0.0f32; values]);
            for i in 0..n {
                let own = &maps[numbers[i] * values..][..values];
                let mean = own.iter().map(|v| f64::from(*v)).sum::<f64>() / values as f64;
                let var = own.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values as f64;
                let normal = |e: usize| ((f64::from(own[e]) - mean) / (var + 1e-5).sqrt()) as f32;
                for e in 0..values {
                    let (side, channel, row) = (usize::from(e % c >= c1), e % c, i * pixels + e / c);
                    let y = normal(e);
                    wanted[side].push(y * weight[e] + bias[e]);
                    let g = if side == 0 { g1[row * c1 + channel] } else { g2[row * c2 + channel - c1] };
                    by_weight[e] += g * y;
                    by_bias[e] += g;
                }
            }
            let x = [HalfMut { buffer: &mut x1, pitch: p1 }, HalfMut { buffer: &mut x2, pitch: p2 }];
            norm.apply(pictures, &wd, &bd, x).unwrap();
            let read = |map: &Buffer<f32>, c: usize| unpack(&cuda, map, [n * pixels, c]).unwrap().read().unwrap();
            close("x1", &read(&x1, c1), &wanted[0], 1.0);
            close("x2", &read(&x2, c2), &wanted[1], 1.0);
            let (g1d, g2d) = (map(&cuda, &g1, c1), map(&cuda, &g2, c2));
            let g = [Half { buffer: &g1d, pitch: p1 }, Half { buffer: &g2d, pitch: p2 }];
            let (mut gw, mut gb) = (cuda.scratch(values).unwrap(), cuda.scratch(values).unwrap());
            for (add, times) in [(false, 1.0), (true, 2.0)] {
                norm.gradient(pictures, g, &mut gw, &mut gb, add).unwrap();
                let twice = |sums: &[f32]| sums.iter().map(|v| v * times).collect::<Vec<f32>>();
                close("gradient of the weight", &gw.read().unwrap(), &twice(&by_weight), n as f32);
                close("gradient of the bias", &gb.read().unwrap(), &twice(&by_bias), n as f32);
            }
            // Without a norm.
            let x = [HalfMut { buffer: &mut x1, pitch: p1 }, HalfMut { buffer: &mut x2, pitch: p2 }];
            halves(&cuda, pictures, x).unwrap();
            let plain = numbers.iter().flat_map(|i| maps[i * values..][..values].chunks(c)).flat_map(|p| &p[..c1]);
            assert_eq!(read(&x1, c1), plain.copied().collect::<Vec<f32>>());
            // What does not fit.
            let beyond = Pictures { count: 2 * n + 4, ..pictures };
            let x = [HalfMut { buffer: &mut x1, pitch: p1 }, HalfMut { buffer: &mut x2, pitch: p2 }];
            assert!(norm.apply(beyond, &wd, &bd, x).is_err());
            let x = [HalfMut { buffer: &mut x1, pitch: p1 }, HalfMut { buffer: &mut x2, pitch: c2 - 1 }];
            assert!(norm.apply(pictures, &wd, &bd, x).is_err());
            assert!(norm.gradient(Pictures { pixels: pixels + 1, ..pictures }, g, &mut gw, &mut gb, false).is_err());
            if turn > 0 {
                next(&mut steps, &loss, 1, 1).unwrap();
            }
        }
    }
}
