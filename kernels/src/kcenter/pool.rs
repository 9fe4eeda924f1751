//! The farthest points, among which the next picks are certain.

use crate::nearest::{Isa, squared_rows};

/// A point and its squared distance to the nearest centre; farther ones first, of equal ones the lower index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Far {
    pub(super) squared: f32,
    pub(super) index: u32,
}

impl Far {
    fn order(&self, other: &Far) -> std::cmp::Ordering {
        other.squared.total_cmp(&self.squared).then(self.index.cmp(&other.index))
    }
}

/// The `size` first points of all in the order of [`Far`], and the next one, if there is one.
pub(super) fn farthest(nearest: &[f32], size: usize) -> (Vec<Far>, Option<Far>) {
    let all = |least: f32| {
        let far = nearest.iter().enumerate().filter(move |(_, s)| **s >= least);
        far.map(|(i, &squared)| Far { squared, index: i as u32 })
    };
    if nearest.len() <= size {
        return (all(0.0).collect(), None);
    }
    // Bits of floats that are not negative are ordered as the floats are: count by their upper half.
    let mut counts = vec![0u32; 1 << 16];
    for s in nearest {
        counts[(s.to_bits() >> 16) as usize] += 1;
    }
    let mut total = 0;
    let bucket = (0..1usize << 16).rev().find(|&b| {
        total += counts[b] as usize;
        total > size
    });
    let mut far: Vec<Far> = all(f32::from_bits((bucket.unwrap_or(0) as u32) << 16)).collect();
    far.select_nth_unstable_by(size, Far::order);
    let next = far.get(size).copied();
    far.truncate(size);
    (far, next)
}

/// Ordinary greedy picking inside the pool.
///
/// As long as the best of the pool comes before `next`, the best point outside, it is the best of all: points outside only
/// come nearer to the centres. Points of the pool that fall behind `next` are dropped, since they cannot be picked here.
pub(super) struct Pool<'a> {
    isa: Isa,
    d: usize,
    points: &'a [f32],
    far: Vec<Far>,
    rows: Vec<f32>,
    squared: Vec<f32>,
    next: Option<Far>,
}

impl<'a> Pool<'a> {
    /// `points` `[n, d]`.
    pub(super) fn new(isa: Isa, points: &'a [f32], d: usize, (mut far, next): (Vec<Far>, Option<Far>)) -> Self {
        far.sort_unstable_by_key(|f| f.index);
        let mut rows = Vec::with_capacity(far.len() * d);
        for f in &far {
            rows.extend_from_slice(&points[f.index as usize * d..][..d]);
        }
        let squared = vec![0f32; far.len()];
        Pool { isa, d, points, far, rows, squared, next }
    }

    /// The next pick and its squared distance to the centres before it, if it is certain.
    pub(super) fn pick(&mut self) -> Option<Far> {
        let mut best = *self.far.first()?;
        let mut alive = 0;
        let least = self.next.map_or(0.0, |next| next.squared);
        for f in &self.far {
            if f.squared > best.squared {
                best = *f;
            }
            alive += usize::from(f.squared >= least);
        }
        if self.next.is_some_and(|next| best.order(&next).is_gt()) {
            return None;
        }
        if alive < self.far.len() * 3 / 4 {
            self.shrink(least);
        }
        let centre = &self.points[best.index as usize * self.d..][..self.d];
        squared_rows(self.isa, centre, &self.rows, &mut self.squared);
        for (f, &s) in self.far.iter_mut().zip(&self.squared) {
            f.squared = if s < f.squared { s } else { f.squared };
        }
        Some(best)
    }

    fn shrink(&mut self, least: f32) {
        let (far, rows, d) = (&mut self.far, &mut self.rows, self.d);
        let mut kept = 0;
        for i in 0..far.len() {
            if far[i].squared >= least {
                far[kept] = far[i];
                rows.copy_within(i * d..(i + 1) * d, kept * d);
                kept += 1;
            }
        }
        far.truncate(kept);
        rows.truncate(kept * d);
        self.squared.truncate(kept);
    }
}
