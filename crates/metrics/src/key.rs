//! Scores as unsigned integers of the same order, and a radix sort on them.
//!
//! On ten million pixels the whole AUROC takes less time than a comparison sort of the floats alone;
//! `examples/pixel_speed.rs` times both.

use crate::error::{MetricError, Result};

/// The bits of one digit. On ten million keys four passes of 8 measured faster than three of 11.
const DIGIT: u32 = 8;
const PASSES: usize = u32::BITS.div_ceil(DIGIT) as usize;
const BUCKETS: usize = 1 << DIGIT;
/// Below this many items the histograms cost more than they save.
const SMALL: usize = 1024;

/// Monotone in the score: `a < b` iff `key(a) < key(b)`, and the two zeros are one. NaN must not come here.
#[inline]
pub(crate) fn key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is +0.0
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The score of a key.
#[inline]
pub(crate) fn score(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Refuses NaN, naming the first one.
pub(crate) fn refuse_nan(scores: &[f32]) -> Result<()> {
    // Without an early exit this is one vectorised pass.
    if scores.iter().fold(false, |any, s| any | s.is_nan()) {
        let index = scores.iter().position(|s| s.is_nan()).unwrap_or_default();
        return Err(MetricError::Nan { index });
    }
    Ok(())
}

/// A copy of `items` in ascending order of `key`; equal keys keep their order.
pub(crate) fn sorted_by_key<T: Copy + Default>(items: &[T], key: impl Fn(&T) -> u32) -> Vec<T> {
    let mut current = items.to_vec();
    if current.len() < SMALL {
        current.sort_by_key(key);
        return current;
    }
    let digit = |item: &T, pass: usize| (key(item) >> (DIGIT * pass as u32)) as usize % BUCKETS;
    let mut counts = [[0_usize; BUCKETS]; PASSES];
    for item in items {
        for (pass, count) in counts.iter_mut().enumerate() {
            count[digit(item, pass)] += 1;
        }
    }
    let mut other = vec![T::default(); items.len()];
    for (pass, count) in counts.iter_mut().enumerate() {
        if count.contains(&items.len()) {
            continue; // all items share this digit
        }
        let mut start = 0;
        for bucket in count.iter_mut() {
            start += std::mem::replace(bucket, start);
        }
        for item in &current {
            let next = &mut count[digit(item, pass)];
            other[*next] = *item;
            *next += 1;
        }
        std::mem::swap(&mut current, &mut other);
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_follow_the_order_of_floats() {
        let order = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -f32::MIN_POSITIVE,
            -f32::from_bits(1),
            0.0,
            f32::from_bits(1),
            f32::MIN_POSITIVE,
            1.0,
            f32::MAX,
            f32::INFINITY,
        ];
        for pair in order.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for s in order {
            assert_eq!(score(key(s)), s);
        }
        assert_eq!(key(-0.0), key(0.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn radix_is_the_stable_sort(seed in any::<u64>(), len in 0_usize..6000, mask in any::<u32>()) {
            let mut state = seed | 1;
            let items: Vec<(u32, u32)> = (0..len)
                .map(|i| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((state >> 32) as u32 & mask, i as u32)
                })
                .collect();
            let mut want = items.clone();
            want.sort_by_key(|x| x.0);
            prop_assert_eq!(sorted_by_key(&items, |x| x.0), want);
        }
    }
}
