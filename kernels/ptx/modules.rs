// Written by `cargo xtask ptx`: the PTX files, and those for chips on which other parameters are faster.
pub(crate) const ADAM: Module = Module {
    name: "adam.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/adam.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const BLUR: Module = Module {
    name: "blur.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/blur.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const CONV: Module = Module {
    name: "conv.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/conv.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const CONV_80: Module = Module {
    name: "conv.compute_80",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/conv.compute_80.ptx")),
    tuned: &[],
};
pub(crate) const COUPLING: Module = Module {
    name: "coupling.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/coupling.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const DEPTHWISE: Module = Module {
    name: "depthwise.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/depthwise.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const CEILING: Module = Module {
    name: "ceiling.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/ceiling.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const CEILING_80: Module = Module {
    name: "ceiling.compute_80",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/ceiling.compute_80.ptx")),
    tuned: &[],
};
pub(crate) const EMBED: Module = Module {
    name: "embed.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/embed.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const FLOW: Module = Module {
    name: "flow.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/flow.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const KCENTER: Module = Module {
    name: "kcenter.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/kcenter.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const MAHALANOBIS: Module = Module {
    name: "mahalanobis.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/mahalanobis.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const MAHALANOBIS_80: Module = Module {
    name: "mahalanobis.compute_80",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/mahalanobis.compute_80.ptx")),
    tuned: &[],
};
pub(crate) const MOMENTS: Module = Module {
    name: "moments.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/moments.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const NEAREST: Module = Module {
    name: "nearest.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/nearest.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const NEAREST_80: Module = Module {
    name: "nearest.compute_80",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/nearest.compute_80.ptx")),
    tuned: &[],
};
pub(crate) const NEAREST_90: Module = Module {
    name: "nearest.compute_90a",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/nearest.compute_90a.ptx")),
    tuned: &[],
};
pub(crate) const NORM: Module = Module {
    name: "norm.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/norm.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const PAIRWISE: Module = Module {
    name: "pairwise.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/pairwise.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const POOL: Module = Module {
    name: "pool.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/pool.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const PRODUCT: Module = Module {
    name: "product.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/product.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const PRODUCT_80: Module = Module {
    name: "product.compute_80",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/product.compute_80.ptx")),
    tuned: &[],
};
pub(crate) const PROJECTION: Module = Module {
    name: "projection.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/projection.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const RESIZE: Module = Module {
    name: "resize.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/resize.compute_75.ptx")),
    tuned: &[],
};
pub(crate) const WINDOW: Module = Module {
    name: "window.compute_75",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/window.compute_75.ptx")),
    tuned: &[],
};
