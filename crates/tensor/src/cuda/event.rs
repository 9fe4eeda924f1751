use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;

use super::{Cuda, refused};
use crate::Result;

/// A point in the order of a GPU's work, with the time at which the GPU got there.
#[derive(Debug)]
pub struct Event(CudaEvent);

impl Event {
    /// Milliseconds from this event to a later one of the same GPU; waits for both.
    ///
    /// # Errors
    /// [`TensorError::Cuda`](crate::TensorError::Cuda), also for what went wrong in the work before.
    pub fn milliseconds_to(&self, later: &Event) -> Result<f32> {
        self.0.elapsed_ms(&later.0).map_err(refused("the time between two events"))
    }
}

/// How long one launch of a kernel took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The kernel.
    pub kernel: &'static str,
    /// Time on the GPU, with a few microseconds of the events around it.
    pub milliseconds: f32,
}

/// Launches noted since [`Cuda::watch`]: kernel, event before, event after.
pub(super) type Watched = Option<Vec<(&'static str, Event, Event)>>;

impl Cuda {
    /// An event after all work asked for so far.
    ///
    /// # Errors
    /// [`TensorError::Cuda`](crate::TensorError::Cuda).
    pub fn event(&self) -> Result<Event> {
        let event = self.stream().context().new_event(Some(CU_EVENT_DEFAULT)).map_err(refused("an event"))?;
        event.record(self.stream()).map_err(refused("recording an event"))?;
        Ok(Event(event))
    }

    /// From now on every launch is timed, until [`spans`](Self::spans). Each handle of the GPU shares this.
    pub fn watch(&self) {
        *self.watched() = Some(Vec::new());
    }

    /// The launches since [`watch`](Self::watch), in order; stops watching and waits for the GPU.
    ///
    /// # Errors
    /// [`TensorError::Cuda`](crate::TensorError::Cuda), also for what went wrong in those launches.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let all = self.watched().take().unwrap_or_default();
        let span = |(kernel, before, after): (&'static str, Event, Event)| {
            Ok(Span { kernel, milliseconds: before.milliseconds_to(&after)? })
        };
        all.into_iter().map(span).collect()
    }

    /// The event before a launch, if launches are watched.
    pub(super) fn before_launch(&self) -> Result<Option<Event>> {
        let watching = self.watched().is_some();
        watching.then(|| self.event()).transpose()
    }

    /// Notes a launch.
    pub(super) fn after_launch(&self, kernel: &'static str, before: Option<Event>) -> Result<()> {
        if let Some(before) = before {
            let after = self.event()?;
            if let Some(all) = self.watched().as_mut() {
                all.push((kernel, before, after));
            }
        }
        Ok(())
    }
}
