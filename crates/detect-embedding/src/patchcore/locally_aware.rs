//! Patch features as the authors' code makes them: the `c x 3 x 3` numbers around a patch are averaged to 1024, layers are
//! put behind each other and averaged to 1024 again (`adaptive_avg_pool1d` both times).
//!
//! All of that is linear, and so is the interpolation between it, so each layer is first reduced on its own grid by one
//! table of weights. For the second and third stage of a Wide ResNet-50 that is, in the first half, a 3 x 3 mean of each
//! channel with weight 0.2 in the centre and 0.1 elsewhere, and in the second half the 3 x 3 mean of pairs of channels.

use std::ops::Range;

use ndarray::{Array4, ArrayView4};
use rayon::prelude::*;

/// Coordinates after either pooling.
pub(crate) const WIDTH: usize = 1024;
/// Numbers around a patch, for each channel.
const TAPS: usize = 9;

/// One term of a coordinate: the value of a channel at a neighbour.
struct Term {
    channel: usize,
    tap: usize,
    weight: f32,
}

/// What layer `layer` of `layers` gives: the coordinates it has part in, and their values on its own grid.
pub(super) fn layer(map: ArrayView4<'_, f32>, layer: usize, layers: usize) -> (Range<usize>, Array4<f32>) {
    let (n, h, w, c) = map.dim();
    let (columns, terms) = table(c, layer, layers);
    let source = map.as_standard_layout();
    let mut out = Array4::zeros((n, h, w, columns.len()));
    if let (Some(source), Some(out)) = (source.as_slice(), out.as_slice_mut()) {
        out.par_chunks_mut(w * columns.len()).enumerate().for_each(|(line, out)| {
            let (picture, y) = (line / h, line % h);
            for (x, out) in out.chunks_exact_mut(columns.len()).enumerate() {
                let near: [Option<&[f32]>; TAPS] = std::array::from_fn(|tap| {
                    let y = (y + tap / 3).checked_sub(1).filter(|y| *y < h)?;
                    let x = (x + tap % 3).checked_sub(1).filter(|x| *x < w)?;
                    Some(&source[((picture * h + y) * w + x) * c..][..c])
                });
                for (out, terms) in out.iter_mut().zip(&terms) {
                    let value = |t: &Term| near[t.tap].map_or(0.0, |v| v[t.channel] * t.weight);
                    *out = terms.iter().map(value).sum();
                }
            }
        });
    }
    (columns, out)
}

/// The terms of the coordinates that layer `layer` of `layers` has part in, as a GPU takes them.
#[cfg(feature = "cuda")]
pub(crate) fn terms(
    c: usize,
    layer: usize,
    layers: usize,
) -> (Range<usize>, Vec<blemish_kernels::cuda::embed::Column>) {
    let (columns, terms) = table(c, layer, layers);
    let plain = |terms: &Vec<Term>| terms.iter().map(|t| (t.channel, t.tap, t.weight)).collect();
    (columns, terms.iter().map(plain).collect())
}

fn table(c: usize, layer: usize, layers: usize) -> (Range<usize>, Vec<Vec<Term>>) {
    // Both poolings: the bins of the layer's 1024 means over its taps, then bins of `layers` of those means.
    let columns = layer * WIDTH / layers..((layer + 1) * WIDTH).div_ceil(layers);
    let terms = columns.clone().map(|j| {
        let means = (j * layers).max(layer * WIDTH)..((j + 1) * layers).min((layer + 1) * WIDTH);
        let mut terms: Vec<Term> = Vec::new();
        for mean in means {
            let i = mean - layer * WIDTH;
            let bin = i * c * TAPS / WIDTH..((i + 1) * c * TAPS).div_ceil(WIDTH);
            let weight = 1.0 / (bin.len() * layers) as f32;
            for at in bin {
                match terms.iter_mut().find(|t| (t.channel, t.tap) == (at / TAPS, at % TAPS)) {
                    Some(term) => term.weight += weight,
                    None => terms.push(Term { channel: at / TAPS, tap: at % TAPS, weight }),
                }
            }
        }
        terms
    });
    let terms = terms.collect();
    (columns, terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `adaptive_avg_pool1d` by its definition.
    fn pool(values: &[f64], width: usize) -> Vec<f64> {
        let n = values.len();
        let bin = |i: usize| &values[i * n / width..((i + 1) * n).div_ceil(width)];
        (0..width).map(|i| bin(i).iter().sum::<f64>() / bin(i).len() as f64).collect()
    }

    #[test]
    fn equals_unfolding_and_pooling_twice() {
        for channels in [vec![512, 1024], vec![7], vec![32, 96, 5]] {
            let value = |l: usize, y: usize, x: usize, c: usize| ((l * 31 + y * 17 + x * 5 + c * 7) % 23) as f32 - 9.0;
            let maps: Vec<Array4<f32>> = channels
                .iter()
                .enumerate()
                .map(|(l, &c)| Array4::from_shape_fn((1, 2, 3, c), |(_, y, x, c)| value(l, y, x, c)))
                .collect();
            let mut got = vec![0f64; 6 * WIDTH];
            for (l, map) in maps.iter().enumerate() {
                let (columns, part) = layer(map.view(), l, maps.len());
                for ((_, y, x, j), v) in part.indexed_iter() {
                    got[(y * 3 + x) * WIDTH + columns.start + j] += f64::from(*v);
                }
            }
            for (y, x) in [(0, 0), (0, 1), (1, 2)] {
                let mut all = Vec::new();
                for (l, &c) in channels.iter().enumerate() {
                    let mut patch = Vec::new();
                    for channel in 0..c {
                        for tap in 0..9 {
                            let (yy, xx) = (y + tap / 3, x + tap % 3);
                            let inside = (1..=2).contains(&yy) && (1..=3).contains(&xx);
                            patch.push(if inside { f64::from(value(l, yy - 1, xx - 1, channel)) } else { 0.0 });
                        }
                    }
                    all.extend(pool(&patch, WIDTH));
                }
                for (j, want) in pool(&all, WIDTH).iter().enumerate() {
                    let got = got[(y * 3 + x) * WIDTH + j];
                    assert!((got - want).abs() < 1e-5, "{channels:?} {y} {x} {j}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn wide_resnet_has_the_closed_form() {
        let (columns, terms) = table(512, 0, 2);
        assert_eq!(columns, 0..512);
        for (j, terms) in terms.iter().enumerate() {
            assert!(
                terms.iter().all(|t| t.channel == j && (t.weight - if t.tap == 4 { 0.2 } else { 0.1 }).abs() < 1e-7)
            );
        }
        let (columns, terms) = table(1024, 1, 2);
        assert_eq!(columns, 512..1024);
        assert!(terms.iter().enumerate().all(|(j, t)| t.len() == 18 && t.iter().all(|t| t.channel / 2 == j)));
    }
}
