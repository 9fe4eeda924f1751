//! The picture of a training curve.

use std::fmt::Write;

use blemish_core::Epoch;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 450.0;
/// Left, top, right, bottom.
const MARGINS: [f64; 4] = [70.0, 20.0, 20.0, 45.0];
/// Colours that colour-blind people can tell apart (Okabe and Ito, 2008).
const TRAIN: &str = "#0072b2";
const HELD_OUT: &str = "#d55e00";

/// Losses over epochs: training, and the pictures held out with their best epoch marked.
pub(super) fn svg(epochs: &[Epoch]) -> String {
    let train: Vec<(f64, f64)> = epochs.iter().map(|e| (e.epoch as f64, e.train_loss)).collect();
    let held_out: Vec<(f64, f64)> = epochs.iter().filter_map(|e| Some((e.epoch as f64, e.validation_loss?))).collect();
    let values = || train.iter().chain(&held_out).map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = match (low.is_finite(), high - low) {
        (false, _) => (0.0, 1.0),
        // One value: room above and below it.
        (true, span) if span <= low.abs() * 1e-9 => (low - low.abs().max(1.0) * 0.1, high + low.abs().max(1.0) * 0.1),
        (true, span) => (low - span * 0.05, high + span * 0.05),
    };
    let last = epochs.iter().map(|e| e.epoch).max().unwrap_or(1).max(2) as f64;
    let [left, top, right, bottom] = MARGINS;
    let x = |epoch: f64| left + (epoch - 1.0) / (last - 1.0) * (WIDTH - left - right);
    let y = |loss: f64| top + (high - loss) / (high - low) * (HEIGHT - top - bottom);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let (end_x, end_y) = (WIDTH - right, HEIGHT - bottom);
    for tick in ticks(low, high, 6) {
        let at = y(tick);
        let label = number(tick);
        let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{end_x}\" stroke=\"#dddddd\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 8.0, at + 4.5);
    }
    for tick in ticks(1.0, last, 10).into_iter().filter(|t| t.fract() == 0.0 && *t >= 1.0) {
        let (at, below) = (x(tick), end_y + 18.0);
        let _ = writeln!(out, "<path d=\"M{at:.1} {end_y}v5\" stroke=\"black\"/>");
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{tick}</text>");
    }
    let _ = writeln!(out, "<path d=\"M{left} {top}V{end_y}H{end_x}\" fill=\"none\" stroke=\"black\"/>");
    let (middle, lowest) = ((left + end_x) / 2.0, HEIGHT - 8.0);
    let _ = writeln!(out, "<text x=\"{middle}\" y=\"{lowest}\" text-anchor=\"middle\">epoch</text>");
    for (i, (name, colour, points)) in
        [("training", TRAIN, &train), ("good pictures held out", HELD_OUT, &held_out)].into_iter().enumerate()
    {
        let shown: Vec<(f64, f64)> = points.iter().filter(|p| p.1.is_finite()).map(|p| (x(p.0), y(p.1))).collect();
        if shown.is_empty() {
            continue;
        }
        let line: Vec<String> = shown.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = line.join(" ");
        let _ = writeln!(out, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        let best = shown.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        if let Some((x, y)) = best {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        }
        let (from, at) = (end_x - 190.0, top + 16.0 + 20.0 * i as f64);
        let to = from + 24.0;
        let _ = writeln!(out, "<path d=\"M{from} {}H{to}\" stroke=\"{colour}\" stroke-width=\"2\"/>", at - 4.5);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{at}\">{name}</text>", to + 6.0);
    }
    out.push_str("</svg>\n");
    out
}

/// At most about `count` round numbers from `low` to `high`.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (0..=2 * count as i64).map(|i| (first + i) as f64 * step).take_while(|t| *t <= high).collect()
}

/// Short, without the noise of binary fractions.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" || text == "-" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize, train_loss: f64, validation_loss: Option<f64>) -> Epoch {
        Epoch { epoch, train_loss, validation_loss, judged: None, lr: 1e-3, seconds: 1.0 }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(1.0, 50.0, 10), [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0]);
        assert_eq!(number(0.6000000000000001), "0.6");
        assert_eq!(number(-20.0), "-20");
        assert_eq!(number(0.0), "0");
        assert!(ticks(-1e9, 1e9, 6).len() > 2);
    }

    #[test]
    fn both_lines_are_drawn_with_their_least() {
        let text = svg(&[epoch(1, 3.0, Some(4.0)), epoch(2, 2.0, Some(2.5)), epoch(3, 1.0, Some(3.0))]);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(text.contains("held out"));
        assert_eq!(svg(&[epoch(1, 3.0, None)]).matches("<polyline").count(), 1);
    }

    #[test]
    fn odd_values_do_not_get_into_the_picture() {
        for curve in [
            vec![],
            vec![epoch(1, f64::NAN, None)],
            vec![epoch(1, f64::INFINITY, Some(0.0))],
            vec![epoch(7, 0.0, None)],
        ] {
            let text = svg(&curve);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
