// The squared distance of nearest neighbour and k-center, bit for bit the one of the CPU: lane l of 16 sums the squares of
// coordinates l, l + 16, ... of the direct difference with fused multiply-adds, then lanes are added pairwise (8, 4, 2, 1).
#pragma once
#include "common/device.cuh"

// Sum over the 16 lanes of each half of a warp, in every lane; all 32 lanes call it.
__device__ __forceinline__ float sum16(float v) {
#pragma unroll
  for (int by = 8; by; by >>= 1) v += __shfl_xor_sync(FULL_WARP, v, by);
  return v;
}

// Squared distance of rows `a` and `b` `[d]`, one pair for each half-warp; all 32 lanes call it.
__device__ __forceinline__ float squared16(const float* a, const float* b, int d) {
  float sum = 0.f;
  for (int j = threadIdx.x & 15; j < d; j += 16) {
    const float t = a[j] - b[j];
    sum = fmaf(t, t, sum);
  }
  return sum16(sum);
}

// Squared distances of 32 rows to 32 others by a block of 256 threads: half-warp h works on 8 rows of the left side (4 i +
// (h & 3)) and 8 of the right (4 i + (h >> 2)), each of its threads on one of the 16 lanes, so that 16 values loaded serve
// 64 pairs. The two halves of a warp read neighbouring rows, hence different banks of shared memory.
namespace lane_tile {

constexpr int SIDE = 32, THREADS = 256, STEP = 16;
// Two buffers of both sides.
constexpr int SHARED = 2 * 2 * SIDE * STEP * 4;

// Adds up 2 KEEP values over the 16 lanes of a half-warp, lane by lane in the order of sum16: each step hands half of the
// values to the lane BY away. From 64 values, v[0..4] of lane l are then the sums of index 4 l .. 4 l + 4. (A template, since
// a loop whose inner bound changes is not unrolled, and an array indexed at run time lies in local memory.)
template <int BY, int KEEP> __device__ __forceinline__ void reduce(float (&v)[64]) {
  const bool upper = threadIdx.x & BY;
#pragma unroll
  for (int i = 0; i < KEEP; i++) {
    const float mine = upper ? v[i + KEEP] : v[i], theirs = upper ? v[i] : v[i + KEEP];
    v[i] = mine + __shfl_xor_sync(FULL_WARP, theirs, BY);
  }
  if constexpr (BY > 1) reduce<BY / 2, KEEP / 2>(v);
}

// Rows are found by `left(r)` and `right(r)`, r in 0..32: a pointer, or null for a row that is not there (taken as zeros).
// On return v[i], i in 0..4, is the distance of left_row() and right_row(i). `shared` has SHARED bytes, aligned to 16. All
// threads of the block call it.
__device__ __forceinline__ int left_row() { return ((threadIdx.x & 15) >> 1) * 4 + ((threadIdx.x >> 4) & 3); }
__device__ __forceinline__ int right_row(int i) { return ((threadIdx.x & 1) * 4 + i) * 4 + (threadIdx.x >> 6); }

template <class Left, class Right>
__device__ __forceinline__ void distances(unsigned char* shared, int d, Left left, Right right, float (&v)[64]) {
  float* buffer = (float*)shared;
  const int half = threadIdx.x >> 4, l = threadIdx.x & 15;
#pragma unroll
  for (int i = 0; i < 64; i++) v[i] = 0.f;
  // Each half-warp brings two rows of each side, 16 coordinates at a time.
  const float* source[4] = {left(half), left(half + 16), right(half), right(half + 16)};
  float ahead[4];
  auto fetch = [&](int at) {
#pragma unroll
    for (int i = 0; i < 4; i++) ahead[i] = source[i] && at + l < d ? source[i][at + l] : 0.f;
  };
  auto store = [&](float* to) {
#pragma unroll
    for (int i = 0; i < 4; i++) to[((i >> 1) * SIDE + (i & 1) * 16 + half) * STEP + l] = ahead[i];
  };
  fetch(0);
  __syncthreads();  // an earlier call may still read the buffer
  store(buffer);
  for (int at = 0, turn = 0; at < d; at += STEP, turn ^= 1) {
    __syncthreads();
    fetch(at + STEP);
    const float *a = buffer + turn * 2 * SIDE * STEP, *b = a + SIDE * STEP;
    float x[8], y[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      x[i] = a[(4 * i + (half & 3)) * STEP + l];
      y[i] = b[(4 * i + (half >> 2)) * STEP + l];
    }
#pragma unroll
    for (int i = 0; i < 64; i++) {
      const float t = x[i >> 3] - y[i & 7];
      v[i] = fmaf(t, t, v[i]);
    }
    if (at + STEP < d) store(buffer + (turn ^ 1) * 2 * SIDE * STEP);
  }
  reduce<8, 32>(v);
}

}  // namespace lane_tile
