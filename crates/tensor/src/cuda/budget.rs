use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Result, TensorError};

/// How many bytes may be in use, and how many are.
#[derive(Debug)]
pub(super) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Sets `bytes` aside for as long as the share lives.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Share> {
        let limit = self.limit();
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(Share { budget: Arc::clone(self), bytes })
            }
            Err(used) => Err(TensorError::Budget { wanted: bytes, used, budget: limit }),
        }
    }
}

/// Bytes set aside.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_and_the_limit_holds() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        let error = budget.reserve(41).unwrap_err();
        assert!(matches!(error, TensorError::Budget { wanted: 41, used: 60, budget: 100 }), "{error}");
        assert!(budget.reserve(usize::MAX).is_err());
        let second = budget.reserve(40).unwrap();
        drop(first);
        assert_eq!((budget.used(), budget.peak()), (40, 100));
        budget.set_limit(10);
        assert!(budget.reserve(1).is_err());
        drop(second);
        assert!(budget.reserve(10).is_ok());
    }
}
