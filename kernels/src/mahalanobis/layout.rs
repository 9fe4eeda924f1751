use std::ops::Range;

use ndarray::{Array2, ArrayView4};

use super::{PAD, bands::packing};
use crate::error::shape_error;
use crate::{KernelError, Result};

const OP: &str = "mahalanobis layout";
const MAX_SIDE: usize = 16_384;
const MAX_CHANNELS: usize = 16_384;

/// Which channels of which feature maps make up an embedding, in what order, and which positions share them.
///
/// The grid is that of the finest map (the first such). Every position reads each map at the nearest index,
/// `floor(y * height_of_map / height_of_grid)`, as torch's `interpolate(mode="nearest")` does. Channels are ordered from
/// the coarsest map to the finest. A level holds the channels of one map; positions that agree in their cells of all maps
/// up to a level form one of its groups and share its rows of every factor. Any sizes will do, not only powers of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    grid: (usize, usize),
    maps: Vec<Map>,
    channels: Vec<usize>,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq)]
struct Map {
    dim: [usize; 3],
    /// The map's row of each grid row, and its column of each grid column.
    y: Vec<usize>,
    x: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Level {
    /// Rows of the factor, that is entries of the embedding.
    pub(super) rows: Range<usize>,
    /// Map and channels read, in order; one entry but for a layout with a single level.
    sources: Vec<(usize, Vec<usize>)>,
    /// First grid row of each row of groups, then the grid's height; likewise for columns.
    y: Vec<usize>,
    x: Vec<usize>,
}

impl Layout {
    /// A layout of `channels` (indices into the channels of all `maps` `[height, width, channels]`, one after the other;
    /// their order does not matter) over the grid of the finest map. `nested` shares rows between positions; without
    /// it every position has all of its own.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for no map, no channel, a channel named twice or out of range, or sizes of zero or
    /// beyond 16,384.
    pub fn new(maps: &[[usize; 3]], channels: &[usize], nested: bool) -> Result<Self> {
        let bad = |what: String| KernelError::Parameter { op: OP, what };
        let fits = |&[h, w, c]: &[usize; 3]| [h, w, c].iter().all(|side| (1..=MAX_SIDE).contains(side));
        if maps.is_empty() || maps.len() > 64 || !maps.iter().all(fits) {
            return Err(bad(format!("1 to 64 maps with sides of 1 to {MAX_SIDE} are possible, got {maps:?}")));
        }
        let total: usize = maps.iter().map(|m| m[2]).sum();
        if channels.is_empty() || channels.len() > MAX_CHANNELS {
            return Err(bad(format!("{} channels; 1 to {MAX_CHANNELS} are possible", channels.len())));
        }
        let mut sorted = channels.to_vec();
        sorted.sort_unstable();
        if let Some(&last) = sorted.last().filter(|&&last| last >= total) {
            return Err(bad(format!("channel {last} of {total}")));
        }
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(bad(format!("channel {} is named twice", twice[0])));
        }
        // Coarse to fine; of equally fine maps the first listed comes last and gives the grid.
        let mut order: Vec<usize> = (0..maps.len()).collect();
        order.sort_by_key(|&m| (maps[m][0] * maps[m][1], std::cmp::Reverse(m)));
        let finest = maps[order.last().copied().unwrap_or(0)];
        let grid = (finest[0], finest[1]);
        let nearest = |of: usize, to: usize| (0..to).map(|i| i * of / to).collect::<Vec<usize>>();
        let tables: Vec<Map> =
            maps.iter().map(|&dim| Map { dim, y: nearest(dim[0], grid.0), x: nearest(dim[1], grid.1) }).collect();
        let first = |m: usize| maps[..m].iter().map(|m| m[2]).sum::<usize>();
        let (mut levels, mut ordered, mut sources) = (Vec::<Level>::new(), Vec::new(), Vec::new());
        let all = |n: usize| (0..=n).collect::<Vec<usize>>();
        let mut starts = (vec![0, grid.0], vec![0, grid.1]);
        for &m in &order {
            let range = first(m)..first(m) + maps[m][2];
            let own: Vec<usize> = sorted.iter().copied().filter(|c| range.contains(c)).collect();
            if own.is_empty() {
                continue;
            }
            let rows = ordered.len()..ordered.len() + own.len();
            let picked: Vec<usize> = own.iter().map(|c| c - range.start).collect();
            ordered.extend(own);
            if nested {
                starts = (split(&starts.0, &tables[m].y), split(&starts.1, &tables[m].x));
                levels.push(Level { rows, sources: vec![(m, picked)], y: starts.0.clone(), x: starts.1.clone() });
            } else {
                sources.push((m, picked));
            }
        }
        if !nested {
            levels.push(Level { rows: 0..ordered.len(), sources, y: all(grid.0), x: all(grid.1) });
        }
        Ok(Layout { grid, maps: tables, channels: ordered, levels })
    }

    /// Height and width of the grid.
    pub fn grid(&self) -> (usize, usize) {
        self.grid
    }

    /// Height, width and channels of each map.
    pub fn maps(&self) -> impl ExactSizeIterator<Item = [usize; 3]> + '_ {
        self.maps.iter().map(|m| m.dim)
    }

    /// The channels, in the order of the embedding.
    pub fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// Number of levels; at least 1.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Number of groups of a level.
    pub fn groups(&self, level: usize) -> usize {
        self.levels.get(level).map_or(0, |l| l.groups().0 * l.groups().1)
    }

    /// The rows of the factor (entries of the embedding) a level holds.
    pub fn rows(&self, level: usize) -> Range<usize> {
        self.levels.get(level).map_or(0..0, |l| l.rows.clone())
    }

    /// The group of a level that a grid position belongs to.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for a level or position that does not exist.
    pub fn group(&self, level: usize, y: usize, x: usize) -> Result<usize> {
        self.check_position(y, x)?;
        let of = |starts: &[usize], at: usize| starts.partition_point(|&s| s <= at) - 1;
        let missing = || KernelError::Parameter { op: OP, what: format!("level {level} of {}", self.levels.len()) };
        let level = self.levels.get(level).ok_or_else(missing)?;
        Ok(of(&level.y, y) * level.groups().1 + of(&level.x, x))
    }

    /// Length of a level's weight tensor: its rows of the triangle for each group, and the [`PAD`](super::PAD).
    pub fn weight_len(&self, level: usize) -> usize {
        self.levels.get(level).map_or(0, |l| self.groups(level) * l.floats() + PAD)
    }

    /// Floats of all triangle rows, over all groups.
    pub fn floats(&self) -> usize {
        (0..self.levels()).map(|level| self.weight_len(level) - PAD).sum()
    }

    /// Floats the low-rank form keeps for `rank` directions.
    pub fn low_rank_floats(&self, rank: usize) -> usize {
        self.groups(self.levels() - 1) * rank * (self.channels.len() + 1)
    }

    /// The inverse Cholesky factor `W` `[d, d]` of a grid position, from packed weights; channels in the layout's order.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for weights of other lengths, [`KernelError::Parameter`] for a position outside the grid.
    pub fn inverse_factor(&self, weight: &[&[f32]], y: usize, x: usize) -> Result<Array2<f32>> {
        self.check_weights(OP, weight)?;
        let d = self.channels.len();
        let mut factor = Array2::zeros((d, d));
        for (i, (level, weight)) in self.levels.iter().zip(weight).enumerate() {
            let own = &weight[self.group(i, y, x)? * level.floats()..];
            packing(level.rows.start, level.rows.end, |r, c, at| factor[[r, c]] = own[at]);
        }
        Ok(factor)
    }

    pub(super) fn check_position(&self, y: usize, x: usize) -> Result<()> {
        if y < self.grid.0 && x < self.grid.1 {
            return Ok(());
        }
        Err(KernelError::Parameter { op: OP, what: format!("position ({y}, {x}) of a grid of {:?}", self.grid) })
    }

    pub(super) fn check_weights(&self, op: &'static str, weight: &[&[f32]]) -> Result<()> {
        let wanted: Vec<usize> = (0..self.levels()).map(|level| self.weight_len(level)).collect();
        let got: Vec<usize> = weight.iter().map(|w| w.len()).collect();
        if got == wanted { Ok(()) } else { Err(shape_error(op, format!("weights of {wanted:?}"), got)) }
    }

    /// Checks a batch of feature maps `[n, height, width, channels]` and gives `n`.
    pub(super) fn check(&self, op: &'static str, features: &[ArrayView4<'_, f32>]) -> Result<usize> {
        let n = features.first().map_or(0, |f| f.dim().0);
        let same = |(f, m): (&ArrayView4<'_, f32>, &Map)| f.shape()[0] == n && f.shape()[1..] == m.dim;
        if features.len() != self.maps.len() || !features.iter().zip(&self.maps).all(same) {
            let wanted: Vec<[usize; 3]> = self.maps.iter().map(|m| m.dim).collect();
            let got: Vec<&[usize]> = features.iter().map(|f| f.shape()).collect();
            return Err(shape_error(op, format!("feature maps [n, ..] of {wanted:?}"), got));
        }
        Ok(n)
    }

    /// Copies a level's entries of picture `image` at a group to `out`, `mean` subtracted.
    pub(super) fn gather(&self, maps: &[&[f32]], image: usize, at: At, mean: &[f32], out: &mut [f32]) {
        let level = &self.levels[at.level];
        let (y, x) = (level.y[at.y], level.x[at.x]);
        let (mut mean, mut out) = (mean, out);
        for (m, channels) in &level.sources {
            let map = &self.maps[*m];
            let [h, w, c] = map.dim;
            let pixel = &maps[*m][((image * h + map.y[y]) * w + map.x[x]) * c..][..c];
            let (own, rest) = out.split_at_mut(channels.len());
            for ((o, &channel), mu) in own.iter_mut().zip(channels).zip(mean) {
                *o = pixel[channel] - mu;
            }
            (out, mean) = (rest, &mean[channels.len()..]);
        }
    }

    pub(super) fn level(&self, level: usize) -> &Level {
        &self.levels[level]
    }

    /// Rows of groups of the first level: the units of parallel work.
    pub(super) fn bands(&self) -> usize {
        self.levels[0].y.len() - 1
    }

    /// The rows of groups of `level` that lie in a band.
    pub(super) fn band(&self, level: usize, band: usize) -> Range<usize> {
        let y = &self.levels[0].y;
        inside(&self.levels[level].y, y[band]..y[band + 1])
    }

    /// Grid rows of a band.
    pub(super) fn band_rows(&self, band: usize) -> Range<usize> {
        self.levels[0].y[band]..self.levels[0].y[band + 1]
    }

    /// Calls `f` for every group of a band; a group comes after the groups it lies in.
    pub(super) fn walk<E>(
        &self,
        band: usize,
        f: &mut impl FnMut(At) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for x in 0..self.levels[0].groups().1 {
            self.descend(At { level: 0, y: band, x }, f)?;
        }
        Ok(())
    }

    fn descend<E>(&self, at: At, f: &mut impl FnMut(At) -> std::result::Result<(), E>) -> std::result::Result<(), E> {
        f(at)?;
        let Some(next) = self.levels.get(at.level + 1) else { return Ok(()) };
        let (rows, columns) = self.area(at);
        let (ys, xs) = (inside(&next.y, rows), inside(&next.x, columns));
        for y in ys {
            for x in xs.clone() {
                self.descend(At { level: at.level + 1, y, x }, f)?;
            }
        }
        Ok(())
    }

    /// Grid rows and columns of a group.
    pub(super) fn area(&self, at: At) -> (Range<usize>, Range<usize>) {
        let level = &self.levels[at.level];
        (level.y[at.y]..level.y[at.y + 1], level.x[at.x]..level.x[at.x + 1])
    }
}

/// One group.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) level: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Level {
    /// Rows and columns of groups.
    pub(super) fn groups(&self) -> (usize, usize) {
        (self.y.len() - 1, self.x.len() - 1)
    }

    /// Floats of a group's rows of the triangle.
    pub(super) fn floats(&self) -> usize {
        let triangle = |n: usize| n * (n + 1) / 2;
        triangle(self.rows.end) - triangle(self.rows.start)
    }
}

/// Indices of the starts that lie in a range whose ends are starts (or the end) themselves.
fn inside(starts: &[usize], range: Range<usize>) -> Range<usize> {
    let at = |v: usize| starts.partition_point(|&s| s < v);
    at(range.start)..at(range.end)
}

/// Refines `starts` so that a new part begins wherever `table` changes.
fn split(starts: &[usize], table: &[usize]) -> Vec<usize> {
    let changes = (0..table.len()).filter(|&i| i == 0 || table[i] != table[i - 1] || starts.binary_search(&i).is_ok());
    changes.chain([table.len()]).collect()
}
