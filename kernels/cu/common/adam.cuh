// The step of Adam (Kingma and Ba, ICLR 2015, algorithm 1), the bits of the CPU. What changes from step to step lies in memory,
// so that recorded launches can be started again: `numbers` [steps, 8] and `turn`, the step that is next.
#pragma once
#include "common/device.cuh"

namespace adam {

struct Step { float first, second, size, eps, l2, shrink; };

// From beta1, beta2, size, root, eps, l2, shrink of a step.
__device__ __forceinline__ Step load(const float* __restrict__ numbers, const uint32_t* __restrict__ turn) {
  const float* n = numbers + 8 * turn[0];
  return {n[0], n[1], n[2] * n[3], n[4] * n[3], n[5], n[6]};
}

// Moves `p` against its gradient and the moments along.
__device__ __forceinline__ void apply(const Step& s, float& p, float& m, float& v, float g) {
  const float value = p * s.shrink, gradient = g + s.l2 * p;
  m = m + (1.f - s.first) * (gradient - m);
  v = s.second * v + (1.f - s.second) * gradient * gradient;
  p = value - s.size * (m / (sqrtf(v) + s.eps));
}

}  // namespace adam
