use std::collections::BTreeMap;

use blemish_tensor::Tensor;

/// Whose names a set of weights carries.
///
/// ResNets are called the same by both. For the others torchvision says `features.…` where timm says `conv_stem` and
/// `blocks.…`; torchvision's MobileNetV3 and EfficientNet-B5 moreover have a batch norm epsilon of 1e-3, timm's of 1e-5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// timm's names.
    Timm,
    /// torchvision's names.
    Torchvision,
}

impl Naming {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        match names.into_iter().any(|name| name.starts_with("features.")) {
            true => Naming::Torchvision,
            false => Naming::Timm,
        }
    }
}

/// Prefixes that wrappers put before every name.
const PREFIXES: [&str; 4] = ["module.", "model.", "backbone.", "net."];

/// Takes off the prefixes that all names share.
pub(super) fn strip_prefixes(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(prefix) =
        PREFIXES.into_iter().find(|p| !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(p)))
    {
        tensors = tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
    }
    tensors
}
