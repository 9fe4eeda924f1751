use serde::{Deserialize, Serialize};

/// The numbers a detector's network computes with, wherever it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Single precision.
    #[default]
    F32,
    /// Maps and weights in fp16, sums in `f32`.
    F16,
    /// Maps and weights in bf16, sums in `f32`.
    Bf16,
    /// Convolutions on bytes, sums exact.
    Int8,
}

impl Arithmetic {
    /// The relative difference that scores of the same pictures may have between this arithmetic and `other` while the model
    /// is the same.
    ///
    /// - Both `f32` or both `int8`: 0.001. Only the order of sums differs between processors, or nothing at all.
    /// - Both fp16 or both bf16: 0.02. An other order of sums now and then rounds a map's value the other way, by 2^-11 or 2^-8
    ///   of it, and later layers see that.
    /// - Otherwise 0.2. Every value of every map is rounded differently, and a distance adds that up over all channels. Wide on
    ///   purpose: a damaged file or another network moves scores by far more.
    pub fn tolerance(self, other: Arithmetic) -> f32 {
        match (self, other) {
            (Arithmetic::F32, Arithmetic::F32) | (Arithmetic::Int8, Arithmetic::Int8) => 1e-3,
            (a, b) if a == b => 0.02,
            _ => 0.2,
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arithmetic::F32 => "f32",
            Arithmetic::F16 => "fp16",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::Int8 => "int8",
        })
    }
}
