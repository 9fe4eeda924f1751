//! Training, testing and prediction.

mod bench;
mod decide;
mod judge;
mod pipeline;
mod plan;
mod score;
mod test;
mod train;

use std::collections::BTreeMap;
use std::sync::Mutex;

use blemish_core::{Progress, Session};
use blemish_tensor::Device;
use rayon::ThreadPool;

pub use bench::{Speed, Stage};
pub use decide::{Evidence, Origin, decide};
pub use pipeline::Pipeline;
pub use score::{Outcome, Scored};
pub use test::{Each, ImageMetrics, PixelMetrics, TestReport};
pub use train::Trained;

use crate::{Config, Error, Result};

/// More threads than any machine has use for; a slip beyond it would bring the machine to a halt.
const MAX_THREADS: usize = 1024;

/// A pool of threads and a device. Results do not depend on the number of threads.
pub struct Engine {
    pool: ThreadPool,
    device: Device,
    pipeline: Pipeline,
    /// Batch sizes that turned out to be quickest, by model.
    plans: Mutex<BTreeMap<String, usize>>,
}

impl Engine {
    /// The threads and the device that `config` asks for.
    ///
    /// # Errors
    /// A device that is not there, or a setting out of its range.
    pub fn new(config: &Config) -> Result<Engine> {
        config.validate()?;
        if config.threads > MAX_THREADS {
            let why = format!("{}; 0 (one a core) to {MAX_THREADS} are possible", config.threads);
            return Err(Error::Setting { key: "threads".to_owned(), why });
        }
        let device = Device::parse(&config.device).map_err(blemish_core::CoreError::from)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|i| format!("blemish-{i}"))
            .build()
            .map_err(|e| Error::Setting { key: "threads".to_owned(), why: e.to_string() })?;
        Ok(Engine { pool, device, pipeline: config.pipeline, plans: Mutex::default() })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Where it computes what has a form for it; the rest is done by the threads.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs `work` on the engine's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The same engine with another pipeline.
    pub fn with_pipeline(self, pipeline: Pipeline) -> Engine {
        Engine { pipeline, ..self }
    }

    fn session<'a>(&self, seed: u64, progress: &'a dyn Progress) -> Session<'a> {
        Session { device: self.device.clone(), seed, progress, judge: None }
    }
}
