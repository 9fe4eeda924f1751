//! Progress bars on a terminal, nothing elsewhere, and Ctrl-C.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blemish::core::{Epoch, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Set by Ctrl-C.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks the work to stop; the second time the program ends at once.
    pub(crate) fn raise(&self) {
        if self.0.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    }
}

/// One bar for each task.
pub(crate) struct Bars {
    shown: bool,
    bar: Mutex<Option<ProgressBar>>,
    interrupt: Interrupt,
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Bars {
        let shown = !quiet && std::io::stderr().is_terminal();
        Bars { shown, bar: Mutex::new(None), interrupt: Interrupt::default() }
    }

    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    fn with(&self, f: impl FnOnce(&mut Option<ProgressBar>)) {
        f(&mut self.bar.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn begin(&self, task: &'static str, total: usize) {
        if !self.shown {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let template = if total > 0 {
            " {msg:<9} {wide_bar} {pos}/{len}  {elapsed} (left {eta})"
        } else {
            " {msg:<9} {spinner} {pos}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(task);
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, _: &'static str, done: usize, _: usize) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.set_position(done as u64);
            }
        });
    }

    fn end(&self, _: &'static str) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn epoch(&self, epoch: &Epoch) {
        self.with(|slot| {
            if let Some(bar) = slot {
                let held_out = epoch.validation_loss.map_or_else(String::new, |loss| format!(", held out {loss:.4}"));
                bar.println(format!(" epoch {:<4} loss {:.4}{held_out}", epoch.epoch, epoch.train_loss));
            }
        });
    }

    fn interrupted(&self) -> bool {
        self.interrupt.0.load(Ordering::Relaxed)
    }
}
