use crate::error::{KernelError, Result};

/// What is applied to each output of a convolution, after bias and residual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x · min(max(x + 3, 0), 6) / 6`.
    HardSwish,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
}

/// The shape of a convolution: everything but the weights and the size of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels of the input, a multiple of `groups`.
    pub in_channels: usize,
    /// Channels of the output, a multiple of `groups`.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps of the window, down and right.
    pub stride: [usize; 2],
    /// Zeros around the map: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Groups of channels that do not see each other; `in_channels` of them is a depthwise convolution.
    pub groups: usize,
}

/// Bound on every size in a [`ConvSpec`] and on both sides of a map, so that no product of them overflows.
const LIMIT: usize = 1 << 16;

impl ConvSpec {
    /// Height and width of the output for a map of `h` by `w`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where the padded map is smaller than the kernel.
    pub fn output_size(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        let side = |size: usize, axis: usize| {
            let padded = size + self.padding[axis] + self.padding[axis + 2];
            (size > 0 && size <= LIMIT && padded >= self.kernel[axis])
                .then(|| (padded - self.kernel[axis]) / self.stride[axis] + 1)
        };
        side(h.min(LIMIT + 1), 0).zip(side(w.min(LIMIT + 1), 1)).ok_or_else(|| KernelError::Shape {
            op: "conv",
            wanted: format!(
                "a map of at least {:?} with padding {:?}, at most {LIMIT} a side",
                self.kernel, self.padding
            ),
            got: format!("{h} x {w}"),
        })
    }

    /// Input channels that one output channel sees.
    pub fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Length of the weights, `[out_channels, in_channels / groups, kernel height, kernel width]`.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.group_inputs() * self.kernel[0] * self.kernel[1]
    }

    /// Multiply-accumulates for one output position, all channels.
    pub fn macs_per_position(&self) -> usize {
        self.weight_len()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let sizes = [self.in_channels, self.out_channels, self.groups, self.kernel[0], self.kernel[1]];
        let in_range = sizes.iter().chain(&self.stride).all(|&s| (1..=LIMIT).contains(&s));
        let divides = self.groups > 0
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups);
        // A window that lies wholly in the padding would be legal arithmetic but is always a mistake.
        let padding = (0..4).all(|side| self.padding[side] < self.kernel[side % 2].max(1));
        if in_range && divides && padding {
            return Ok(());
        }
        Err(KernelError::Parameter {
            op: "conv",
            what: format!("sizes in 1..={LIMIT}, groups dividing both channels, padding below the kernel: {self:?}"),
        })
    }
}
