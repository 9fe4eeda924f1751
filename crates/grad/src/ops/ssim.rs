use super::{image_dim, value};
use crate::{Result, Tape, Var, error::shape_error};

/// Side of the Gaussian window.
const SIDE: usize = 11;
const SIGMA: f64 = 1.5;

/// `1 - mean SSIM` of two batches `[n, h, w, c]` (Wang et al., 2004, eq. 13): Gaussian window of 11x11, sigma 1.5,
/// K = (0.01, 0.03), population moments in f64. `padding` 0 is the "valid" form, 5 the zero-padded "same" form.
///
/// # Errors
/// Different shapes, images smaller than the window, or a padding beyond it.
pub fn ssim_loss(tape: &mut Tape, x: &Var, y: &Var, padding: usize, data_range: f32) -> Result<Var> {
    let dim = image_dim("ssim_loss", x)?;
    let fits = dim[1] + 2 * padding >= SIDE && dim[2] + 2 * padding >= SIDE && padding < SIDE;
    if x.shape() != y.shape() || !fits || x.data().is_empty() {
        return Err(shape_error("ssim_loss", format!("{:?}, at least {SIDE} pixels a side", x.shape()), y.shape()));
    }
    let wide = |v: &Var| -> Vec<f64> { v.data().iter().map(|v| f64::from(*v)).collect() };
    let (px, py) = (wide(x), wide(y));
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let line = window();
    let mean = |v: &[f64]| filter(v, dim, padding, &line);
    let ((mx, out_dim), (my, _)) = (mean(&px), mean(&py));
    let (xx, yy, xy) = (mean(&product(&px, &px)).0, mean(&product(&py, &py)).0, mean(&product(&px, &py)).0);
    let (c1, c2) = ((0.01 * f64::from(data_range)).powi(2), (0.03 * f64::from(data_range)).powi(2));

    let n = mx.len();
    let mut total = 0.0;
    // Slopes of the loss with respect to the means of x, y, x^2 (= that of y^2) and x y.
    let mut slopes = [vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; n]];
    for i in 0..n {
        let (mx, my) = (mx[i], my[i]);
        let (a, b) = (2.0 * mx * my + c1, 2.0 * (xy[i] - mx * my) + c2);
        let (c, d) = (mx * mx + my * my + c1, xx[i] - mx * mx + yy[i] - my * my + c2);
        let s = a * b / (c * d);
        total += s;
        let (da, db, dc, dd) = (b / (c * d), a / (c * d), -s / c, -s / d);
        let per = -1.0 / n as f64;
        slopes[0][i] = per * 2.0 * ((da - db) * my + (dc - dd) * mx);
        slopes[1][i] = per * 2.0 * ((da - db) * mx + (dc - dd) * my);
        slopes[2][i] = per * dd;
        slopes[3][i] = per * 2.0 * db;
    }
    let loss = value("ssim_loss", &[], vec![(1.0 - total / n as f64) as f32])?;
    let (x_node, y_node) = (x.node(), y.node());
    Ok(tape.push(loss, &[x, y], move |g, grads| {
        // The window is symmetric: the adjoint is the same filter with the complementary padding.
        let back = slopes.each_ref().map(|s| filter(s, out_dim, SIDE - 1 - padding, &window()).0);
        let to = |mean: &[f64], own: &[f64], other: &[f64]| -> Vec<f32> {
            let at = |i: usize| mean[i] + 2.0 * own[i] * back[2][i] + other[i] * back[3][i];
            (0..own.len()).map(|i| (f64::from(g[0]) * at(i)) as f32).collect()
        };
        if y_node.is_some() {
            grads.add(y_node, to(&back[1], &py, &px))?;
        }
        grads.add(x_node, to(&back[0], &px, &py))
    }))
}

fn window() -> [f64; SIDE] {
    let line: [f64; SIDE] =
        std::array::from_fn(|i| (-(i as f64 - (SIDE / 2) as f64).powi(2) / (2.0 * SIGMA * SIGMA)).exp());
    let sum: f64 = line.iter().sum();
    line.map(|w| w / sum)
}

/// Filters both axes with `line` over zero padding.
fn filter(v: &[f64], [n, h, w, c]: [usize; 4], padding: usize, line: &[f64; SIDE]) -> (Vec<f64>, [usize; 4]) {
    let (oh, ow) = (h + 2 * padding + 1 - SIDE, w + 2 * padding + 1 - SIDE);
    let mut rows = vec![0.0; n * oh * w * c];
    for (i, out) in rows.chunks_exact_mut(w * c).enumerate() {
        let (image, y) = (i / oh, i % oh);
        for (t, weight) in line.iter().enumerate() {
            if let Some(sy) = (y + t).checked_sub(padding).filter(|sy| *sy < h) {
                let source = &v[(image * h + sy) * w * c..][..w * c];
                out.iter_mut().zip(source).for_each(|(o, v)| *o += weight * v);
            }
        }
    }
    let mut out = vec![0.0; n * oh * ow * c];
    for (source, out) in rows.chunks_exact(w * c).zip(out.chunks_exact_mut(ow * c)) {
        for (x, out) in out.chunks_exact_mut(c).enumerate() {
            for (t, weight) in line.iter().enumerate() {
                if let Some(sx) = (x + t).checked_sub(padding).filter(|sx| *sx < w) {
                    out.iter_mut().zip(&source[sx * c..][..c]).for_each(|(o, v)| *o += weight * v);
                }
            }
        }
    }
    (out, [n, oh, ow, c])
}
