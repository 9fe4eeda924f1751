//! Which algorithm a dense convolution takes: the one with the least work, counted in multiply-adds for an output pixel.

use super::cpu_winograd::Winograd;
use super::spec::ConvSpec;

/// Lanes that outputs are computed in; unused ones cost the same. The choice does not depend on the processor.
const LANES: usize = 16;
/// What the transforms of Winograd's F(4x4, 3x3) cost for a pixel and channel, of the input and of the output: measured on
/// Zen 4, where this model gives the time of 4 to 256 channels within 17 percent.
const TRANSFORM: f64 = 26.0;

/// Whether Winograd's F(4x4, 3x3) in `f32` is faster than a plain product that does `rate` times as many multiply-adds at a
/// time (1.5 in bf16 where channels are so few that it matters). F(2x2, 3x3) never is the fastest.
pub(super) fn winograd_pays(spec: &ConvSpec, rate: f64) -> bool {
    let wide = |channels: usize| channels.next_multiple_of(LANES) as f64;
    let (inputs, outputs) = (spec.in_channels as f64, wide(spec.out_channels));
    let plain = 9.0 * inputs * outputs / rate;
    let points = 36.0 / 16.0 * inputs * outputs;
    Winograd::fits(spec) && points + TRANSFORM * (wide(spec.in_channels) + outputs) < plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As measured, on both sides of the border.
    #[test]
    fn the_faster_one_is_chosen() {
        let spec = |in_channels, out_channels, stride| {
            let (kernel, stride, padding) = ([3, 3], [stride; 2], [1; 4]);
            ConvSpec { in_channels, out_channels, kernel, stride, padding, groups: 1 }
        };
        for (inputs, outputs, single, half) in [
            (3, 16, false, false),
            (4, 4, false, false),
            (12, 12, true, false),
            (16, 16, true, true),
            (8, 64, true, false),
            (64, 8, true, true),
            (64, 64, true, true),
        ] {
            assert_eq!(winograd_pays(&spec(inputs, outputs, 1), 1.0), single, "{inputs} to {outputs}");
            assert_eq!(winograd_pays(&spec(inputs, outputs, 1), 1.5), half, "{inputs} to {outputs} in bf16");
        }
        assert!(!winograd_pays(&spec(64, 64, 2), 1.0));
    }
}
