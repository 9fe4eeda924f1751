use super::*;

/// Direct sum in f64, one axis after the other.
fn reference(map: &Array2<f32>, sigma: f64, border: Border) -> Array2<f64> {
    let radius = (4.0 * sigma + 0.5) as isize;
    let kernel: Vec<f64> = (-radius..=radius).map(|r| (-0.5 * (r as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = kernel.iter().sum();
    let pass = |a: Array2<f64>| {
        Array2::from_shape_fn(a.dim(), |(y, x)| {
            let at = |r: isize| a[[y, border.index(x as isize + r, a.ncols())]];
            (-radius..=radius).zip(&kernel).map(|(r, k)| k / total * at(r)).sum::<f64>()
        })
    };
    let across = pass(map.mapv(f64::from));
    pass(across.t().to_owned()).t().to_owned()
}

fn sample(h: usize, w: usize) -> Array2<f32> {
    Array2::from_shape_fn((h, w), |(y, x)| ((y * 37 + x * 101) % 53) as f32 - 11.0)
}

#[test]
fn agrees_with_the_direct_sum_at_every_size_and_border() {
    for (h, w) in [(1, 1), (1, 9), (9, 1), (2, 3), (5, 40), (33, 33), (31, 65), (70, 64)] {
        for sigma in [0.3, 1.0, 4.0] {
            for border in [Border::Reflect, Border::Symmetric] {
                let map = sample(h, w);
                let ours = gaussian_with(map.view(), sigma, border).expect("a valid blur");
                let theirs = reference(&map, f64::from(sigma), border);
                for (a, b) in ours.iter().zip(&theirs) {
                    assert!((f64::from(*a) - b).abs() < 1e-4, "{h}x{w}, sigma {sigma}, {border:?}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn both_compilations_agree_to_the_bit() {
    let map = sample(50, 83);
    let indices = |n: usize| (0..n + 32).map(|i| Border::Reflect.index(i as isize - 16, n)).collect::<Vec<_>>();
    let mut a = vec![0.0; 50 * 83];
    let mut b = a.clone();
    let source = map.as_slice().expect("C order");
    cpu::blur(source, 83, &indices(50), &indices(83), &half_kernel(4.0), &mut a);
    cpu::blur_portable(source, 83, &indices(50), &indices(83), &half_kernel(4.0), &mut b);
    assert_eq!(a, b);
}

#[test]
fn views_of_any_layout_are_taken() {
    let map = sample(20, 30);
    let turned = gaussian(map.t(), 2.0).expect("a valid blur");
    let straight = gaussian(map.view(), 2.0).expect("a valid blur");
    for ((y, x), v) in turned.indexed_iter() {
        assert!((v - straight[[x, y]]).abs() < 1e-4);
    }
}

#[test]
fn zero_changes_nothing_and_bad_arguments_are_refused() {
    let map = sample(4, 5);
    assert_eq!(gaussian(map.view(), 0.0).expect("sigma 0 is allowed"), map);
    for sigma in [-1.0, f32::NAN, f32::INFINITY, 1e6] {
        assert!(matches!(gaussian(map.view(), sigma), Err(KernelError::Parameter { .. })), "{sigma}");
    }
    assert!(matches!(gaussian(sample(0, 5).view(), 1.0), Err(KernelError::Shape { .. })));
}

#[test]
fn border_indices_run_back_and_forth() {
    let line = |border: Border, n| (-4..7).map(|i| border.index(i, n)).collect::<Vec<_>>();
    assert_eq!(line(Border::Reflect, 3), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
    assert_eq!(line(Border::Symmetric, 3), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
    assert!(line(Border::Reflect, 1).iter().all(|i| *i == 0));
}
