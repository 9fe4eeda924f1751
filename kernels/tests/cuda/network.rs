use blemish_kernels::Par;
use blemish_kernels::conv::{self, Activation, Conv2d, ConvSpec};
use blemish_kernels::cuda::element::{Element, pack, unpack, wide};
use blemish_kernels::pool::{self, PoolSpec, avg_pool, max_pool};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::*;

/// `values` `[pixels, c]` as a map on the GPU.
fn map<T: Element>(cuda: &Cuda, values: &[f32], c: usize) -> Buffer<T> {
    let pixels = values.len() / c;
    let mut map = cuda.scratch(pixels * wide::<T>(c)).unwrap();
    pack(cuda, &cuda.upload(values).unwrap(), [pixels, c], &mut map).unwrap();
    map
}

/// Fp16 (and its weights) keeps 11 bits; f32 differs in the order of its sums.
fn tolerance<T: Element>() -> f32 {
    if T::LANES == 8 { 4e-3 } else { 1e-5 }
}

fn close<T: Element>(what: &str, got: &[f32], wanted: &[f32], size: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance::<T>() * (size + w.abs()), "{what} at {i}: {g}, not {w}");
    }
}

fn convolutions<T: Element + PartialEq>(cuda: &Cuda) {
    use Activation::{HardSwish, None, Relu, Relu6, Silu};
    let cases = [
        ([2, 9, 11, 3], 16, [7, 7], [2, 2], [3; 4], false, Relu, false),
        ([1, 13, 12, 24], 72, [3, 3], [1, 1], [1; 4], false, Relu, true),
        ([2, 7, 7, 40], 24, [1, 1], [1, 1], [0; 4], false, None, true),
        ([1, 8, 9, 64], 130, [1, 1], [2, 2], [0; 4], false, Relu6, false),
        ([3, 12, 12, 16], 130, [3, 2], [1, 2], [1, 0, 0, 1], false, Silu, false),
        ([1, 6, 9, 8], 16, [2, 3], [1, 2], [1, 0, 0, 1], false, Relu, false),
        ([2, 9, 8, 40], 40, [3, 3], [1, 1], [1; 4], true, HardSwish, false),
        ([1, 11, 10, 13], 13, [5, 5], [2, 2], [2; 4], true, Silu, true),
        ([1, 1, 1, 1], 1, [1, 1], [1, 1], [0; 4], false, None, false),
    ];
    for (i, (shape, out, kernel, stride, padding, depthwise, activation, residual)) in cases.into_iter().enumerate() {
        let [n, h, w, c] = shape;
        let groups = if depthwise { c } else { 1 };
        let spec = ConvSpec { in_channels: c, out_channels: out, kernel, stride, padding, groups };
        let weight = random(spec.weight_len(), 1).to_vec();
        let bias = random(out, 2).to_vec();
        let input = random(shape, 3);
        let input = input.as_slice().unwrap();
        let (oh, ow) = spec.output_size(h, w).unwrap();
        let add = residual.then(|| random(n * oh * ow * out, 4).to_vec());
        let cpu = Conv2d::new(spec, &weight, &bias, activation).unwrap();
        let mut wanted = vec![0.0; n * oh * ow * out];
        let mut scratch = vec![0.0; cpu.workspace(n, h, w)];
        cpu.forward(input, n, h, w, add.as_deref(), &mut wanted, &mut scratch, Par::Serial).unwrap();
        let gpu = conv::cuda::Conv::<T>::new(cuda, spec, &weight, &bias, activation).unwrap();
        let device = map::<T>(cuda, input, c);
        let add = add.map(|add| map::<T>(cuda, &add, out));
        let mut output = cuda.scratch(n * oh * ow * wide::<T>(out)).unwrap();
        gpu.forward(&device, [n, h, w], add.as_ref(), &mut output).unwrap();
        let got = unpack(cuda, &output, [n * oh * ow, out]).unwrap().read().unwrap();
        close::<T>(&format!("case {i}"), &got, &wanted, ((spec.weight_len() / out) as f32).sqrt());
        // What only fills up stays zero, or the next layer would see it.
        let stored = output.read().unwrap();
        let beyond = stored.chunks(wide::<T>(out)).flat_map(|pixel| &pixel[out..]);
        assert!(beyond.clone().all(|v| *v == T::default()), "case {i}");
        assert!(gpu.forward(&device, [n, h, w + 1], add.as_ref(), &mut output).is_err());
        let mut short = cuda.scratch(n * oh * ow * wide::<T>(out) - 1).unwrap();
        assert!(gpu.forward(&device, [n, h, w], add.as_ref(), &mut short).is_err());
        assert!(conv::cuda::Conv::<T>::new(cuda, spec, &weight[1..], &bias, activation).is_err());
    }
    let spec = ConvSpec { in_channels: 8, out_channels: 8, kernel: [1; 2], stride: [1; 2], padding: [0; 4], groups: 2 };
    let error = conv::cuda::Conv::<T>::new(cuda, spec, &[0.0; 32], &[0.0; 8], None).unwrap_err().to_string();
    assert!(error.contains("1 group"), "{error}");
}

#[test]
fn convolutions_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    convolutions::<f32>(&cuda);
    if cuda.info().capability >= (8, 0) {
        convolutions::<u16>(&cuda);
    }
}

fn pools<T: Element>(cuda: &Cuda) {
    for (shape, kernel, stride, padding) in
        [([2, 9, 7, 5], [3, 3], [2, 2], [1; 4]), ([1, 4, 6, 64], [2, 4], [1, 3], [0, 3, 1, 0])]
    {
        let [n, _, _, c] = shape;
        let spec = PoolSpec { kernel, stride, padding };
        let (oh, ow) = spec.output_size(shape[1], shape[2]).unwrap();
        let input = random(shape, 6);
        let device = map::<T>(cuda, input.as_slice().unwrap(), c);
        let mut output = cuda.scratch(n * oh * ow * wide::<T>(c)).unwrap();
        let mut wanted = vec![0.0; n * oh * ow * c];
        pool::cuda::max_pool(cuda, &device, shape, &spec, &mut output).unwrap();
        max_pool(input.as_slice().unwrap(), shape, &spec, &mut wanted, Par::Serial).unwrap();
        close::<T>("max", &unpack(cuda, &output, [n * oh * ow, c]).unwrap().read().unwrap(), &wanted, 1.0);
        for all in [true, false] {
            pool::cuda::avg_pool(cuda, &device, shape, &spec, all, &mut output).unwrap();
            avg_pool(input.as_slice().unwrap(), shape, &spec, all, &mut wanted, Par::Serial).unwrap();
            close::<T>("mean", &unpack(cuda, &output, [n * oh * ow, c]).unwrap().read().unwrap(), &wanted, 1.0);
        }
        assert!(pool::cuda::max_pool(cuda, &device, [n + 1, shape[1], shape[2], c], &spec, &mut output).is_err());
    }
}

fn gates<T: Element>(cuda: &Cuda) {
    use pool::cuda::{Gate, SqueezeExcite, Work};
    for (n, positions, c, reduced, gate) in [
        (3, 35, 40, 10, Gate::SiluSigmoid),
        (1, 9, 13, 3, Gate::ReluHardSigmoid),
        (2, 1, 72, 24, Gate::ReluHardSigmoid),
    ] {
        let parts = [reduced * c, reduced, reduced * c, c].map(|len| random(len, len as u64).to_vec());
        let [reduce, reduce_bias, expand, expand_bias] = &parts;
        let input = random(n * positions * c, 5).to_vec();
        let mut wanted = input.clone();
        for map in wanted.chunks_exact_mut(positions * c) {
            let mut mean = vec![0.0; c];
            pool::global_avg(map, 1, positions, c, &mut mean, Par::Serial).unwrap();
            let dense = |w: &[f32], b: &[f32], x: &[f32]| -> Vec<f32> {
                let dot = |row: &[f32]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
                w.chunks_exact(x.len()).zip(b).map(|(row, b)| dot(row) + b).collect()
            };
            let mut hidden = dense(reduce, reduce_bias, &mean);
            if gate == Gate::SiluSigmoid {
                pool::silu(&mut hidden)
            } else {
                pool::relu(&mut hidden)
            }
            let mut scale = dense(expand, expand_bias, &hidden);
            if gate == Gate::SiluSigmoid {
                pool::sigmoid(&mut scale)
            } else {
                pool::hard_sigmoid(&mut scale)
            }
            pool::scale_channels(map, 1, positions, c, &scale, Par::Serial).unwrap();
        }
        let se =
            SqueezeExcite::<T>::new(cuda, [c, reduced], [reduce, reduce_bias], [expand, expand_bias], gate).unwrap();
        let mut work = Work::new(cuda, n, c, reduced).unwrap();
        let mut place = map::<T>(cuda, &input, c);
        let mut other = cuda.scratch(place.len()).unwrap();
        se.apply(Some(&place), &mut other, [n, positions], &mut work).unwrap();
        se.apply(None, &mut place, [n, positions], &mut work).unwrap();
        for gated in [&place, &other] {
            close::<T>("gate", &unpack(cuda, gated, [n * positions, c]).unwrap().read().unwrap(), &wanted, 1.0);
        }
        assert!(se.apply(None, &mut place, [n + 1, positions], &mut work).is_err());
        let mut small = Work::new(cuda, n, c, reduced - 1).unwrap();
        assert!(se.apply(None, &mut place, [n, positions], &mut small).is_err());
        assert!(
            SqueezeExcite::<T>::new(cuda, [c, reduced], [expand, expand_bias], [reduce, reduce_bias], gate).is_err()
        );
    }
}

#[test]
fn pools_and_gates_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    pools::<f32>(&cuda);
    pools::<u16>(&cuda);
    gates::<f32>(&cuda);
    gates::<u16>(&cuda);
}
