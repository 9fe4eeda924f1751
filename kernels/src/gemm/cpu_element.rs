//! Numbers that maps are kept in, and the products made of them.
#![allow(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use crate::conv::{Conv2d, Maps};
use crate::{Par, Result};

use super::cpu_reduced::{dispatch_bf16, dispatch_bytes};
use super::cpu_vector::{Isa, Kernel, Vector, dispatch};

/// A number that feature maps can be kept in: `f32`, or `bf16`, to which results are rounded (to nearest even) when stored.
/// All arithmetic on maps is in `f32`.
pub trait Element: Lanes {}

impl Element for f32 {}
impl Element for bf16 {}

/// Keeps [`Element`] to the two types here.
pub trait Lanes: bytemuck::Pod + Default + Send + Sync {
    /// The number in `f32`; exact.
    fn widen(self) -> f32;
    /// The nearest number to `x`.
    fn narrow(x: f32) -> Self;
    /// A convolution on maps of this kind: [`Conv2d::forward_in`], compiled here for each kind instead of wherever it is
    /// called.
    ///
    /// # Errors
    /// Its own.
    fn convolve(conv: &Conv2d, maps: Maps<'_, Self>, workspace: &mut [f32], par: Par) -> Result<()>;
    /// Reads a vector.
    ///
    /// # Safety
    /// That of [`Vector::load`].
    unsafe fn load<V: Vector>(p: *const Self) -> V;
    /// Writes a vector.
    ///
    /// # Safety
    /// That of [`Vector::store`].
    unsafe fn store<V: Vector>(v: V, p: *mut Self);
    /// Reads `n` numbers.
    ///
    /// # Safety
    /// That of [`Vector::load_part`].
    unsafe fn load_part<V: Vector>(p: *const Self, n: usize) -> V;
    /// Writes `n` numbers.
    ///
    /// # Safety
    /// That of [`Vector::store_part`].
    unsafe fn store_part<V: Vector>(v: V, p: *mut Self, n: usize);
}

/// Runs a kernel on maps of `E`: for bf16 with the vectors that convert it, or plain code.
///
/// # Safety
/// `isa` is available; the rest is the kernel's own contract.
pub(crate) unsafe fn dispatch_maps<E: Element, K: Kernel>(isa: Isa, kernel: K) {
    // SAFETY: the caller's contract.
    unsafe { if const { size_of::<E>() == 4 } { dispatch(isa, kernel) } else { dispatch_bf16(isa, kernel) } }
}

macro_rules! lanes {
    ($type:ty, $widen:expr, $narrow:expr, $load:ident, $store:ident, $load_part:ident, $store_part:ident) => {
        // SAFETY of every method: the contract is that of the vector's own method.
        impl Lanes for $type {
            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(x: f32) -> Self {
                $narrow(x)
            }
            fn convolve(conv: &Conv2d, maps: Maps<'_, Self>, workspace: &mut [f32], par: Par) -> Result<()> {
                conv.run(maps, workspace, par)
            }
            #[inline(always)]
            unsafe fn load<V: Vector>(p: *const Self) -> V {
                // SAFETY: see above.
                unsafe { V::$load(p) }
            }
            #[inline(always)]
            unsafe fn store<V: Vector>(v: V, p: *mut Self) {
                // SAFETY: see above.
                unsafe { v.$store(p) }
            }
            #[inline(always)]
            unsafe fn load_part<V: Vector>(p: *const Self, n: usize) -> V {
                // SAFETY: see above.
                unsafe { V::$load_part(p, n) }
            }
            #[inline(always)]
            unsafe fn store_part<V: Vector>(v: V, p: *mut Self, n: usize) {
                // SAFETY: see above.
                unsafe { v.$store_part(p, n) }
            }
        }
    };
}

lanes!(f32, |x| x, |x| x, load, store, load_part, store_part);
lanes!(bf16, bf16::to_f32, bf16::from_f32, load_bf16, store_bf16, load_bf16_part, store_bf16_part);

/// `slice` as numbers of type `B`, if that is what they are.
pub(crate) fn same<A: Element, B: Element>(slice: &[A]) -> Option<&[B]> {
    (std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()).then(|| bytemuck::cast_slice(slice))
}

/// As [`same`], to be written.
pub(crate) fn same_mut<A: Element, B: Element>(slice: &mut [A]) -> Option<&mut [B]> {
    (std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()).then(|| bytemuck::cast_slice_mut(slice))
}

/// Copies numbers, as many as both slices hold, from one kind to the other.
pub fn convert<A: Element, B: Element>(from: &[A], to: &mut [B], par: Par) {
    struct Job<'a, A, B>(&'a [A], &'a mut [B]);
    impl<A: Element, B: Element> Kernel for Job<'_, A, B> {
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            for (from, to) in self.0.chunks(V::LANES).zip(self.1.chunks_mut(V::LANES)) {
                let count = from.len().min(to.len());
                // SAFETY: `count` numbers in both.
                unsafe {
                    if count == V::LANES {
                        B::store(A::load::<V>(from.as_ptr()), to.as_mut_ptr());
                    } else {
                        B::store_part(A::load_part::<V>(from.as_ptr(), count), to.as_mut_ptr(), count);
                    }
                }
            }
        }
    }
    let isa = Isa::bf16().unwrap_or(Isa::Portable);
    // SAFETY: the instructions were detected.
    let part = |(from, to): (&[A], &mut [B])| unsafe { dispatch_bf16(isa, Job(from, to)) };
    const PART: usize = 16 * 1024;
    match par {
        Par::Serial => part((from, to)),
        Par::Rayon => from.par_chunks(PART).zip(to.par_chunks_mut(PART)).for_each(part),
    }
}

/// What is multiplied: 32-bit words of one, two or four numbers.
pub(crate) trait Product: Copy + Send + Sync + 'static {
    /// A number of the left operand.
    type Left: bytemuck::Pod + Default + Send + Sync;
    /// What its maps are kept in.
    type Map: Element;
    /// Numbers in a word.
    const GROUP: usize;
    /// Whether sums are 32-bit integers.
    const WHOLE: bool;

    /// `a * b + sum`.
    ///
    /// # Safety
    /// That of [`Vector`].
    unsafe fn step<V: Vector>(a: V, b: V, sum: V) -> V;

    /// Runs a kernel with the vectors for this product.
    ///
    /// # Safety
    /// `isa` is available; the rest is the kernel's own contract.
    unsafe fn run<K: Kernel>(isa: Isa, kernel: K);

    /// A map as left operand, if it needs no conversion.
    fn direct(map: &[Self::Map]) -> Option<&[Self::Left]>;
}

/// Single precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single;

impl Product for Single {
    type Left = f32;
    type Map = f32;
    const GROUP: usize = 1;
    const WHOLE: bool = false;

    #[inline(always)]
    unsafe fn step<V: Vector>(a: V, b: V, sum: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { a.mul_add(b, sum) }
    }

    unsafe fn run<K: Kernel>(isa: Isa, kernel: K) {
        // SAFETY: the caller's contract.
        unsafe { dispatch(isa, kernel) }
    }

    fn direct(map: &[f32]) -> Option<&[f32]> {
        Some(map)
    }
}

/// Pairs of bf16, summed in `f32`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brain;

impl Product for Brain {
    type Left = bf16;
    type Map = bf16;
    const GROUP: usize = 2;
    const WHOLE: bool = false;

    #[inline(always)]
    unsafe fn step<V: Vector>(a: V, b: V, sum: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { a.dot_bf16(b, sum) }
    }

    unsafe fn run<K: Kernel>(isa: Isa, kernel: K) {
        // SAFETY: the caller's contract.
        unsafe { dispatch_bf16(isa, kernel) }
    }

    fn direct(map: &[bf16]) -> Option<&[bf16]> {
        Some(map)
    }
}

/// Bytes without sign by bytes with one, summed in 32-bit integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Byte;

impl Product for Byte {
    type Left = u8;
    type Map = f32;
    const GROUP: usize = 4;
    const WHOLE: bool = true;

    #[inline(always)]
    unsafe fn step<V: Vector>(a: V, b: V, sum: V) -> V {
        // SAFETY: the caller's contract.
        unsafe { a.dot_bytes(b, sum) }
    }

    unsafe fn run<K: Kernel>(isa: Isa, kernel: K) {
        // SAFETY: the caller's contract.
        unsafe { dispatch_bytes(isa, kernel) }
    }

    fn direct(_: &[f32]) -> Option<&[u8]> {
        None
    }
}
