//! How do time and memory grow with the number of pictures, their size, and the rows of a memory bank?
//!
//! ```text
//! cargo run --release -p blemish-benches --example growth -- [images|size|bank]... [--quick] [--json]
//! ```
//!
//! Every case runs in a process of its own, whose highest use of memory (`VmHWM`) and processor time are taken (Linux). The
//! network is MobileNetV2 without weights, whose cost does not depend on them; pictures are synthesised when they are read.
//! PatchCore keeps a fixed number of patches, so that its growth is that of the search for them and not of their number
//! as well. The last column is the exponent of a straight line through the logarithms: 1 is proportional growth; the memory's
//! is of what a case takes beyond the smallest case's.

use std::process::Command;
use std::time::Instant;

use blemish_benches::features;
use blemish_core::{Detect, Fit, Image, ImageSource, Preprocess, Resize, Session};
use blemish_detect_embedding::{PadimParams, PatchcoreParams};
use blemish_kernels::nearest::Bank;
use ndarray::Array3;
use serde_json::{Value, json};

const BACKBONE: &str = "mobilenetv2_100";
/// Patches that PatchCore keeps.
const KEPT: usize = 1000;
/// Pictures that each size is learnt from, and side of the pictures where their number grows.
const PICTURES: usize = 32;
const SIDE: usize = 256;
/// Queries and columns of the bank.
const QUERIES: usize = 784;
const COLUMNS: usize = 128;

/// Name, what grows, its values, and how many of them `--quick` takes.
const SERIES: [(&str, &str, &[usize], usize); 5] = [
    ("images", "padim", &[40, 160, 640, 2560, 10_000], 3),
    ("images", "patchcore", &[40, 160, 640, 2560, 10_000], 3),
    ("size", "padim", &[128, 256, 512, 1024], 3),
    ("size", "patchcore", &[128, 256, 512, 1024], 3),
    ("bank", "search", &[1000, 10_000, 100_000, 1_000_000], 3),
];

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--child") {
        let n = args.get(3).and_then(|n| n.parse().ok()).expect("a child gets a number");
        println!("{}", child(&args[1], &args[2], n));
        return;
    }
    let mut flag = |name: &str| {
        let before = args.len();
        args.retain(|a| a != name);
        args.len() != before
    };
    let (quick, as_json) = (flag("--quick"), flag("--json"));
    let mut all = Vec::new();
    for (what, model, values, few) in SERIES {
        if !args.is_empty() && !args.iter().any(|a| a == what) {
            continue;
        }
        let values = if quick { &values[..few] } else { values };
        let rows: Vec<Value> = values.iter().map(|n| start(what, model, *n)).collect();
        all.push(json!({"grows": what, "model": model, "rows": rows, "exponents": exponents(&rows)}));
    }
    if as_json {
        println!("{:#}", Value::Array(all));
    } else {
        all.iter().for_each(print);
    }
}

/// Runs a case in a process of its own.
fn start(what: &str, model: &str, n: usize) -> Value {
    let program = std::env::current_exe().expect("this program has a path");
    let out = Command::new(program).args(["--child", what, model, &n.to_string()]).output().expect("a child starts");
    let said = String::from_utf8_lossy(&out.stdout);
    let mut row: Value = serde_json::from_str(&said).unwrap_or_else(|_| {
        let why = String::from_utf8_lossy(&out.stderr);
        json!({"failed": format!("{} {}", out.status, why.lines().last().unwrap_or_default())})
    });
    row["n"] = n.into();
    eprintln!("{what} {model} {row}");
    row
}

/// One case: what it took, in seconds and MB.
fn child(what: &str, model: &str, n: usize) -> Value {
    let mut row = match what {
        "images" => learn(model, n, SIDE),
        "size" => learn(model, PICTURES, n),
        _ => search(n),
    };
    row["memory_mb"] = json!(status("VmHWM:") / 1024.0);
    row
}

fn learn(model: &str, pictures: usize, side: usize) -> Value {
    let preprocess =
        Preprocess { resize: Resize::Stretch { height: side, width: side }, crop: None, ..Preprocess::default() };
    let layers = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let source = Noise { count: pictures, side };
    let session = Session::quiet(0);
    let (wall, cpu) = (Instant::now(), processor_seconds());
    let model: Box<dyn Detect> = if model == "padim" {
        let params = PadimParams {
            backbone: BACKBONE.into(),
            layers: layers(&["blocks.1", "blocks.2", "blocks.4"]),
            preprocess,
            ..PadimParams::default()
        };
        Box::new(params.fit(&session, &source).expect("a model"))
    } else {
        let params = PatchcoreParams {
            backbone: BACKBONE.into(),
            layers: layers(&["blocks.2", "blocks.4"]),
            coreset_count: Some(KEPT),
            preprocess,
            ..PatchcoreParams::default()
        };
        Box::new(params.fit(&session, &source).expect("a model"))
    };
    let mut row = json!({"seconds": wall.elapsed().as_secs_f64(), "cpu_seconds": processor_seconds() - cpu});
    let picture = [source.get(0).expect("a picture")];
    row["predict_ms"] = json!(least(5, || drop(model.predict(&picture).expect("a prediction"))) * 1e3);
    row
}

fn search(rows: usize) -> Value {
    let data = features(1, rows, COLUMNS);
    let query = features(2, QUERIES, COLUMNS);
    let (wall, cpu) = (Instant::now(), processor_seconds());
    let bank = Bank::new(data).expect("finite rows");
    let mut row = json!({"seconds": wall.elapsed().as_secs_f64(), "cpu_seconds": processor_seconds() - cpu});
    row["predict_ms"] = json!(least(5, || drop(bank.search(query.view(), 1).expect("same dimension"))) * 1e3);
    row
}

/// The shortest of some calls, in seconds.
fn least(times: usize, mut call: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(once).fold(f64::INFINITY, f64::min)
}

/// Pictures of stripes and noise.
struct Noise {
    count: usize,
    side: usize,
}

impl ImageSource for Noise {
    fn len(&self) -> usize {
        self.count
    }

    fn name(&self, index: usize) -> String {
        format!("noise {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        let mut state = index as u64 * 0x9e37_79b9_7f4a_7c15 + 1;
        Image::from_u8(Array3::from_shape_fn((self.side, self.side, 3), |(y, x, _)| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((((x + index) / 8 + y / 8) % 2) * 120 + 40 + (state >> 58) as usize) as u8
        }))
    }
}

/// A number of `/proc/self/status`; 0 where there is none.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Processor time of all threads so far, in seconds; 0 where it is not known. Ticks are hundredths on Linux.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let tail = text.rsplit(')').next().unwrap_or_default();
    tail.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The slopes of logarithms over logarithms, by least squares.
fn exponents(rows: &[Value]) -> Value {
    let slope = |name: &str, base: f64| {
        let point = |r: &Value| Some((r["n"].as_f64()?.ln(), (r[name].as_f64()? - base).ln()));
        let points: Vec<(f64, f64)> = rows.iter().filter_map(point).filter(|p| p.1.is_finite()).collect();
        let n = points.len() as f64;
        let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
        let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
        let spread = mean(&|p| (p.0 - x).powi(2));
        (points.len() > 1 && spread > 0.0).then(|| mean(&|p| (p.0 - x) * (p.1 - y)) / spread)
    };
    let base = rows.first().and_then(|r| r["memory_mb"].as_f64()).unwrap_or_default();
    json!({
        "seconds": slope("seconds", 0.0),
        "cpu_seconds": slope("cpu_seconds", 0.0),
        "predict_ms": slope("predict_ms", 0.0),
        "memory_mb": slope("memory_mb", base),
    })
}

fn print(series: &Value) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    println!("\n{} against {}\n", text(&series["model"]), text(&series["grows"]));
    let rows = series["rows"].as_array().cloned().unwrap_or_default();
    let head: Vec<String> = rows.iter().map(|r| r["n"].to_string()).collect();
    println!("| | {} | exponent |\n|---|{}---:|", head.join(" | "), "---:|".repeat(rows.len()));
    for (name, what) in [
        ("seconds", "learning, s"),
        ("cpu_seconds", "processor time of that, s"),
        ("predict_ms", "one prediction or search, ms"),
        ("memory_mb", "most memory, MB"),
    ] {
        let number = |v: &Value, digits: usize| v.as_f64().map_or("–".to_owned(), |v| format!("{v:.digits$}"));
        let digits = |v: &Value| if v.as_f64().unwrap_or_default() < 10.0 { 2 } else { 0 };
        let cells: Vec<String> = rows.iter().map(|r| number(&r[name], digits(&r[name]))).collect();
        println!("| {what} | {} | {} |", cells.join(" | "), number(&series["exponents"][name], 2));
    }
}
