//! Products of linear layers as CFlow-AD trains them, on Wide ResNet-50-2's second and fourth stage.

use blemish_kernels::adam::AdamStep;
use blemish_kernels::adam::cuda::{Moments, Steps};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_kernels::product::cuda::{Back, Input, Weight, possible};

use crate::measure::{Bench, Work};

const MANY: usize = 1000;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    let real: &[[usize; 4]] = &[[64, 768, 256, 128], [64, 2304, 1024, 128], [256, 2304, 1024, 128]];
    for &shape in if tiny { &[[9, 12, 6, 4]] } else { real } {
        layer(bench, shape, false)?;
        if possible(&bench.cuda) {
            layer(bench, shape, true)?;
        }
    }
    scoring(bench, if tiny { [9, 12, 6, 4] } else { [4096, 2304, 1024, 128] })
}

/// A layer as it scores: many rows, in `f32`.
fn scoring(bench: &mut Bench, [n, o, c, k]: [usize; 4]) -> CudaResult<()> {
    const OP: &str = "product_many_f32";
    let (i, cuda) = (c + k, bench.cuda.clone());
    let bytes = 4 * o * i + 4 * n * (i + o);
    if !bench.wants(OP, bytes) {
        return Ok(());
    }
    let weight = Weight::new(&cuda, &values(o * i), [o, i], false)?;
    let (x, cond, bias) = (cuda.upload(&values(n * c))?, cuda.upload(&values(n * k))?, cuda.upload(&values(o))?);
    let mut out = cuda.scratch::<f32>(n * o)?;
    let (x, condition) = (Half { buffer: &x, pitch: c }, Some(Half { buffer: &cond, pitch: k }));
    let input = Input { x, condition, widths: [c, k] };
    let work = Work::new(2.0 * n as f64 * o as f64 * i as f64, bytes);
    let shape = [("n", n), ("outputs", o), ("inputs", c), ("condition", k)];
    bench.run(OP, &shape, work, &[("product_forward_many_f32", work)], MANY, || {
        weight.forward_f32(n, input, &bias, true, HalfMut { buffer: &mut out, pitch: o })
    })
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
}

/// A layer from `c` channels and `k` of a condition to `o`.
fn layer(bench: &mut Bench, [n, o, c, k]: [usize; 4], bf16: bool) -> CudaResult<()> {
    let ops = if bf16 {
        ["product_forward_bf16", "product_backward_bf16", "product_update_bf16"]
    } else {
        ["product_forward_f32", "product_backward_f32", "product_update_f32"]
    };
    let i = c + k;
    let rows = 4 * n * (i + o);
    let wanted = ops.map(|op| bench.wants(op, 12 * o * i + rows));
    let cuda = bench.cuda.clone();
    let mut weight = Weight::new(&cuda, &values(o * i), [o, i], bf16)?;
    let (x, cond, g, bias) = (
        cuda.upload(&values(n * c))?,
        cuda.upload(&values(n * k))?,
        cuda.upload(&values(n * o))?,
        cuda.upload(&values(o))?,
    );
    let mut out = cuda.scratch::<f32>(n * o.max(c))?;
    let half = |buffer, pitch| Half { buffer, pitch };
    let input = Input { x: half(&x, c), condition: Some(half(&cond, k)), widths: [c, k] };
    let work = |columns: usize, bytes: usize| {
        let flops = 2.0 * n as f64 * o as f64 * columns as f64;
        if bf16 { Work::tensor(flops, bytes) } else { Work::new(flops, bytes) }
    };
    let shape = [("n", n), ("outputs", o), ("inputs", c), ("condition", k)];
    if wanted[0] {
        let work = work(i, 4 * o * i + rows);
        bench.run(ops[0], &shape, work, &[(ops[0], work)], MANY, || {
            weight.forward(n, input, &bias, true, HalfMut { buffer: &mut out, pitch: o })
        })?;
    }
    if wanted[1] {
        let work = work(c, 4 * o * c + 4 * n * (c + o));
        bench.run(ops[1], &shape, work, &[(ops[1], work)], MANY, || {
            weight.backward(n, c, half(&g, o), Back::default(), HalfMut { buffer: &mut out, pitch: c })
        })?;
    }
    if wanted[2] {
        let mut steps = Steps::new(&cuda, 1)?;
        steps.load(&[AdamStep::new(1e-4, [0.9, 0.999], 1e-8, 0.0, false, 1)])?;
        let mut moments = Moments::new(&cuda, o * i)?;
        let work = work(i, 24 * o * i + rows);
        bench.run(ops[2], &shape, work, &[(ops[2], work)], MANY, || {
            weight.update(n, half(&g, o), input, &steps, &mut moments)
        })?;
    }
    Ok(())
}
