// Exact greedy k-center with pool batching; the picks of the CPU, bit for bit.
//
// An epoch: (1) radix-select the threshold V, such that at most `size` points have a squared distance to their nearest
// centre above V; (2) collect those into the pool; (3) pick greedily inside the pool for as long as the best is above V:
// points outside are at V or below and only come nearer, so each pick is the farthest point of all; (4) update all points
// with the epoch's picks. The first pick of an epoch is the farthest point itself (of equally far ones the lowest index),
// whether or not it got into the pool, so there is progress whatever ties there are. Once it is at distance 0, all
// remaining picks are that point. Distances are those of common/distance.cuh, so nothing depends on the batching.
//
// State, unsigned [STATE]: picks so far, V as bits of a float (or -1: below every distance), points in the pool, bucket
// and rank of the selection, arrivals at the grid barrier.
//
//   points [n, d] f32, near [n] squared distances (infinite at first), 1 <= n < 2^31, picks [total] row numbers, squared
//   [total] the distance of each pick when picked, histogram [65536] zero at first and left zero.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | kcenter_update | grid ceil(n / 64), 256 threads | 20480 | 3 n p' d for p picks, p' a multiple of 16; 4 n d p' / 16 |
// | kcenter_histogram | any grid, 256 threads | 0 | reads 4 n |
// | kcenter_threshold | 1 block, 1024 threads | 4096 | reads and clears 2^18 |
// | kcenter_collect | grid ceil(n / 256), 256 threads | 0 | reads 4 n |
// | kcenter_greedy | cooperative, any grid that is resident, 256 threads | 512 + 4 rows d | 3 pool d a pick |
//
// Registers on sm_80 and sm_90, without spills: kcenter_update 128 and 128, kcenter_histogram 18 and 20,
// kcenter_threshold 29 and 29, kcenter_collect 13 and 14, kcenter_greedy 64 and 72. Share of roofline: kcenter_update
// not measured in this form, that before it 36 % of multiply-adds; 200,000 x 301 to 20,000 as a whole 25 % (H200, 2026-11-28).
#include "common/distance.cuh"

#ifndef KCENTER_UPDATE_BOUNDS  // tune: 256 256,1 256,2
#define KCENTER_UPDATE_BOUNDS 256,2
#endif
#ifndef KCENTER_GREEDY_BLOCKS  // tune: 1 2 3
#define KCENTER_GREEDY_BLOCKS 2
#endif

namespace kcenter {

enum { PICKS, THRESHOLD, POOL, BUCKET, RANK, ARRIVED, STATE };

// Farther points are larger; of equally far ones the lower index.
__device__ __forceinline__ uint64_t key(float squared, uint32_t index) {
  return (uint64_t)__float_as_uint(squared) << 32 | (0xffffffffu - index);
}
__device__ __forceinline__ uint32_t key_index(uint64_t key) { return 0xffffffffu - (uint32_t)key; }
__device__ __forceinline__ float key_squared(uint64_t key) { return __uint_as_float((uint32_t)(key >> 32)); }

__device__ __forceinline__ uint64_t warp_max(uint64_t v) {
#pragma unroll
  for (int by = 16; by; by >>= 1) {
    const uint64_t other = __shfl_xor_sync(FULL_WARP, v, by);
    v = other > v ? other : v;
  }
  return v;
}

// The largest over the block's 256 threads, in every thread; `scratch` has 8 elements.
__device__ __forceinline__ uint64_t block_max(uint64_t v, uint64_t* scratch) {
  v = warp_max(v);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
  __syncthreads();
  return warp_max(scratch[threadIdx.x & 7]);
}

}  // namespace kcenter

// near[i] = min(near[i], |p_i - p_c|^2) over the centres c = picks[first .. first + count].
extern "C" __global__ void __launch_bounds__(KCENTER_UPDATE_BOUNDS)
kcenter_update(const float* __restrict__ points, float* __restrict__ near, const uint32_t* __restrict__ picks, int first,
               int count, int n, int d) {
  DYN_SMEM(shared);
  using T = lane_tile::Tile<8>;
  const int i0 = blockIdx.x * T::LEFT;
  auto point = [&](int r) { return i0 + r < n ? i0 + r : n - 1; };
  float best = __uint_as_float(0x7f800000u);  // of left_row()
  for (int c0 = 0; c0 < count; c0 += T::RIGHT) {
    // A centre more than there are is the last one again.
    auto centre = [&](int r) { return picks[first + (c0 + r < count ? c0 + r : count - 1)]; };
    float v[64];
    lane_tile::distances<8>(shared, points, points, d, point, centre, v);
#pragma unroll
    for (int i = 0; i < 4; i++) best = fminf(best, v[i]);
  }
  best = fminf(best, __shfl_xor_sync(FULL_WARP, best, 1));
  float* part = (float*)shared;
  __syncthreads();
  if ((threadIdx.x & 1) == 0) part[(threadIdx.x >> 7) * T::LEFT + T::left_row()] = best;
  __syncthreads();
  if (threadIdx.x < T::LEFT && i0 + (int)threadIdx.x < n)
    near[i0 + threadIdx.x] = fminf(near[i0 + threadIdx.x], fminf(part[threadIdx.x], part[T::LEFT + threadIdx.x]));
}

// Level 0 counts by the upper 16 bits and finds the farthest point; level 1 counts the lower 16 bits inside the bucket.
extern "C" __global__ void __launch_bounds__(256)
kcenter_histogram(const float* __restrict__ near, uint32_t* __restrict__ histogram, const uint32_t* __restrict__ state,
                  uint64_t* __restrict__ farthest, int n, int level) {
  uint64_t best = 0;
  const uint32_t bucket = state[kcenter::BUCKET];
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    const uint32_t bits = __float_as_uint(near[i]);
    if (level == 0) {
      atomicAdd(&histogram[bits >> 16], 1u);
      const uint64_t own = kcenter::key(near[i], (uint32_t)i);
      best = own > best ? own : best;
    } else if (bits >> 16 == bucket) {
      atomicAdd(&histogram[bits & 0xffffu], 1u);
    }
  }
  if (level == 0) {
    best = kcenter::warp_max(best);
    if ((threadIdx.x & 31) == 0) atomicMax(farthest, best);
  }
}

// Finds the bin in which, counted from the largest, the (size + 1)-th value lies; clears the histogram.
extern "C" __global__ void __launch_bounds__(1024)
kcenter_threshold(uint32_t* __restrict__ histogram, uint32_t* __restrict__ state, int size, int level) {
  DYN_SMEM(shared);
  uint32_t* above = (uint32_t*)shared;  // [1024]: values in the bins of this thread and of all after it
  const int t = threadIdx.x;
  uint32_t own = 0;
  for (int b = 0; b < 64; b++) own += histogram[t * 64 + b];
  above[t] = own;
  for (int by = 1; by < 1024; by <<= 1) {
    __syncthreads();
    const uint32_t more = t + by < 1024 ? above[t + by] : 0u;
    __syncthreads();
    above[t] += more;
  }
  __syncthreads();
  const bool none = level == 1 && (int)state[kcenter::THRESHOLD] == -1;
  const uint32_t rank = level == 0 ? (uint32_t)size : state[kcenter::RANK], bucket = state[kcenter::BUCKET];
  const uint32_t after = t + 1 < 1024 ? above[t + 1] : 0u, all = above[0];
  __syncthreads();
  if (all <= rank || none) {
    if (t == 0) {
      state[kcenter::THRESHOLD] = 0xffffffffu;
      state[kcenter::BUCKET] = 0xffffffffu;
    }
  } else if (after <= rank && rank < above[t]) {
    uint32_t seen = after;
    for (int b = t * 64 + 63; b >= t * 64; b--) {
      if (seen + histogram[b] > rank) {
        state[kcenter::THRESHOLD] = level == 0 ? (uint32_t)b << 16 : bucket << 16 | (uint32_t)b;
        state[kcenter::BUCKET] = (uint32_t)b;
        state[kcenter::RANK] = rank - seen;
        break;
      }
      seen += histogram[b];
    }
  }
  if (t == 0) {
    state[kcenter::POOL] = 0;
    state[kcenter::ARRIVED] = 0;
  }
  for (int b = 0; b < 64; b++) histogram[t * 64 + b] = 0;
}

// The points above V, in any order.
extern "C" __global__ void __launch_bounds__(256)
kcenter_collect(const float* __restrict__ near, uint32_t* __restrict__ state, uint32_t* __restrict__ pool, int n) {
  const int i = blockIdx.x * 256 + threadIdx.x, lane = threadIdx.x & 31;
  const bool in = i < n && __float_as_int(near[i]) > (int)state[kcenter::THRESHOLD];
  const uint32_t votes = __ballot_sync(FULL_WARP, in);
  uint32_t at = 0;
  if (lane == 0 && votes) at = atomicAdd(&state[kcenter::POOL], (uint32_t)__popc(votes));
  at = __shfl_sync(FULL_WARP, at, 0);
  if (in) pool[at + __popc(votes & ((1u << lane) - 1))] = (uint32_t)i;
}

// Picks until the best of the pool is at V or below, or `total` picks are made. Block b has the pool's points b, b + grid,
// ...; their rows lie in shared memory if `rows` (how many fit) is not 0. `best` [2, grid] passes each block's farthest on;
// `farthest` [1] is what kcenter_histogram found.
extern "C" __global__ void __launch_bounds__(256, KCENTER_GREEDY_BLOCKS)
kcenter_greedy(const float* __restrict__ points, const float* __restrict__ near, uint32_t* __restrict__ state,
               const uint32_t* __restrict__ pool, uint64_t* __restrict__ best, const uint64_t* __restrict__ farthest,
               uint32_t* __restrict__ picks, float* __restrict__ squared, int total, int d, int rows) {
  DYN_SMEM(shared);
  uint64_t* scratch = (uint64_t*)shared;       // [8]
  float* far = (float*)(shared + 64);          // [MOST] distances of this block's points
  float* kept = (float*)(shared + 512);        // [rows, d]
  constexpr int MOST = (512 - 64) / 4;         // the host gives no block more points
  const int members = (int)state[kcenter::POOL], threshold = (int)state[kcenter::THRESHOLD];
  const int grid = gridDim.x, block = blockIdx.x, own = block < members ? (members - block + grid - 1) / grid : 0;
  int picked = (int)state[kcenter::PICKS];
  const int mine = own < MOST ? own : MOST;
  for (int i = threadIdx.x; i < mine; i += 256) far[i] = near[pool[block + i * grid]];
  if (rows)
    for (int at = threadIdx.x; at < mine * d; at += 256) kept[at] = points[(long long)pool[block + at / d * grid] * d + at % d];
  __syncthreads();
  unsigned target = 0;
  for (int turn = 0;; turn++) {
    uint64_t top = 0;
    for (int i = threadIdx.x; i < mine; i += 256) {
      const uint64_t k = kcenter::key(far[i], pool[block + i * grid]);
      top = k > top ? k : top;
    }
    top = kcenter::block_max(top, scratch);
    // Two halves in turn: a block may come here again before the others have read.
    volatile uint64_t* exchange = best + (turn & 1) * grid;
    if (threadIdx.x == 0) exchange[block] = top;
    grid_barrier(&state[kcenter::ARRIVED], target);
    top = 0;
    for (int b = threadIdx.x; b < grid; b += 256) {
      const uint64_t other = exchange[b];
      top = other > top ? other : top;
    }
    top = kcenter::block_max(top, scratch);
    if (turn == 0) top = *farthest > top ? *farthest : top;
    const float distance = kcenter::key_squared(top);
    const uint32_t index = kcenter::key_index(top);
    // The farthest point of all, at a distance of 0: every further pick is this one again.
    const bool last = turn == 0 && distance == 0.f;
    if (picked == total || (turn > 0 && __float_as_int(distance) <= threshold)) break;
    if (block == 0)
      for (int i = picked + threadIdx.x; i < (last ? total : picked + 1); i += 256) {
        picks[i] = index;
        squared[i] = distance;
      }
    picked = last ? total : picked + 1;
    if (picked == total) break;
    const float* centre = points + (long long)index * d;
    const int warp = threadIdx.x >> 5, upper = (threadIdx.x >> 4) & 1;
    for (int i0 = warp * 2; i0 < mine; i0 += 16) {
      const int i = i0 + upper < mine ? i0 + upper : i0;  // both halves work; one of them may repeat the other
      const float* row = rows ? kept + (long long)i * d : points + (long long)pool[block + i * grid] * d;
      const float s = squared16(row, centre, d);
      if ((threadIdx.x & 15) == 0 && i0 + upper < mine) far[i] = fminf(far[i], s);
    }
    __syncthreads();
  }
  if (block == 0 && threadIdx.x == 0) state[kcenter::PICKS] = (uint32_t)picked;
}
