//! What criterion leaves in `target/criterion/GROUP/.../new`.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One benchmark's result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) group: String,
    /// The name within the group.
    pub(crate) name: String,
    /// Median of the time of one call, in seconds.
    pub(crate) seconds: f64,
    /// The 95 % confidence interval of the median, in seconds.
    pub(crate) range: [f64; 2],
    /// Arithmetic operations of one call; 0 where not stated.
    pub(crate) flops: u64,
    /// Bytes that one call has to move; 0 where not stated.
    pub(crate) bytes: u64,
}

/// Every result below `folder` that was written at `start` or later.
pub(crate) fn read(folder: &Path, start: SystemTime) -> Result<Vec<Measured>> {
    let mut found = Vec::new();
    collect(folder, start, &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, start: SystemTime, found: &mut Vec<Measured>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
        let estimates = entry.join("estimates.json");
        let fresh = std::fs::metadata(&estimates).and_then(|m| m.modified()).is_ok_and(|time| time >= start);
        if entry.ends_with("new") {
            if fresh {
                found.push(Measured::new(&json_file(&entry.join("benchmark.json"))?, &json_file(&estimates)?)?);
            }
        } else {
            collect(&entry, start, found)?;
        }
    }
    Ok(())
}

fn json_file(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

impl Measured {
    fn new(benchmark: &Value, estimates: &Value) -> Result<Measured> {
        let group = benchmark["group_id"].as_str().context("a benchmark without a group")?;
        let words = [&benchmark["function_id"], &benchmark["value_str"]];
        let name = words.iter().filter_map(|w| w.as_str()).collect::<Vec<_>>().join("/");
        let median = &estimates["median"];
        let interval = &median["confidence_interval"];
        let nanoseconds = |value: &Value| value.as_f64().map(|ns| ns * 1e-9);
        let seconds = nanoseconds(&median["point_estimate"]).context("a benchmark without a median")?;
        let low = nanoseconds(&interval["lower_bound"]).unwrap_or(seconds);
        let high = nanoseconds(&interval["upper_bound"]).unwrap_or(seconds);
        let work = &benchmark["throughput"];
        let both = &work["ElementsAndBytes"];
        let count = |a: &Value, b: &Value| a.as_u64().or(b.as_u64()).unwrap_or(0);
        Ok(Measured {
            group: group.to_owned(),
            name,
            seconds,
            range: [low, high],
            flops: count(&both["elements"], &work["Elements"]),
            bytes: count(&both["bytes"], &work["Bytes"]),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"group": self.group, "name": self.name, "seconds": self.seconds, "range": self.range,
            "flops": self.flops, "bytes": self.bytes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::scratch;
    use std::time::Duration;

    #[test]
    fn only_fresh_results_are_read() {
        let root = scratch("criterion");
        let folder = root.join("conv/3x3_64_64/new");
        std::fs::create_dir_all(&folder).unwrap();
        let benchmark = json!({"group_id": "conv", "function_id": null, "value_str": "3x3_64_64",
            "throughput": {"ElementsAndBytes": {"elements": 2000, "bytes": 400}}});
        let estimates = json!({"median": {"point_estimate": 1500.0,
            "confidence_interval": {"confidence_level": 0.95, "lower_bound": 1400.0, "upper_bound": 1700.0}}});
        std::fs::write(folder.join("benchmark.json"), benchmark.to_string()).unwrap();
        std::fs::write(folder.join("estimates.json"), estimates.to_string()).unwrap();
        let now = SystemTime::now();
        let fresh = read(&root, now - Duration::from_secs(60)).unwrap();
        let stale = read(&root, now + Duration::from_secs(60)).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(stale.is_empty());
        let [one] = fresh.as_slice() else { panic!("{fresh:?}") };
        assert_eq!((one.group.as_str(), one.name.as_str()), ("conv", "3x3_64_64"));
        assert_eq!((one.flops, one.bytes), (2000, 400));
        assert!((one.seconds - 1.5e-6).abs() < 1e-12 && one.range[1] > one.seconds);
    }

    #[test]
    fn a_group_without_stated_work_is_fine() {
        let benchmark =
            json!({"group_id": "predict", "function_id": "padim", "value_str": "batch1", "throughput": null});
        let one = Measured::new(&benchmark, &json!({"median": {"point_estimate": 2e6}})).unwrap();
        assert_eq!(one.name, "padim/batch1");
        assert_eq!((one.flops, one.bytes), (0, 0));
        assert!(Measured::new(&benchmark, &json!({})).is_err());
    }
}
