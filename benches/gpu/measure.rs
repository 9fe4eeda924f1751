//! Timing and rates.

use std::collections::BTreeMap;

use blemish_kernels::ceiling::cuda::Ceilings;
use blemish_kernels::cuda::CudaResult;
use blemish_tensor::cuda::Cuda;
use serde_json::{Map, Value, json};

/// What a call has to do at least.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Operations; a multiply-add is two.
    pub(crate) flops: f64,
    /// Bytes read and written once.
    pub(crate) bytes: f64,
    /// Whether tensor cores do the operations.
    pub(crate) tensor: bool,
}

impl Work {
    pub(crate) fn memory(bytes: usize) -> Work {
        Work { bytes: bytes as f64, ..Work::default() }
    }

    pub(crate) fn new(flops: f64, bytes: usize) -> Work {
        Work { flops, bytes: bytes as f64, tensor: false }
    }

    pub(crate) fn tensor(flops: f64, bytes: usize) -> Work {
        Work { flops, bytes: bytes as f64, tensor: true }
    }
}

/// Does something with the rows so far.
pub(crate) type Keep = Box<dyn Fn(&[Value])>;

/// Runs cases and keeps their rows.
pub(crate) struct Bench {
    pub(crate) cuda: Cuda,
    ceilings: Ceilings,
    repetitions: usize,
    only: Vec<String>,
    rows: Vec<Value>,
    keep: Keep,
}

impl Bench {
    /// `keep` gets the rows so far after each, so that a run that is stopped leaves what it had.
    pub(crate) fn new(cuda: Cuda, ceilings: Ceilings, repetitions: usize, only: Vec<String>, keep: Keep) -> Bench {
        Bench { cuda, ceilings, repetitions, only, rows: Vec::new(), keep }
    }

    pub(crate) fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// Whether an operation is asked for and `bytes` are free on the GPU; says so if not free.
    pub(crate) fn wants(&self, op: &str, bytes: usize) -> bool {
        let asked = self.only.is_empty() || self.only.iter().any(|part| op.contains(part.as_str()));
        let free = self.cuda.memory_budget().saturating_sub(self.cuda.memory_used());
        if asked && bytes > free {
            eprintln!("SKIPPED: {op}, which takes {} MB; {} MB are free", bytes >> 20, free >> 20);
        }
        asked && bytes <= free
    }

    /// Times `call`, whole and by kernel. `kernels` says what work of some of them is known; `most` bounds repetitions.
    pub(crate) fn run(
        &mut self,
        op: &str,
        shape: &[(&str, usize)],
        work: Work,
        kernels: &[(&str, Work)],
        most: usize,
        mut call: impl FnMut() -> CudaResult<()>,
    ) -> CudaResult<()> {
        let repetitions = self.repetitions.min(most);
        // Loads the module, fills the pool of memory.
        call()?;
        let mut events = Vec::new();
        for _ in 0..repetitions {
            let before = self.cuda.event()?;
            call()?;
            events.push((before, self.cuda.event()?));
        }
        let mut whole = Vec::new();
        for (before, after) in &events {
            whole.push(f64::from(before.milliseconds_to(after)?));
        }
        let mut parts: BTreeMap<&'static str, Vec<(f64, usize)>> = BTreeMap::new();
        for turn in 0..repetitions.min(7) {
            self.cuda.watch();
            call()?;
            for span in self.cuda.spans()? {
                let all = parts.entry(span.kernel).or_default();
                all.resize(turn + 1, (0.0, 0));
                if let Some((time, launches)) = all.last_mut() {
                    *time += f64::from(span.milliseconds);
                    *launches += 1;
                }
            }
        }
        let parts: Vec<Value> = parts
            .into_iter()
            .map(|(kernel, all)| {
                let known = kernels.iter().find(|(name, _)| *name == kernel).map(|(_, work)| *work).unwrap_or_default();
                let times: Vec<f64> = all.iter().map(|(time, _)| *time).collect();
                let mut row = self.rates(median(times), known);
                row.insert("kernel".into(), kernel.into());
                row.insert("launches".into(), all.last().map_or(0, |(_, launches)| *launches).into());
                Value::Object(row)
            })
            .collect();
        let least = whole.iter().copied().fold(f64::INFINITY, f64::min);
        let mut row = self.rates(median(whole), work);
        row.insert("op".into(), op.into());
        row.insert("shape".into(), Value::Object(shape.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect()));
        row.insert("least_ms".into(), json!(least));
        row.insert("kernels".into(), Value::Array(parts));
        let name: Vec<String> = shape.iter().map(|(k, v)| format!("{k}={v}")).collect();
        eprintln!("{op} {}: {:.3} ms", name.join(" "), row["ms"].as_f64().unwrap_or_default());
        self.rows.push(Value::Object(row));
        (self.keep)(&self.rows);
        Ok(())
    }

    fn rates(&self, ms: f64, work: Work) -> Map<String, Value> {
        let seconds = (ms / 1e3).max(1e-12);
        let mut row = Map::new();
        row.insert("ms".into(), json!(ms));
        let peak = if work.tensor { self.ceilings.tensor_gflops } else { None }.unwrap_or(self.ceilings.gflops);
        let arithmetic = work.flops / (peak * 1e9);
        let memory = work.bytes / (self.ceilings.copy_gbs * 1e9);
        if work.flops > 0.0 {
            row.insert("gflops".into(), json!(work.flops / seconds / 1e9));
        }
        if work.bytes > 0.0 {
            row.insert("gbs".into(), json!(work.bytes / seconds / 1e9));
        }
        if work.flops > 0.0 || work.bytes > 0.0 {
            row.insert("percent".into(), json!(100.0 * arithmetic.max(memory) / seconds));
            let bound = match (arithmetic > memory, work.tensor) {
                (false, _) => "copy",
                (true, false) => "multiply-add",
                (true, true) => "tensor",
            };
            row.insert("bound".into(), bound.into());
        }
        row
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
