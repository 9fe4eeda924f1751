use blemish_kernels::Par;
use blemish_kernels::adam::AdamStep;
use blemish_kernels::gemm::Isa;
use blemish_kernels::product::pairs;
use blemish_kernels::product::panel::{self, Moments, PANEL, Weight};

use super::OfKernel;
use crate::Result;

/// What the products of linear layers are computed in while they are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Single precision.
    #[default]
    F32,
    /// Weights, activations and gradients rounded to bf16 as they enter a product, sums in `f32`. Weights, moments, biases,
    /// couplings, log-determinants and the loss stay in `f32`. Where the processor lacks AVX-512 BF16, `f32` takes its place.
    Bf16,
}

impl Products {
    /// What this processor can do.
    pub(super) fn possible(self) -> Products {
        if Isa::bf16().is_some() { self } else { Products::F32 }
    }

    /// As [`panel::forward`]; `words` is working memory.
    pub(super) fn forward(
        self,
        weight: Weight<'_>,
        bias: &[f32],
        relu: bool,
        (x, x_rows): (&[f32], usize),
        (out, out_rows): (&mut [f32], usize),
        words: &mut Vec<u32>,
    ) -> Result<()> {
        if self == Products::F32 {
            return panel::forward(weight, Some(bias), relu, x, x_rows, out, out_rows, Par::Rayon).kernel();
        }
        rounded(x, x_rows, weight.inputs(), words)?;
        pairs::forward(weight, Some(bias), relu, words, out, out_rows, Par::Rayon).kernel()
    }

    /// As [`panel::backward`]; `words` is working memory.
    pub(super) fn backward(
        self,
        weight: Weight<'_>,
        columns: usize,
        (g, g_rows): (&[f32], usize),
        (out, out_rows): (&mut [f32], usize),
        add: bool,
        words: &mut Vec<u32>,
    ) -> Result<()> {
        if self == Products::F32 {
            return panel::backward(weight, columns, g, g_rows, out, out_rows, add, Par::Rayon).kernel();
        }
        rounded(g, g_rows, weight.outputs(), words)?;
        pairs::backward(weight, columns, words, out, out_rows, add, Par::Rayon).kernel()
    }
}

/// The first `used` rows of panels as pairs of channels.
fn rounded(x: &[f32], rows: usize, used: usize, words: &mut Vec<u32>) -> Result<()> {
    let panels = x.len() / (rows * PANEL).max(1);
    words.resize(panels * used.div_ceil(2) * PANEL, 0);
    pairs::channels(x, rows, used, words, Par::Rayon).kernel()
}

/// Panels the other way round, as the gradient of a weight reads them.
#[derive(Default)]
pub(super) struct Turned {
    products: Products,
    floats: Vec<f32>,
    words: Vec<u32>,
}

impl Turned {
    pub(super) fn new(products: Products) -> Turned {
        Turned { products, ..Turned::default() }
    }

    /// Takes the first `used` of `rows` rows as the first of `width` columns; others stay.
    pub(super) fn take(&mut self, x: &[f32], rows: usize, used: usize, width: usize) -> Result<()> {
        let len = width.div_ceil(PANEL) * (x.len() / rows.max(1)) * PANEL;
        match self.products {
            Products::F32 => {
                self.floats.resize(len, 0.0);
                panel::transpose(x, rows, used, 0, width, &mut self.floats).kernel()
            }
            Products::Bf16 => {
                self.words.resize(len / 2, 0);
                pairs::transpose(x, rows, used, 0, width, &mut self.words).kernel()
            }
        }
    }

    /// As [`panel::update`].
    pub(super) fn update(
        &self,
        weight: &mut [f32],
        dim: (usize, usize),
        moments: Moments<'_>,
        step: &AdamStep,
        g: &[f32],
    ) -> Result<()> {
        match self.products {
            Products::F32 => panel::update(weight, dim, moments, step, g, dim.0, &self.floats, Par::Rayon),
            Products::Bf16 => pairs::update(weight, dim, moments, step, g, dim.0, &self.words, Par::Rayon),
        }
        .kernel()
    }

    /// As [`panel::gradient`].
    pub(super) fn gradient(&self, gradient: &mut [f32], dim: (usize, usize), g: &[f32]) -> Result<()> {
        match self.products {
            Products::F32 => panel::gradient(gradient, dim, g, dim.0, &self.floats, Par::Rayon),
            Products::Bf16 => pairs::gradient(gradient, dim, g, dim.0, &self.words, Par::Rayon),
        }
        .kernel()
    }
}
