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
    fault("mahalanobis.cu", "mahalanobis", "swapped axes", "column = area[2], first", "column = area[0], first"),
    fault("mahalanobis.cu", "mahalanobis", "tail of the pictures", "first + i < n ?", "first + i <= n ?"),
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
    fault("embed.cu", "embed", "neighbourhood", "v <= y + 1 && v < h", "v < y + 1 && v < h"),
];

const LAUNCHES: &[Fault] = &[
    fault("blur.cu", "blur_is_the_cpu_s", "swapped arguments", "int n, int h, int w,\n", "int n, int w, int h,\n"),
    fault(
        "pairwise.cu",
        "distances_are_the_cpu_s",
        "swapped arguments",
        "const float* __restrict__ q, const float* __restrict__ b,",
        "const float* __restrict__ b, const float* __restrict__ q,",
    ),
    fault(
        "nearest.cu",
        "nearest_rows_are_the_cpu_s_sieved_and_scanned",
        "swapped arguments",
        "const float* __restrict__ query, const float* __restrict__ bank,",
        "const float* __restrict__ bank, const float* __restrict__ query,",
    ),
    fault(
        "kcenter.cu",
        "picks_are_the_cpu_s",
        "swapped arguments",
        "int first,\n               int count, int n",
        "int count,\n               int first, int n",
    ),
    fault(
        "mahalanobis.cu",
        "mahalanobis_distances_agree_with_the_cpu",
        "swapped arguments",
        "const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,\n                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,\n                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,\n                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,",
        "const float* __restrict__ map1, const float* __restrict__ map0, const float* __restrict__ map2,\n                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,\n                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,\n                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,",
    ),
    fault(
        "resize.cu",
        "resizes_are_the_cpu_s",
        "swapped arguments",
        "int out_h,\n                int out_w,",
        "int out_w,\n                int out_h,",
    ),
    fault(
        "embed.cu",
        "embeddings_are_the_cpu_s",
        "swapped arguments",
        "int pitch, int offset)",
        "int offset, int pitch)",
    ),
];

/// How long a faulty test may run; hanging is being found.
const LIMIT: Duration = Duration::from_secs(60);

/// Plants every fault; whether each was found.
pub(super) fn run(place: &Place) -> Result<bool> {
    // The tests as they are have to pass, or finding a fault would mean nothing.
    if !place.all()? {
        bail!("the tests fail without any planted fault");
    }
    let folder = place.folder.join("mutants");
    let kernels: Vec<(usize, &Fault)> = KERNELS.iter().enumerate().collect();
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
    let launches: Vec<(usize, &Fault)> = LAUNCHES.iter().enumerate().collect();
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
