//! Convolution windows as matrix rows, and back.

/// The geometry of a convolution over `[n, h, w, c]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) size: (usize, usize),
    pub(super) channels: usize,
    pub(super) kernel: (usize, usize),
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) dilation: usize,
    /// Positions of the window.
    pub(super) out: (usize, usize),
}

impl Windows {
    /// `None` if the window does not fit once.
    pub(super) fn new(
        size: (usize, usize),
        channels: usize,
        kernel: (usize, usize),
        (stride, padding, dilation): (usize, usize, usize),
    ) -> Option<Self> {
        let out = |n: usize, k: usize| {
            let span = dilation.checked_mul(k.checked_sub(1)?)?.checked_add(1)?;
            Some(n.checked_add(2 * padding)?.checked_sub(span)?.checked_div(stride)? + 1)
        };
        let out = (out(size.0, kernel.0)?, out(size.1, kernel.1)?);
        (dilation > 0).then_some(Windows { size, channels, kernel, stride, padding, dilation, out })
    }

    /// Values of one row of the window matrix for channels `range.len()`.
    pub(super) fn row(&self, channels: usize) -> usize {
        self.kernel.0 * self.kernel.1 * channels
    }

    /// The input row or column at output position `at`, tap `tap`; `None` in the padding.
    fn source(&self, at: usize, tap: usize, size: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.padding).filter(|i| *i < size)
    }

    /// Writes the windows of output row `y` of one image: `[out.1, kernel.0 * kernel.1 * channels.len()]`, tap by tap.
    pub(super) fn gather(&self, image: &[f32], y: usize, channels: std::ops::Range<usize>, rows: &mut [f32]) {
        let c = channels.len();
        for (x, row) in rows.chunks_exact_mut(self.row(c)).enumerate() {
            let mut taps = row.chunks_exact_mut(c);
            for ky in 0..self.kernel.0 {
                let from_y = self.source(y, ky, self.size.0);
                for kx in 0..self.kernel.1 {
                    let Some(to) = taps.next() else { return };
                    match from_y.zip(self.source(x, kx, self.size.1)) {
                        Some((sy, sx)) => {
                            let at = (sy * self.size.1 + sx) * self.channels + channels.start;
                            to.copy_from_slice(&image[at..at + c]);
                        }
                        None => to.fill(0.0),
                    }
                }
            }
        }
    }

    /// Adds the windows of output row `y` back onto one image; the adjoint of [`gather`](Self::gather).
    pub(super) fn scatter(&self, rows: &[f32], y: usize, channels: std::ops::Range<usize>, image: &mut [f32]) {
        let c = channels.len();
        for (x, row) in rows.chunks_exact(self.row(c)).enumerate() {
            let mut taps = row.chunks_exact(c);
            for ky in 0..self.kernel.0 {
                let to_y = self.source(y, ky, self.size.0);
                for kx in 0..self.kernel.1 {
                    let Some(from) = taps.next() else { return };
                    if let Some((sy, sx)) = to_y.zip(self.source(x, kx, self.size.1)) {
                        let at = (sy * self.size.1 + sx) * self.channels + channels.start;
                        image[at..at + c].iter_mut().zip(from).for_each(|(i, v)| *i += v);
                    }
                }
            }
        }
    }
}

/// `[out, in, kh, kw]` to `[kh * kw * in, out]` for one group of outputs.
pub(super) fn taps_first(weight: &[f32], outputs: std::ops::Range<usize>, inputs: usize, taps: usize) -> Vec<f32> {
    let count = outputs.len();
    let mut out = vec![0.0; count * inputs * taps];
    for (o, filter) in outputs.clone().map(|o| &weight[o * inputs * taps..][..inputs * taps]).enumerate() {
        for i in 0..inputs {
            for t in 0..taps {
                out[(t * inputs + i) * count + o] = filter[i * taps + t];
            }
        }
    }
    out
}

/// The way back of [`taps_first`], into the rows `outputs` of `weight`.
pub(super) fn outputs_first(
    matrix: &[f32],
    outputs: std::ops::Range<usize>,
    inputs: usize,
    taps: usize,
    weight: &mut [f32],
) {
    let count = outputs.len();
    for (o, filter) in
        weight[outputs.start * inputs * taps..][..count * inputs * taps].chunks_exact_mut(inputs * taps).enumerate()
    {
        for i in 0..inputs {
            for t in 0..taps {
                filter[i * taps + t] = matrix[(t * inputs + i) * count + o];
            }
        }
    }
}
