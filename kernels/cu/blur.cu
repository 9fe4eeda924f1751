// Gaussian blur of maps [n, h, w]: down, then across. The bits of the CPU: the centre first, then pairs at growing distance, no
// fused multiply-add.
//
//   line[i] becomes kernel[0] x[i] + sum over r = 1 .. radius of kernel[r] (x[i - r] + x[i + r]), indices beyond the border
//   reflected, as often as it takes, without repeating the edge (symmetric = 0) or repeating it (1).
//   x, out [n, h, w] f32, not the same; kernel [radius + 1]; n h w < 2^31.
//
// blur_tile: both passes, HIGH = 32 rows by WIDE columns of a map at a time, which lie in shared memory with what surrounds them.
//   A thread makes RUN numbers side by side of a line, whose neighbours move through its registers.
// blur_axis: one pass, axis 0 is down, 1 across; where a tile does not fit.
//
// | kernel | launch, 256 threads | shared bytes | bytes and flops a value |
// |---|---|---|---|
// | blur_tile | grid (ceil(w / WIDE) ceil(h / HIGH), min(n, 65535)) | 4 ((radius + 4) / 4 4 + 2 (HIGH + radius) (WIDE + 2 radius + 1)) | 8 (2 radius / HIGH of it again, from L2); 6 radius, and those of columns beside tiles again |
// | blur_axis | grid ceil(n h w / 256) | 0 | 8, 8 radius from L1 and L2; 3 radius |
//
// blur_tile is bound by issue: an addition, a product and an addition for each pair, which nothing may fuse.
// Registers on sm_80 and sm_90, without spills: blur_tile 48 and 48, blur_axis 32 and 32. Share of roofline: not measured in
// this form; that before it, H200, 2026-11-28: both passes 7 % of a copy.
#include "common/device.cuh"

#ifndef BLUR_WIDE  // tune: 64 128 256
#define BLUR_WIDE 128
#endif
#ifndef BLUR_RUN  // tune: 8 16
#define BLUR_RUN 8
#endif

namespace blur {

__device__ __forceinline__ int reflected(int at, int length, int symmetric) {
  if (at >= 0 && at < length) return at;
  if (length == 1) return 0;
  const int period = symmetric ? 2 * length : 2 * (length - 1);
  at %= period;
  if (at < 0) at += period;
  const int back = symmetric ? period - 1 - at : period - at;
  return at < back ? at : back;
}

constexpr int HIGH = 32, WIDE = BLUR_WIDE, RUN = BLUR_RUN, WARPS = 8;
static_assert(HIGH % RUN == 0 && WIDE % 32 == 0 && RUN % 4 == 0 && WARPS % (HIGH / RUN) == 0, "whole runs and warps");

// RUN numbers from `line` on, `stride` apart, made from those around them; `weight` has those of 1 .. radius.
__device__ __forceinline__ void run(const float* line, int stride, float centre, const float* weight, int radius, float (&sum)[RUN]) {
  // The number at distance d from the first lies in slot d % RUN of either.
  float before[RUN], after[RUN];
#pragma unroll
  for (int i = 0; i < RUN; i++) {
    before[i] = after[i] = line[i * stride];
    sum[i] = centre * before[i];
  }
  const float *low = line, *high = line + (RUN - 1) * stride;
  auto step = [&](int j, float by) {
    low -= stride, high += stride;
    before[(RUN - j) % RUN] = *low;
    after[j - 1] = *high;
#pragma unroll
    for (int i = 0; i < RUN; i++) sum[i] += by * (before[(i + RUN - j) % RUN] + after[(i + j) % RUN]);
  };
  int r = 0;
  for (; r + RUN <= radius; r += RUN) {
    float by[RUN];
#pragma unroll
    for (int i = 0; i < RUN; i += 4) {
      const float4 v = *(const float4*)(weight + r + i);
      by[i] = v.x, by[i + 1] = v.y, by[i + 2] = v.z, by[i + 3] = v.w;
    }
#pragma unroll
    for (int j = 1; j <= RUN; j++) step(j, by[j - 1]);
  }
#pragma unroll
  for (int j = 1; j < RUN; j++) {
    if (r + j > radius) break;
    step(j, weight[r + j - 1]);
  }
}

}  // namespace blur

extern "C" __global__ void __launch_bounds__(256)
blur_tile(const float* __restrict__ x, float* __restrict__ out, const float* __restrict__ kernel, int n, int h, int w,
          int radius, int symmetric) {
  using namespace blur;
  DYN_SMEM(shared);
  const int pitch = WIDE + 2 * radius + 1, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float* weight = (float*)shared;                // of 1 .. radius
  float* tile = weight + (radius + 4) / 4 * 4;   // [HIGH + 2 radius, pitch], later the results [HIGH, pitch]
  float* mid = tile + (HIGH + 2 * radius) * pitch;  // [HIGH, pitch]; column 0 of both is x0 - radius of the map
  const int tiles = (w - 1) / WIDE + 1, x0 = blockIdx.x % tiles * WIDE, y0 = blockIdx.x / tiles * HIGH;
  const int columns = w - x0 < WIDE ? w - x0 : WIDE, left = x0 - radius;
  // Columns of the map that there are; those beyond the border are copied from among them.
  const int first = left < 0 ? 0 : left, end = x0 + WIDE + radius < w ? x0 + WIDE + radius : w;
  for (int r = threadIdx.x; r < radius; r += 256) weight[r] = kernel[r + 1];
  const float centre = kernel[0];
  for (int map = blockIdx.y; map < n; map += gridDim.y) {
    const float* from = x + (long long)map * h * w;
    __syncthreads();  // the results of another map may still be read
    for (int row = warp; row < HIGH + 2 * radius; row += WARPS) {
      const float* line = from + reflected(y0 - radius + row, h, symmetric) * w;
      float* to = tile + row * pitch - left;
      for (int c = first + lane; c < end; c += 160) {
        float v[5];
#pragma unroll
        for (int i = 0; i < 5; i++) v[i] = c + 32 * i < end ? line[c + 32 * i] : 0.f;
#pragma unroll
        for (int i = 0; i < 5; i++)
          if (c + 32 * i < end) to[c + 32 * i] = v[i];
      }
    }
    __syncthreads();
    constexpr int RUNS = HIGH / RUN;
    float sum[RUN];
    for (int c = first + warp / RUNS * 32 + lane; c < end; c += WARPS / RUNS * 32) {
      const int row = warp % RUNS * RUN, at = c - left;
      run(tile + (row + radius) * pitch + at, pitch, centre, weight, radius, sum);
#pragma unroll
      for (int i = 0; i < RUN; i++) mid[(row + i) * pitch + at] = sum[i];
    }
    __syncthreads();
    // What is beyond the border, and zeros where the last run goes further.
    const int all = (columns + RUN - 1) / RUN * RUN + 2 * radius;
    for (int at = warp; at < all; at += WARPS) {
      const int c = left + at;
      if (c >= first && c < end) continue;
      mid[lane * pitch + at] = at < columns + 2 * radius ? mid[lane * pitch + reflected(c, w, symmetric) - left] : 0.f;
    }
    __syncthreads();
    for (int at = warp * RUN; at < columns; at += WARPS * RUN) {
      run(mid + lane * pitch + at + radius, 1, centre, weight, radius, sum);
#pragma unroll
      for (int i = 0; i < RUN; i++) tile[lane * pitch + at + i] = sum[i];
    }
    __syncthreads();
    float* to = out + (long long)map * h * w + x0;
    for (int row = warp; row < HIGH && y0 + row < h; row += WARPS)
      for (int c = lane; c < columns; c += 32) to[(y0 + row) * w + c] = tile[row * pitch + c];
  }
}

extern "C" __global__ void __launch_bounds__(256)
blur_axis(const float* __restrict__ x, float* __restrict__ out, const float* __restrict__ kernel, int n, int h, int w,
          int radius, int axis, int symmetric) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)n * h * w) return;
  const int column = (int)(at % w), row = (int)(at / w % h);
  const int i = axis ? column : row, length = axis ? w : h, stride = axis ? 1 : w;
  const float* line = x + (at - (long long)i * stride);
  float sum = kernel[0] * line[(long long)i * stride];
  for (int r = 1; r <= radius; r++) {
    const float before = line[(long long)blur::reflected(i - r, length, symmetric) * stride];
    const float after = line[(long long)blur::reflected(i + r, length, symmetric) * stride];
    sum += kernel[r] * (before + after);
  }
  out[at] = sum;
}
