// Squared Euclidean distances of two sets of rows.
//
// pairwise_squared: out[i][j] = |q_i - b_j|^2, by direct difference in the fixed order of common/distance.cuh, so the same
// bits as on the CPU and 0 for equal rows.
//   q [m, d], b [n, d], out [m, n] row-major f32; d >= 1, m <= 2^21 - 32 (grid.y), n >= 1; out aliases nothing.
// Work: 3 m n d flops (subtract and fused multiply-add); bytes: 4 (m d n / 32 + n d m / 32) from L2, 4 m n to memory.
// Launch: grid (ceil(n / 32), ceil(m / 32)), 256 threads, 8192 bytes of dynamic shared memory.
// Registers on sm_80 and sm_90, without spills: 96 and 96. Share of roofline: not yet measured.
#include "common/distance.cuh"

#ifndef PAIRWISE_BOUNDS  // tune: 256 256,1 256,2
#define PAIRWISE_BOUNDS 256
#endif

extern "C" __global__ void __launch_bounds__(PAIRWISE_BOUNDS)
pairwise_squared(const float* __restrict__ q, const float* __restrict__ b, float* __restrict__ out, int m, int n, int d) {
  DYN_SMEM(shared);
  using namespace lane_tile;
  const int i0 = blockIdx.y * SIDE, j0 = blockIdx.x * SIDE;
  float v[64];
  distances(
      shared, d, [&](int r) { return i0 + r < m ? q + (long long)(i0 + r) * d : nullptr; },
      [&](int r) { return j0 + r < n ? b + (long long)(j0 + r) * d : nullptr; }, v);
  // Through shared memory, so that whole lines are written.
  float* tile = (float*)shared;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; i++) tile[left_row() * (SIDE + 1) + right_row(i)] = v[i];
  __syncthreads();
  for (int at = threadIdx.x; at < SIDE * SIDE; at += THREADS) {
    const int i = at / SIDE, j = at % SIDE;
    if (i0 + i < m && j0 + j < n) out[(long long)(i0 + i) * n + j0 + j] = tile[i * (SIDE + 1) + j];
  }
}
