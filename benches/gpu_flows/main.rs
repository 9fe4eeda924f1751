//! How fast do whole flows train and score on the GPU?
//!
//! ```text
//! gpu-flow [--size real|tiny] [--repetitions N] [--out FILE]
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | [`program`] | arguments, timing, the JSON object that is printed |
//! | [`linear`] | CFlow-AD's flows |
//! | [`maps`] | FastFlow's flows |

mod linear;
mod maps;
#[path = "../gpu_program.rs"]
mod program;

use blemish_flow::FlowError;
use blemish_kernels::cuda::CudaError;
use blemish_tensor::TensorError;
use program::Program;
use serde_json::{Value, json};

/// What is measured, and the rows so far.
struct Bench<'a> {
    program: &'a Program,
    rows: Vec<Value>,
}

/// An error of the GPU.
fn device(error: TensorError) -> FlowError {
    FlowError::from(CudaError::from(error))
}

impl Bench<'_> {
    /// Times `call`, which does `parts` of what a row is about.
    fn run(
        &mut self,
        op: &str,
        shape: Value,
        parts: usize,
        call: impl FnMut() -> Result<(), FlowError>,
    ) -> Result<(), FlowError> {
        let (ms, least) = self.program.time(device, call)?;
        let [ms, least] = [ms, least].map(|ms| ms / parts.max(1) as f64);
        eprintln!("{op} {shape}: {ms:.3} ms");
        self.rows.push(json!({"op": op, "shape": shape, "ms": ms, "least_ms": least}));
        self.program.keep(&self.rows);
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    program::run("flows", 10, |program| {
        let mut bench = Bench { program, rows: Vec::new() };
        linear::all(&mut bench)?;
        maps::all(&mut bench)?;
        Ok::<_, FlowError>(bench.rows)
    })
}
