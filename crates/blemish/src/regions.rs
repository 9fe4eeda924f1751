//! Connected defect areas, in pixels of the original picture.

use blemish_core::{AnomalyMap, Calibration, Geometry};
use blemish_metrics::label_components;
use serde::{Deserialize, Serialize};

/// An 8-connected area at or above the pixel threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Left edge of the box, in original pixels.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Width.
    pub w: usize,
    /// Height.
    pub h: usize,
    /// Area in original pixels.
    pub area: f64,
    /// Largest calibrated score in it.
    pub peak: f64,
    /// Where that is, in original pixels.
    pub peak_x: usize,
    /// Where that is, in original pixels.
    pub peak_y: usize,
}

/// The regions of a map, strongest first; those of fewer than `min_area` map pixels are left out.
pub fn find(map: &AnomalyMap, pixel: &Calibration, geometry: &Geometry, min_area: usize) -> Vec<Region> {
    let values = map.view();
    let mask = values.mapv(|v| f64::from(v) >= pixel.threshold);
    let (labels, components) = label_components(mask.view());
    let mut peaks = vec![(f32::NEG_INFINITY, 0, 0); components.len()];
    for ((y, x), &label) in labels.indexed_iter() {
        let Some(peak) = (label as usize).checked_sub(1).and_then(|i| peaks.get_mut(i)) else { continue };
        if values[[y, x]] > peak.0 {
            *peak = (values[[y, x]], y, x);
        }
    }
    let (height, width) = geometry.original;
    let clip = |(y, x): (f64, f64)| {
        let within = |v: f64, n: usize| v.clamp(0.0, n as f64);
        (within(y, height), within(x, width))
    };
    let scale =
        geometry.original.0 as f64 / geometry.resized.0 as f64 * geometry.original.1 as f64 / geometry.resized.1 as f64;
    let mut regions: Vec<Region> = components
        .iter()
        .zip(peaks)
        .filter(|(component, _)| component.area >= min_area)
        .map(|(c, (peak, py, px))| {
            let (y0, x0) = clip(geometry.to_original(c.y0 as f64, c.x0 as f64));
            let (y1, x1) = clip(geometry.to_original(c.y1 as f64, c.x1 as f64));
            let (peak_y, peak_x) = clip(geometry.to_original(py as f64 + 0.5, px as f64 + 0.5));
            let (x, y) = (x0.floor() as usize, y0.floor() as usize);
            Region {
                x,
                y,
                w: (x1.ceil() as usize).saturating_sub(x).max(1),
                h: (y1.ceil() as usize).saturating_sub(y).max(1),
                area: c.area as f64 * scale,
                peak: pixel.score(f64::from(peak)),
                peak_x: (peak_x as usize).min(width.saturating_sub(1)),
                peak_y: (peak_y as usize).min(height.saturating_sub(1)),
            }
        })
        .collect();
    regions.sort_by(|a, b| b.peak.total_cmp(&a.peak).then(a.y.cmp(&b.y)).then(a.x.cmp(&b.x)));
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use blemish_core::{Preprocess, Resize};

    #[test]
    fn boxes_are_in_original_pixels() {
        let preprocess = Preprocess {
            resize: Resize::Stretch { height: 64, width: 64 },
            crop: Some([32, 32]),
            ..Preprocess::default()
        };
        let geometry = preprocess.geometry((128, 256)).unwrap();
        let mut map = ndarray::Array2::<f32>::zeros((32, 32));
        map.slice_mut(ndarray::s![4..8, 10..15]).fill(2.0);
        map[[5, 12]] = 3.0;
        map[[30, 30]] = 9.0;
        let pixel = Calibration::new(0.0, 1.0).unwrap();
        let found = find(&AnomalyMap::new(map.clone()), &pixel, &geometry, 2);
        // The crop begins at 16; two original rows and four columns for each pixel.
        let want = Region { x: 104, y: 40, w: 20, h: 8, area: 160.0, peak: pixel.score(3.0), peak_x: 114, peak_y: 43 };
        assert_eq!(found, [want]);
        let all = find(&AnomalyMap::new(map), &pixel, &geometry, 1);
        assert_eq!(all.len(), 2);
        assert!(all[0].peak > all[1].peak);
    }
}
