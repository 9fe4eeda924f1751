#![allow(unsafe_code)]

/// Multiply-adds in flight at once; two units of latency four need eight, and both AVX2 and AVX-512 have the registers.
const CHAINS: usize = 12;

/// A way to spend multiply-adds: `rounds` in, a value that depends on all of them and the operations done out.
pub(super) type Run = fn(usize) -> (f32, u64);

/// Multiply-adds on registers alone, with the widest vectors this processor has.
pub(super) fn multiply_add(rounds: usize) -> (f32, u64) {
    match variants().first() {
        Some((_, run)) => run(rounds),
        None => portable(rounds),
    }
}

/// Everything this processor can run, the fastest first.
pub(super) fn variants() -> Vec<(&'static str, Run)> {
    let mut list: Vec<(&'static str, Run)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F, as just asked.
            list.push(("avx512", |rounds| unsafe { x86::avx512(rounds) }));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA, as just asked.
            list.push(("avx2", |rounds| unsafe { x86::avx2(rounds) }));
        }
    }
    list.push(("portable", portable));
    list
}

/// Multiply and add in two steps, for the compiler to vectorise with what every processor has.
fn portable(rounds: usize) -> (f32, u64) {
    const LANES: usize = 4;
    let mut chains = [[1.0_f32; LANES]; CHAINS];
    let (scale, shift) = (std::hint::black_box(0.999_f32), std::hint::black_box(0.001_f32));
    for _ in 0..rounds {
        for lane in chains.as_flattened_mut() {
            *lane = *lane * scale + shift;
        }
    }
    (chains.as_flattened().iter().sum(), (rounds * CHAINS * LANES * 2) as u64)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::CHAINS;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) -> (f32, u64) {
        let mut chains = [_mm512_set1_ps(1.0); CHAINS];
        let scale = _mm512_set1_ps(std::hint::black_box(0.999));
        let shift = _mm512_set1_ps(std::hint::black_box(0.001));
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, scale, shift);
            }
        }
        let sum = chains.iter().map(|chain| _mm512_reduce_add_ps(*chain)).sum();
        (sum, (rounds * CHAINS * 16 * 2) as u64)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> (f32, u64) {
        let mut chains = [_mm256_set1_ps(1.0); CHAINS];
        let scale = _mm256_set1_ps(std::hint::black_box(0.999));
        let shift = _mm256_set1_ps(std::hint::black_box(0.001));
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, scale, shift);
            }
        }
        let sum = chains.iter().map(|chain| {
            let half = _mm_add_ps(_mm256_castps256_ps128(*chain), _mm256_extractf128_ps::<1>(*chain));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        });
        (sum.sum(), (rounds * CHAINS * 8 * 2) as u64)
    }
}
