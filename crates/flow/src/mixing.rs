use ndarray::Array2;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{FlowError, Result};

/// The fixed mixing of channels at the end of a block; its determinant is 1 or -1, so it adds nothing to the
/// log-determinant.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixing {
    /// Output channel `i` is input channel `permutation[i]`.
    Hard(Vec<usize>),
    /// Output is `matrix * input` for an orthogonal matrix `[c, c]`.
    Soft(Array2<f32>),
}

impl Mixing {
    /// A uniformly random permutation.
    pub fn hard(channels: usize, seed: u64) -> Mixing {
        let mut order: Vec<usize> = (0..channels).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Mixing::Hard(order)
    }

    /// A rotation drawn uniformly from SO(c): the orthogonal factor of a Gaussian matrix, signs fixed (Mezzadri, 2007).
    pub fn soft(channels: usize, seed: u64) -> Mixing {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(channels);
        while rows.len() < channels {
            let mut row: Vec<f64> = (0..channels).map(|_| normal(&mut rng)).collect();
            // Twice is enough (Giraud et al., 2005).
            for _ in 0..2 {
                for other in &rows {
                    let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
                }
            }
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            if norm > 1e-6 {
                row.iter_mut().for_each(|v| *v /= norm);
                rows.push(row);
            }
        }
        if determinant_sign(&rows) < 0.0 {
            rows[0].iter_mut().for_each(|v| *v = -*v);
        }
        Mixing::Soft(Array2::from_shape_fn((channels, channels), |(i, j)| rows[i][j] as f32))
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        match self {
            Mixing::Hard(order) => order.len(),
            Mixing::Soft(matrix) => matrix.nrows(),
        }
    }

    /// The channel that output `i` of a permutation is taken from; `i` itself for a rotation.
    pub(crate) fn source(&self, i: usize) -> usize {
        match self {
            Mixing::Hard(order) => order[i],
            Mixing::Soft(_) => i,
        }
    }

    /// Checks that it is a permutation or an orthogonal matrix.
    ///
    /// # Errors
    /// [`FlowError::Params`] saying what is wrong.
    pub fn validate(&self) -> Result<()> {
        let bad = |why: String| Err(FlowError::Params { name: "mixing", why });
        match self {
            Mixing::Hard(order) => {
                let mut seen = vec![false; order.len()];
                for &channel in order {
                    match seen.get_mut(channel) {
                        Some(seen) if !*seen => *seen = true,
                        _ => return bad(format!("channel {channel} is out of range or taken twice")),
                    }
                }
            }
            Mixing::Soft(matrix) => {
                if matrix.nrows() != matrix.ncols() {
                    return bad(format!("a matrix of {:?}", matrix.dim()));
                }
                for (i, a) in matrix.outer_iter().enumerate() {
                    for (j, b) in matrix.outer_iter().enumerate().take(i + 1) {
                        let dot: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let off = (dot - f64::from(u8::from(i == j))).abs();
                        if off.is_nan() || off > 1e-4 {
                            return bad(format!("rows {i} and {j} are not orthonormal"));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A standard normal number (Box and Muller, 1958).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The sign of the determinant, by elimination with pivoting.
fn determinant_sign(rows: &[Vec<f64>]) -> f64 {
    let mut a = rows.to_vec();
    let mut sign = 1.0;
    for k in 0..a.len() {
        let pivot = (k..a.len()).max_by(|i, j| a[*i][k].abs().total_cmp(&a[*j][k].abs())).unwrap_or(k);
        if pivot != k {
            a.swap(pivot, k);
            sign = -sign;
        }
        sign *= a[k][k].signum();
        let top = a[k].clone();
        for row in &mut a[k + 1..] {
            let factor = row[k] / top[k];
            row.iter_mut().zip(&top).skip(k).for_each(|(v, t)| *v -= factor * t);
        }
    }
    sign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_rotations() {
        for c in [1, 2, 3, 16, 33] {
            for seed in 0..4 {
                let mixing = Mixing::soft(c, seed);
                mixing.validate().unwrap();
                let Mixing::Soft(m) = mixing else { unreachable!() };
                let rows: Vec<Vec<f64>> = m.outer_iter().map(|r| r.iter().map(|v| f64::from(*v)).collect()).collect();
                assert_eq!(determinant_sign(&rows), 1.0);
            }
        }
    }

    #[test]
    fn what_is_no_mixing_is_refused() {
        for order in [vec![0, 0], vec![1, 2], vec![2, 0]] {
            assert!(Mixing::Hard(order).validate().is_err());
        }
        Mixing::hard(50, 3).validate().unwrap();
        assert!(Mixing::Soft(ndarray::arr2(&[[1.0, 0.0], [0.0, f32::NAN]])).validate().is_err());
        assert!(Mixing::Soft(ndarray::arr2(&[[1.0, 0.0], [0.1, 1.0]])).validate().is_err());
        assert!(Mixing::Soft(Array2::zeros((2, 3))).validate().is_err());
    }
}
