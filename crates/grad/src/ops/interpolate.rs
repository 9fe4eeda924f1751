use super::{image_dim, value};
use crate::{Result, Tape, Var, error::shape_error};

/// How values between samples are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Index `floor(i * in / out)`.
    Nearest,
    /// Bilinear; the outer edges of the corner pixels coincide (`align_corners=False`).
    Bilinear,
    /// Bilinear; the centres of the corner pixels coincide (`align_corners=True`).
    BilinearCorners,
}

/// Two samples and the share of the second.
#[derive(Clone, Copy)]
struct Step {
    low: usize,
    high: usize,
    share: f32,
}

fn steps(input: usize, output: usize, how: Interpolation) -> Vec<Step> {
    let ratio = input as f64 / output as f64;
    (0..output)
        .map(|i| {
            let at = match how {
                Interpolation::Nearest => (i * input / output) as f64,
                Interpolation::Bilinear => ((i as f64 + 0.5) * ratio - 0.5).max(0.0),
                Interpolation::BilinearCorners if output == 1 => 0.0,
                Interpolation::BilinearCorners => i as f64 * (input - 1) as f64 / (output - 1) as f64,
            };
            let low = (at as usize).min(input - 1);
            Step { low, high: (low + 1).min(input - 1), share: (at - low as f64) as f32 }
        })
        .collect()
}

/// Resizes `[n, h, w, c]` to `[n, size.0, size.1, c]`, without antialiasing.
///
/// # Errors
/// An image without pixels, or a size of zero.
pub fn interpolate(tape: &mut Tape, x: &Var, size: (usize, usize), how: Interpolation) -> Result<Var> {
    let [n, h, w, c] = image_dim("interpolate", x)?;
    if h == 0 || w == 0 || size.0 == 0 || size.1 == 0 {
        return Err(shape_error("interpolate", format!("pixels to make {size:?} from"), x.shape()));
    }
    let (rows, columns) = (steps(h, size.0, how), steps(w, size.1, how));
    // Output pixel, input pixel, weight: the linear map and its adjoint are the same walk.
    let walk = move |f: &mut dyn FnMut(usize, usize, f32)| {
        for image in 0..n {
            for (y, row) in rows.iter().enumerate() {
                for (x, column) in columns.iter().enumerate() {
                    let to = (image * size.0 + y) * size.1 + x;
                    for (sy, wy) in [(row.low, 1.0 - row.share), (row.high, row.share)] {
                        for (sx, wx) in [(column.low, 1.0 - column.share), (column.high, column.share)] {
                            if wy * wx != 0.0 {
                                f(to, (image * h + sy) * w + sx, wy * wx);
                            }
                        }
                    }
                }
            }
        }
    };
    let mut out = vec![0.0; n * size.0 * size.1 * c];
    walk(&mut |to, from, weight| {
        let source = &x.data()[from * c..][..c];
        out[to * c..][..c].iter_mut().zip(source).for_each(|(o, v)| *o += weight * v);
    });
    let (node, len) = (x.node(), x.data().len());
    Ok(tape.push(value("interpolate", &[n, size.0, size.1, c], out)?, &[x], move |g, grads| {
        let mut back = vec![0.0; len];
        walk(&mut |to, from, weight| {
            back[from * c..][..c].iter_mut().zip(&g[to * c..][..c]).for_each(|(b, g)| *b += weight * g);
        });
        grads.add(node, back)
    }))
}

/// Pads `[n, h, w, c]` by reflection without repeating the edge: `[left, right, top, bottom]`.
///
/// # Errors
/// A padding that is not smaller than the image.
pub fn pad_reflect(tape: &mut Tape, x: &Var, padding: [usize; 4]) -> Result<Var> {
    let [n, h, w, c] = image_dim("pad_reflect", x)?;
    let [left, right, top, bottom] = padding;
    if left.max(right) >= w || top.max(bottom) >= h {
        return Err(shape_error("pad_reflect", format!("an image larger than {padding:?}"), x.shape()));
    }
    let line = |before: usize, size: usize, after: usize| -> Vec<usize> {
        let last = size - 1;
        (0..before + size + after)
            .map(|i| {
                let at = (i as isize - before as isize).unsigned_abs();
                if at > last { 2 * last - at } else { at }
            })
            .collect()
    };
    let (rows, columns) = (line(top, h, bottom), line(left, w, right));
    let mut from = Vec::with_capacity(n * rows.len() * columns.len());
    for image in 0..n {
        for row in &rows {
            from.extend(columns.iter().map(|column| (image * h + row) * w + column));
        }
    }
    let out = from.iter().flat_map(|p| &x.data()[p * c..][..c]).copied().collect();
    let (node, len) = (x.node(), x.data().len());
    Ok(tape.push(value("pad_reflect", &[n, rows.len(), columns.len(), c], out)?, &[x], move |g, grads| {
        let mut back = vec![0.0; len];
        for (p, g) in from.iter().zip(g.chunks_exact(c.max(1))) {
            back[p * c..][..c].iter_mut().zip(g).for_each(|(b, g)| *b += g);
        }
        grads.add(node, back)
    }))
}
