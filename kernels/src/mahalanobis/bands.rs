use super::layout::Layout;

/// Splits one buffer for each level (`unit(level)` values a group) into the parts of each band: `[band][level]`.
pub(super) fn split<'a, T>(
    layout: &Layout,
    buffers: &'a mut [Vec<T>],
    unit: impl Fn(usize) -> usize,
) -> Vec<Vec<&'a mut [T]>> {
    let mut parts: Vec<Vec<&mut [T]>> = (0..layout.bands()).map(|_| Vec::with_capacity(buffers.len())).collect();
    for (level, buffer) in buffers.iter_mut().enumerate() {
        let mut rest: &mut [T] = buffer;
        for (band, parts) in parts.iter_mut().enumerate() {
            let groups = layout.band(level, band).len() * layout.level(level).groups().1;
            let (part, after) = rest.split_at_mut(groups * unit(level));
            parts.push(part);
            rest = after;
        }
    }
    parts
}

/// Splits a buffer of `unit` values for each group of the last level into the parts of each band.
pub(super) fn split_last<'a, T>(layout: &Layout, buffer: &'a mut [T], unit: usize) -> Vec<&'a mut [T]> {
    let last = layout.levels() - 1;
    let mut rest = buffer;
    let part = |band| {
        let groups = layout.band(last, band).len() * layout.level(last).groups().1;
        let (part, after) = std::mem::take(&mut rest).split_at_mut(groups * unit);
        rest = after;
        part
    };
    (0..layout.bands()).map(part).collect()
}

/// The index of a group within its band.
pub(super) fn local(layout: &Layout, band: usize, at: super::layout::At) -> usize {
    (at.y - layout.band(at.level, band).start) * layout.level(at.level).groups().1 + at.x
}

/// Floats of one embedding in a buffer: the kernels read whole vectors beyond its end.
pub(super) fn stride(layout: &Layout) -> usize {
    layout.channels().len().next_multiple_of(16) + 16
}

/// Calls `f(row, column, index)` for every packed float of rows `a..b`.
pub(super) fn packing(a: usize, b: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (mut r0, mut at) = (a, 0);
    while r0 < b {
        let h = (b - r0).min(16);
        for c in 0..r0 + h {
            for r in r0.max(c)..r0 + h {
                f(r, c, at);
                at += 1;
            }
        }
        r0 += h;
    }
}
