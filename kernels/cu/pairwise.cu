// Squared Euclidean distances of two sets of rows.
//
// pairwise_squared: out[i][j] = |q_i - b_j|^2, by direct difference in the fixed order of common/distance.cuh, so the same
// bits as on the CPU and 0 for equal rows.
//   q [m, d], b [n, d], out [m, n] row-major f32; d >= 1, m <= 2^21 - 32 (grid.y), n >= 1; out aliases nothing.
// Work: 3 m n d flops (subtract and fused multiply-add); bytes: 4 (m d n / 32 + n d m / 32) from L2, from memory a fraction of
// them, since blocks run in strips of 16 tiles down; 4 m n to memory.
// Launch: grid (ceil(n / 32), ceil(m / 32)), 256 threads, 16384 bytes of dynamic shared memory.
// A thread of 64 pairs takes 327 instructions for 32 coordinates, of which 256 subtract and multiply.
// Registers on sm_80 and sm_90, without spills: 122 and 128. Share of roofline: not measured in this form; that before it,
// H200, 2026-11-28: 23 to 27 % of multiply-adds.
#include "common/distance.cuh"

#ifndef PAIRWISE_BOUNDS  // tune: 256 256,1 256,2
#define PAIRWISE_BOUNDS 256,2
#endif

extern "C" __global__ void __launch_bounds__(PAIRWISE_BOUNDS)
pairwise_squared(const float* __restrict__ q, const float* __restrict__ b, float* __restrict__ out, int m, int n, int d) {
  DYN_SMEM(shared);
  using T = lane_tile::Tile<4>;
  constexpr int SIDE = 32, STRIP = 16;
  // Blocks that run at the same time form a square, not a row: they share what they read.
  const unsigned wide = gridDim.x, high = gridDim.y;
  const unsigned long long block = (unsigned long long)blockIdx.y * wide + blockIdx.x;
  const unsigned strip = (unsigned)(block / (STRIP * wide)), y0 = strip * STRIP, tall = high - y0 < STRIP ? high - y0 : STRIP;
  const unsigned place = (unsigned)(block - (unsigned long long)y0 * wide);
  const int i0 = (int)(y0 + place % tall) * SIDE, j0 = (int)(place / tall) * SIDE;
  float v[64];
  lane_tile::distances<4>(
      shared, q, b, d, [&](int r) { return i0 + r < m ? i0 + r : m - 1; }, [&](int r) { return j0 + r < n ? j0 + r : n - 1; }, v);
  // Through shared memory, so that whole lines are written.
  float* tile = (float*)shared;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; i++) tile[T::left_row() * (SIDE + 1) + T::right_row(i)] = v[i];
  __syncthreads();
  for (int at = threadIdx.x; at < SIDE * SIDE; at += lane_tile::THREADS) {
    const int i = at / SIDE, j = at % SIDE;
    if (i0 + i < m && j0 + j < n) out[(long long)(i0 + i) * n + j0 + j] = tile[i * (SIDE + 1) + j];
  }
}
