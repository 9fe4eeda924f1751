// The k best rows of a query in a warp.
#pragma once
#include "common/device.cuh"

namespace nearest {

constexpr int NO_ROW = 0x7fffffff;

// The distance of no row.
__device__ __forceinline__ float none() { return __uint_as_float(0x7f800000u); }

struct Found { float v; int i; };

__device__ __forceinline__ bool better(float v, int i, const Found& than) {
  return v < than.v || (v == than.v && i < than.i);
}

// Lane l holds the l-th best. Puts (v, i), the same in all lanes, in its place; what falls off lane 31 is gone.
__device__ __forceinline__ void insert(Found& held, float v, int i) {
  const int lane = threadIdx.x & 31;
  const uint32_t before = __ballot_sync(FULL_WARP, !better(v, i, held));
  const int at = __popc(before);
  const float up_v = __shfl_up_sync(FULL_WARP, held.v, 1);
  const int up_i = __shfl_up_sync(FULL_WARP, held.i, 1);
  if (lane > at) held = {up_v, up_i};
  if (lane == at) held = {v, i};
}

// Puts in each lane's (v, i) that is among the best `k` so far.
__device__ __forceinline__ void insert_all(Found& held, int k, float v, int i) {
  for (;;) {
    const Found kth = {__shfl_sync(FULL_WARP, held.v, k - 1), __shfl_sync(FULL_WARP, held.i, k - 1)};
    const uint32_t wanted = __ballot_sync(FULL_WARP, better(v, i, kth));
    if (!wanted) return;
    const int from = __ffs((int)wanted) - 1;
    insert(held, __shfl_sync(FULL_WARP, v, from), __shfl_sync(FULL_WARP, i, from));
    if ((int)(threadIdx.x & 31) == from) v = none(), i = NO_ROW;
  }
}

__device__ __forceinline__ void write(const Found& held, int k, uint32_t* index, float* distance) {
  const int lane = threadIdx.x & 31;
  if (lane < k) {
    index[lane] = (uint32_t)held.i;
    distance[lane] = sqrtf(held.v);
  }
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int by = 16; by; by >>= 1) v += __shfl_xor_sync(FULL_WARP, v, by);
  return v;
}

__device__ __forceinline__ float warp_min(float v) {
#pragma unroll
  for (int by = 16; by; by >>= 1) v = fminf(v, __shfl_xor_sync(FULL_WARP, v, by));
  return v;
}

}  // namespace nearest
