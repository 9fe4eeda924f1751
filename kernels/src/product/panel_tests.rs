use proptest::prelude::*;

use super::*;
use crate::adam::adam;

fn value(i: usize) -> f32 {
    ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0
}

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| value(i + seed * 7919)).collect()
}

/// `[panels, rows, 64]` at a sample.
fn at(data: &[f32], rows: usize, row: usize, sample: usize) -> f64 {
    f64::from(data[(sample / PANEL * rows + row) * PANEL + sample % PANEL])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn all_products_agree_with_f64(outputs in 1usize..40, inputs in 1usize..140, panels in 1usize..3, extra in 0usize..3) {
        let samples = panels * PANEL;
        let weight = values(outputs * inputs, 1);
        let bias = values(outputs, 2);
        let (x_rows, out_rows) = (inputs + extra, outputs + extra);
        let x = values(panels * x_rows * PANEL, 3);
        let g = values(panels * out_rows * PANEL, 4);
        let start = values(panels * out_rows * PANEL, 5);
        let w = Weight::new(&weight, outputs, inputs).unwrap();
        for par in [Par::Serial, Par::Rayon] {
            let mut out = start.clone();
            forward(w, Some(&bias), true, &x, x_rows, &mut out, out_rows, par).unwrap();
            for s in 0..samples {
                for o in 0..out_rows {
                    let want = if o < outputs {
                        let sum: f64 = (0..inputs).map(|i| f64::from(weight[o * inputs + i]) * at(&x, x_rows, i, s)).sum();
                        (sum + f64::from(bias[o])).max(0.0)
                    } else {
                        at(&start, out_rows, o, s)
                    };
                    prop_assert!((at(&out, out_rows, o, s) - want).abs() < 1e-4);
                }
            }
            let columns = inputs.div_ceil(2);
            let mut back = vec![0.25; panels * x_rows * PANEL];
            backward(w, columns, &g, out_rows, &mut back, x_rows, true, par).unwrap();
            for s in 0..samples {
                for i in 0..x_rows {
                    let sum: f64 = (0..outputs)
                        .filter(|_| i < columns)
                        .map(|o| f64::from(weight[o * inputs + i]) * at(&g, out_rows, o, s))
                        .sum();
                    prop_assert!((at(&back, x_rows, i, s) - sum - 0.25).abs() < 1e-4);
                }
            }
            // In two parts, as a block with a condition does it.
            let mut turned = vec![0.0; inputs.div_ceil(PANEL) * samples * PANEL];
            let part: Vec<f32> = x.chunks(x_rows * PANEL).flat_map(|p| p[columns * PANEL..].to_vec()).collect();
            transpose(&x, x_rows, columns, 0, inputs, &mut turned).unwrap();
            if inputs > columns {
                transpose(&part, x_rows - columns, inputs - columns, columns, inputs, &mut turned).unwrap();
            }
            for s in 0..samples {
                for i in 0..inputs {
                    let got = turned[(i / PANEL * samples + s) * PANEL + i % PANEL];
                    prop_assert_eq!(f64::from(got), at(&x, x_rows, i, s));
                }
            }
            let mut dw = vec![f32::NAN; outputs * inputs];
            gradient(&mut dw, (outputs, inputs), &g, out_rows, &turned, par).unwrap();
            for o in 0..outputs {
                for i in 0..inputs {
                    let want: f64 = (0..samples).map(|s| at(&g, out_rows, o, s) * at(&x, x_rows, i, s)).sum();
                    prop_assert!((f64::from(dw[o * inputs + i]) - want).abs() < 1e-4);
                }
            }
            // The fused step is the plain step on that gradient, to the bit.
            let step = AdamStep::new(1e-2, [0.9, 0.999], 1e-8, 1e-3, false, 3);
            let fresh = || {
                let second: Vec<f32> = values(weight.len(), 7).iter().map(|v| v.abs()).collect();
                (weight.clone(), values(weight.len(), 6), second)
            };
            let (mut p, mut m, mut v) = fresh();
            adam(&step, &mut p, &mut m, &mut v, &dw, Par::Serial).unwrap();
            let (mut q, mut first, mut second) = fresh();
            let moments = Moments { first: &mut first, second: &mut second };
            update(&mut q, (outputs, inputs), moments, &step, &g, out_rows, &turned, par).unwrap();
            prop_assert_eq!((q, first, second), (p, m, v));
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let (outputs, inputs) = (37, 150);
    let (weight, x, g) = (values(outputs * inputs, 1), values(inputs * PANEL, 2), values(outputs * PANEL, 3));
    let mut turned = vec![0.0; inputs.div_ceil(PANEL) * PANEL * PANEL];
    transpose(&x, inputs, inputs, 0, inputs, &mut turned).unwrap();
    let mut all = Vec::new();
    for isa in Isa::available() {
        let mut out = vec![0.0; outputs * PANEL];
        let mut back = vec![0.0; inputs * PANEL];
        let mut dw = vec![0.0; outputs * inputs];
        let job = |strides, depth, x, x_rows, out, rows| {
            let to = Target { out, rows, panels: 1, bias: None, relu: false, add: false };
            Product { isa, a: &weight, strides, depth, x, x_rows, to }
        };
        job((inputs, 1), inputs, &x, inputs, Out::new(&mut out), outputs).rows(0, outputs);
        job((1, inputs), outputs, &g, outputs, Out::new(&mut back), inputs).rows(0, inputs);
        let sink = Sink::Write { gradient: Out::new(&mut dw) };
        Tiles { isa, sink, inputs, g: &g, g_rows: outputs, x: &turned, panels: 1 }.rows(0, outputs);
        all.push((out, back, dw));
    }
    assert!(all.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn no_columns_are_no_work() {
    let (weight, x) = ([1.0; 6], [1.0; 2 * PANEL]);
    let mut out = [0.5; PANEL];
    backward(Weight::new(&weight, 2, 3).unwrap(), 0, &x, 2, &mut out, 1, false, Par::Rayon).unwrap();
    assert_eq!(out, [0.5; PANEL]);
}

#[test]
fn wrong_sizes_are_refused() {
    let weight = [0.0; 6];
    assert!(Weight::new(&weight, 2, 4).is_err());
    assert!(Weight::new(&[], 0, 4).is_err());
    let w = Weight::new(&weight, 2, 3).unwrap();
    let x = [0.0; 3 * PANEL];
    assert!(forward(w, None, false, &x, 3, &mut [0.0; PANEL], 1, Par::Serial).is_err());
    assert!(forward(w, None, false, &x[..2 * PANEL], 2, &mut [0.0; 2 * PANEL], 2, Par::Serial).is_err());
    assert!(forward(w, Some(&[0.0]), false, &x, 3, &mut [0.0; 2 * PANEL], 2, Par::Serial).is_err());
    assert!(backward(w, 4, &x, 3, &mut [0.0; 4 * PANEL], 4, false, Par::Serial).is_err());
    assert!(gradient(&mut [0.0; 6], (2, 3), &x, 3, &[0.0; 5], Par::Serial).is_err());
    let moments = Moments { first: &mut [0.0; 5], second: &mut [0.0; 6] };
    let step = AdamStep::new(1.0, [0.9, 0.9], 0.0, 0.0, false, 1);
    assert!(update(&mut [0.0; 6], (2, 3), moments, &step, &x, 3, &[0.0; PANEL * PANEL], Par::Serial).is_err());
}
