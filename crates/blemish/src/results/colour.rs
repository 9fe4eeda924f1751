//! The one colour scale: calibrated score 0 to 1.

/// Anchors of the scale at equal steps, dark to bright with rising lightness (Matplotlib's inferno, CC0).
const INFERNO: [[u8; 3]; 11] = [
    [0, 0, 4],
    [22, 11, 57],
    [66, 10, 104],
    [106, 23, 110],
    [147, 38, 103],
    [188, 55, 84],
    [221, 81, 58],
    [243, 120, 25],
    [252, 165, 10],
    [246, 215, 70],
    [252, 255, 164],
];

/// The colour of a calibrated score.
pub(super) fn colour(score: f64) -> [u8; 3] {
    let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
    let at = score * (INFERNO.len() - 1) as f64;
    let low = (at as usize).min(INFERNO.len() - 2);
    let share = at - low as f64;
    std::array::from_fn(|c| {
        let (a, b) = (f64::from(INFERNO[low][c]), f64::from(INFERNO[low + 1][c]));
        (a + (b - a) * share).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_in_lightness() {
        let light = |s: f64| {
            let [r, g, b] = colour(s).map(f64::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        for i in 0..100 {
            assert!(light((i + 1) as f64 / 100.0) > light(i as f64 / 100.0) - 0.5, "{i}");
        }
        assert_eq!(colour(f64::NAN), colour(0.0));
    }
}
