//! Connected regions of a mask.

use ndarray::{Array2, ArrayView2};

/// One 8-connected region: its size and the box around it, half open: rows `y0..y1`, columns `x0..x1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Number of pixels.
    pub area: usize,
    /// First row.
    pub y0: usize,
    /// First column.
    pub x0: usize,
    /// Row after the last.
    pub y1: usize,
    /// Column after the last.
    pub x1: usize,
}

/// A row's stretch of set pixels, columns `start..end`.
struct Run {
    row: usize,
    start: usize,
    end: usize,
}

/// Labels the 8-connected regions of a mask `[h, w]`.
///
/// Gives labels `[h, w]`, 0 for background and `i + 1` for `components[i]`, and the regions in the order in which their
/// first pixels appear row by row (fewer than 2^32 of them).
///
/// One pass over the pixels, then near-linear in runs: those of a row are joined with the touching ones of the row above
/// in a union-find (He, Chao, Suzuki 2008, "A run-based two-scan labeling algorithm").
pub fn label_components(mask: ArrayView2<'_, bool>) -> (Array2<u32>, Vec<Component>) {
    let mut runs: Vec<Run> = Vec::new();
    let mut parent: Vec<usize> = Vec::new();
    // Index of the first run of the row above, and of this row.
    let (mut above, mut here) = (0, 0);
    for (row, line) in mask.rows().into_iter().enumerate() {
        let mut open = None;
        for (x, set) in line.iter().enumerate() {
            match (open, *set) {
                (None, true) => open = Some(x),
                (Some(start), false) => {
                    runs.push(Run { row, start, end: x });
                    open = None;
                }
                _ => {}
            }
        }
        if let Some(start) = open {
            runs.push(Run { row, start, end: line.len() });
        }
        parent.extend(parent.len()..runs.len());
        // Both rows are sorted by column: two cursors. Runs touch, also diagonally, iff `a.start <= b.end` both ways.
        let (mut i, mut j) = (above, here);
        while i < here && j < runs.len() {
            if runs[i].start <= runs[j].end && runs[j].start <= runs[i].end {
                join(&mut parent, i, j);
            }
            if runs[i].end < runs[j].end { i += 1 } else { j += 1 }
        }
        (above, here) = (here, runs.len());
    }

    let mut labels = Array2::zeros(mask.raw_dim());
    let mut components: Vec<Component> = Vec::new();
    // A root is the first run of its region, so it is met before the others.
    let mut number = vec![0_usize; runs.len()];
    for (i, run) in runs.iter().enumerate() {
        let root = find(&mut parent, i);
        if root == i {
            number[i] = components.len();
            components.push(Component { area: 0, y0: run.row, x0: run.start, y1: run.row + 1, x1: run.end });
        }
        let index = number[root];
        let region = &mut components[index];
        region.area += run.end - run.start;
        region.x0 = region.x0.min(run.start);
        region.x1 = region.x1.max(run.end);
        region.y1 = run.row + 1;
        labels.row_mut(run.row).slice_mut(ndarray::s![run.start..run.end]).fill(index as u32 + 1);
    }
    (labels, components)
}

/// Root of a run, halving the path on the way.
fn find(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

/// Joins two regions under the earlier root.
fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(parent, a), find(parent, b));
    parent[a.max(b)] = a.min(b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Flood fill, the plain way.
    fn flood(mask: &Array2<bool>) -> (Array2<u32>, Vec<Component>) {
        let (h, w) = mask.dim();
        let (mut labels, mut regions) = (Array2::zeros((h, w)), Vec::new());
        for start in 0..h * w {
            let (y, x) = (start / w, start % w);
            if !mask[[y, x]] || labels[[y, x]] != 0 {
                continue;
            }
            let mut region = Component { area: 0, y0: y, x0: x, y1: y + 1, x1: x + 1 };
            let number = regions.len() as u32 + 1;
            let mut stack = vec![(y, x)];
            labels[[y, x]] = number;
            while let Some((y, x)) = stack.pop() {
                region.area += 1;
                region.y0 = region.y0.min(y);
                region.x0 = region.x0.min(x);
                region.y1 = region.y1.max(y + 1);
                region.x1 = region.x1.max(x + 1);
                for v in y.saturating_sub(1)..(y + 2).min(h) {
                    for u in x.saturating_sub(1)..(x + 2).min(w) {
                        if mask[[v, u]] && labels[[v, u]] == 0 {
                            labels[[v, u]] = number;
                            stack.push((v, u));
                        }
                    }
                }
            }
            regions.push(region);
        }
        (labels, regions)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn agrees_with_flood_fill(h in 1_usize..14, w in 1_usize..14, density in 0.0_f64..1.0, bits in proptest::collection::vec(0.0_f64..1.0, 196)) {
            let mask = Array2::from_shape_fn((h, w), |(y, x)| bits[y * 14 + x] < density);
            prop_assert_eq!(label_components(mask.view()), flood(&mask));
        }
    }

    #[test]
    fn spiral_and_comb_are_one_region() {
        // Arms that meet only in the last row: the worst case for a single pass.
        let comb = Array2::from_shape_fn((50, 51), |(y, x)| x % 2 == 0 || y == 49);
        let (labels, regions) = label_components(comb.view());
        assert_eq!(regions, [Component { area: 26 * 50 + 25, y0: 0, x0: 0, y1: 50, x1: 51 }]);
        assert!(labels.iter().zip(&comb).all(|(l, m)| (*l == 1) == *m));
    }
}
