#![allow(unsafe_code)]
//! The inner loops, on 16 lanes: one body, compiled for AVX-512, for AVX2 with FMA, and portably (where a multiply-add
//! rounds twice).
//!
//! Rows `a..b` of a packed triangle lie in panels of up to 16 rows. A panel of `h` rows from `r0` stores column after
//! column: `h` floats for each of the columns `0..r0`, then `h, h - 1, .. 1` for those of its diagonal block. A vector
//! read may run over a column's end; the lanes beyond are not used.

const LANES: usize = 16;
type Vector = [f32; LANES];

macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident $(<$t:ident: $bound:path>)? => $body:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$doc])*
        pub(super) fn $name$(<$t: $bound>)?($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
                fn avx512$(<$t: $bound>)?($($arg: $ty),*) $(-> $ret)? {
                    $body::<$($t,)? true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$t: $bound>)?($($arg: $ty),*) $(-> $ret)? {
                    $body::<$($t,)? true>($($arg),*)
                }
                match level() {
                    // SAFETY: the processor has the features, as `level` found out.
                    Simd::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Simd::Avx2 => return unsafe { avx2($($arg),*) },
                    Simd::Portable => {}
                }
            }
            $body::<$($t,)? false>($($arg),*)
        }
    };
}

#[cfg(target_arch = "x86_64")]
enum Simd {
    Avx512,
    Avx2,
    Portable,
}

#[cfg(target_arch = "x86_64")]
fn level() -> Simd {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw") && has!("fma") {
        Simd::Avx512
    } else if has!("avx2") && has!("fma") {
        Simd::Avx2
    } else {
        Simd::Portable
    }
}

dispatch! {
    /// Adds to `sums[i]` the squared norm of `W[a..b, 0..b] x_i` for `n = sums.len()` embeddings, `x_i` at `i * stride`.
    /// `w` starts at the group's rows and has at least 16 floats behind them.
    squares => squares_body(w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32])
}

dispatch! {
    /// Adds `sum_i x_i[r] x_i[c]` of `n` embeddings to the packed rows `a..b`; summed in `f32` first, so `n` is small.
    products<A: Accumulate> => products_body(x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &mut [A])
}

dispatch! {
    /// `sum_i scale[i] c_i² + ‖rest‖² / epsilon`, where `c_i` is the part of `x` along row `i` of `basis` `[k, d]` and
    /// `rest`, which replaces `x` `[d]`, what remains.
    low_rank => low_rank_body(basis: &[f32], scale: &[f32], x: &mut [f32], epsilon: f32) -> f32
}

/// What products are summed in.
pub(super) trait Accumulate: Copy + Send + Sync {
    fn add(&mut self, v: f32);
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

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn load(from: &[f32], at: usize) -> Vector {
    let mut v = [0.0; LANES];
    v.copy_from_slice(&from[at..at + LANES]);
    v
}

#[inline(always)]
fn total(v: &Vector) -> f32 {
    let mut v = *v;
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            v[l] += v[l + half];
        }
    }
    v[0]
}

/// Start of column `c` of the diagonal block of a panel of `h` rows, counted from the block's start.
#[inline(always)]
pub(super) fn diagonal(h: usize, c: usize) -> usize {
    c * h - c * c.saturating_sub(1) / 2
}

#[inline(always)]
fn squares_body<const FMA: bool>(w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32]) {
    let (blocks, tail) = sums.as_chunks_mut::<4>();
    for (i, sums) in blocks.iter_mut().enumerate() {
        squares_block::<4, FMA>(w, a, b, &x[4 * i * stride..], stride, sums);
    }
    let first = 4 * blocks.len();
    for (i, sum) in tail.iter_mut().enumerate() {
        squares_block::<1, FMA>(w, a, b, &x[(first + i) * stride..], stride, std::array::from_mut(sum));
    }
}

#[inline(always)]
fn squares_block<const N: usize, const FMA: bool>(
    w: &[f32],
    a: usize,
    b: usize,
    x: &[f32],
    stride: usize,
    sums: &mut [f32; N],
) {
    let x: [&[f32]; N] = std::array::from_fn(|i| &x[i * stride..][..b]);
    let mut squares = [[0.0f32; LANES]; N];
    let (mut r0, mut at) = (a, 0);
    while r0 < b {
        let h = (b - r0).min(LANES);
        // Two sums, for even and odd columns, so that an addition need not wait for the one before.
        let mut even = [[0.0f32; LANES]; N];
        let mut odd = [[0.0f32; LANES]; N];
        let step = |sums: &mut [Vector; N], v: &Vector, j: usize| {
            for i in 0..N {
                let xj = x[i][j];
                for l in 0..LANES {
                    sums[i][l] = multiply_add::<FMA>(v[l], xj, sums[i][l]);
                }
            }
        };
        let mut j = 0;
        while j + 1 < r0 {
            step(&mut even, &load(w, at + j * h), j);
            step(&mut odd, &load(w, at + (j + 1) * h), j + 1);
            j += 2;
        }
        if j < r0 {
            step(&mut even, &load(w, at + j * h), j);
        }
        at += r0 * h;
        for c in 0..h {
            let mut v = load(w, at + diagonal(h, c) - c);
            for l in 0..LANES {
                v[l] = if l >= c { v[l] } else { 0.0 };
            }
            step(if c % 2 == 0 { &mut even } else { &mut odd }, &v, r0 + c);
        }
        at += h * (h + 1) / 2;
        for i in 0..N {
            for l in 0..LANES {
                let z = if l < h { even[i][l] + odd[i][l] } else { 0.0 };
                squares[i][l] = multiply_add::<FMA>(z, z, squares[i][l]);
            }
        }
        r0 += h;
    }
    for i in 0..N {
        sums[i] += total(&squares[i]);
    }
}

/// Columns of a panel summed side by side in registers.
const BLOCK: usize = 8;

#[inline(always)]
fn products_body<A: Accumulate, const FMA: bool>(
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
            let mut sums = [[0.0f32; LANES]; BLOCK];
            for x in x.chunks_exact(stride).take(n) {
                let (rows, columns) = (load(x, r0), &x[first..first + BLOCK]);
                for c in 0..BLOCK {
                    for l in 0..LANES {
                        sums[c][l] = multiply_add::<FMA>(rows[l], columns[c], sums[c][l]);
                    }
                }
            }
            for (column, sum) in (first..r0 + h).zip(&sums) {
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
            first += BLOCK;
        }
        at = corner + h * (h + 1) / 2;
        r0 += h;
    }
}

#[inline(always)]
fn low_rank_body<const FMA: bool>(basis: &[f32], scale: &[f32], x: &mut [f32], epsilon: f32) -> f32 {
    let mut sum = 0.0;
    for (row, &scale) in basis.chunks_exact(x.len()).zip(scale) {
        let c = dot::<FMA>(row, x);
        sum = multiply_add::<FMA>(c * c, scale, sum);
        for (x, &b) in x.iter_mut().zip(row) {
            *x = multiply_add::<FMA>(-c, b, *x);
        }
    }
    sum + dot::<FMA>(x, x) / epsilon
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [[0.0f32; LANES]; 2];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let sum = &mut sums[i % 2];
        for l in 0..LANES {
            sum[l] = multiply_add::<FMA>(a[l], b[l], sum[l]);
        }
    }
    let [mut sum, other] = sums;
    for (l, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
        sum[l] = multiply_add::<FMA>(*a, *b, sum[l]);
    }
    for l in 0..LANES {
        sum[l] += other[l];
    }
    total(&sum)
}

/// The portable bodies, for tests against the others.
#[cfg(test)]
pub(super) mod portable {
    pub(crate) fn squares(w: &[f32], a: usize, b: usize, x: &[f32], stride: usize, sums: &mut [f32]) {
        super::squares_body::<false>(w, a, b, x, stride, sums);
    }
    pub(crate) fn products(x: &[f32], stride: usize, n: usize, a: usize, b: usize, into: &mut [f64]) {
        super::products_body::<f64, false>(x, stride, n, a, b, into);
    }
    pub(crate) fn low_rank(basis: &[f32], scale: &[f32], x: &mut [f32], epsilon: f32) -> f32 {
        super::low_rank_body::<false>(basis, scale, x, epsilon)
    }
}
