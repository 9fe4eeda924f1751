/// Which input samples make each output sample of a line, and with what weights.
///
/// Triangle filter as in torchvision's antialiased bilinear: half-width `max(in / out, 1)` input samples about the
/// output sample's centre, cut at the borders and renormalised there. When enlarging this is plain bilinear.
#[derive(Debug)]
pub(super) struct Taps {
    /// First input sample of each output sample.
    pub(super) start: Vec<usize>,
    /// Samples that count, for each output sample.
    pub(super) count: Vec<usize>,
    /// `[output, width]`, zero beyond `count`.
    pub(super) weight: Vec<f32>,
    /// Taps stored for each output sample, a multiple of four.
    pub(super) width: usize,
}

impl Taps {
    pub(super) fn new(input: usize, output: usize) -> Taps {
        let scale = input as f64 / output as f64;
        let half = scale.max(1.0);
        let mut start = Vec::with_capacity(output);
        let mut lines = Vec::with_capacity(output);
        for i in 0..output {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - half + 0.5).max(0.0) as usize;
            let last = ((centre + half + 0.5) as usize).clamp(first + 1, input.max(first + 1));
            let mut line: Vec<f64> =
                (first..last).map(|j| (1.0 - ((j as f64 - centre + 0.5) / half).abs()).max(0.0)).collect();
            let lead = line.iter().take_while(|w| **w == 0.0).count();
            line.drain(..lead);
            while line.last() == Some(&0.0) {
                line.pop();
            }
            let sum: f64 = line.iter().sum();
            start.push(first + lead);
            lines.push(line.iter().map(|w| (w / sum) as f32).collect::<Vec<f32>>());
        }
        let width = lines.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(4);
        let mut weight = Vec::with_capacity(output * width);
        for line in &lines {
            weight.extend_from_slice(line);
            weight.resize(weight.len() + width - line.len(), 0.0);
        }
        Taps { start, count: lines.iter().map(Vec::len).collect(), weight, width }
    }

    /// The weights with each repeated `channels` times, `[output, width * channels]`.
    pub(super) fn interleaved(&self, channels: usize) -> Vec<f32> {
        self.weight.iter().flat_map(|w| std::iter::repeat_n(*w, channels)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        for (input, output) in [(1, 1), (1, 7), (7, 1), (1024, 256), (97, 61), (61, 97), (5, 4), (2, 300), (300, 2)] {
            let taps = Taps::new(input, output);
            for i in 0..output {
                let line = &taps.weight[i * taps.width..(i + 1) * taps.width];
                assert!((line.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{input} to {output}, sample {i}");
                assert!(line.iter().all(|w| *w >= 0.0) && taps.count[i] > 0);
                assert!(taps.start[i] + taps.count[i] <= input);
            }
        }
    }

    #[test]
    fn same_size_is_the_identity() {
        let taps = Taps::new(9, 9);
        assert_eq!(taps.start, (0..9).collect::<Vec<_>>());
        assert!(taps.count.iter().all(|n| *n == 1) && (0..9).all(|i| taps.weight[i * taps.width] == 1.0));
    }
}
