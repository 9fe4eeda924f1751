//! Which pictures train and which are held out; random orders.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Numbers of pictures, each list ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
}

impl Split {
    /// Holds out a `share` of `n` pictures, rounded down, at least one being left to train.
    pub(crate) fn new(n: usize, share: f64, seed: u64) -> Split {
        let count = ((n as f64 * share) as usize).min(n.saturating_sub(1));
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut stream(seed, [0, 0, 0]));
        let mut validation = order.split_off(n - count);
        validation.sort_unstable();
        order.sort_unstable();
        Split { train: order, validation }
    }
}

/// A random stream of its own for each use: epoch, batch and layer, each counted from 1.
pub(crate) fn stream(seed: u64, path: [usize; 3]) -> ChaCha8Rng {
    let mut state = 0x6261_7463_6865_7321_u64;
    for part in std::iter::once(seed).chain(path.map(|part| part as u64)) {
        // Mixing by Steele et al. (splitmix64, 2014), so that no small difference of one part undoes another's.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(part);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    ChaCha8Rng::seed_from_u64(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn every_picture_is_somewhere() {
        for (n, share, held) in [(1, 0.5, 0), (2, 0.5, 1), (10, 0.1, 1), (10, 0.0, 0), (3, 0.99, 2), (0, 0.5, 0)] {
            let split = Split::new(n, share, 7);
            assert_eq!(split.validation.len(), held, "{n} {share}");
            let mut all = [split.train.clone(), split.validation.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
            assert_eq!(split, Split::new(n, share, 7));
        }
        assert_ne!(Split::new(100, 0.3, 1), Split::new(100, 0.3, 2));
    }

    #[test]
    fn streams_differ() {
        let mut first: Vec<u64> = Vec::new();
        for path in [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [2, 0, 0]] {
            for seed in 0..3 {
                first.push(stream(seed, path).random());
            }
        }
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 18);
    }
}
