#![allow(unsafe_code)]
//! The inner loops, on sixteen lanes: one body, compiled for AVX-512, for AVX2 with FMA, and portably.
//!
//! Rows `a..b` of a packed triangle lie in panels of up to 16 rows. A panel of `h` rows from `r0` stores column after
//! column: `h` floats for each of the columns `0..r0`, then `h, h - 1, .. 1` for those of its diagonal block. A vector
//! read may run over a column's end; the lanes beyond are not used.

#[cfg(target_arch = "x86_64")]
use super::cpu_vector::{Avx2, Avx512};
use super::cpu_vector::{LANES, Lanes, Vector};

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Calls a body with the best vectors of this processor: `body::<vector, types, constants>(arguments)`, where the constants
/// are given for AVX-512, AVX2 and portable code.
macro_rules! dispatch {
    ($body:ident $(<$t:ident: $bound:path>)?, [$($wide:literal),*], [$($narrow:literal),*], ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f")]
            unsafe fn on_avx512 $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the enclosing function enables AVX-512F; lengths are its caller's contract.
                unsafe { $body::<Avx512, $($t,)? $($wide),*>($($arg),*) }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn on_avx2 $(<$t: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the enclosing function enables AVX2 and FMA; lengths are its caller's contract.
                unsafe { $body::<Avx2, $($t,)? $($narrow),*>($($arg),*) }
            }
            if avx512() {
                // SAFETY: the processor has AVX-512F; lengths were checked.
                return unsafe { on_avx512($($arg),*) };
            }
            if avx2() {
                // SAFETY: the processor has AVX2 and FMA; lengths were checked.
                return unsafe { on_avx2($($arg),*) };
            }
        }
        // SAFETY: plain Rust; lengths were checked.
        unsafe { $body::<Lanes, $($t,)? $($narrow),*>($($arg),*) }
    }};
}

/// Adds to `sums[i]` the squared norm of `W[a..b, 0..b] x_i` for `n = sums.len()` embeddings, `x_i` at `i * stride`.
///
/// `w` starts at the rows and has at least 16 floats behind them.
pub(super) fn squares(w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32]) {
    check_squares(w, a, b, x, stride, sums);
    dispatch!(squares_body, [4, 4], [2, 2], (w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32]))
}

fn check_squares(w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &[f32]) {
    assert!(a <= b && b <= stride && w.len() >= floats(a, b) + LANES && x.len() >= sums.len() * stride);
}

/// Adds `sum_i x_i[r] x_i[c]` of `n` embeddings to the packed rows `a..b`; summed in `f32` first, so `n` is small.
///
/// At least 16 floats of each embedding's `stride` lie behind `b`.
pub(super) fn products<A: Accumulate>(x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &mut [A]) {
    check_products(x, stride, n, a, b, into);
    dispatch!(products_body<A: Accumulate>, [8], [4], (x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &mut [A]))
}

fn check_products<A>(x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &[A]) {
    assert!(a <= b && b + LANES <= stride && x.len() >= n * stride && into.len() == floats(a, b));
}

/// `sum_i scale[i] c_i² + ‖rest‖² / epsilon`, where `c_i` is the part of `x` `[d]` along row `i` of `basis` `[k, d]` and
/// `rest`, which replaces `x`, what remains. `x` is filled up with zeros to a multiple of 16.
pub(super) fn low_rank(basis: &[f32], scale: &[f32], d: usize, x: &mut [f32], epsilon: f32) -> f32 {
    check_low_rank(basis, scale, d, x);
    dispatch!(low_rank_body, [], [], (basis: &[f32], scale: &[f32], d: usize, x: &mut [f32], epsilon: f32) -> f32)
}

fn check_low_rank(basis: &[f32], scale: &[f32], d: usize, x: &[f32]) {
    assert!(basis.len() == scale.len() * d && x.len() >= d.next_multiple_of(LANES));
}

/// Floats of the packed rows `a..b`.
fn floats(a: usize, b: usize) -> usize {
    b * (b + 1) / 2 - a * (a + 1) / 2
}

/// What products are summed in.
pub(super) trait Accumulate: Copy + Send + Sync {
    /// Adds a partial sum.
    fn add(&mut self, v: f32);
    /// The value.
    fn get(self) -> f64;
}

impl Accumulate for f32 {
    #[inline(always)]
    fn add(&mut self, v: f32) {
        *self += v;
    }
    fn get(self) -> f64 {
        f64::from(self)
    }
}

impl Accumulate for f64 {
    #[inline(always)]
    fn add(&mut self, v: f32) {
        *self += f64::from(v);
    }
    fn get(self) -> f64 {
        self
    }
}

/// Start of column `c` of the diagonal block of a panel of `h` rows, counted from the block's start.
#[inline(always)]
fn diagonal(h: usize, c: usize) -> usize {
    c * h - c * c.saturating_sub(1) / 2
}

/// `N` embeddings at a time; `S` sums for each, so that an addition need not wait for the one before.
#[inline(always)]
unsafe fn squares_body<V: Vector, const N: usize, const S: usize>(
    w: &[f32],
    a: usize,
    b: usize,
    x: &[f32],
    stride: usize,
    sums: &mut [f32],
) {
    let whole = sums.len() / N * N;
    for i in (0..whole).step_by(N) {
        // SAFETY: as for this function; `x` holds `sums.len()` embeddings.
        let squares = unsafe { squares_block::<V, N, S>(w, a, b, x.as_ptr().add(i * stride), stride) };
        sums[i..i + N].iter_mut().zip(squares).for_each(|(sum, s)| *sum += s);
    }
    for i in whole..sums.len() {
        // SAFETY: as above.
        let [square] = unsafe { squares_block::<V, 1, S>(w, a, b, x.as_ptr().add(i * stride), stride) };
        sums[i] += square;
    }
}

#[inline(always)]
unsafe fn squares_block<V: Vector, const N: usize, const S: usize>(
    w: &[f32],
    a: usize,
    b: usize,
    x: *const f32,
    stride: usize,
) -> [f32; N] {
    // SAFETY: a panel's columns end at most where the rows do, and 16 floats follow those; a diagonal column's unread lanes
    // before its start are masked off. `x` is read below `b <= stride` of `N` embeddings.
    unsafe {
        let mut squares = [V::splat(0.0); N];
        let (mut r0, mut at) = (a, w.as_ptr());
        while r0 < b {
            let h = (b - r0).min(LANES);
            let mut sums = [[V::splat(0.0); N]; S];
            let mut column = 0;
            while column + S <= r0 {
                for s in 0..S {
                    let v = V::load(at.add((column + s) * h));
                    for i in 0..N {
                        sums[s][i] = sums[s][i].add_product(v, V::splat(*x.add(i * stride + column + s)));
                    }
                }
                column += S;
            }
            for s in 0..S {
                if column + s < r0 {
                    let v = V::load(at.add((column + s) * h));
                    for i in 0..N {
                        sums[s][i] = sums[s][i].add_product(v, V::splat(*x.add(i * stride + column + s)));
                    }
                }
            }
            at = at.add(r0 * h);
            let mut c = 0;
            while c < h {
                for s in 0..S {
                    if c + s < h {
                        let v = V::load_lanes(at.add(diagonal(h, c + s)).wrapping_sub(c + s), c + s, h);
                        for i in 0..N {
                            sums[s][i] = sums[s][i].add_product(v, V::splat(*x.add(i * stride + r0 + c + s)));
                        }
                    }
                }
                c += S;
            }
            at = at.add(h * (h + 1) / 2);
            for i in 0..N {
                let mut z = sums[0][i];
                for s in 1..S {
                    z = z.add(sums[s][i]);
                }
                if h < LANES {
                    let mut lanes = [0.0f32; LANES];
                    z.store(lanes.as_mut_ptr());
                    z = V::load_lanes(lanes.as_ptr(), 0, h);
                }
                squares[i] = squares[i].add_product(z, z);
            }
            r0 += h;
        }
        let mut out = [0.0; N];
        for i in 0..N {
            out[i] = squares[i].total();
        }
        out
    }
}

/// `C` columns of a panel at a time.
#[inline(always)]
unsafe fn products_body<V: Vector, A: Accumulate, const C: usize>(
    x: &[f32],
    stride: usize,
    n: usize,
    a: usize,
    b: usize,
    into: &mut [A],
) {
    let (mut r0, mut at) = (a, 0);
    while r0 < b {
        let h = (b - r0).min(LANES);
        let corner = at + r0 * h;
        let mut first = 0;
        while first < r0 + h {
            let mut lanes = [[0.0f32; LANES]; C];
            // SAFETY: rows and columns read end at most 16 floats behind `b`, within the stride of each of `n` embeddings.
            unsafe {
                let mut sums = [V::splat(0.0); C];
                for i in 0..n {
                    let x = x.as_ptr().add(i * stride);
                    let rows = V::load(x.add(r0));
                    for c in 0..C {
                        sums[c] = sums[c].add_product(rows, V::splat(*x.add(first + c)));
                    }
                }
                for c in 0..C {
                    sums[c].store(lanes[c].as_mut_ptr());
                }
            }
            for (column, sum) in (first..r0 + h).zip(&lanes) {
                if column < r0 && h == LANES {
                    let into = &mut into[at + column * LANES..][..LANES];
                    for l in 0..LANES {
                        into[l].add(sum[l]);
                    }
                } else {
                    let skip = column.saturating_sub(r0);
                    let start = if column < r0 { at + column * h } else { corner + diagonal(h, skip) };
                    for (value, &v) in into[start..start + h - skip].iter_mut().zip(&sum[skip..h]) {
                        value.add(v);
                    }
                }
            }
            first += C;
        }
        at = corner + h * (h + 1) / 2;
        r0 += h;
    }
}

#[inline(always)]
unsafe fn low_rank_body<V: Vector>(basis: &[f32], scale: &[f32], d: usize, x: &mut [f32], epsilon: f32) -> f32 {
    let x = x.as_mut_ptr();
    let whole = d / LANES * LANES;
    let mut sum = 0.0;
    for (i, &scale) in scale.iter().enumerate() {
        // SAFETY: row `i` of the basis has `d` floats, of which the last few are read by lanes; `x` is filled up to whole
        // vectors, with zeros, which stay as they are.
        unsafe {
            let row = basis.as_ptr().add(i * d);
            let part = |k: usize| if k < whole { V::load(row.add(k)) } else { V::load_lanes(row.add(k), 0, d - k) };
            let mut sums = [V::splat(0.0); 2];
            for (s, k) in (0..d).step_by(LANES).enumerate() {
                sums[s % 2] = sums[s % 2].add_product(part(k), V::load(x.add(k)));
            }
            let c = sums[0].add(sums[1]).total();
            sum += c * c * scale;
            for k in (0..d).step_by(LANES) {
                V::load(x.add(k)).add_product(part(k), V::splat(-c)).store(x.add(k));
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        let mut rest = V::splat(0.0);
        for k in (0..d).step_by(LANES) {
            let x = V::load(x.add(k));
            rest = rest.add_product(x, x);
        }
        sum + rest.total() / epsilon
    }
}

/// The bodies one by one, for tests: `[portable, AVX2, AVX-512]`, as far as the processor goes.
#[cfg(test)]
pub(super) mod each {
    use super::*;

    macro_rules! each {
        ($name:ident, $check:ident($($check_arg:ident),*), $body:ident, [$($t:ty)?], [$($wide:literal),*], [$($narrow:literal),*], ($($arg:ident: $ty:ty),*) -> $ret:ty) => {
            pub(crate) fn $name(which: usize, $($arg: $ty),*) -> Option<$ret> {
                $check($($check_arg),*);
                if which == 0 {
                    // SAFETY: plain Rust; lengths were checked.
                    return Some(unsafe { $body::<Lanes, $($t,)? $($narrow),*>($($arg),*) });
                }
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx512f")]
                    unsafe fn wide($($arg: $ty),*) -> $ret {
                        // SAFETY: the enclosing function enables AVX-512F.
                        unsafe { $body::<Avx512, $($t,)? $($wide),*>($($arg),*) }
                    }
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn narrow($($arg: $ty),*) -> $ret {
                        // SAFETY: the enclosing function enables AVX2 and FMA.
                        unsafe { $body::<Avx2, $($t,)? $($narrow),*>($($arg),*) }
                    }
                    if which == 1 && avx2() {
                        // SAFETY: the processor has AVX2 and FMA; lengths were checked.
                        return Some(unsafe { narrow($($arg),*) });
                    }
                    if which == 2 && avx512() {
                        // SAFETY: the processor has AVX-512F; lengths were checked.
                        return Some(unsafe { wide($($arg),*) });
                    }
                }
                None
            }
        };
    }
    each!(squares, check_squares(w, a, b, x, stride, sums), squares_body, [], [4, 4], [2, 2],
        (w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32]) -> ());
    each!(products, check_products(x, stride, n, a, b, into), products_body, [f64], [8], [4],
        (x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &mut [f64]) -> ());
    each!(low_rank, check_low_rank(basis, scale, d, x), low_rank_body, [], [], [],
        (basis: &[f32], scale: &[f32], d: usize, x: &mut [f32], epsilon: f32) -> f32);
}
