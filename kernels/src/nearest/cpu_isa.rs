//! Which vector instructions this processor has.

/// An instruction set that is known to be there: only [`Isa::best`] and [`Isa::all`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Level);

/// The variants of the hot loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Plain Rust.
    Portable,
    /// 8 lanes with fused multiply-add and half precision.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 lanes with masks.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest one this processor has.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if avx2 && is_x86_feature_detected!("avx512f") {
                return Isa(Level::Avx512);
            }
            if avx2 {
                return Isa(Level::Avx2);
            }
        }
        Isa(Level::Portable)
    }

    /// All that this processor has, narrowest first.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Isa(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        if Isa::best() != all[0] {
            all.push(Isa(Level::Avx2));
        }
        if !all.contains(&Isa::best()) {
            all.push(Isa::best());
        }
        all
    }

    pub(super) fn level(self) -> Level {
        self.0
    }
}
