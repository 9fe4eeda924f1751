//! What must hold for any scores.

use blemish_metrics::{
    Aupro, Auroc, Binned, Bounded, Grid, Metric, Scores, auroc, confusion, f1_max, normal_quantile, summary, typical,
};
use ndarray::{Array2, Array3, Axis, s};
use proptest::collection::vec;
use proptest::prelude::*;

/// Scores with many ties or few, of both signs, with both classes present.
fn labelled() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
    let scores = prop_oneof![vec(-3_i8..4, 2..80).prop_map(|v| v.into_iter().map(f32::from).collect()), raw(2..300)];
    scores
        .prop_flat_map(|s: Vec<f32>| {
            let n = s.len();
            (Just(s), vec(any::<bool>(), n))
        })
        .prop_map(|(s, mut l)| {
            l[0] = true;
            l[1] = false;
            (s, l)
        })
}

fn raw(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    vec(prop_oneof![-1e3_f32..1e3, 0.0_f32..1.0, 20.0_f32..30.0], len)
}

/// Maps `[4, 9, 11]` and masks; the last image is all good.
fn maps() -> impl Strategy<Value = (Array3<f32>, Array3<bool>)> {
    let pixels = 4 * 9 * 11;
    let values = prop_oneof![vec((0_u8..6).prop_map(f32::from), pixels), vec(-2.0_f32..5.0, pixels)];
    (values, vec(prop::bool::weighted(0.2), pixels)).prop_map(|(values, mask)| {
        let mut mask = Array3::from_shape_vec((4, 9, 11), mask).unwrap();
        mask[[0, 3, 3]] = true;
        mask.index_axis_mut(Axis(0), 3).fill(false);
        (Array3::from_shape_vec((4, 9, 11), values).unwrap(), mask)
    })
}

fn aupro(maps: &Array3<f32>, masks: &Array3<bool>, limit: f64) -> Aupro {
    let mut metric = Aupro::new(limit).unwrap();
    for (map, mask) in maps.outer_iter().zip(masks.outer_iter()) {
        metric.update(map, mask).unwrap();
    }
    metric
}

fn holds(bounded: Bounded, exact: f64) -> bool {
    let slack = 1e-12;
    bounded.low - slack <= exact
        && exact <= bounded.high + slack
        && bounded.low - slack <= bounded.value
        && bounded.value <= bounded.high + slack
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn auroc_is_the_mann_whitney_count((scores, labels) in labelled()) {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (a, _) in scores.iter().zip(&labels).filter(|(_, l)| **l) {
            for (b, _) in scores.iter().zip(&labels).filter(|(_, l)| !**l) {
                pairs += 1.0;
                sum += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
            }
        }
        prop_assert_eq!(auroc(&scores, &labels).unwrap(), sum / pairs);
    }

    #[test]
    fn f1_and_average_precision_by_trying_every_threshold((scores, labels) in labelled()) {
        let got = summary(&scores, &labels).unwrap();
        let mut thresholds = scores.clone();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let (mut best, mut at, mut area, mut recall) = (0.0, 0.0, 0.0, 0.0);
        for t in thresholds {
            let counts = confusion(&scores, &labels, t).unwrap();
            if counts.f1().unwrap() >= best {
                (best, at) = (counts.f1().unwrap(), t);
            }
            area += (counts.recall().unwrap() - recall) * counts.precision().unwrap();
            recall = counts.recall().unwrap();
        }
        prop_assert_eq!(got.f1_max.f1, best);
        prop_assert_eq!(got.f1_max.threshold, at);
        prop_assert!((got.average_precision - area).abs() < 1e-12);
    }

    #[test]
    fn negated_scores_mirror_the_auroc((scores, labels) in labelled()) {
        let negated: Vec<f32> = scores.iter().map(|s| -s).collect();
        prop_assert!((auroc(&scores, &labels).unwrap() + auroc(&negated, &labels).unwrap() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn only_the_order_counts((scores, labels) in labelled()) {
        // Exact in f32, and strictly increasing.
        let mapped: Vec<f32> = scores.iter().map(|s| if *s < 0.0 { s * 4.0 } else { s * 0.5 }).collect();
        let (a, b) = (summary(&scores, &labels).unwrap(), summary(&mapped, &labels).unwrap());
        prop_assert_eq!(a.auroc, b.auroc);
        prop_assert_eq!(a.average_precision, b.average_precision);
        prop_assert_eq!(a.f1_max.f1, b.f1_max.f1);
    }

    #[test]
    fn parts_merged_in_any_order_give_the_whole((scores, labels) in labelled(), cut in 0.0_f64..1.0) {
        let cut = (cut * scores.len() as f64) as usize;
        let (mut head, mut tail, mut whole) = (Scores::new(), Scores::new(), Scores::new());
        head.update(&scores[..cut], &labels[..cut]).unwrap();
        tail.update(&scores[cut..], &labels[cut..]).unwrap();
        whole.update(&scores, &labels).unwrap();
        tail.merge(head).unwrap();
        prop_assert_eq!(tail.compute().unwrap(), whole.compute().unwrap());
        prop_assert_eq!(tail.roc().unwrap(), whole.roc().unwrap());
        prop_assert_eq!(tail.pr().unwrap(), whole.pr().unwrap());

        let reversed: (Vec<f32>, Vec<bool>) = scores.iter().copied().zip(labels.iter().copied()).rev().unzip();
        prop_assert_eq!(summary(&reversed.0, &reversed.1).unwrap(), whole.compute().unwrap());
    }

    #[test]
    fn the_trapezoid_of_the_roc_curve_is_the_auroc((scores, labels) in labelled()) {
        let mut all = Scores::new();
        all.update(&scores, &labels).unwrap();
        let roc = all.roc().unwrap();
        let steps = roc.fpr.windows(2).zip(roc.tpr.windows(2));
        let area: f64 = steps.map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0).sum();
        prop_assert!((area - all.compute().unwrap().auroc).abs() < 1e-12);
        prop_assert_eq!((roc.fpr.last(), roc.tpr.last()), (Some(&1.0), Some(&1.0)));
    }

    #[test]
    fn bins_hold_the_exact_value((scores, labels) in labelled(), bits in 10_u32..14, bins in 1_usize..40, low in -5.0_f32..20.0) {
        let exact = summary(&scores, &labels).unwrap();
        for grid in [Grid::Key { bits }, Grid::Range { low, high: low + 6.0, bins }] {
            let mut binned = Binned::new(grid).unwrap();
            binned.update(&scores, &labels).unwrap();
            let got = binned.compute().unwrap();
            prop_assert!(holds(got.auroc, exact.auroc), "{:?} {}", got.auroc, exact.auroc);
            prop_assert!((got.auroc.value - exact.auroc).abs() <= (got.auroc.high - got.auroc.low) / 2.0 + 1e-12);
            prop_assert!(holds(got.average_precision, exact.average_precision), "{:?} {}", got.average_precision, exact.average_precision);
            prop_assert!(got.f1_max.f1 <= exact.f1_max.f1 && exact.f1_max.f1 <= got.f1_high);
            // At its threshold, F1 is what it says.
            let at = confusion(&scores, &labels, got.f1_max.threshold).unwrap();
            prop_assert_eq!(at.f1().unwrap(), got.f1_max.f1);
            prop_assert_eq!(at.recall().unwrap(), got.f1_max.recall);

            let (mut a, mut b) = (Binned::new(grid).unwrap(), Binned::new(grid).unwrap());
            a.update(&scores[..1], &labels[..1]).unwrap();
            b.update(&scores[1..], &labels[1..]).unwrap();
            b.merge(a).unwrap();
            prop_assert_eq!(b.compute().unwrap(), got);
        }
    }

    #[test]
    fn small_integers_in_bins_are_exact(scores in vec(-100_i8..100, 2..200)) {
        // Every integer has a bin of its own.
        let labels: Vec<bool> = (0..scores.len()).map(|i| i % 3 == 0).collect();
        let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
        let mut binned = Binned::new(Grid::Key { bits: 16 }).unwrap();
        binned.update(&scores, &labels).unwrap();
        let (got, exact) = (binned.compute().unwrap(), summary(&scores, &labels).unwrap());
        prop_assert_eq!(got.auroc.value, exact.auroc);
        prop_assert_eq!(got.average_precision.value, exact.average_precision);
        prop_assert_eq!(got.f1_max.f1, exact.f1_max.f1);
        prop_assert_eq!(got.f1_max.recall, exact.f1_max.recall);
        // The edge of the bin: the score itself, or for a negative one up to 2^-7 below it.
        let (edge, score) = (got.f1_max.threshold, exact.f1_max.threshold);
        prop_assert!(edge == score || score < 0.0 && edge < score && edge > score * (1.0 + 1.0 / 64.0), "{} {}", edge, score);
    }

    #[test]
    fn aupro_is_the_area_under_its_curve((maps, masks) in maps(), limit in 0.01_f64..1.0) {
        let metric = aupro(&maps, &masks, limit);
        let curve = metric.curve().unwrap();
        let mut area = 0.0;
        for (x, y) in curve.fpr.windows(2).zip(curve.pro.windows(2)) {
            let end = x[1].min(limit);
            if end > x[0] {
                let y_end = y[0] + (y[1] - y[0]) * (end - x[0]) / (x[1] - x[0]);
                area += (end - x[0]) * (y[0] + y_end) / 2.0;
            }
        }
        prop_assert!((metric.compute().unwrap() - area / limit).abs() < 1e-12);
    }

    #[test]
    fn aupro_ignores_order_cut_and_monotone_maps((maps, masks) in maps(), limit in 0.01_f64..1.0) {
        let whole = aupro(&maps, &masks, limit).compute().unwrap();
        let part = |from: usize, to: usize| aupro(&maps.slice(s![from..to, .., ..]).to_owned(), &masks.slice(s![from..to, .., ..]).to_owned(), limit);
        let mut merged = part(3, 4);
        merged.merge(part(1, 3)).unwrap();
        merged.merge(part(0, 1)).unwrap();
        prop_assert_eq!(merged.compute().unwrap(), whole);
        prop_assert_eq!(aupro(&maps.mapv(|x| if x < 0.0 { x * 4.0 } else { x * 0.5 }), &masks, limit).compute().unwrap(), whole);
        // Turned by a quarter: the same regions and pixels.
        let turned = |a: &Array3<f32>| a.view().permuted_axes([0, 2, 1]).to_owned();
        let turned_mask = masks.view().permuted_axes([0, 2, 1]).to_owned();
        prop_assert_eq!(aupro(&turned(&maps), &turned_mask, limit).compute().unwrap(), whole);
    }

    #[test]
    fn perfect_maps_give_one((_, masks) in maps(), limit in 0.001_f64..1.0) {
        let metric = aupro(&masks.mapv(|m| if m { 7.0 } else { 1.0 }), &masks, limit);
        prop_assert_eq!(metric.compute().unwrap(), 1.0);
        prop_assert_eq!(metric.summary(&[limit]).unwrap().auroc, 1.0);
    }

    #[test]
    fn one_region_at_limit_one_is_the_auroc(values in vec(0_u8..9, 60)) {
        let map = Array2::from_shape_vec((6, 10), values.into_iter().map(f32::from).collect()).unwrap();
        let mask = Array2::from_shape_fn((6, 10), |(y, x)| (1..4).contains(&y) && (2..6).contains(&x));
        let mut metric = Aupro::new(1.0).unwrap();
        metric.update(map.view(), mask.view()).unwrap();
        let mut pixels = Auroc::new();
        pixels.update_map(map.view(), mask.view()).unwrap();
        prop_assert!((metric.compute().unwrap() - pixels.compute().unwrap()).abs() < 1e-14);
    }

    #[test]
    fn normal_threshold_keeps_its_promise(scores in raw(1..200), ties in any::<bool>(), rate in 0.0_f64..0.999) {
        let scores: Vec<f32> = scores.into_iter().map(|s| if ties { (s / 10.0).round() } else { s }).collect();
        let n = scores.len() as f64;
        let got = normal_quantile(&scores, rate).unwrap();
        // Of n + 1 exchangeable scores, those seen above and the new one itself may be the rejected rank.
        let above = scores.iter().filter(|s| **s >= got.threshold).count() as f64;
        prop_assert_eq!(got.false_reject_rate, (above + 1.0) / (n + 1.0));
        if rate >= 1.0 / (n + 1.0) {
            prop_assert!(got.false_reject_rate <= rate);
            // The next lower threshold that changes anything would break it.
            let below = scores.iter().filter(|s| **s >= got.threshold.next_down()).count() as f64;
            prop_assert!((below + 1.0) / (n + 1.0) > rate);
        } else {
            prop_assert_eq!(above, 0.0);
            prop_assert_eq!(got.threshold, scores.iter().copied().fold(f32::MIN, f32::max).next_up());
        }
    }

    #[test]
    fn half_of_the_scores_lie_on_either_side_of_the_typical(scores in raw(1..100)) {
        let median = typical(&scores).unwrap();
        let half = scores.len().div_ceil(2);
        prop_assert!(scores.iter().filter(|s| **s <= median).count() >= half);
        prop_assert!(scores.iter().filter(|s| **s >= median).count() >= half);
    }
}

#[test]
fn long_runs_of_defects_in_a_bin_stay_within_the_bounds() {
    // More defects in one bin than are summed term by term.
    let scores: Vec<f32> = (0..4000).map(|i| 1.0 + (i * 7919 % 4000) as f32 / 4e5).collect();
    let labels: Vec<bool> = (0..4000).map(|i| i % 4 == 0).collect();
    let exact = summary(&scores, &labels).unwrap();
    for bins in [1, 2, 5, 64] {
        let mut binned = Binned::new(Grid::Range { low: 1.0, high: 1.01, bins }).unwrap();
        binned.update(&scores, &labels).unwrap();
        let got = binned.compute().unwrap();
        assert!(holds(got.auroc, exact.auroc) && holds(got.average_precision, exact.average_precision));
        assert!(got.f1_max.f1 <= exact.f1_max.f1 && exact.f1_max.f1 <= got.f1_high);
        assert!(got.auroc.high - got.auroc.low <= 1.1 / bins as f64, "{bins} bins must narrow the bounds");
    }
}

#[test]
fn rejects_new_good_parts_at_the_stated_rate() {
    // A fresh calibration set and one new part each time: the rate is an average over both.
    let mut state = 5_u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let u = (state >> 40) as f32 / (1 << 24) as f32;
        20.0 + 3.0 * u * u
    };
    for (n, rate) in [(39, 0.05), (60, 0.1), (10, 0.01)] {
        let trials = 20_000;
        let mut rejected = 0;
        let mut stated = 0.0;
        for _ in 0..trials {
            let good: Vec<f32> = (0..n).map(|_| draw()).collect();
            let got = normal_quantile(&good, rate).unwrap();
            stated = got.false_reject_rate;
            rejected += usize::from(draw() >= got.threshold);
        }
        let measured = rejected as f64 / trials as f64;
        assert!((measured - stated).abs() < 0.008, "{n} scores: stated {stated}, measured {measured}");
    }
    assert_eq!(f1_max(&[1.0, 2.0, 3.0], &[false, true, true]).unwrap().threshold, 2.0);
}
