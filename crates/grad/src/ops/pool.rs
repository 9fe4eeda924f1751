use super::{image_dim, value};
use crate::{Result, Tape, Var, error::shape_error};

/// Sizes of a pooling window over `[n, h, w, c]`.
#[derive(Clone, Copy)]
struct Pool {
    dim: [usize; 4],
    out: (usize, usize),
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Pool {
    fn new(op: &'static str, x: &Var, kernel: usize, stride: usize, padding: usize) -> Result<Pool> {
        let dim = image_dim(op, x)?;
        let out = |n: usize| Some((n + 2 * padding).checked_sub(kernel)?.checked_div(stride)? + 1);
        let fits = kernel > 0 && padding <= kernel / 2;
        match (fits, out(dim[1]).zip(out(dim[2]))) {
            (true, Some(out)) => Ok(Pool { dim, out, kernel, stride, padding }),
            _ => Err(shape_error(op, format!("a window of {kernel}, step {stride}, padding {padding}"), x.shape())),
        }
    }

    fn shape(&self) -> [usize; 4] {
        [self.dim[0], self.out.0, self.out.1, self.dim[3]]
    }

    /// Calls `f(output pixel, input pixels)`; pixels are counted over the whole batch.
    fn each(&self, mut f: impl FnMut(usize, &[usize])) {
        let [n, h, w, _] = self.dim;
        let span = |at: usize, size: usize| {
            let first = (at * self.stride).saturating_sub(self.padding);
            first..(at * self.stride + self.kernel).saturating_sub(self.padding).min(size)
        };
        let mut pixels = Vec::with_capacity(self.kernel * self.kernel);
        for image in 0..n {
            for y in 0..self.out.0 {
                for x in 0..self.out.1 {
                    pixels.clear();
                    for sy in span(y, h) {
                        pixels.extend(span(x, w).map(|sx| (image * h + sy) * w + sx));
                    }
                    f((image * self.out.0 + y) * self.out.1 + x, &pixels);
                }
            }
        }
    }
}

/// The largest value of each window; the gradient of a tie goes to the first. Padding is never chosen.
///
/// # Errors
/// A window that does not fit, or padding beyond half of it.
pub fn max_pool(tape: &mut Tape, x: &Var, kernel: usize, stride: usize, padding: usize) -> Result<Var> {
    let pool = Pool::new("max_pool", x, kernel, stride, padding)?;
    let c = pool.dim[3];
    let (mut out, mut from) = (Vec::new(), Vec::new());
    pool.each(|_, pixels| {
        for channel in 0..c {
            let mut best = pixels[0] * c + channel;
            for pixel in &pixels[1..] {
                let at = pixel * c + channel;
                if x.data()[at] > x.data()[best] || x.data()[at].is_nan() {
                    best = at;
                }
            }
            out.push(x.data()[best]);
            from.push(best);
        }
    });
    let (node, len) = (x.node(), x.data().len());
    Ok(tape.push(value("max_pool", &pool.shape(), out)?, &[x], move |g, grads| {
        let mut back = vec![0.0; len];
        from.iter().zip(g).for_each(|(i, g)| back[*i] += g);
        grads.add(node, back)
    }))
}

/// The mean of each window; with `count_padding` the divisor is always the window's area.
///
/// # Errors
/// A window that does not fit, or padding beyond half of it.
pub fn avg_pool(
    tape: &mut Tape,
    x: &Var,
    kernel: usize,
    stride: usize,
    padding: usize,
    count_padding: bool,
) -> Result<Var> {
    let pool = Pool::new("avg_pool", x, kernel, stride, padding)?;
    let c = pool.dim[3];
    let share = move |n: usize| 1.0 / (if count_padding { pool.kernel * pool.kernel } else { n }) as f32;
    let mut out = vec![0.0; pool.shape().iter().product()];
    pool.each(|to, pixels| {
        let out = &mut out[to * c..][..c];
        for pixel in pixels {
            out.iter_mut().zip(&x.data()[pixel * c..][..c]).for_each(|(o, v)| *o += v);
        }
        out.iter_mut().for_each(|o| *o *= share(pixels.len()));
    });
    let (node, len) = (x.node(), x.data().len());
    Ok(tape.push(value("avg_pool", &pool.shape(), out)?, &[x], move |g, grads| {
        let mut back = vec![0.0; len];
        pool.each(|to, pixels| {
            for pixel in pixels {
                let from = &g[to * c..][..c];
                back[pixel * c..][..c].iter_mut().zip(from).for_each(|(b, g)| *b += g * share(pixels.len()));
            }
        });
        grads.add(node, back)
    }))
}

/// The mean over height and width: `[n, h, w, c]` to `[n, c]`.
///
/// # Errors
/// An image without pixels.
pub fn global_avg_pool(tape: &mut Tape, x: &Var) -> Result<Var> {
    let [n, h, w, c] = image_dim("global_avg_pool", x)?;
    let area = h * w;
    if area == 0 || c == 0 {
        return Err(shape_error("global_avg_pool", "at least one pixel", x.shape()));
    }
    let mut out = vec![0.0f32; n * c];
    for (out, image) in out.chunks_exact_mut(c).zip(x.data().chunks_exact(area * c)) {
        image.chunks_exact(c).for_each(|pixel| out.iter_mut().zip(pixel).for_each(|(o, v)| *o += v));
        out.iter_mut().for_each(|o| *o /= area as f32);
    }
    let node = x.node();
    Ok(tape.push(value("global_avg_pool", &[n, c], out)?, &[x], move |g, grads| {
        let pixels = g.chunks_exact(c).flat_map(|g| std::iter::repeat_n(g, area));
        grads.add(node, pixels.flatten().map(|g| g / area as f32).collect())
    }))
}
