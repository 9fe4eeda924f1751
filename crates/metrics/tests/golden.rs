//! Against scikit-learn, anomalib and a direct implementation of the definitions: 1e-12 for f64 results, 1e-6 for
//! anomalib's f32.
//!
//! What the libraries do with one class (a number or NaN) and anomalib's sigmoid on raw scores are not copied; the
//! tables below say where.

use std::path::Path;

use blemish_metrics::{Aupro, Metric, MetricError, Scores, confusion, f1_max, label_components, summary};
use ndarray::ArrayView3;
use safetensors::{Dtype, SafeTensors};

const EXACT: f64 = 1e-12;
const F32: f64 = 1e-6;

/// The subset kept in the repository, and the whole file where it lies beside the repository.
const FILES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/metrics.safetensors"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/metrics.safetensors"),
];

struct Golden {
    bytes: Vec<u8>,
    columns: serde_json::Value,
}

impl Golden {
    fn each(check: impl Fn(&Golden, &SafeTensors<'_>)) {
        for path in FILES {
            if !Path::new(path).exists() {
                eprintln!("skipped: {path} is not there");
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let info: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["info"]).unwrap();
            let golden = Golden { bytes, columns: info["columns"].clone() };
            check(&golden, &SafeTensors::deserialize(&golden.bytes).unwrap());
        }
    }

    fn value(&self, file: &SafeTensors<'_>, level: &str, set: &str, column: &str) -> f64 {
        let at = self.columns[level].as_array().unwrap().iter().position(|c| c == column).unwrap();
        numbers(file, &format!("{level}/{set}/values"))[at]
    }
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn scores(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    numbers(file, name).into_iter().map(|x| x as f32).collect()
}

fn labels(file: &SafeTensors<'_>, name: &str) -> Vec<bool> {
    numbers(file, name).into_iter().map(|x| x != 0.0).collect()
}

/// Names between `prefix` and `/values`.
fn sets(file: &SafeTensors<'_>, prefix: &str) -> Vec<String> {
    let inner = |n: &String| n.strip_prefix(prefix)?.strip_suffix("/values").map(str::to_owned);
    let mut sets: Vec<String> = file.names().into_iter().filter_map(|n| inner(&n.to_string())).collect();
    sets.sort();
    assert!(!sets.is_empty());
    sets
}

#[track_caller]
fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance, "{what}: got {got}, want {want}");
}

#[track_caller]
fn all_close(got: impl IntoIterator<Item = f64>, want: &[f64], what: &str) {
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(got.len(), want.len(), "{what}");
    for (g, w) in got.iter().zip(want) {
        assert!(g == w || (g - w).abs() <= EXACT, "{what}: got {g}, want {w}");
    }
}

#[test]
fn image_level() {
    Golden::each(|golden, file| {
        for set in sets(file, "image/") {
            let s = scores(file, &format!("image/{set}/scores"));
            let l = labels(file, &format!("image/{set}/labels"));
            let value = |column: &str| golden.value(file, "image", &set, column);
            if set.starts_with("only_") {
                assert!(value("auroc_sklearn").is_nan());
                assert!(matches!(summary(&s, &l), Err(MetricError::OneClass { .. })), "{set}");
                continue;
            }
            let got = summary(&s, &l).unwrap();
            close(got.auroc, value("auroc_sklearn"), EXACT, &set);
            close(got.average_precision, value("average_precision_sklearn"), EXACT, &set);
            close(got.f1_max.f1, value("f1max_exact"), EXACT, &set);
            close(got.f1_max.f1, value("f1max_anomalib"), F32, &set);
            for column in ["f1max_threshold_exact", "f1max_threshold_anomalib", "f1_adaptive_threshold_anomalib"] {
                assert_eq!(f64::from(got.f1_max.threshold), value(column), "{set} {column}");
            }
            // torchmetrics pushes scores outside [0, 1] through a sigmoid, where large ones become equal.
            if set == "raw_scale" {
                assert_eq!(value("auroc_anomalib"), 0.5);
            } else {
                close(got.auroc, value("auroc_anomalib"), F32, &set);
                close(got.average_precision, value("aupr_anomalib"), F32, &set);
            }
            // F1, precision and recall are those that the threshold really gives.
            let at = confusion(&s, &l, got.f1_max.threshold).unwrap();
            close(at.f1().unwrap(), got.f1_max.f1, EXACT, &set);
            assert_eq!(at.precision(), Some(got.f1_max.precision), "{set}");
            assert_eq!(at.recall(), Some(got.f1_max.recall), "{set}");
        }
    });
}

#[test]
fn curves() {
    Golden::each(|_, file| {
        for set in ["random", "ties"] {
            let mut all = Scores::new();
            all.update(&scores(file, &format!("image/{set}/scores")), &labels(file, &format!("image/{set}/labels")))
                .unwrap();
            let roc = all.roc().unwrap();
            let want = |name: &str| numbers(file, &format!("roc/{set}/sklearn_all/{name}"));
            all_close(roc.fpr, &want("fpr"), set);
            all_close(roc.tpr, &want("tpr"), set);
            all_close(roc.thresholds.into_iter().map(f64::from), &want("thresholds"), set);

            // scikit-learn lists thresholds upwards and gives none to the point of recall 0.
            let pr = all.pr().unwrap();
            let want = |name: &str| numbers(file, &format!("pr/{set}/sklearn/{name}"));
            all_close(pr.precision.into_iter().rev(), &want("precision"), set);
            all_close(pr.recall.into_iter().rev(), &want("recall"), set);
            all_close(pr.thresholds.into_iter().skip(1).rev().map(f64::from), &want("thresholds"), set);
        }
    });
}

#[test]
fn batches_do_not_change_the_value() {
    Golden::each(|_, file| {
        let (s, l) = (scores(file, "sigmoid_per_batch/scores"), labels(file, "sigmoid_per_batch/labels"));
        let mut all = Scores::new();
        for (s, l) in s.chunks(15).zip(l.chunks(15)) {
            all.update(s, l).unwrap();
        }
        let want = numbers(file, "sigmoid_per_batch/auroc_sklearn")[0];
        close(all.compute().unwrap().auroc, want, EXACT, "batches");
        assert!((numbers(file, "sigmoid_per_batch/auroc_anomalib_batches_of_15")[0] - want).abs() > 0.05);
    });
}

#[test]
fn the_threshold_itself_is_a_defect() {
    Golden::each(|_, file| {
        let (s, l) = (scores(file, "image/random/scores"), labels(file, "image/random/labels"));
        let best = f1_max(&s, &l).unwrap();
        assert_eq!(f64::from(best.threshold), numbers(file, "threshold_rule/threshold")[0]);
        let [strict, at_least] = numbers(file, "threshold_rule/f1_anomalib_and_f1_with_at_least")[..] else {
            panic!("two values")
        };
        close(confusion(&s, &l, best.threshold).unwrap().f1().unwrap(), at_least, F32, "at least");
        close(confusion(&s, &l, best.threshold.next_up()).unwrap().f1().unwrap(), strict, F32, "strict");
    });
}

#[test]
fn pixel_level() {
    Golden::each(|golden, file| {
        let masks = labels(file, "pixel/masks");
        let masks = ArrayView3::from_shape((6, 64, 64), &masks).unwrap();
        let regions: usize = masks.outer_iter().map(|m| label_components(m).1.len()).sum();
        for set in sets(file, "pixel/") {
            let maps = scores(file, &format!("pixel/{set}/maps"));
            let maps = ArrayView3::from_shape((6, 64, 64), &maps).unwrap();
            let value = |column: &str| golden.value(file, "pixel", &set, column);
            assert_eq!(regions as f64, value("regions"));

            let mut whole = Aupro::default();
            for (map, mask) in maps.outer_iter().zip(masks.outer_iter()) {
                whole.update(map, mask).unwrap();
            }
            let got = whole.summary(&[0.3, 0.05, 1.0]).unwrap();
            assert_eq!(whole.compute().unwrap(), got.aupro[0]);
            for (limit, got) in ["0.3", "0.05", "1.0"].iter().zip(&got.aupro) {
                close(*got, value(&format!("aupro_{limit}_mvtec")), EXACT, &format!("{set} {limit}"));
                close(*got, value(&format!("aupro_{limit}_anomalib")), F32, &format!("{set} {limit}"));
            }
            close(got.auroc, value("auroc_sklearn"), EXACT, &set);
            close(got.average_precision, value("average_precision_sklearn"), EXACT, &set);
            close(got.f1_max.f1, value("f1max_exact"), EXACT, &set);
            close(got.f1_max.f1, value("f1max_anomalib"), F32, &set);
            assert_eq!(f64::from(got.f1_max.threshold), value("f1max_threshold_exact"), "{set}");
            if set == "raw_scale" {
                assert_eq!(value("auroc_anomalib"), 0.5);
            } else {
                close(got.auroc, value("auroc_anomalib"), F32, &set);
            }
            if set == "ties" {
                let curve = whole.curve().unwrap();
                all_close(curve.fpr, &numbers(file, "pixel/ties/pro_curve_fpr"), "fpr");
                all_close(curve.pro, &numbers(file, "pixel/ties/pro_curve_pro"), "pro");
            }
        }
    });
}
