//! Plain loops, compiled for each instruction set: no operation is fused, so all give the same bits.
#![allow(unsafe_code)]

use super::AdamStep;
use crate::gemm::{Isa, Kernel, Vector, dispatch};

/// The lengths are equal; the caller checked.
pub(super) fn adam(isa: Isa, step: &AdamStep, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    // SAFETY: `isa` is available; the kernel has no further contract.
    unsafe { dispatch(isa, Job { step, p, m, v, g }) }
}

struct Job<'a> {
    step: &'a AdamStep,
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        step_slice(self.step, self.p, self.m, self.v, self.g);
    }
}

/// The step on slices of equal length; inlined into functions that have the instructions.
#[inline(always)]
pub(crate) fn step_slice(step: &AdamStep, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let [b1, b2] = step.betas;
    let (a1, a2) = (1.0 - b1, 1.0 - b2);
    // m / (sqrt(v) / root + eps), with one division.
    let (size, eps) = (step.size * step.root, step.eps * step.root);
    let n = p.len().min(m.len()).min(v.len()).min(g.len());
    let (p, m, v, g) = (&mut p[..n], &mut m[..n], &mut v[..n], &g[..n]);
    for i in 0..n {
        let value = p[i] * step.shrink;
        let gradient = g[i] + step.l2 * p[i];
        let first = m[i] + a1 * (gradient - m[i]);
        let second = b2 * v[i] + a2 * gradient * gradient;
        m[i] = first;
        v[i] = second;
        p[i] = value - size * (first / (second.sqrt() + eps));
    }
}
