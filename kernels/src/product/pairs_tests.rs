use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::adam::adam;

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + seed * 7919) * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn round(x: f32) -> f64 {
    f64::from(bf16::from_f32(x).to_f32())
}

/// `[panels, rows, 64]` at a sample, rounded.
fn at(data: &[f32], rows: usize, row: usize, sample: usize) -> f64 {
    round(data[(sample / PANEL * rows + row) * PANEL + sample % PANEL])
}

fn isas() -> Vec<Isa> {
    Isa::bf16().into_iter().chain([Isa::Portable]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn all_products_agree_with_rounded_numbers(
        outputs in 1usize..60, inputs in 1usize..140, panels in 1usize..3, extra in 0usize..3,
    ) {
        let samples = panels * PANEL;
        let weight = values(outputs * inputs, 1);
        let bias = values(outputs, 2);
        let (x_rows, out_rows) = (inputs + extra, outputs + extra);
        let x = values(panels * x_rows * PANEL, 3);
        let g = values(panels * out_rows * PANEL, 4);
        let w = Weight::new(&weight, outputs, inputs).unwrap();
        let pair = |x: &[f32], rows: usize, used: usize| {
            let mut words = vec![7; panels * used.div_ceil(2) * PANEL];
            channels(x, rows, used, &mut words, Par::Rayon).unwrap();
            words
        };
        let (x_pairs, g_pairs) = (pair(&x, x_rows, inputs), pair(&g, out_rows, outputs));
        let columns = inputs.div_ceil(2);
        let mut turned = vec![0; inputs.div_ceil(PANEL) * samples / 2 * PANEL];
        let part: Vec<f32> = x.chunks(x_rows * PANEL).flat_map(|p| p[columns * PANEL..].to_vec()).collect();
        transpose(&x, x_rows, columns, 0, inputs, &mut turned).unwrap();
        if inputs > columns {
            transpose(&part, x_rows - columns, inputs - columns, columns, inputs, &mut turned).unwrap();
        }
        for isa in isas() {
            let (mut out, mut threads) = (values(panels * out_rows * PANEL, 5), values(panels * out_rows * PANEL, 5));
            let start = out.clone();
            forward_with(isa, w, Some(&bias), true, &x_pairs, &mut out, out_rows, Par::Serial).unwrap();
            forward_with(isa, w, Some(&bias), true, &x_pairs, &mut threads, out_rows, Par::Rayon).unwrap();
            prop_assert_eq!(&out, &threads);
            let mut back = vec![0.25; panels * x_rows * PANEL];
            backward_with(isa, w, columns, &g_pairs, &mut back, x_rows, true, Par::Rayon).unwrap();
            let mut dw = vec![f32::NAN; outputs * inputs];
            let len = dw.len();
            let sink = Sink::Write { gradient: Out::new(&mut dw) };
            tiles(isa, "test", sink, len, (outputs, inputs), &g, out_rows, &turned, Par::Rayon).unwrap();
            for s in 0..samples {
                for o in 0..out_rows {
                    let place = (s / PANEL * out_rows + o) * PANEL + s % PANEL;
                    let want = if o < outputs {
                        let one = |i: usize| round(weight[o * inputs + i]) * at(&x, x_rows, i, s);
                        ((0..inputs).map(one).sum::<f64>() + f64::from(bias[o])).max(0.0)
                    } else {
                        f64::from(start[place])
                    };
                    prop_assert!((f64::from(out[place]) - want).abs() < 1e-4, "{isa:?}");
                }
                for i in 0..x_rows {
                    let one = |o: usize| round(weight[o * inputs + i]) * at(&g, out_rows, o, s);
                    let sum: f64 = (0..outputs).filter(|_| i < columns).map(one).sum();
                    let got = back[(s / PANEL * x_rows + i) * PANEL + s % PANEL];
                    prop_assert!((f64::from(got) - sum - 0.25).abs() < 1e-4, "{isa:?}");
                }
            }
            for o in 0..outputs {
                for i in 0..inputs {
                    let want: f64 = (0..samples).map(|s| at(&g, out_rows, o, s) * at(&x, x_rows, i, s)).sum();
                    prop_assert!((f64::from(dw[o * inputs + i]) - want).abs() < 1e-4, "{isa:?}");
                }
            }
        }
        // The fused step is the plain step on that gradient, to the bit.
        let mut dw = vec![0.0; outputs * inputs];
        gradient(&mut dw, (outputs, inputs), &g, out_rows, &turned, Par::Serial).unwrap();
        let step = AdamStep::new(1e-2, [0.9, 0.999], 1e-8, 1e-3, false, 3);
        let fresh = || (weight.clone(), values(weight.len(), 6), vec![0.5; weight.len()]);
        let ((mut p, mut m, mut v), (mut q, mut n, mut u)) = (fresh(), fresh());
        adam(&step, &mut p, &mut m, &mut v, &dw, Par::Serial).unwrap();
        let moments = Moments { first: &mut n, second: &mut u };
        update(&mut q, (outputs, inputs), moments, &step, &g, out_rows, &turned, Par::Rayon).unwrap();
        prop_assert_eq!((p, m, v), (q, n, u));
    }
}

#[test]
fn samples_do_not_see_each_other() {
    let (outputs, inputs) = (50, 70);
    let weight = values(outputs * inputs, 1);
    let w = Weight::new(&weight, outputs, inputs).unwrap();
    let result = |x: &[f32]| {
        let panels = x.len() / inputs / PANEL;
        let (mut words, mut out) = (vec![0; panels * inputs / 2 * PANEL], vec![0.0; panels * outputs * PANEL]);
        channels(x, inputs, inputs, &mut words, Par::Serial).unwrap();
        forward(w, None, false, &words, &mut out, outputs, Par::Rayon).unwrap();
        out
    };
    let (x, other) = (values(inputs * PANEL, 2), values(inputs * PANEL, 3));
    let both = [other, x.clone()].concat();
    assert_eq!(result(&both)[outputs * PANEL..], result(&x));
}

#[test]
fn wrong_sizes_are_refused() {
    let data = [0.0; 6];
    let weight = Weight::new(&data, 2, 3).unwrap();
    let (x, words) = (vec![0.0; 3 * PANEL], vec![0; 2 * PANEL]);
    assert!(channels(&x, 3, 3, &mut vec![0; 2 * PANEL], Par::Serial).is_ok());
    assert!(channels(&x, 3, 3, &mut vec![0; 3 * PANEL], Par::Serial).is_err());
    assert!(channels(&x, 3, 0, &mut [], Par::Serial).is_err());
    assert!(channels(&x, 3, 4, &mut vec![0; 2 * PANEL], Par::Serial).is_err());
    assert!(forward(weight, None, false, &words, &mut vec![0.0; 2 * PANEL], 2, Par::Serial).is_ok());
    assert!(forward(weight, Some(&[0.0]), false, &words, &mut vec![0.0; 2 * PANEL], 2, Par::Serial).is_err());
    assert!(forward(weight, None, false, &words[..PANEL], &mut vec![0.0; 2 * PANEL], 2, Par::Serial).is_err());
    assert!(backward(weight, 3, &words[..PANEL], &mut vec![0.0; 3 * PANEL], 3, false, Par::Serial).is_ok());
    assert!(backward(weight, 4, &words[..PANEL], &mut vec![0.0; 4 * PANEL], 4, false, Par::Serial).is_err());
    assert!(transpose(&x, 3, 3, 0, 3, &mut vec![0; PANEL / 2 * PANEL]).is_ok());
    assert!(transpose(&x, 3, 3, 1, 3, &mut vec![0; PANEL / 2 * PANEL]).is_err());
    let g = vec![0.0; 2 * PANEL];
    let turned = vec![0; PANEL / 2 * PANEL];
    assert!(gradient(&mut [0.0; 6], (2, 3), &g, 2, &turned, Par::Serial).is_ok());
    assert!(gradient(&mut [0.0; 5], (2, 3), &g, 2, &turned, Par::Serial).is_err());
    assert!(gradient(&mut [0.0; 6], (2, 3), &g, 2, &turned[1..], Par::Serial).is_err());
}
