//! The faults of `cargo xtask emu --mutate` that are planted in the committed PTX, below the compiler and past the emulator: the
//! stand-in driver has to find them while a Rust test runs, most of them by the check that is meant for them.

/// A fault in one kernel of a PTX file.
pub(super) struct PtxFault {
    /// Stem of the file below `kernels/ptx`.
    pub(super) file: &'static str,
    pub(super) kernel: &'static str,
    /// The test of `blemish-kernels` that launches it.
    pub(super) test: &'static str,
    pub(super) what: &'static str,
    pub(super) plant: Plant,
    /// What the driver has to say, alternatives between bars; nothing if the test itself has to notice wrong numbers.
    pub(super) said: &'static str,
}

/// What is done to the text of a kernel. Lines are told by what they hold and counted from 0.
pub(super) enum Plant {
    /// Two parameters are taken for each other, as if the launch code had swapped its arguments.
    Swap(usize, usize),
    /// A line is left out.
    Omit(&'static str, usize),
    /// In a line one text is replaced by another.
    Edit(&'static str, usize, &'static str, &'static str),
    /// In a line two operands change places, counted over all of its registers.
    Cross(&'static str, usize, usize, usize),
    /// A line comes before the one that precedes it.
    Early(&'static str, usize),
}
use Plant::{Cross, Early, Edit, Omit, Swap};

impl Plant {
    /// The text of a PTX file with the fault in a kernel, if it can be planted there.
    pub(super) fn planted_in(&self, text: &str, kernel: &str) -> Option<String> {
        let start = text.find(&format!(".entry {kernel}("))?;
        let body = start + text[start..].find("\n{\n")?;
        let end = body + text[body..].find("\n}\n")?;
        let planted = self.lines(&text[body..end], kernel)?;
        (planted != text[body..end]).then(|| format!("{}{planted}{}", &text[..body], &text[end..]))
    }

    fn lines(&self, body: &str, kernel: &str) -> Option<String> {
        let mut lines: Vec<String> = body.split('\n').map(str::to_owned).collect();
        let nth = |holds: &str, n: usize| {
            let mut found = lines.iter().enumerate().filter(|(_, line)| line.contains(holds));
            found.nth(n).map(|(at, _)| at)
        };
        match *self {
            Swap(i, j) => {
                let (i, j) = (format!("[{kernel}_param_{i}]"), format!("[{kernel}_param_{j}]"));
                return Some(body.replace(&i, "[]").replace(&j, &i).replace("[]", &j));
            }
            Omit(holds, n) => {
                lines.remove(nth(holds, n)?);
            }
            Edit(holds, n, from, to) => {
                let at = nth(holds, n)?;
                lines[at] = lines[at].replacen(from, to, 1);
            }
            Cross(holds, n, i, j) => {
                let at = nth(holds, n)?;
                lines[at] = crossed(&lines[at], i, j)?;
            }
            Early(holds, n) => {
                let at = nth(holds, n)?;
                lines.swap(at, at.checked_sub(1)?);
            }
        }
        Some(lines.join("\n"))
    }
}

/// A line with two of its registers in each other's place.
fn crossed(line: &str, i: usize, j: usize) -> Option<String> {
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(at) = line[from..].find('%') {
        let start = from + at;
        let length = line[start + 1..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len() - start - 1);
        spans.push(start..start + 1 + length);
        from = start + 1 + length;
    }
    let (i, j) = (spans.get(i.min(j))?.clone(), spans.get(i.max(j))?.clone());
    let (first, second) = (&line[i.clone()], &line[j.clone()]);
    Some(format!("{}{second}{}{first}{}", &line[..i.start], &line[i.end..j.start], &line[j.end..]))
}

const fn fault(
    file: &'static str,
    kernel: &'static str,
    test: &'static str,
    what: &'static str,
    plant: Plant,
    said: &'static str,
) -> PtxFault {
    PtxFault { file, kernel, test, what, plant, said }
}

const SWAPPED: &str = "swapped arguments";
/// A barrier that is missing shows as one of these, as the warps happen to run.
const RACE: &str = "with no barrier between|that nobody wrote|may still be writing";
const FLIGHT: &str = "may still be writing";
const BEYOND: &str = "beyond memory";
const UNWRITTEN: &str = "that nobody wrote";
const MISALIGNED: &str = "is not aligned";
const CONV: &str = "network::convolutions_agree_with_the_cpu";
const POOL: &str = "network::pools_and_gates_agree_with_the_cpu";
const NEAREST: &str = "nearest::nearest_rows_are_the_cpu_s_sieved_and_scanned";
const WIDE: &str = "nearest::hopper_s_own_sieve_finds_the_same";
const PRODUCT: &str = "product::products_agree_with_the_cpu";
const BLOCK: &str = "flow::a_block_agrees_with_the_cpu";
const NORM: &str = "layer::norms_of_maps_agree_with_the_cpu";
const LAYER: &str = "layer::layers_in_training_agree_with_the_cpu";
const PICKS: &str = "kcenter::picks_are_the_cpu_s";
const FIT: &str = "mahalanobis::fits_agree_with_the_cpu_s";
const DISTANCES: &str = "mahalanobis::mahalanobis_distances_agree_with_the_cpu";

pub(super) const PTX: &[PtxFault] = &[
    // As if the launch code had swapped its arguments.
    fault("blur.compute_75", "blur_axis", "imaging::blur_is_the_cpu_s", SWAPPED, Swap(4, 5), ""),
    fault("blur.compute_75", "blur_tile", "imaging::blur_is_the_cpu_s", SWAPPED, Swap(4, 5), ""),
    fault("pairwise.compute_75", "pairwise_squared", "nearest::distances_are_the_cpu_s", SWAPPED, Swap(0, 1), ""),
    fault("nearest.compute_80", "nearest_rerank", NEAREST, SWAPPED, Swap(0, 1), ""),
    fault(
        "nearest.compute_80",
        "nearest_rerank",
        "nearest::banks_larger_than_the_budget_are_streamed_and_the_budget_holds",
        SWAPPED,
        Swap(12, 13),
        "",
    ),
    fault("kcenter.compute_75", "kcenter_update", PICKS, SWAPPED, Swap(3, 4), ""),
    fault("mahalanobis.compute_80", "mahalanobis_triangle_8", DISTANCES, SWAPPED, Swap(0, 1), ""),
    fault("moments.compute_75", "moments_add_f64", FIT, SWAPPED, Swap(17, 19), ""),
    fault("projection.compute_75", "projection_apply", "kcenter::projections_are_the_cpu_s", SWAPPED, Swap(5, 6), ""),
    fault("resize.compute_75", "resize_bilinear", "imaging::resizes_are_the_cpu_s", SWAPPED, Swap(12, 13), ""),
    fault("embed.compute_75", "embed_mean3", "imaging::embeddings_are_the_cpu_s", SWAPPED, Swap(6, 7), ""),
    fault("embed.compute_75", "embed_add", "imaging::weighted_embeddings_add_up_their_layers", SWAPPED, Swap(4, 5), ""),
    fault("conv.compute_75", "conv_f32_64", CONV, SWAPPED, Swap(6, 7), ""),
    fault("conv.compute_75", "conv_f32_64", CONV, SWAPPED, Swap(14, 15), ""),
    fault("conv.compute_80", "conv_f16_64", CONV, SWAPPED, Swap(14, 15), ""),
    fault("depthwise.compute_75", "depthwise_f32", CONV, SWAPPED, Swap(9, 10), ""),
    fault("pool.compute_75", "gate_dense", POOL, SWAPPED, Swap(5, 6), ""),
    fault("adam.compute_75", "adam_step", "flow::adam_takes_the_steps_of_the_cpu", SWAPPED, Swap(3, 4), ""),
    fault("coupling.compute_75", "coupling_forward", BLOCK, SWAPPED, Swap(7, 8), ""),
    fault("flow.compute_75", "flow_sums", BLOCK, SWAPPED, Swap(14, 15), ""),
    fault("flow.compute_75", "flow_gather", "flow::samples_are_gathered_step_by_step", SWAPPED, Swap(15, 16), ""),
    fault("norm.compute_75", "norm_sums", NORM, SWAPPED, Swap(6, 7), ""),
    fault("norm.compute_75", "norm_gradient", NORM, SWAPPED, Swap(7, 8), ""),
    fault("window.compute_75", "window_64", LAYER, SWAPPED, Swap(4, 5), ""),
    fault("window.compute_75", "window_turn", LAYER, SWAPPED, Swap(3, 4), ""),
    fault("product.compute_75", "product_backward_f32", PRODUCT, SWAPPED, Swap(7, 8), ""),
    fault("product.compute_75", "product_update_f32", PRODUCT, SWAPPED, Swap(10, 11), ""),
    // Barriers and copies that arrive later.
    fault("conv.compute_80", "conv_f16_64", CONV, "barrier after the wait", Omit("bar.sync", 0), RACE),
    fault("conv.compute_80", "conv_f16_point_64", CONV, "barrier before the slab", Omit("bar.sync", 1), RACE),
    fault("conv.compute_80", "conv_f16_64", CONV, "lax wait", Edit("cp.async.wait_group", 0, "2;", "3;"), FLIGHT),
    fault("conv.compute_80", "conv_f16_64", CONV, "a commit", Omit("cp.async.commit_group", 0), FLIGHT),
    fault(
        "conv.compute_80",
        "conv_f16_point_64",
        CONV,
        "rows outside",
        Edit("16, 0, %p", 0, "16, 0", "16, 16"),
        BEYOND,
    ),
    fault("nearest.compute_80", "nearest_sieve", NEAREST, "barrier after the wait", Omit("bar.sync", 0), RACE),
    fault("nearest.compute_80", "nearest_sieve", NEAREST, "no wait", Omit("cp.async.wait_group", 0), FLIGHT),
    fault("nearest.compute_90a", "nearest_sieve", WIDE, "barrier after the wait", Omit("bar.sync", 0), RACE),
    fault("nearest.compute_90a", "nearest_sieve", WIDE, "no wait for copies", Omit("cp.async.wait_group", 0), FLIGHT),
    fault("nearest.compute_90a", "nearest_sieve", WIDE, "not published", Omit("fence.proxy", 0), "fence.proxy.async"),
    fault("nearest.compute_90a", "nearest_sieve", WIDE, "no fence", Omit("wgmma.fence", 0), "without wgmma.fence"),
    fault("nearest.compute_90a", "nearest_sieve", WIDE, "sums read early", Omit("wgmma.wait_group", 1), "under way"),
    fault(
        "nearest.compute_90a",
        "nearest_sieve",
        WIDE,
        "lax wait for products",
        Edit("wgmma.wait_group", 0, "1;", "3;"),
        "",
    ),
    fault("product.compute_80", "product_forward_bf16", PRODUCT, "barrier of a step", Omit("bar.sync", 0), RACE),
    fault("product.compute_75", "product_forward_f32", PRODUCT, "barrier of a step", Omit("bar.sync", 0), RACE),
    fault("pool.compute_75", "global_mean_f16", POOL, "barrier after sums", Omit("bar.sync", 1), RACE),
    fault("norm.compute_75", "norm_sums", NORM, "barrier before the mean", Omit("bar.sync", 0), RACE),
    fault("window.compute_75", "window_64", LAYER, "barrier of a step", Omit("bar.sync", 0), RACE),
    fault("blur.compute_75", "blur_tile", "imaging::blur_is_the_cpu_s", "barrier", Omit("bar.sync", 1), RACE),
    fault("moments.compute_75", "moments_factor", FIT, "a barrier", Omit("bar.sync", 2), RACE),
    fault("kcenter.compute_75", "kcenter_update", PICKS, "barrier between tiles", Omit("bar.sync", 1), RACE),
    fault("coupling.compute_75", "coupling_forward", BLOCK, "barrier of a warp", Omit("bar.warp.sync", 0), RACE),
    fault("flow.compute_75", "flow_sums", BLOCK, "barrier in a sum", Omit("bar.sync", 0), RACE),
    fault("kcenter.compute_75", "kcenter_greedy", PICKS, "fence before the count", Omit("membar", 0), ""),
    fault("kcenter.compute_75", "kcenter_greedy", PICKS, "fence after the count", Omit("membar", 1), ""),
    // Tensor cores and conversions written as assembly.
    fault("conv.compute_80", "conv_f16_64", CONV, "swapped fragments", Cross("mma.sync", 0, 4, 5), ""),
    fault("conv.compute_80", "conv_f16_64", CONV, "swapped columns", Cross("mma.sync", 3, 8, 9), ""),
    fault("nearest.compute_80", "nearest_sieve", NEAREST, "swapped fragments", Cross("mma.sync", 0, 8, 9), ""),
    fault("product.compute_80", "product_forward_bf16", PRODUCT, "swapped sums", Cross("mma.sync", 0, 0, 2), ""),
    fault("product.compute_80", "product_update_bf16", PRODUCT, "no .trans", Edit("ldmatrix", 0, ".trans", ""), ""),
    fault("product.compute_80", "product_backward_bf16", PRODUCT, "halves", Cross("cvt.rn.bf16x2", 0, 1, 2), ""),
    fault(
        "product.compute_80",
        "product_forward_bf16",
        PRODUCT,
        "f16 for bf16",
        Edit("mma.sync", 0, "bf16.bf16", "f16.f16"),
        "",
    ),
    fault(
        "depthwise.compute_75",
        "depthwise_f16",
        CONV,
        "rounded twice",
        Cross("cvt.u16.u32", 0, 0, 1),
        "for an operand",
    ),
    // Addresses.
    fault("adam.compute_75", "adam_step", "flow::adam_takes_the_steps_of_the_cpu", "tail", Omit("bra", 0), BEYOND),
    fault("blur.compute_75", "blur_axis", "imaging::blur_is_the_cpu_s", "tail of the maps", Omit("bra", 0), BEYOND),
    fault(
        "depthwise.compute_75",
        "depthwise_f16",
        CONV,
        "off by a number",
        Edit("v4.u32", 0, "];", "+2];"),
        MISALIGNED,
    ),
    fault("pool.compute_75", "max_pool_f32", POOL, "off by a number", Edit("nc.v4.u32", 0, "];", "+4];"), MISALIGNED),
    // The rest of the checks.
    fault(
        "adam.compute_75",
        "adam_step",
        "flow::adam_takes_the_steps_of_the_cpu",
        "weights as constants",
        Edit("ld.global.f32", 0, "global", "global.nc"),
        "reads by ld.global.nc",
    ),
    fault(
        "nearest.compute_80",
        "nearest_rerank",
        NEAREST,
        "a mask without a lane",
        Edit(", -1;", 4, "-1;", "-2;"),
        "mask",
    ),
    fault("conv.compute_75", "conv_f32_64", CONV, "a tile's store", Omit("st.shared", 0), UNWRITTEN),
    fault("conv.compute_75", "conv_f32_64", CONV, "store after its barrier", Early("bar.sync", 2), RACE),
    fault(
        "embed.compute_75",
        "embed_mean3",
        "imaging::embeddings_are_the_cpu_s",
        "no thread",
        Omit("%tid.x", 0),
        "written",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn every_fault_can_be_planted() {
        let folder = shell::root().unwrap().join("kernels/ptx");
        for fault in PTX {
            let text = std::fs::read_to_string(folder.join(format!("{}.ptx", fault.file))).unwrap();
            assert!(
                fault.plant.planted_in(&text, fault.kernel).is_some(),
                "{} {}: {}",
                fault.file,
                fault.kernel,
                fault.what
            );
        }
    }

    #[test]
    fn registers_change_places() {
        assert_eq!(crossed("mma {%f1,%f22}, [%rd3];", 0, 2).unwrap(), "mma {%rd3,%f22}, [%f1];");
        assert!(crossed("mov.u32 %r1, 0;", 0, 1).is_none());
    }
}
