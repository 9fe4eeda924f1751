// Mahalanobis distance of every position of a feature grid to a Gaussian of its own (kernels/src/mahalanobis has the forms
// and the layout of the tensors, which are the same here). Channels are gathered from NHWC maps of several grids at the nearest
// index and the mean is taken off while they are loaded: no embedding is ever stored.
//
// mahalanobis_triangle, once a level, coarse to fine: for each group of the level and each picture the sum of squares of rows
//   a .. b of W (x - mean), W packed in panels of up to 16 rows, plus what the group's parent has. A level that is not the last
//   leaves it in sums [groups, n]; the last writes its root to all positions of the group in out [n, grid_h, grid_w].
//   The triangle form is the nested one with a single level.
// mahalanobis_low_rank: sum over i < rank of scale_i c_i^2 + |rest|^2 / epsilon, where c_i is the part of x - mean along the
//   orthonormal row i of basis [groups, rank, d] and rest what remains after all of them (modified Gram-Schmidt).
//
// Tables of the host: maps [4][3] height, width, channels; channel [d][4]: map, channel in it, level, place in that level's
// mean; mean: all levels one after the other, mean_at [levels] where each begins and mean_rows [levels] its rows a group;
// area [groups][4]: first and end row, first and end column of the grid; ancestor [groups][levels]: the group of each level
// it lies in, itself included. At most 4 maps.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | mahalanobis_triangle | grid (groups, ceil(n / 4)), MAHALANOBIS_WARPS warps | 16 b + 16 a warp | 2 n floats of W; 4 floats of W for every 4 pictures |
// | mahalanobis_low_rank | grid (groups, ceil(n / 4)), 128 threads | 16 d | 4 n rank d; 4 rank d for every 4 pictures |
//
// Registers on sm_80 and sm_90, without spills: mahalanobis_triangle 59 and 48, mahalanobis_low_rank 48 and 48.
// Share of roofline: not yet measured.
#include "common/distance.cuh"
#include "common/gather.cuh"

#ifndef MAHALANOBIS_UNROLL  // tune: 2 4 8
#define MAHALANOBIS_UNROLL 4
#endif
#ifndef MAHALANOBIS_WARPS  // tune: 4 8 16
#define MAHALANOBIS_WARPS 8
#endif

namespace mahalanobis {

__device__ __forceinline__ void add(float (&sum)[PICTURES], float w, const float4& x) {
  sum[0] = fmaf(w, x.x, sum[0]);
  sum[1] = fmaf(w, x.y, sum[1]);
  sum[2] = fmaf(w, x.z, sum[2]);
  sum[3] = fmaf(w, x.w, sum[3]);
}

// The root of a square to all positions of an area.
__device__ __forceinline__ void fill(float* out, const int* area, int picture, float square, int grid_h, int grid_w, int lane,
                                     int lanes) {
  const int width = area[3] - area[2], count = (area[1] - area[0]) * width;
  const float root = sqrtf(square);
  for (int i = lane; i < count; i += lanes)
    out[((long long)picture * grid_h + area[0] + i / width) * grid_w + area[2] + i % width] = root;
}

}  // namespace mahalanobis

extern "C" __global__ void __launch_bounds__(32 * MAHALANOBIS_WARPS)
mahalanobis_triangle(const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,
                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,
                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,
                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,
                     const float* __restrict__ parents, float* __restrict__ sums, float* __restrict__ out, int level,
                     int levels, int a, int b, int n, int grid_h, int grid_w) {
  using namespace mahalanobis;
  DYN_SMEM(shared);
  float* partial = (float*)shared;         // [warps, PICTURES]
  float4* x = (float4*)(shared + 16 * MAHALANOBIS_WARPS);  // [b]
  const int group = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, row = lane & 15, parity = lane >> 4;
  area += 4 * group;
  ancestor += (long long)group * levels;
  gather({{map0, map1, map2, map3}}, shape, channel, mean, mean_at, mean_rows, area, ancestor, b, grid_h, grid_w, blockIdx.y * PICTURES, n, x);
  __syncthreads();
  const long long floats = (long long)b * (b + 1) / 2 - (long long)a * (a + 1) / 2;
  const float* triangle = weight + group * floats;
  float total[PICTURES] = {0.f, 0.f, 0.f, 0.f};
  // Panels grow from first to last: the last go out first.
  for (int p = (b - a + 15) / 16 - 1 - warp; p >= 0; p -= MAHALANOBIS_WARPS) {
    const int r0 = a + 16 * p, h = b - r0 < 16 ? b - r0 : 16;
    const float* w = triangle + (long long)p * (16 * a + 136) + 128ll * p * (p - 1);
    float z[PICTURES] = {0.f, 0.f, 0.f, 0.f};
    if (row < h) {
      // One half of the warp has the even columns, the other the odd ones.
#pragma unroll MAHALANOBIS_UNROLL
      for (int c = parity; c < r0; c += 2) add(z, w[(long long)c * h + row], x[c]);
      w += (long long)r0 * h;
      for (int c = parity; c <= row; c += 2) add(z, w[c * h - c * (c - 1) / 2 + row - c], x[r0 + c]);
    }
#pragma unroll
    for (int i = 0; i < PICTURES; i++) {
      z[i] += __shfl_xor_sync(FULL_WARP, z[i], 16);
      total[i] += sum16(z[i] * z[i]);
    }
  }
  if (lane == 0)
#pragma unroll
    for (int i = 0; i < PICTURES; i++) partial[warp * PICTURES + i] = total[i];
  __syncthreads();
  const int picture = blockIdx.y * PICTURES + warp;
  if (warp >= PICTURES || picture >= n) return;
  float square = level ? parents[(long long)ancestor[level - 1] * n + picture] : 0.f;
#pragma unroll
  for (int i = 0; i < MAHALANOBIS_WARPS; i++) square += partial[i * PICTURES + warp];
  if (level + 1 < levels) {
    if (lane == 0) sums[(long long)group * n + picture] = square;
  } else {
    fill(out, area, picture, square, grid_h, grid_w, lane, 32);
  }
}

extern "C" __global__ void __launch_bounds__(128)
mahalanobis_low_rank(const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,
                     const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,
                     const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,
                     const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ basis,
                     const float* __restrict__ scale, float* __restrict__ out, float epsilon, int rank, int levels, int d,
                     int n, int grid_h, int grid_w) {
  using namespace mahalanobis;
  DYN_SMEM(shared);
  float* x = (float*)shared;  // [d, PICTURES]
  const int group = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  area += 4 * group;
  ancestor += (long long)group * levels;
  gather({{map0, map1, map2, map3}}, shape, channel, mean, mean_at, mean_rows, area, ancestor, d, grid_h, grid_w, blockIdx.y * PICTURES, n,
         (float4*)x);
  __syncthreads();
  const int picture = blockIdx.y * PICTURES + warp;
  if (picture >= n) return;
  float square = 0.f;
  for (int i = 0; i < rank; i++) {
    const float* row = basis + ((long long)group * rank + i) * d;
    float part = 0.f;
    for (int j = lane; j < d; j += 32) part = fmaf(row[j], x[j * PICTURES + warp], part);
    part = sum16(part);
    part += __shfl_xor_sync(FULL_WARP, part, 16);
    for (int j = lane; j < d; j += 32) x[j * PICTURES + warp] = fmaf(-part, row[j], x[j * PICTURES + warp]);
    square = fmaf(scale[(long long)group * rank + i] * part, part, square);
  }
  float rest = 0.f;
  for (int j = lane; j < d; j += 32) rest = fmaf(x[j * PICTURES + warp], x[j * PICTURES + warp], rest);
  rest = sum16(rest);
  rest += __shfl_xor_sync(FULL_WARP, rest, 16);
  fill(out, area, picture, square + rest / epsilon, grid_h, grid_w, lane, 32);
}
