//! Vectorised loops with their own hyperbolic tangent and exponential.
#![allow(unsafe_code)]

use super::{DAMPING, Layout};
use crate::gemm::{Isa, Kernel, Vector, dispatch, exp};

/// The lengths were checked by the caller.
pub(super) fn forward(isa: Isa, layout: Layout, clamp: f32, a: &[f32], x: &mut [f32], s: &mut [f32], sums: &mut [f32]) {
    // SAFETY: `isa` is available; the lengths fit `layout`.
    unsafe { dispatch(isa, Forward { layout, clamp, a, x, s, sums }) }
}

/// As [`forward`].
pub(super) fn inverse(isa: Isa, layout: Layout, clamp: f32, a: &[f32], y: &mut [f32]) {
    // SAFETY: as above.
    unsafe { dispatch(isa, Inverse { layout, clamp, a, y }) }
}

/// As [`forward`].
pub(super) fn backward(
    isa: Isa,
    layout: Layout,
    clamp: f32,
    x: &[f32],
    s: &[f32],
    log_det: &[f32],
    g: &mut [f32],
    a: &mut [f32],
) {
    // SAFETY: as above.
    unsafe { dispatch(isa, Backward { layout, clamp, x, s, log_det, g, a }) }
}

struct Forward<'a> {
    layout: Layout,
    clamp: f32,
    a: &'a [f32],
    x: &'a mut [f32],
    s: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Layout { rows, width, stride, gap } = self.layout;
        for r in 0..rows {
            let mut i = 0;
            while i < width {
                let n = V::LANES.min(width - i);
                let (at, to) = (r * stride + i, r * width + i);
                // SAFETY: `n` values at each place are inside the slices, whose lengths fit the layout.
                unsafe {
                    let a = read::<V>(self.a.as_ptr().add(at), n);
                    let shift = read::<V>(self.a.as_ptr().add(at + gap), n);
                    let s = V::splat(self.clamp).mul(tanh(a.mul(V::splat(DAMPING))));
                    let x = read::<V>(self.x.as_ptr().add(to), n);
                    let y = x.mul_add(exp(s), shift.mul(V::splat(DAMPING)));
                    let sums = self.sums.as_mut_ptr().add(i);
                    write(read::<V>(sums, n).add(s), sums, n);
                    write(s, self.s.as_mut_ptr().add(to), n);
                    write(y, self.x.as_mut_ptr().add(to), n);
                }
                i += n;
            }
        }
    }
}

struct Inverse<'a> {
    layout: Layout,
    clamp: f32,
    a: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Inverse<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Layout { rows, width, stride, gap } = self.layout;
        for r in 0..rows {
            let mut i = 0;
            while i < width {
                let n = V::LANES.min(width - i);
                let (at, to) = (r * stride + i, r * width + i);
                // SAFETY: as in `Forward`.
                unsafe {
                    let a = read::<V>(self.a.as_ptr().add(at), n);
                    let shift = read::<V>(self.a.as_ptr().add(at + gap), n);
                    let s = V::splat(-self.clamp).mul(tanh(a.mul(V::splat(DAMPING))));
                    let y = read::<V>(self.y.as_ptr().add(to), n);
                    write(y.sub(shift.mul(V::splat(DAMPING))).mul(exp(s)), self.y.as_mut_ptr().add(to), n);
                }
                i += n;
            }
        }
    }
}

struct Backward<'a> {
    layout: Layout,
    clamp: f32,
    x: &'a [f32],
    s: &'a [f32],
    log_det: &'a [f32],
    g: &'a mut [f32],
    a: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Layout { rows, width, stride, gap } = self.layout;
        let slope = self.clamp * DAMPING;
        // clamp * (1 - (s / clamp)^2) * damping = slope - s^2 * curve
        let curve = DAMPING / self.clamp;
        for r in 0..rows {
            let mut i = 0;
            while i < width {
                let n = V::LANES.min(width - i);
                let (at, to) = (r * stride + i, r * width + i);
                // SAFETY: as in `Forward`.
                unsafe {
                    let (x, s) = (read::<V>(self.x.as_ptr().add(to), n), read::<V>(self.s.as_ptr().add(to), n));
                    let g = read::<V>(self.g.as_ptr().add(to), n);
                    let log_det = read::<V>(self.log_det.as_ptr().add(i), n);
                    let dx = g.mul(exp(s));
                    let ds = dx.mul_add(x, log_det);
                    let inner = V::splat(-curve).mul(s).mul_add(s, V::splat(slope));
                    write(ds.mul(inner), self.a.as_mut_ptr().add(at), n);
                    write(g.mul(V::splat(DAMPING)), self.a.as_mut_ptr().add(at + gap), n);
                    write(dx, self.g.as_mut_ptr().add(to), n);
                }
                i += n;
            }
        }
    }
}

/// The lengths and the order were checked by the caller.
pub(super) fn mix(
    isa: Isa,
    order: &[u32],
    scale: &[f32],
    offset: &[f32],
    from: (&[f32], &[f32]),
    to: (&mut [f32], &mut [f32]),
) {
    // SAFETY: `isa` is available; the kernel indexes with checks.
    unsafe { dispatch(isa, Mix { order, scale, offset, from, to }) }
}

struct Mix<'a> {
    order: &'a [u32],
    scale: &'a [f32],
    offset: &'a [f32],
    from: (&'a [f32], &'a [f32]),
    to: (&'a mut [f32], &'a mut [f32]),
}

impl Kernel for Mix<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let c = self.order.len();
        let (c1, c2) = (c - c / 2, c / 2);
        let (mut row, mut mixed) = (vec![0.0f32; c], vec![0.0f32; c]);
        let pixels = self.from.0.chunks_exact(c1).zip(self.from.1.chunks_exact(c2));
        let outputs = self.to.0.chunks_exact_mut(c1).zip(self.to.1.chunks_exact_mut(c2));
        for ((x1, x2), (y1, y2)) in pixels.zip(outputs) {
            row[..c1].copy_from_slice(x1);
            row[c1..].copy_from_slice(x2);
            for (m, i) in mixed.iter_mut().zip(self.order) {
                *m = row[*i as usize];
            }
            for (((y, m), s), o) in y1.iter_mut().zip(&mixed).zip(self.scale).zip(self.offset) {
                *y = m * s + o;
            }
            let rest = mixed[c1..].iter().zip(&self.scale[c1..]).zip(&self.offset[c1..]);
            for (y, ((m, s), o)) in y2.iter_mut().zip(rest) {
                *y = m * s + o;
            }
        }
    }
}

/// The lengths were checked by the caller.
pub(super) fn channel_sums(isa: Isa, a: &[f32], b: &[f32], sums: &mut [f64], products: &mut [f64]) {
    // SAFETY: `isa` is available; the kernel indexes with checks.
    unsafe { dispatch(isa, Sums { a, b, sums, products }) }
}

struct Sums<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sums: &'a mut [f64],
    products: &'a mut [f64],
}

impl Kernel for Sums<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let c = self.sums.len();
        let (mut sum, mut product) = (vec![0.0f32; c], vec![0.0f32; c]);
        for (a, b) in self.a.chunks(64 * c).zip(self.b.chunks(64 * c)) {
            sum.fill(0.0);
            product.fill(0.0);
            for (a, b) in a.chunks_exact(c).zip(b.chunks_exact(c)) {
                for i in 0..c {
                    sum[i] += a[i];
                    product[i] += a[i] * b[i];
                }
            }
            for i in 0..c {
                self.sums[i] += f64::from(sum[i]);
                self.products[i] += f64::from(product[i]);
            }
        }
    }
}

/// `n` values; the other lanes are zero.
#[inline(always)]
unsafe fn read<V: Vector>(p: *const f32, n: usize) -> V {
    // SAFETY: the caller guarantees `n` readable values.
    unsafe { if n == V::LANES { V::load(p) } else { V::load_part(p, n) } }
}

/// The first `n` lanes.
#[inline(always)]
unsafe fn write<V: Vector>(v: V, p: *mut f32, n: usize) {
    // SAFETY: the caller guarantees `n` writable values.
    unsafe { if n == V::LANES { v.store(p) } else { v.store_part(p, n) } }
}

/// The hyperbolic tangent to 3e-7 of its value: a quotient of polynomials in `x^2`, cut off where the result is 1 in f32.
/// A NaN stays one.
#[inline(always)]
unsafe fn tanh<V: Vector>(x: V) -> V {
    #[allow(clippy::excessive_precision)] // as published, to the last digit
    const ODD: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_671_5e-11,
        5.122_297_2e-8,
        1.485_722_4e-5,
        6.372_619_3e-4,
        4.893_525_5e-3,
    ];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_7e-3, 4.893_525e-3];
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        // `min` and `max` give their second argument where either is NaN.
        let x = V::splat(7.905_311).min(V::splat(-7.905_311).max(x));
        let square = x.mul(x);
        let (mut p, mut q) = (V::splat(ODD[0]), V::splat(EVEN[0]));
        for c in &ODD[1..] {
            p = p.mul_add(square, V::splat(*c));
        }
        for c in &EVEN[1..] {
            q = q.mul_add(square, V::splat(*c));
        }
        x.mul(p).div(q)
    }
}
