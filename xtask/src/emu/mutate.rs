//! Faults planted in the kernels, one at a time, by replacing text; the tests have to find each.
//!
//! Those of [`KERNELS`] are looked for by the emulated tests. Those of [`LAUNCHES`] swap parameters of the same type in the
//! stand-in driver alone, which is for the Rust code as if it had swapped the arguments.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Program, fingerprint, parallel};
use crate::shell;

/// A fault: file below `kernels/cu`, the test that has to find it, text to replace (it must be there once) and by what.
struct Fault {
    file: &'static str,
    test: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn fault(
    file: &'static str,
    test: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Fault {
    Fault { file, test, what, from, to }
}

const DISTANCE: &str = "common/distance.cuh";
const MOMENTS: &str = "moments.cu";
const GATHER: &str = "common/gather.cuh";

const KERNELS: &[Fault] = &[
    fault(DISTANCE, "pairwise", "barrier before a tile is read", "turn ^= 1) {\n    __syncthreads();", "turn ^= 1) {"),
    fault(
        DISTANCE,
        "kcenter",
        "barrier between two tiles",
        "  __syncthreads();  // an earlier call",
        "  // an earlier call",
    ),
    fault(DISTANCE, "pairwise", "tail of a row", "at + l < d ?", "at + l <= d ?"),
    fault(
        DISTANCE,
        "nearest",
        "order of a sum",
        "for (int by = 8; by; by >>= 1) v",
        "for (int by = 1; by < 16; by <<= 1) v",
    ),
    fault(DISTANCE, "pairwise", "swapped halves", "upper ? v[i] : v[i + KEEP]", "upper ? v[i + KEEP] : v[i]"),
    fault("pairwise.cu", "pairwise", "tail of the rows", "i0 + i < m && j0", "i0 + i <= m && j0"),
    fault("pairwise.cu", "pairwise", "barrier before writing", "= v[i];\n  __syncthreads();", "= v[i];"),
    fault("nearest.cu", "nearest", "lax wait for copies", "cp_wait<STAGES - 2>", "cp_wait<STAGES - 1>"),
    fault("nearest.cu", "nearest", "barrier after the wait", "2>();\n    __syncthreads();", "2>();"),
    fault("nearest.cu", "nearest", "tail of the bank", "row < n ? norm[row] : NOTHING", "norm[row < n ? row : n - 1]"),
    fault(
        "nearest.cu",
        "nearest",
        "second smallest",
        "fminf(fmaxf(first, other), fminf(second, next))",
        "fminf(second, next)",
    ),
    fault(
        "nearest.cu",
        "nearest",
        "whole blocks",
        "const bool every = bounds(q, next, block[b], block[blocks + b]).lower <= reach;",
        "const bool every = false;",
    ),
    fault("nearest.cu", "nearest", "bound without losses", "around = q.loss + block_loss", "around = 0.f * block_loss"),
    fault(
        "nearest.cu",
        "nearest",
        "swapped arguments",
        "(q, value, block[b], block[blocks + b]",
        "(q, value, block[blocks + b], block[b]",
    ),
    fault("nearest.cu", "nearest", "ties", "v == than.v && i < than.i", "v == than.v && i > than.i"),
    fault("nearest.cu", "nearest", "last lane", "if (lane > at)", "if (lane >= at + 2)"),
    fault(
        "kcenter.cu",
        "kcenter",
        "barrier between picks",
        "fminf(far[i], s);\n    }\n    __syncthreads();",
        "fminf(far[i], s);\n    }",
    ),
    fault(
        "kcenter.cu",
        "kcenter",
        "a tie with the threshold",
        "__float_as_int(distance) <= threshold",
        "__float_as_int(distance) < threshold",
    ),
    fault("kcenter.cu", "kcenter", "ties", "| (0xffffffffu - index);", "| index;"),
    fault(
        "kcenter.cu",
        "kcenter",
        "pool without room",
        "__float_as_int(near[i]) > (int)",
        "__float_as_int(near[i]) >= (int)",
    ),
    fault("kcenter.cu", "kcenter", "barrier in a scan", "__syncthreads();\n    above[t] += more;", "above[t] += more;"),
    fault("kcenter.cu", "kcenter", "grid barrier", "    grid_barrier(&state[kcenter::ARRIVED], target);\n", ""),
    fault(
        "kcenter.cu",
        "kcenter",
        "tail of the centres",
        "c0 + r < count ? c0 + r : count - 1",
        "c0 + r <= count ? c0 + r : count - 1",
    ),
    fault("mahalanobis.cu", "mahalanobis", "barrier after the load", "n, x);\n  __syncthreads();", "n, x);"),
    fault("mahalanobis.cu", "mahalanobis", "diagonal", "c <= row; c += 2", "c < row; c += 2"),
    fault(
        "mahalanobis.cu",
        "mahalanobis",
        "parent",
        "parents[(long long)ancestor[level - 1]",
        "parents[(long long)ancestor[level]",
    ),
    fault(GATHER, "mahalanobis", "swapped axes", "column = area[2];", "column = area[0];"),
    fault(GATHER, "mahalanobis", "tail of the pictures", "first + i < n ?", "first + i <= n ?"),
    fault(
        MOMENTS,
        "moments",
        "barrier before a product",
        "__syncthreads();\n#pragma unroll 8\n      for (int j = 0; j < TILE; j++)\n#pragma unroll\n        for (int i = 0; i < 4; i++) rest",
        "#pragma unroll 8\n      for (int j = 0; j < TILE; j++)\n#pragma unroll\n        for (int i = 0; i < 4; i++) rest",
    ),
    fault(
        MOMENTS,
        "moments",
        "barrier between rows",
        "= inverse[u][v];\n    }\n    __syncthreads();",
        "= inverse[u][v];\n    }",
    ),
    fault(
        MOMENTS,
        "moments",
        "barrier in Cholesky",
        "__syncthreads();\n      // The diagonal is kept",
        "// The diagonal is kept",
    ),
    fault(MOMENTS, "moments", "level of a row", "k < starts[1] ? 0", "k <= starts[1] ? 0"),
    fault(MOMENTS, "moments", "group of a level", "((long long)group[l] *", "((long long)group[level] *"),
    fault(MOMENTS, "moments", "diagonal tiles", "c0 <= k0; c0 += TILE", "c0 < k0; c0 += TILE"),
    fault(MOMENTS, "moments", "inverse", "k < i; k++) v = fma", "k < i - 1; k++) v = fma"),
    fault(MOMENTS, "moments", "tail of a panel", "if (i >= k && i < h) to[i]", "if (i >= k) to[i]"),
    fault(MOMENTS, "moments", "packing", "- k * (k - 1) / 2 - k);", "- k * (k - 1) / 2);"),
    fault(MOMENTS, "moments", "shift of the first batch", "from[i * picture];", "from[0];"),
    fault("projection.cu", "projection", "tail of the inputs", "j < in_dim && bits", "j <= in_dim && bits"),
    fault("projection.cu", "projection", "place of an entry", "((1u << lane) - 1)", "((2u << lane) - 1)"),
    fault("projection.cu", "projection", "barrier after the load", "    __syncthreads();\n  }\n  for", "  }\n  for"),
    fault("projection.cu", "projection", "tail of the rows", "if (r < there) out", "out"),
    fault("blur.cu", "blur", "border", "period - 1 - at : period - at", "period - at : period - 1 - at"),
    fault("blur.cu", "blur", "tail of the maps", "if (at >= (long long)n * h * w)", "if (at > (long long)n * h * w)"),
    fault("resize.cu", "resize", "tail of a row", "from < source_width ?", "from <= source_width ?"),
    fault(
        "resize.cu",
        "resize",
        "swapped arguments",
        "resize::mix(a, b, weight_x[x])",
        "resize::mix(b, a, weight_x[x])",
    ),
    fault("ceiling.cu", "ceiling", "tail of a copy", "i < n; i += gridDim", "i < n - 1; i += gridDim"),
    fault("ceiling.cu", "ceiling", "swapped arguments", "fmaf(x[i], factor, step)", "fmaf(x[i], step, factor)"),
    fault(
        "ceiling.cu",
        "ceiling",
        "place of a sum",
        "x[i][e];\n  out[blockIdx.x * 256 +",
        "x[i][e];\n  out[blockIdx.x * 255 +",
    ),
    fault("embed.cu", "embed", "neighbourhood", "v <= y + 1 && v < h", "v < y + 1 && v < h"),
    fault("conv.cu", "conv", "lax wait for copies", "cp_wait<STAGES - 2>", "cp_wait<STAGES - 1>"),
    fault("conv.cu", "conv", "barrier after the wait", "2>();\n    __syncthreads();", "2>();"),
    fault("conv.cu", "conv", "barrier of a step", "turn ^= 1) {\n    __syncthreads();", "turn ^= 1) {"),
    fault("conv.cu", "conv", "barrier after stages", "__syncthreads();  // the last stage", "// the last stage"),
    fault("conv.cu", "conv", "right border", "within(f.x + tap.kx, w)", "f.x + tap.kx >= 0"),
    fault("conv.cu", "conv", "tail of the pixels", "if (p >= m ||", "if (p > m ||"),
    fault("conv.cu", "conv", "tail of the channels", "o0 + r < o;", "o0 + r <= o;"),
    fault(
        "conv.cu",
        "conv",
        "tail of the depth",
        "POINT ? f.at >= 0 && tap.piece < pieces",
        "POINT ? f.at >= 0 && tap.piece <= pieces",
    ),
    fault(
        "conv.cu",
        "conv",
        "swapped fragments",
        "fb[j][0] = q[0], fb[j][1] = q[1]",
        "fb[j][0] = q[1], fb[j][1] = q[0]",
    ),
    fault("conv.cu", "conv", "kernel column", "if (++kx == kw)", "if (++kx > kw)"),
    fault("conv.cu", "conv", "rows of a slab", "(r >> 5) * FM + i0", "(r >> 4) * FM + i0"),
    fault("depthwise.cu", "depthwise", "right border", "if (x < 0 || x >= w)", "if (x < 0 || x > w)"),
    fault("depthwise.cu", "depthwise", "swapped axes", "(ky * kw + kx) * c", "(kx * kw + ky) * c"),
    fault("depthwise.cu", "depthwise", "tail of a row", "if (at >= ow * pieces)", "if (at > ow * pieces)"),
    fault("pool.cu", "pool", "NaN", "v > best || v != v ?", "v > best ?"),
    fault(
        "pool.cu",
        "pool",
        "barrier between sums",
        "__syncthreads();  // the sums of another",
        "// the sums of another",
    ),
    fault("pool.cu", "pool", "barrier after sums", "= sum[e];\n    __syncthreads();", "= sum[e];"),
    fault("pool.cu", "pool", "tail of a pixel", "v[e] = channel + e < c ?", "v[e] = channel + e <= c ?"),
    fault("pool.cu", "pool", "tail of the channels", "8 * N && own < c", "8 * N && own <= c"),
];

const LAUNCHES: &[Fault] = &[
    fault(
        "blur.cu",
        "imaging::blur_is_the_cpu_s",
        "swapped arguments",
        "int n, int h, int w,\n",
        "int n, int w, int h,\n",
    ),
    fault(
        "pairwise.cu",
        "nearest::distances_are_the_cpu_s",
        "swapped arguments",
        "const float* __restrict__ q, const float* __restrict__ b,",
        "const float* __restrict__ b, const float* __restrict__ q,",
    ),
    fault(
        "nearest.cu",
        "nearest::nearest_rows_are_the_cpu_s_sieved_and_scanned",
        "swapped arguments",
        "const float* __restrict__ query, const float* __restrict__ bank,",
        "const float* __restrict__ bank, const float* __restrict__ query,",
    ),
    fault(
        "nearest.cu",
        "nearest::banks_larger_than_the_budget_are_streamed_and_the_budget_holds",
        "swapped arguments",
        "int m, int n, int d, int k, int kept)",
        "int m, int n, int d, int kept, int k)",
    ),
    fault(
        "kcenter.cu",
        "kcenter::picks_are_the_cpu_s",
        "swapped arguments",
        "int first,\n               int count, int n",
        "int count,\n               int first, int n",
    ),
    fault(
        "mahalanobis.cu",
        "mahalanobis::mahalanobis_distances_agree_with_the_cpu",
        "swapped arguments",
        "const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,\n                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,\n                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,\n                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,",
        "const float* __restrict__ map1, const float* __restrict__ map0, const float* __restrict__ map2,\n                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,\n                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,\n                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,",
    ),
    fault(
        MOMENTS,
        "mahalanobis::fits_agree_with_the_cpu_s",
        "swapped arguments",
        "int first, int n, int quads,",
        "int quads, int n, int first,",
    ),
    fault(
        "projection.cu",
        "kcenter::projections_are_the_cpu_s",
        "swapped arguments",
        "int first, int n, int in_dim",
        "int n, int first, int in_dim",
    ),
    fault(
        "resize.cu",
        "imaging::resizes_are_the_cpu_s",
        "swapped arguments",
        "int out_h,\n                int out_w,",
        "int out_w,\n                int out_h,",
    ),
    fault(
        "embed.cu",
        "imaging::embeddings_are_the_cpu_s",
        "swapped arguments",
        "int pitch, int offset)",
        "int offset, int pitch)",
    ),
    fault(
        "conv.cu",
        "network::convolutions_agree_with_the_cpu",
        "swapped arguments",
        "int m, int h, int w, int c, int oh, int ow,    ",
        "int m, int w, int h, int c, int oh, int ow,    ",
    ),
    fault(
        "conv.cu",
        "network::convolutions_agree_with_the_cpu",
        "swapped arguments",
        "int kh, int kw, int sy, int sx, int top, int left, int act) {\n  conv::plain<64>",
        "int kh, int kw, int sx, int sy, int top, int left, int act) {\n  conv::plain<64>",
    ),
    fault(
        "depthwise.cu",
        "network::convolutions_agree_with_the_cpu",
        "swapped arguments",
        "int oh, int ow,\n              int kh, int kw",
        "int ow, int oh,\n              int kh, int kw",
    ),
    fault(
        "pool.cu",
        "network::pools_and_gates_agree_with_the_cpu",
        "swapped arguments",
        "int n, int c, int o, int act)",
        "int n, int o, int c, int act)",
    ),
];

/// How long a faulty test may run; hanging is being found.
const LIMIT: Duration = Duration::from_secs(60);

/// Plants every fault, or those in files whose names have one of the words `only`; whether each was found.
pub(super) fn run(place: &Place, only: &[String]) -> Result<bool> {
    let asked = |fault: &&Fault| only.is_empty() || only.iter().any(|word| fault.file.contains(word.as_str()));
    let numbered =
        |faults: &'static [Fault]| -> Vec<(usize, &Fault)> { faults.iter().filter(asked).enumerate().collect() };
    let (kernels, launches) = (numbered(KERNELS), numbered(LAUNCHES));
    // The tests as they are have to pass, or finding a fault would mean nothing.
    if !unharmed(place, only.is_empty(), &kernels, &launches)? {
        bail!("the tests fail without any planted fault");
    }
    let folder = place.folder.join("mutants");
    let found = parallel(&kernels, |(i, fault)| {
        let root = folder.join(i.to_string());
        plant(place, fault, &root)?;
        let print = fingerprint(&root.join("kernels"))?;
        let attempt = |program: Program| {
            program.build(&place.compiler, &print)?;
            program.run(LIMIT)
        };
        let mut outcome = attempt(Program::quick(&root, &root, fault.test))?;
        // A read beyond a buffer whose value is not used is seen by AddressSanitizer alone.
        if outcome.passed {
            outcome = attempt(Program::test(&root, &root, fault.test, true))?;
        }
        let word = outcome
            .said
            .lines()
            .find(|l| !l.trim().is_empty() && !l.starts_with("====="))
            .unwrap_or("stopped")
            .to_owned();
        Ok(report(fault, !outcome.passed, &word))
    })?;
    let caught = parallel(&launches, |(i, fault)| {
        let root = folder.join(format!("launch{i}"));
        plant(place, fault, &root)?;
        let driver = Program::driver(&root, root.join("driver"));
        driver.build(&place.compiler, &fingerprint(&root.join("kernels"))?)?;
        let passed = place.rust_tests(&root.join("driver"), &["blemish-kernels"], Some(fault.test))?;
        Ok(report(fault, !passed, fault.test))
    })?;
    let all = found.len() + caught.len();
    let count = found.iter().chain(&caught).filter(|f| **f).count();
    shell::step("mutate", &format!("{count} of {all} planted faults found"));
    Ok(count == all)
}

/// Whether the tests pass that the faults are looked for by.
fn unharmed(place: &Place, all: bool, kernels: &[(usize, &Fault)], launches: &[(usize, &Fault)]) -> Result<bool> {
    if all {
        return place.all();
    }
    let print = fingerprint(&place.root.join("kernels"))?;
    let mut tests: Vec<&str> = kernels.iter().map(|(_, fault)| fault.test).collect();
    tests.sort_unstable();
    tests.dedup();
    let passed = parallel(&tests, |test| {
        let program = Program::quick(&place.root, &place.folder.join("mutants/none"), test);
        program.build(&place.compiler, &print)?;
        Ok(program.run(LIMIT)?.passed)
    })?;
    let driver = Program::driver(&place.root, place.folder.join("driver"));
    driver.build(&place.compiler, &print)?;
    let mut launched = true;
    for (_, fault) in launches {
        launched &= place.rust_tests(&place.folder.join("driver"), &["blemish-kernels"], Some(fault.test))?;
    }
    Ok(passed.iter().all(|p| *p) && launched)
}

fn report(fault: &Fault, found: bool, word: &str) -> bool {
    let how = if found { "found:  " } else { "MISSED: " };
    let word: String = word.chars().take(90).collect();
    shell::step("mutate", &format!("{how}{:<20} {:<24} {word}", fault.file, fault.what));
    found
}

/// A copy of kernels and emulator below `root`, with the fault.
fn plant(place: &Place, fault: &Fault, root: &Path) -> Result<()> {
    let to = root.join("kernels");
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let from = place.root.join("kernels");
    shell::output(Command::new("cp").arg("-R").args([from.join("cu"), from.join("emu")]).arg(&to))?;
    let path = to.join("cu").join(fault.file);
    let text = std::fs::read_to_string(from.join("cu").join(fault.file))?;
    if text.matches(fault.from).count() != 1 {
        bail!("{} does not hold once what '{}' replaces: {}", fault.file, fault.what, fault.from);
    }
    std::fs::write(&path, text.replace(fault.from, fault.to))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted_once() {
        let kernels = shell::root().unwrap().join("kernels/cu");
        for fault in KERNELS.iter().chain(LAUNCHES) {
            let text = std::fs::read_to_string(kernels.join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.from).count(), 1, "{}: {}", fault.file, fault.from);
            assert_ne!(fault.from, fault.to);
        }
    }
}
