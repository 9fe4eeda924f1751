//! Results beside the ceilings, and beside an earlier run.

use serde_json::{Value, json};

use super::results::Measured;

/// What this machine does at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ceiling {
    /// Threads that measured it.
    pub(crate) threads: u64,
    /// 10^9 single-precision operations a second.
    pub(crate) gflops: f64,
    /// 10^9 bytes read from memory a second.
    pub(crate) read_gbs: f64,
}

impl Ceiling {
    pub(crate) fn from_json(value: &Value) -> Option<Ceiling> {
        let threads = value["threads"].as_u64()?;
        Some(Ceiling { threads, gflops: value["gflops"].as_f64()?, read_gbs: value["read_gbs"].as_f64()? })
    }

    pub(crate) fn to_json(self) -> Value {
        json!({"threads": self.threads, "gflops": self.gflops, "read_gbs": self.read_gbs})
    }

    pub(crate) fn describe(&self) -> String {
        let Ceiling { threads, gflops, read_gbs } = self;
        format!(
            "ceilings on {threads} threads: {gflops:.0} GFLOP/s (multiply-add), {read_gbs:.1} GB/s (reading memory)"
        )
    }

    /// The share of the roofline: the shortest time that the stated work allows here, over the time it took.
    fn share(&self, one: &Measured) -> Option<f64> {
        let arithmetic = one.flops as f64 / (self.gflops * 1e9);
        let memory = one.bytes as f64 / (self.read_gbs * 1e9);
        let least = arithmetic.max(memory);
        (least > 0.0 && one.seconds > 0.0).then(|| 100.0 * least / one.seconds)
    }
}

/// A Markdown table; with an earlier run, its times and how much faster this one is.
pub(crate) fn markdown(measured: &[Measured], ceiling: &Ceiling, earlier: Option<&Value>) -> String {
    let mut head = vec!["benchmark", "time", "95 %", "GFLOP/s", "GB/s", "of the ceiling"];
    if earlier.is_some() {
        head.extend(["before", "speed-up"]);
    }
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for one in measured {
        let rate = |work: u64| match work {
            0 => String::new(),
            work => format!("{:.1}", work as f64 / one.seconds / 1e9),
        };
        let mut row = vec![
            format!("{}/{}", one.group, one.name),
            time(one.seconds),
            format!("{} – {}", time(one.range[0]), time(one.range[1])),
            rate(one.flops),
            rate(one.bytes),
            ceiling.share(one).map_or(String::new(), |s| format!("{s:.0} %")),
        ];
        if let Some(earlier) = earlier {
            let before = seconds_before(earlier, one);
            row.push(before.map_or("new".to_owned(), time));
            row.push(before.map_or(String::new(), |b| format!("{:.2}x", b / one.seconds)));
        }
        rows.push(row);
    }
    render(&rows)
}

fn seconds_before(run: &Value, one: &Measured) -> Option<f64> {
    let same = |r: &&Value| r["group"] == one.group.as_str() && r["name"] == one.name.as_str();
    run["results"].as_array()?.iter().find(same)?["seconds"].as_f64()
}

/// `740 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// Aligned columns: the first to the left, the others to the right. The first row is the head.
pub(super) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (r, row) in rows.iter().enumerate() {
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            text += &if c == 0 { format!("| {cell}{pad} ") } else { format!("| {pad}{cell} ") };
        }
        text += "|\n";
        if r == 0 {
            for (c, width) in widths.iter().enumerate() {
                text += &if c == 0 {
                    format!("|{}", "-".repeat(width + 2))
                } else {
                    format!("|{}:", "-".repeat(width + 1))
                };
            }
            text += "|\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Ceiling = Ceiling { threads: 2, gflops: 100.0, read_gbs: 10.0 };

    fn one(flops: u64, bytes: u64) -> Measured {
        let (group, name) = ("conv".to_owned(), "a".to_owned());
        Measured { group, name, seconds: 0.01, range: [0.009, 0.011], flops, bytes }
    }

    #[test]
    fn the_share_is_that_of_the_nearer_ceiling() {
        let share = |flops, bytes| CEILING.share(&one(flops, bytes)).map(|s| s.round());
        assert_eq!(share(500_000_000, 0), Some(50.0));
        assert_eq!(share(0, 25_000_000), Some(25.0));
        assert_eq!(share(500_000_000, 25_000_000), Some(50.0));
        assert_eq!(share(0, 0), None);
    }

    #[test]
    fn the_table_has_the_earlier_run_beside_it() {
        let earlier = json!({"results": [{"group": "conv", "name": "a", "seconds": 0.025}]});
        let text = markdown(&[one(500_000_000, 0)], &CEILING, Some(&earlier));
        let cells: Vec<&str> = text.lines().nth(2).unwrap().trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["conv/a", "10.0 ms", "9.00 ms – 11.0 ms", "50.0", "", "50 %", "25.0 ms", "2.50x"]);
        let widths: Vec<usize> = text.lines().map(|l| l.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{text}");
        assert!(markdown(&[one(1, 1)], &CEILING, Some(&json!({}))).contains("new"));
    }

    #[test]
    fn times_have_three_digits() {
        let text: Vec<String> = [7.4e-7, 1.234e-5, 4.56e-3, 1.2, 120.0].iter().map(|s| time(*s)).collect();
        assert_eq!(text, ["740 ns", "12.3 µs", "4.56 ms", "1.20 s", "120 s"]);
    }

    #[test]
    fn ceilings_survive_json() {
        assert_eq!(Ceiling::from_json(&CEILING.to_json()), Some(CEILING));
        assert_eq!(Ceiling::from_json(&json!({"threads": 2})), None);
    }
}
