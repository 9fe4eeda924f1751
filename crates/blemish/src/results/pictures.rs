use blemish_core::{Calibration, Image, Pixels};
use blemish_metrics::label_components;
use image::{Rgb, RgbImage};
use ndarray::{Array2, ArrayView2};

use super::colour::colour;
use crate::engine::Scored;
use crate::{Error, Result};

/// Longest side of a panel, in pixels.
const SIDE: usize = 512;
/// Height of the colour scale below the panels.
const SCALE: u32 = 14;
const OUTLINE: Rgb<u8> = Rgb([0, 255, 255]);
const TRUTH: Rgb<u8> = Rgb([60, 255, 60]);

/// What goes into one picture.
pub struct Panel<'a> {
    /// The scored picture.
    pub scored: &'a Scored,
    /// The scale of its map.
    pub pixel: Option<&'a Calibration>,
    /// Its true defect pixels at the size of the network input, if they are known.
    pub mask: Option<&'a Array2<bool>>,
    /// Areas of fewer map pixels are no regions and get no outline.
    pub min_region_area: usize,
}

/// The photo; the photo under its heat map; the photo with the outline of the defect found (cyan) and of the true one
/// (green). Below them the colour scale, the threshold marked at its middle. A PNG.
///
/// # Errors
/// None in practice.
pub fn draw(panel: &Panel<'_>) -> Result<Vec<u8>> {
    let scored = panel.scored;
    let (h, w, _) = scored.image.dim();
    let shrink = (h.max(w)).div_ceil(SIDE).max(1);
    let (ph, pw) = ((h / shrink).max(1), (w / shrink).max(1));
    let photo = shrunk(&scored.image, shrink, (ph, pw));
    let mut out = RgbImage::from_pixel(3 * pw as u32, ph as u32 + SCALE, Rgb([24, 24, 24]));
    // The map's value at a pixel of the panel.
    let to_map = |y: usize, x: usize| -> Option<(usize, usize)> {
        let g = &scored.geometry;
        let scale = |at: usize, panel: usize, resized: usize| (at as f64 + 0.5) * resized as f64 / panel as f64;
        let my = scale(y, ph, g.resized.0) - g.offset.0 as f64;
        let mx = scale(x, pw, g.resized.1) - g.offset.1 as f64;
        let inside = my >= 0.0 && mx >= 0.0 && (my as usize) < g.input.0 && (mx as usize) < g.input.1;
        inside.then_some((my as usize, mx as usize))
    };
    let map = scored.map.as_ref().map(|m| m.view());
    let labelled = map.zip(panel.pixel).map(|(m, c)| label_components(m.mapv(|v| f64::from(v) >= c.threshold).view()));
    let found = |p: (usize, usize)| {
        labelled.as_ref().is_some_and(|(labels, components)| {
            let component = labels.get(p).and_then(|l| components.get((*l as usize).checked_sub(1)?));
            component.is_some_and(|c| c.area >= panel.min_region_area)
        })
    };
    let truth = |p: (usize, usize)| panel.mask.is_some_and(|m| m.get(p).copied().unwrap_or(false));
    for y in 0..ph {
        for x in 0..pw {
            let at = photo[y * pw + x];
            let (px, py) = (x as u32, y as u32);
            out.put_pixel(px, py, Rgb(at));
            let place = to_map(y, x);
            let heat = place.zip(map).zip(panel.pixel).and_then(|((p, m), c)| heat(m, p, c));
            out.put_pixel(pw as u32 + px, py, Rgb(heat.map_or(at, |h| mixed(at, h))));
            let edge = |inside: &dyn Fn((usize, usize)) -> bool| {
                let here = place.is_some_and(inside);
                let near = [(0isize, 1isize), (1, 0), (0, -1), (-1, 0)];
                let other = |(dy, dx): (isize, isize)| {
                    let ny = y.checked_add_signed(dy).filter(|v| *v < ph);
                    let nx = x.checked_add_signed(dx).filter(|v| *v < pw);
                    !ny.zip(nx).and_then(|(ny, nx)| to_map(ny, nx)).is_some_and(inside)
                };
                here && near.into_iter().any(other)
            };
            let third = if edge(&truth) {
                TRUTH
            } else if edge(&found) {
                OUTLINE
            } else {
                Rgb(at)
            };
            out.put_pixel(2 * pw as u32 + px, py, third);
        }
    }
    scale_bar(&mut out, ph as u32, 3 * pw as u32);
    let mut bytes = std::io::Cursor::new(Vec::new());
    out.write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Error::Setting { key: "pictures".to_owned(), why: e.to_string() })?;
    Ok(bytes.into_inner())
}

fn heat(map: ArrayView2<'_, f32>, at: (usize, usize), pixel: &Calibration) -> Option<[u8; 3]> {
    map.get(at).map(|v| colour(pixel.score(f64::from(*v))))
}

fn mixed(a: [u8; 3], b: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|c| ((u16::from(a[c]) * 2 + u16::from(b[c]) * 3) / 5) as u8)
}

/// The scale from 0 to 1 along the bottom, white where the threshold is.
fn scale_bar(out: &mut RgbImage, top: u32, width: u32) {
    for x in 0..width {
        let here = colour(f64::from(x) / f64::from(width.max(2) - 1));
        let mark = x.abs_diff(width / 2) <= 1;
        for y in top + 2..top + SCALE {
            out.put_pixel(x, y, if mark { Rgb([255, 255, 255]) } else { Rgb(here) });
        }
    }
}

/// The picture in 8 bits, every block of `shrink` x `shrink` pixels by its mean.
fn shrunk(image: &Image, shrink: usize, (ph, pw): (usize, usize)) -> Vec<[u8; 3]> {
    let (_, _, c) = image.dim();
    let sample = |y: usize, x: usize, k: usize| -> u32 {
        let k = if c == 1 { 0 } else { k };
        match image.pixels() {
            Pixels::U8(a) => u32::from(a[[y, x, k]]),
            Pixels::U16(a) => u32::from(a[[y, x, k]] >> 8),
        }
    };
    let area = (shrink * shrink) as u32;
    let mut out = Vec::with_capacity(ph * pw);
    for y in 0..ph {
        for x in 0..pw {
            out.push(std::array::from_fn(|k| {
                let block = (0..shrink).flat_map(|dy| (0..shrink).map(move |dx| (dy, dx)));
                let sum: u32 = block.map(|(dy, dx)| sample(y * shrink + dy, x * shrink + dx, k)).sum();
                (sum / area) as u8
            }));
        }
    }
    out
}
