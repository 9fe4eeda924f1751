// Adam's step on the values of a parameter whose gradient lies in memory (common/adam.cuh).
//
// adam_step: p, m, v, g [n]; n < 2^31.
// Work: 12 flops a value, with a root and a division; bytes: 28 a value.
// Launch: grid ceil(n / 256), 256 threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: 24 and 24. Share of roofline, H200, 2026-11-28: adam_step 104 % of a copy.
#include "common/adam.cuh"

extern "C" __global__ void __launch_bounds__(256)
adam_step(const float* __restrict__ numbers, const uint32_t* __restrict__ turn, float* __restrict__ p, float* __restrict__ m,
          float* __restrict__ v, const float* __restrict__ g, int n) {
  const long long i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= n) return;
  const adam::Step step = adam::load(numbers, turn);
  float value = p[i], first = m[i], second = v[i];
  adam::apply(step, value, first, second, g[i]);
  p[i] = value, m[i] = first, v[i] = second;
}
