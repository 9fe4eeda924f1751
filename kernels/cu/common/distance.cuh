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

// Squared distances of 8 GROUPS rows to 128 / GROUPS others by a block of 256 threads: half-warp h works on 8 rows of the left
// side (GROUPS i + h % GROUPS) and 8 of the right (16 / GROUPS i + h / GROUPS), each of its threads on one of the 16 lanes, so
// that 16 values loaded serve 64 pairs. 32 coordinates are brought at a time; the two of a lane lie side by side. The two halves
// of a warp read neighbouring rows on the left and the same on the right.
namespace lane_tile {

constexpr int THREADS = 256, STEP = 32;

// An address in global memory, and an offset, that the compiler keeps rather than works out again whenever it is used.
#ifdef EMU
__device__ __forceinline__ uint64_t kept(const float* p) { return (uint64_t)p; }
__device__ __forceinline__ float read(uint64_t p) { return *(const float*)p; }
__device__ __forceinline__ uint32_t kept(uint32_t v) { return v; }
#else
__device__ __forceinline__ uint64_t kept(const float* p) {
  uint64_t at = __cvta_generic_to_global(p);
  asm("" : "+l"(at));
  return at;
}
__device__ __forceinline__ float read(uint64_t p) { return *(const float*)__cvta_global_to_generic(p); }
__device__ __forceinline__ uint32_t kept(uint32_t v) {
  asm("" : "+r"(v));
  return v;
}
#endif

template <int GROUPS> struct Tile {
  static constexpr int LEFT = 8 * GROUPS, RIGHT = 128 / GROUPS, ROWS = LEFT + RIGHT;
  // Two buffers of both sides.
  static constexpr int SHARED = 2 * ROWS * STEP * 4;
  // On return from `distances` v[i], i in 0..4, is the distance of left_row() and right_row(i).
  static __device__ __forceinline__ int left_row() { return ((threadIdx.x & 15) >> 1) * GROUPS + (threadIdx.x >> 4) % GROUPS; }
  static __device__ __forceinline__ int right_row(int i) {
    return ((threadIdx.x & 1) * 4 + i) * (16 / GROUPS) + (threadIdx.x >> 4) / GROUPS;
  }
};

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

// `left(r)` and `right(r)` say which rows of q and b they are, in place of one that is not there any other. `shared` has SHARED
// bytes, aligned to 16. All threads of the block call it.
template <int GROUPS, class Left, class Right>
__device__ __forceinline__ void distances(unsigned char* shared, const float* q, const float* b, int d, Left left, Right right,
                                          float (&v)[64]) {
  using T = Tile<GROUPS>;
  float* buffer = (float*)shared;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, half = threadIdx.x >> 4, l = threadIdx.x & 15;
#pragma unroll
  for (int i = 0; i < 64; i++) v[i] = 0.f;
  // Each warp brings every eighth row.
  constexpr int MINE = T::ROWS / 8, OF_LEFT = T::LEFT / 8;
  uint64_t from[MINE];
#pragma unroll
  for (int i = 0; i < MINE; i++) {
    const long long row = i < OF_LEFT ? left(8 * i + warp) : right(8 * (i - OF_LEFT) + warp);
    from[i] = kept((i < OF_LEFT ? q : b) + row * d + lane);
  }
  const uint32_t own = kept((uint32_t)(warp * STEP + 2 * l + (lane >> 4)));
  float ahead[MINE];
  auto fetch = [&](int at) {
    const bool in = at + lane < d;
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      ahead[i] = in ? read(from[i]) : 0.f;
      from[i] += 4 * STEP;
    }
  };
  auto store = [&](float* to) {
    to += own;
#pragma unroll
    for (int i = 0; i < MINE; i++) to[i * 8 * STEP] = ahead[i];
  };
  fetch(0);
  __syncthreads();  // an earlier call may still read the buffer
  store(buffer);
  for (int at = 0, turn = 0; at < d; at += STEP, turn ^= 1) {
    __syncthreads();
    fetch(at + STEP);
    const float2* tile = (const float2*)(buffer + turn * T::ROWS * STEP) + l;
    const float2 *x = tile + half % GROUPS * (STEP / 2), *y = tile + (T::LEFT + half / GROUPS) * (STEP / 2);
    float2 a[8];
#pragma unroll
    for (int i = 0; i < 8; i++) a[i] = x[GROUPS * i * (STEP / 2)];
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float2 c = y[16 / GROUPS * j * (STEP / 2)];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float first = a[i].x - c.x, second = a[i].y - c.y;
        v[8 * i + j] = fmaf(second, second, fmaf(first, first, v[8 * i + j]));
      }
    }
    if (at + STEP < d) store(buffer + (turn ^ 1) * T::ROWS * STEP);
  }
  reduce<8, 32>(v);
}

}  // namespace lane_tile
