//! Outputs that several tasks write.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// An output; tasks write disjoint rows of it.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    /// Where it begins.
    pub(super) at: *mut f32,
    /// Its length.
    pub(super) len: usize,
    slice: PhantomData<&'a mut [f32]>,
}
// SAFETY: made from an exclusive slice that outlives the tasks, which write disjoint rows.
unsafe impl Send for Out<'_> {}
// SAFETY: as above.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    /// Of this slice.
    pub(super) fn new(slice: &'a mut [f32]) -> Out<'a> {
        Out { at: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }
}
