//! The gradient of a convolution's weight, as a matrix product over the windows where they lie.
//!
//! For each tap the product of the shifted input and the output's gradient: `[inputs, pixels] * [pixels, outputs]`, tiles of
//! which stay in registers while the pixels go by. No window matrix is made.

use rayon::prelude::*;

use super::cpu_window::{self, Task};
use crate::gemm::Isa;
use crate::{Par, Result, error::shape_error};

/// A convolution with stride 1 and as many output as input pixels ("same" padding) over one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height of the image.
    pub height: usize,
    /// Width of the image.
    pub width: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Side of the kernel, odd.
    pub kernel: usize,
}

/// The gradient's columns are worked on in multiples of this.
const LANES: usize = 16;
/// Input channels of one task.
const BAND: usize = 48;

/// Adds to `sum` `[kernel * kernel, inputs, outputs]` the gradient of the weight, from the input `x` `[height, width, inputs]`
/// and the output's gradient `g` `[height, width, outputs]`. The same bits for any number of threads.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit or the kernel is even.
pub fn gradient(window: Window, x: &[f32], g: &[f32], sum: &mut [f32], par: Par) -> Result<()> {
    let Window { height, width, inputs, outputs, kernel } = window;
    let pixels = height.saturating_mul(width);
    let taps = kernel.saturating_mul(kernel);
    let fits = x.len() == pixels.saturating_mul(inputs)
        && g.len() == pixels.saturating_mul(outputs)
        && sum.len() == taps.saturating_mul(inputs).saturating_mul(outputs);
    if !fits || kernel.is_multiple_of(2) || inputs == 0 || outputs == 0 {
        return Err(shape_error("window gradient", format!("{window:?}, odd kernel"), (x.len(), g.len(), sum.len())));
    }
    if pixels == 0 {
        return Ok(());
    }
    if outputs.is_multiple_of(LANES) {
        run(Isa::best(), window, x, g, sum, par);
        return Ok(());
    }
    // Rows filled up to whole vectors.
    let wide = outputs.next_multiple_of(LANES);
    let widened = |from: &[f32]| {
        let mut to = vec![0.0; from.len() / outputs * wide];
        to.chunks_exact_mut(wide).zip(from.chunks_exact(outputs)).for_each(|(t, f)| t[..outputs].copy_from_slice(f));
        to
    };
    let mut wide_sum = widened(sum);
    run(Isa::best(), Window { outputs: wide, ..window }, x, &widened(g), &mut wide_sum, par);
    sum.chunks_exact_mut(outputs).zip(wide_sum.chunks_exact(wide)).for_each(|(s, w)| s.copy_from_slice(&w[..outputs]));
    Ok(())
}

fn run(isa: Isa, window: Window, x: &[f32], g: &[f32], sum: &mut [f32], par: Par) {
    let bands = window.inputs.div_ceil(BAND);
    // One slice of the sum for each tap and band of input channels.
    let mut tasks = Vec::with_capacity(window.kernel * window.kernel * bands);
    for (tap, sum) in sum.chunks_exact_mut(window.inputs * window.outputs).enumerate() {
        for (band, sum) in sum.chunks_mut(BAND * window.outputs).enumerate() {
            tasks.push(Task { window, tap: (tap / window.kernel, tap % window.kernel), first: band * BAND, sum });
        }
    }
    match par {
        Par::Rayon => tasks.into_par_iter().for_each(|task| cpu_window::run(isa, task, x, g)),
        Par::Serial => tasks.into_iter().for_each(|task| cpu_window::run(isa, task, x, g)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(i: usize) -> f32 {
        ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_f64(
            height in 1usize..9, width in 1usize..9, inputs in 1usize..60, outputs in 1usize..100, kernel in 0usize..3,
        ) {
            let window = Window { height, width, inputs, outputs, kernel: 2 * kernel + 1 };
            let pixels = height * width;
            let x: Vec<f32> = (0..pixels * inputs).map(value).collect();
            let g: Vec<f32> = (0..pixels * outputs).map(|i| value(i + 77)).collect();
            let start: Vec<f32> = (0..window.kernel.pow(2) * inputs * outputs).map(|i| value(i + 5)).collect();
            let mut sum = start.clone();
            gradient(window, &x, &g, &mut sum, Par::Rayon).unwrap();
            let at = |y: usize, by: usize, n: usize| (y + by).checked_sub(kernel).filter(|y| *y < n);
            for (t, sums) in sum.chunks_exact(inputs * outputs).enumerate() {
                let (ky, kx) = (t / window.kernel, t % window.kernel);
                for i in 0..inputs {
                    for o in 0..outputs {
                        let mut want = f64::from(start[t * inputs * outputs + i * outputs + o]);
                        for y in 0..height {
                            for c in 0..width {
                                if let Some((sy, sx)) = at(y, ky, height).zip(at(c, kx, width)) {
                                    want += f64::from(x[(sy * width + sx) * inputs + i])
                                        * f64::from(g[(y * width + c) * outputs + o]);
                                }
                            }
                        }
                        prop_assert!((f64::from(sums[i * outputs + o]) - want).abs() < 1e-4);
                    }
                }
            }
            let mut serial = start.clone();
            gradient(window, &x, &g, &mut serial, Par::Serial).unwrap();
            prop_assert_eq!(&serial, &sum);
            if outputs % LANES == 0 {
                for isa in Isa::available() {
                    let mut sum = start.clone();
                    run(isa, window, &x, &g, &mut sum, Par::Serial);
                    prop_assert_eq!(&sum, &serial, "{:?}", isa);
                }
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let window = Window { height: 2, width: 2, inputs: 1, outputs: 1, kernel: 3 };
        assert!(gradient(window, &[0.0; 3], &[0.0; 4], &mut [0.0; 9], Par::Serial).is_err());
        assert!(gradient(window, &[0.0; 4], &[0.0; 5], &mut [0.0; 9], Par::Serial).is_err());
        assert!(gradient(window, &[0.0; 4], &[0.0; 4], &mut [0.0; 8], Par::Serial).is_err());
        assert!(gradient(Window { kernel: 2, ..window }, &[0.0; 4], &[0.0; 4], &mut [0.0; 4], Par::Serial).is_err());
    }
}
