use super::Isa;
use super::cpu_element::Product;

/// A right operand `[depth, columns]` of any product, as panels of 32-bit words.
#[derive(Clone, Debug)]
pub(crate) struct Panels<P: Product> {
    pub(crate) isa: Isa,
    /// In numbers, a multiple of those in a word.
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// `[columns / width, depth / group, width]` words, the last panel filled up with zeros.
    pub(crate) panels: Vec<f32>,
    kind: std::marker::PhantomData<P>,
}

impl<P: Product> Panels<P> {
    /// Packs `value(k, n)`; `depth` is filled up with zeros to whole words.
    pub(crate) fn new(isa: Isa, depth: usize, columns: usize, value: impl Fn(usize, usize) -> P::Left) -> Panels<P> {
        let (width, words) = (isa.panel(), depth.div_ceil(P::GROUP));
        let mut panels = vec![0.0f32; columns.div_ceil(width) * words * width];
        for (p, panel) in panels.chunks_exact_mut((words * width).max(1)).enumerate() {
            for (word, row) in panel.chunks_exact_mut(width).enumerate() {
                let group = word * P::GROUP..depth.min((word + 1) * P::GROUP);
                let numbers: &mut [P::Left] = bytemuck::cast_slice_mut(row);
                let filled = columns - (p * width).min(columns);
                for (j, out) in numbers.chunks_exact_mut(P::GROUP).enumerate().take(filled) {
                    group.clone().zip(out).for_each(|(k, out)| *out = value(k, p * width + j));
                }
            }
        }
        let kind = std::marker::PhantomData;
        Panels { isa, depth: words * P::GROUP, columns, panels, kind }
    }
}
