use blemish_kernels::adam::cuda::{Moments, Steps};
use blemish_kernels::adam::{AdamStep, adam};
use blemish_kernels::coupling::cuda::next;
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_kernels::product::cuda::{Back, Input, Weight, possible};
use blemish_kernels::product::{Mat, Sum, matmul};
use blemish_kernels::{Par, cuda::CudaResult};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::*;

/// A matrix on the GPU whose rows are `pad` numbers further apart.
struct Rows {
    buffer: Buffer<f32>,
    pitch: usize,
    width: usize,
}

impl Rows {
    fn new(cuda: &Cuda, values: &[f32], width: usize, pad: usize) -> Rows {
        let row = |row: &[f32]| row.iter().copied().chain(std::iter::repeat_n(7.0, pad)).collect::<Vec<_>>();
        let padded: Vec<f32> = values.chunks_exact(width).flat_map(row).collect();
        Rows { buffer: cuda.upload(&padded).unwrap(), pitch: width + pad, width }
    }

    fn half(&self) -> Half<'_> {
        Half { buffer: &self.buffer, pitch: self.pitch }
    }

    fn half_mut(&mut self) -> HalfMut<'_> {
        HalfMut { buffer: &mut self.buffer, pitch: self.pitch }
    }

    /// The numbers, once it is seen that what lies between the rows is as it was.
    fn read(&self) -> Vec<f32> {
        let all = self.buffer.read().unwrap();
        assert!(all.chunks_exact(self.pitch).all(|row| row[self.width..].iter().all(|v| *v == 7.0)));
        all.chunks_exact(self.pitch).flat_map(|row| row[..self.width].to_vec()).collect()
    }
}

fn close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance * (1.0 + w.abs()), "{what} at {i}: {g}, not {w}");
    }
}

/// `a` `[m, k]` times `b` `[k, n]`, either one turned.
fn times(a: Mat<'_>, b: Mat<'_>, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    matmul(a, b, &mut out, Sum::Overwrite, Par::Serial).unwrap();
    out
}

fn layer(cuda: &Cuda, [n, c, k, o, first]: [usize; 5], pad: usize, bf16: bool) {
    let inputs = c + k;
    // Sums of products of numbers below one; bf16 keeps 8 bits of each.
    let tolerance = if bf16 { 2e-2 * (inputs.max(o).max(n) as f32).sqrt() } else { 1e-5 };
    let (x, cond, g) = (random((n, c), 1), random((n, k.max(1)), 2), random((n, o), 3));
    let (w, bias, mask) = (random((o, inputs), 4).into_raw_vec_and_offset().0, random(o + 3, 5), random((n, first), 6));
    let all: Vec<f32> = x
        .outer_iter()
        .zip(cond.outer_iter())
        .flat_map(|(x, cond)| x.iter().copied().chain(cond.iter().copied().take(k)).collect::<Vec<_>>())
        .collect();
    let [xd, gd, md] =
        [(&x, c), (&g, o), (&mask, first)].map(|(v, width)| Rows::new(cuda, v.as_slice().unwrap(), width, pad));
    let cd = Rows::new(cuda, cond.as_slice().unwrap(), k.max(1), pad);
    let input = Input { x: xd.half(), condition: (k > 0).then(|| cd.half()), widths: [c, k] };
    let mut weight = Weight::new(cuda, &w, [o, inputs], bf16).unwrap();
    let bias_there = upload(cuda, &bias);
    let (all, g) = (Mat::new(&all, n, inputs).unwrap(), Mat::new(g.as_slice().unwrap(), n, o).unwrap());
    let matrix = Mat::new(&w, o, inputs).unwrap();

    let mut wanted = times(all, matrix.t(), n * o);
    wanted.iter_mut().enumerate().for_each(|(i, v)| *v += bias[i % o]);
    for relu in [false, true] {
        let mut out = Rows::new(cuda, &vec![0.0; n * o], o, pad);
        weight.forward(n, input, &bias_there, relu, out.half_mut()).unwrap();
        wanted.iter_mut().for_each(|v| *v = if relu { v.max(0.0) } else { *v });
        close("forward", &out.read(), &wanted, tolerance);
        weight.forward_f32(n, input, &bias_there, relu, out.half_mut()).unwrap();
        close("forward in f32", &out.read(), &wanted, 1e-5);
    }

    let product = times(g, matrix, n * inputs);
    let start = random((n, first), 7);
    for (add, masked) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut out = Rows::new(cuda, start.as_slice().unwrap(), first, pad);
        let how = Back { add, mask: masked.then(|| md.half()) };
        weight.backward(n, first, gd.half(), how, out.half_mut()).unwrap();
        let wanted: Vec<f32> =
            start
                .indexed_iter()
                .map(|((r, i), v)| {
                    if masked && mask[[r, i]] <= 0.0 {
                        0.0
                    } else {
                        product[r * inputs + i] + if add { *v } else { 0.0 }
                    }
                })
                .collect();
        close("backward", &out.read(), &wanted, tolerance);
    }

    let wanted = times(g.t(), all, o * inputs);
    let mut gradient = cuda.scratch(o * inputs).unwrap();
    weight.gradient(n, gd.half(), input, &mut gradient).unwrap();
    let gradient = gradient.read().unwrap();
    close("gradient", &gradient, &wanted, tolerance);

    // Adam's steps against the gradient just found are those of the CPU.
    let steps: Vec<AdamStep> = (1..=2).map(|t| AdamStep::new(1e-2, [0.9, 0.999], 1e-8, 1e-3, false, t)).collect();
    let (mut p, mut m, mut v) = (w.clone(), vec![0.0; o * inputs], vec![0.0; o * inputs]);
    let mut there = Steps::new(cuda, 2).unwrap();
    there.load(&steps).unwrap();
    let mut moments = Moments::new(cuda, o * inputs).unwrap();
    let loss = cuda.upload(&[1.0]).unwrap();
    for step in &steps {
        weight.update(n, gd.half(), input, &there, &mut moments).unwrap();
        next(&mut there, &loss, 1, 1).unwrap();
        adam(step, &mut p, &mut m, &mut v, &gradient, Par::Serial).unwrap();
    }
    assert_eq!(weight.values().read().unwrap(), p);
    assert_eq!((moments.first.read().unwrap(), moments.second.read().unwrap()), (m, v));
    weight.set(&w).unwrap();
    assert_eq!(weight.values().read().unwrap(), w);
}

#[test]
fn products_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    for bf16 in [false, true] {
        if bf16 && !possible(&cuda) {
            continue;
        }
        layer(&cuda, [70, 24, 12, 40, 36], 4, bf16);
        layer(&cuda, [5, 7, 4, 67, 3], 1, bf16);
        layer(&cuda, [33, 6, 0, 9, 6], 0, bf16);
        layer(&cuda, [3, 150, 9, 140, 20], 0, bf16);
    }
}

/// A picture's rows are scored with many others, or with none.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let Some(cuda) = open() else { return };
    let (n, c, o) = (513, 9, 10);
    let (x, w, bias) = (random((n, c), 1), random((o, c), 2), random(o, 3));
    let weight = Weight::new(&cuda, w.as_slice().unwrap(), [o, c], false).unwrap();
    let bias = upload(&cuda, &bias);
    let score = |values: &[f32], many: bool| {
        let rows = values.len() / c;
        let x = Rows::new(&cuda, values, c, 0);
        let mut out = Rows::new(&cuda, &vec![0.0; rows * o], o, 0);
        let layer = if many { Weight::forward_f32 } else { Weight::forward };
        layer(&weight, rows, Input::one(x.half(), c), &bias, true, out.half_mut()).unwrap();
        out.read()
    };
    for many in [true, false] {
        let all = score(x.as_slice().unwrap(), many);
        assert_eq!(all[7 * o..60 * o], score(&x.as_slice().unwrap()[7 * c..60 * c], many));
    }
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let Some(cuda) = open() else { return };
    assert!(Weight::new(&cuda, &[0.0; 5], [2, 3], false).is_err() && Weight::new(&cuda, &[], [0, 3], false).is_err());
    let mut weight = Weight::new(&cuda, &[0.0; 12], [3, 4], false).unwrap();
    let (small, right) = (cuda.zeros(7).unwrap(), cuda.zeros(8).unwrap());
    let (mut out, bias) = (cuda.zeros(8).unwrap(), cuda.zeros(3).unwrap());
    let half = |buffer, pitch| Half { buffer, pitch };
    let mut forward = |x: Input<'_>, bias: &Buffer<f32>, pitch: usize| -> CudaResult<()> {
        weight.forward(2, x, bias, false, HalfMut { buffer: &mut out, pitch })
    };
    forward(Input::one(half(&right, 4), 4), &bias, 3).unwrap();
    assert!(forward(Input::one(half(&small, 4), 4), &bias, 3).is_err());
    assert!(forward(Input::one(half(&right, 4), 3), &bias, 3).is_err());
    assert!(forward(Input::one(half(&right, 4), 4), &cuda.zeros(2).unwrap(), 3).is_err());
    assert!(
        forward(Input::one(half(&right, 4), 4), &bias, 2).is_err()
            && forward(Input::one(half(&right, 4), 4), &bias, 5).is_err()
    );
    let more = Input { x: half(&right, 3), condition: Some(half(&right, 1)), widths: [3, usize::MAX] };
    assert!(forward(more, &bias, 3).is_err());
    let mut back = |first: usize, g: Half<'_>| {
        weight.backward(2, first, g, Back::default(), HalfMut { buffer: &mut out, pitch: 4 })
    };
    back(4, half(&right, 3)).unwrap();
    assert!(back(5, half(&right, 3)).is_err() && back(4, half(&right, 2)).is_err());
    let mut short = cuda.zeros(11).unwrap();
    assert!(weight.gradient(2, half(&right, 3), Input::one(half(&right, 4), 4), &mut short).is_err());
    let (steps, mut moments) = (Steps::new(&cuda, 1).unwrap(), Moments::new(&cuda, 11).unwrap());
    assert!(weight.update(2, half(&right, 3), Input::one(half(&right, 4), 4), &steps, &mut moments).is_err());
    assert!(weight.set(&[0.0; 11]).is_err());
}
