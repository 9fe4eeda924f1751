//! The k best rows seen so far.

/// A distance and its row, ordered by distance, then row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) squared: f32,
    pub(super) row: u32,
}

impl Found {
    pub(super) fn better(&self, other: &Found) -> bool {
        self.squared < other.squared || (self.squared == other.squared && self.row < other.row)
    }
}

/// The `k` best rows, best first.
pub(super) struct Top {
    k: usize,
    found: Vec<Found>,
}

impl Top {
    pub(super) fn new(k: usize) -> Self {
        Top { k, found: Vec::with_capacity(k + 1) }
    }

    /// No row with a larger squared distance can enter any more.
    pub(super) fn limit(&self) -> f32 {
        match self.found.last() {
            Some(last) if self.found.len() == self.k => last.squared,
            _ => f32::INFINITY,
        }
    }

    /// Takes a row, unless it is there or not among the best.
    pub(super) fn offer(&mut self, new: Found) {
        if self.found.len() == self.k && !self.found.last().is_some_and(|last| new.better(last)) {
            return;
        }
        let at = self.found.partition_point(|old| old.better(&new));
        if self.found.get(at) == Some(&new) {
            return;
        }
        self.found.insert(at, new);
        self.found.truncate(self.k);
    }

    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }
}
