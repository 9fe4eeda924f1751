// What nearest_rerank (nearest.cu) knows of distances before it takes them, and how it takes several at a time.
#pragma once
#include "common/best.cuh"
#include "common/distance.cuh"

// Squared distances of row `a` and ROWS rows `b` `[d]`, each with the bits of squared16 in common/distance.cuh; BATCH coordinates a
// lane of each row are under way at a time. All 32 lanes call it.
template <int ROWS, int BATCH>
__device__ __forceinline__ void squared16(const float* a, const float* const (&b)[ROWS], int d, float (&sum)[ROWS]) {
#pragma unroll
  for (int r = 0; r < ROWS; r++) sum[r] = 0.f;
  auto batch = [&](int j, bool whole) {
    float x[BATCH], y[ROWS][BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const bool in = whole || j + 16 * i < d;
      x[i] = in ? a[j + 16 * i] : 0.f;
#pragma unroll
      for (int r = 0; r < ROWS; r++) y[r][i] = in ? b[r][j + 16 * i] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++)
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float t = x[i] - y[r][i];
        sum[r] = fmaf(t, t, sum[r]);  // adding 0 changes no bit of a sum
      }
  };
  int j0 = 0;
  for (; j0 + 16 * BATCH <= d; j0 += 16 * BATCH) batch(j0 + (threadIdx.x & 15), true);
  if (j0 < d) batch(j0 + (threadIdx.x & 15), false);
#pragma unroll
  for (int r = 0; r < ROWS; r++) sum[r] = sum16(sum[r]);
}

namespace nearest {

constexpr float NOTHING = 3e38f;   // the sieve's value of a row that is not there
constexpr float NO_BOUND = 1e37f;  // what it gives as an upper bound is above this

// A query. `error`: what a sieve value and its norms may lose, since tensor cores may truncate each of k / 16 partial sums of
// products, of which 2 |q| |b| <= |q|^2 + |b|^2, and norms are sums of k / 32 terms. The number took 6 bits of a value.
struct Query { float norm, loss, error; };

// `most`: the largest loss and squared norm of the block of rows.
__device__ __forceinline__ float error(const Query& q, float value, float2 most) {
  return fmaf(q.error, q.norm + most.y, fmaf(7.7e-6f, fabsf(value), 1e-37f));
}
// What their fp16 forms may change of the distance of two rows.
__device__ __forceinline__ float lost(const Query& q, float2 most) { return q.loss + most.x; }
// The square of the distance of the row that a sieve value belongs to is no more than this, but for rounding: where s is no less
// than the square of fp16 forms, (sqrt(s) + loss)^2 <= s + loss (s / g + g) + loss^2 with any g > 0, little more if g is near
// sqrt(s). `inverse` = 1 / g.
__device__ __forceinline__ float upper_squared(const Query& q, float value, float2 most, float g, float inverse) {
  const float s = fmaxf(value + q.norm + error(q, value, most), 1e-37f), loss = lost(q, most);
  return fmaf(s, fmaf(loss, inverse, 1.f), loss * (loss + g));
}
// The distance is no less than this.
__device__ __forceinline__ float lower(const Query& q, float value, float2 most) {
  return sqrtf(fmaxf(value + q.norm - error(q, value, most), 0.f)) - lost(q, most);
}
// Whether lower() <= reach, without a root: never false where it is.
__device__ __forceinline__ bool within(const Query& q, float value, float2 most, float reach) {
  const float far = reach + lost(q, most);
  return value + q.norm - error(q, value, most) <= far * far * 1.000001f;
}

// Keeps the two smallest; no v is NaN, which would have the smallest twice.
__device__ __forceinline__ void smallest(float2& kept, float v) {
  kept.y = fminf(kept.y, fmaxf(kept.x, v));
  kept.x = fminf(kept.x, v);
}

}  // namespace nearest
