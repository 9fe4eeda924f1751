//! Empty, one class, NaN, infinities, sizes that differ, settings out of range.

use blemish_metrics::{
    Aupro, Auroc, AveragePrecision, Binned, Component, Confusion, F1, Grid, Metric, MetricError, Scores, confusion,
    label_components, normal_quantile, summary, typical,
};
use ndarray::{Array2, array};

fn one_class(positives: u64, negatives: u64) -> MetricError {
    MetricError::OneClass { positives, negatives }
}

/// The errors that every metric over scores shares.
fn refuses<M: Metric>(new: impl Fn() -> M)
where
    M::Output: std::fmt::Debug + PartialEq,
{
    assert_eq!(new().compute(), Err(MetricError::Empty));
    for (label, want) in [(true, one_class(2, 0)), (false, one_class(0, 2))] {
        let mut metric = new();
        metric.update(&[1.0, 2.0], &[label; 2]).unwrap();
        assert_eq!(metric.compute(), Err(want));
    }
    let mut metric = new();
    metric.update(&[1.0, 2.0], &[false, true]).unwrap();
    let before = metric.compute().unwrap();
    assert_eq!(metric.update(&[1.0], &[true, false]), Err(MetricError::Length { scores: 1, labels: 2 }));
    assert_eq!(metric.update(&[9.0, 0.5, f32::NAN], &[false, true, true]), Err(MetricError::Nan { index: 2 }));
    let (map, mask) = (Array2::zeros((2, 3)), Array2::from_elem((3, 2), true));
    assert_eq!(metric.update_map(map.view(), mask.view()), Err(MetricError::Shape { map: [2, 3], mask: [3, 2] }));
    metric.update(&[], &[]).unwrap();
    metric.merge(new()).unwrap();
    assert_eq!(metric.compute().unwrap(), before, "what was refused, or empty, must leave no trace");
}

#[test]
fn metrics_over_scores() {
    refuses(Auroc::new);
    refuses(AveragePrecision::new);
    refuses(F1::new);
    refuses(Scores::new);
    refuses(|| Binned::new(Grid::default()).unwrap());
    refuses(|| Binned::new(Grid::Range { low: 0.0, high: 1.0, bins: 7 }).unwrap());
    assert_eq!(Scores::new().roc(), Err(MetricError::Empty));
    assert_eq!(Scores::new().pr(), Err(MetricError::Empty));
}

#[test]
fn infinities_and_zeros_of_both_signs() {
    let scores = [f32::NEG_INFINITY, -0.0, 0.0, f32::INFINITY, f32::MIN_POSITIVE / 2.0];
    let labels = [false, false, true, true, true];
    let exact = summary(&scores, &labels).unwrap();
    assert_eq!(exact.auroc, 5.5 / 6.0);
    assert_eq!(exact.f1_max.threshold, 0.0);
    for grid in [Grid::default(), Grid::Range { low: -1.0, high: 1.0, bins: 3 }] {
        let mut binned = Binned::new(grid).unwrap();
        binned.update(&scores, &labels).unwrap();
        let got = binned.compute().unwrap();
        assert!(got.auroc.low <= exact.auroc && exact.auroc <= got.auroc.high);
        assert!(got.f1_max.f1 <= exact.f1_max.f1 && exact.f1_max.f1 <= got.f1_high);
    }
}

#[test]
fn thresholds_that_only_the_lowest_score_reaches() {
    // One bin: the threshold is the lowest score, not the edge of the grid.
    let mut binned = Binned::new(Grid::Range { low: 0.0, high: 100.0, bins: 1 }).unwrap();
    binned.update(&[-7.0, 3.0], &[true, false]).unwrap();
    let got = binned.compute().unwrap();
    assert_eq!((got.f1_max.threshold, got.f1_max.f1), (-7.0, 2.0 / 3.0));
    assert_eq!((got.auroc.low, got.auroc.value, got.auroc.high), (0.0, 0.5, 1.0));
}

#[test]
fn grids_out_of_range() {
    let refused = |grid| matches!(Binned::new(grid), Err(MetricError::Setting { .. }));
    assert!(refused(Grid::Key { bits: 9 }) && refused(Grid::Key { bits: 25 }));
    for (low, high, bins) in [
        (0.0, 1.0, 0),
        (0.0, 1.0, (1 << 24) + 1),
        (1.0, 1.0, 8),
        (2.0, 1.0, 8),
        (f32::NAN, 1.0, 8),
        (0.0, f32::NAN, 8),
        (f32::NEG_INFINITY, 1.0, 8),
        (0.0, f32::INFINITY, 8),
    ] {
        assert!(refused(Grid::Range { low, high, bins }), "{low} {high} {bins}");
    }
    // The whole range of f32 is allowed.
    assert!(!refused(Grid::Range { low: f32::MIN, high: f32::MAX, bins: 8 }));

    let mut a = Binned::new(Grid::Key { bits: 12 }).unwrap();
    let b = Binned::new(Grid::Key { bits: 13 }).unwrap();
    assert_eq!(a.merge(b), Err(MetricError::Merge("grid")));
}

#[test]
fn aupro_of_one_class_or_nothing() {
    let map = array![[0.5_f32, 0.1], [0.2, 0.3]];
    let (none, all) = (Array2::from_elem((2, 2), false), Array2::from_elem((2, 2), true));
    let mut metric = Aupro::default();
    assert_eq!(metric.compute(), Err(MetricError::Empty));
    metric.update(map.view(), none.view()).unwrap();
    assert_eq!(metric.compute(), Err(one_class(0, 4)));
    assert_eq!(metric.curve(), Err(one_class(0, 4)));
    let mut only = Aupro::default();
    only.update(map.view(), all.view()).unwrap();
    assert_eq!(only.compute(), Err(one_class(4, 0)));
    // Together they are enough: the region is as good as chance.
    metric.merge(only).unwrap();
    assert_eq!(metric.regions(), 1);
    assert!(metric.compute().unwrap() > 0.0);
    assert_eq!(metric.summary(&[1.0]).unwrap().aupro, [0.5]);
}

#[test]
fn aupro_refuses() {
    for limit in [0.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        assert!(matches!(Aupro::new(limit), Err(MetricError::Setting { .. })), "{limit}");
    }
    let mut metric = Aupro::new(0.3).unwrap();
    let map = array![[0.0_f32, f32::NAN, 1.0]];
    let mask = array![[true, false, false]];
    assert_eq!(metric.update(map.view(), mask.view()), Err(MetricError::Nan { index: 1 }));
    assert_eq!(metric.update(map.t(), mask.t()), Err(MetricError::Nan { index: 1 }));
    assert_eq!(metric.update(map.view(), mask.t()), Err(MetricError::Shape { map: [1, 3], mask: [3, 1] }));
    assert_eq!(metric.compute(), Err(MetricError::Empty));
    assert_eq!(metric.merge(Aupro::new(0.05).unwrap()), Err(MetricError::Merge("FPR limit")));
    metric.update(array![[0.0_f32, 2.0, 1.0]].view(), mask.view()).unwrap();
    assert!(matches!(metric.summary(&[0.3, 2.0]), Err(MetricError::Setting { .. })));
    // A limit so small that no background pixel fits is still the area of the first segment.
    assert_eq!(Aupro::new(1e-300).unwrap().compute(), Err(MetricError::Empty));
    assert_eq!(metric.compute().unwrap(), 0.0);
}

#[test]
fn aupro_by_hand() {
    // Background 1 2 3 4 (one each); a region of one pixel tied with the 4, one of two pixels at 9 and 0.
    let map = array![[4.0_f32, 1.0, 9.0], [2.0, 3.0, 0.0], [4.0, 1.5, 1.5]];
    let mask = array![[true, false, true], [false, false, true], [false, false, false]];
    let mut metric = Aupro::new(0.5).unwrap();
    metric.update(map.view(), mask.view()).unwrap();
    // Six background pixels, so three up to the limit. The first region rises along the first of them: 2.5 of 3; of the
    // second, one of two pixels is covered from the start: 0.5 of 1.
    assert_eq!(metric.regions(), 2);
    assert!((metric.compute().unwrap() - (2.5 / 3.0 + 0.5) / 2.0).abs() < 1e-15);
    // A limit within the tie: half a pixel of FPR, at which the first region is half covered.
    let half = metric.summary(&[0.5 / 6.0]).unwrap().aupro[0];
    assert!((half - (0.25 + 0.5) / 2.0).abs() < 1e-15);
}

#[test]
fn confusion_needs_no_second_class() {
    let counts = confusion(&[0.5, 1.0, 2.0], &[false; 3], 1.0).unwrap();
    let mut want = Confusion { false_positives: 2, true_negatives: 1, ..Confusion::default() };
    assert_eq!(counts, want);
    assert_eq!((counts.recall(), counts.precision()), (None, Some(0.0)));
    assert_eq!((counts.false_reject_rate(), counts.accuracy()), (Some(2.0 / 3.0), Some(1.0 / 3.0)));
    assert_eq!(confusion(&[0.5], &[false], f32::INFINITY).unwrap().f1(), None);
    assert_eq!(confusion(&[], &[], 1.0), Err(MetricError::Empty));
    assert_eq!(confusion(&[1.0], &[], 1.0), Err(MetricError::Length { scores: 1, labels: 0 }));
    assert_eq!(confusion(&[f32::NAN], &[true], 1.0), Err(MetricError::Nan { index: 0 }));
    assert!(matches!(confusion(&[1.0], &[true], f32::NAN), Err(MetricError::Setting { .. })));
    want.merge(counts);
    assert_eq!(want.total(), 6);
}

#[test]
fn components_of_small_and_odd_masks() {
    for size in [(0, 0), (0, 5), (5, 0)] {
        let (labels, regions) = label_components(Array2::from_elem(size, true).view());
        assert_eq!((labels.dim(), regions.len()), (size, 0));
    }
    let whole = Component { area: 6, y0: 0, x0: 0, y1: 2, x1: 3 };
    assert_eq!(label_components(Array2::from_elem((2, 3), true).view()).1, [whole]);
    assert!(label_components(Array2::from_elem((2, 3), false).view()).1.is_empty());
    // Corners touch; the second region is apart by one column.
    let mask = array![[true, false, false, false], [false, true, false, true], [true, false, false, true]];
    let (labels, regions) = label_components(mask.view());
    assert_eq!(labels, array![[1, 0, 0, 0], [0, 1, 0, 2], [1, 0, 0, 2]]);
    assert_eq!(
        regions,
        [Component { area: 3, y0: 0, x0: 0, y1: 3, x1: 2 }, Component { area: 2, y0: 1, x0: 3, y1: 3, x1: 4 }]
    );
    // A view that is not contiguous.
    assert_eq!(label_components(mask.t()).0, labels.t());
}

#[test]
fn normal_threshold_of_few_or_bad_scores() {
    let one = normal_quantile(&[3.0], 0.01).unwrap();
    assert_eq!((one.threshold, one.false_reject_rate), (3.0_f32.next_up(), 0.5));
    // 99 scores promise 5 % exactly, whatever the rounding of 100 * 0.05; and 29 % (100 * 0.29 rounds to below 29).
    let scores: Vec<f32> = (1..100).map(|i| i as f32).collect();
    for (rate, last_good) in [(0.05, 95.0_f32), (0.29, 71.0), (0.01, 99.0), (0.0, 99.0), (0.999, 1.0)] {
        let got = normal_quantile(&scores, rate).unwrap();
        assert_eq!(got.threshold, last_good.next_up(), "{rate}");
        assert_eq!(got.false_reject_rate, (100.0 - f64::from(last_good)) / 100.0, "{rate}");
    }
    // All equal: nothing above, so the rate is the best there is.
    assert_eq!(normal_quantile(&[2.0; 9], 0.5).unwrap().false_reject_rate, 0.1);
    assert_eq!(normal_quantile(&[], 0.1), Err(MetricError::Empty));
    assert_eq!(normal_quantile(&[1.0, f32::NAN], 0.1), Err(MetricError::Nan { index: 1 }));
    assert!(matches!(normal_quantile(&[f32::INFINITY], 0.1), Err(MetricError::Infinite { index: 0, .. })));
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(normal_quantile(&[1.0], rate), Err(MetricError::Setting { .. })), "{rate}");
    }
}

#[test]
fn typical_scores() {
    assert_eq!(typical(&[3.0, 1.0, 2.0]), Ok(2.0));
    assert_eq!(typical(&[4.0, 1.0, 2.0, 3.0]), Ok(2.5));
    assert_eq!(typical(&[f32::MAX, f32::MAX]), Ok(f32::MAX), "no overflow on the way");
    assert_eq!(typical(&[]), Err(MetricError::Empty));
    assert_eq!(typical(&[f32::NAN]), Err(MetricError::Nan { index: 0 }));
}

#[test]
fn errors_say_what_was_wanted_and_what_was_got() {
    let text = MetricError::Length { scores: 3, labels: 2 }.to_string();
    assert!(text.contains('3') && text.contains('2'), "{text}");
    let text = Aupro::new(7.0).unwrap_err().to_string();
    assert!(text.contains("FPR limit") && text.contains("at most 1") && text.contains('7'), "{text}");
}

#[test]
fn types_cross_threads() {
    fn send_sync<T: Send + Sync>() {}
    send_sync::<(Auroc, AveragePrecision, F1, Scores, Aupro, Binned, MetricError)>();
}
