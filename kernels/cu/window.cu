// What training a convolution of stride 1 with as many output as input pixels needs besides conv.cu: the gradient of its weight,
// and the weight of the convolution that carries gradients back. Maps are [images, h, w, c] f32, weights [k k ci, co] as
// conv_f32_* reads them; ci and co are multiples of 4, k is odd, borders count as zeros. No operand has 2^31 numbers or more.
//
//   window_*:     parts[z, (t, i), o] = sum over p of x(p + t, i) g(p, o), p running over the pixels z each .. (z + 1) each of
//                 `rows` = images h w; each sum is one chain of fused multiply-adds in the order of the pixels.
//   window_sum:   out[e] = (add ? out[e] : 0) + parts[0, e] + parts[1, e] + .., in this order.
//   window_turn:  out[(k k - 1 - t, o), i] = weight[(t, i), o]: turned by half a circle, inputs and outputs exchanged.
//
// A result does not depend on the tile, but on `each`.
//
// | kernel | launch (m = k k ci) | shared bytes | flops |
// |---|---|---|---|
// | window_128 | grid (ceil(m / 128) ceil(co / 128), parts), 256 threads | 16384 | 2 rows m co f32 |
// | window_64 | grid (ceil(m / 64) ceil(co / 64), parts), 256 threads | 16384 | the same |
// | window_sum | grid ceil(m co / 256), 256 threads | 0 | parts m co |
// | window_turn | grid (ceil(ci / 32) ceil(co / 32), k k), 256 threads | 4224 | 0 |
//
// Bytes: x and g once from memory where L2 holds them (a tile of side T reads 8 rows m co / T bytes from L2), parts once; then
// parts are read and the gradient is written, 4 bytes a number. window_turn: 8 bytes a weight.
//
// Registers on sm_80 and sm_90, without spills: window_128 123 and 124, window_64 70 and 72, window_sum 30 and 29,
// window_turn 24 and 32.
// Share of roofline, H200, 2026-11-28: window_128 43 to 56 %, window_64 36 % of multiply-adds.
#include "common/device.cuh"

#ifndef WINDOW_BLOCKS  // tune: 1 2
#define WINDOW_BLOCKS 2
#endif

namespace window {

constexpr int THREADS = 256;

template <int SIDE>
__device__ __forceinline__ void tile(const float* __restrict__ x, const float* __restrict__ g, float* __restrict__ parts,
                                     int rows, int h, int w, int ci, int co, int k, int each) {
  constexpr int EACH = SIDE / 16, DEPTH = 1024 / SIDE, STAGE = 2 * DEPTH * SIDE, RIGHT = DEPTH * SIDE;
  DYN_SMEM(shared);
  float* buffer = (float*)shared;
  const int tid = threadIdx.x, tx = tid & 15, ty = tid >> 4, m = k * k * ci, down = (m + SIDE - 1) / SIDE;
  const int m0 = blockIdx.x % down * SIDE, o0 = blockIdx.x / down * SIDE;
  const int first = blockIdx.y * each, end = rows - first < each ? rows : first + each;
  // Each thread brings 4 numbers of one pixel, of both sides: always the same tap and channels.
  const int deep = tid / (SIDE / 4), column = tid % (SIDE / 4) * 4, own = m0 + column;
  const bool left = own < m, right = o0 + column < co;
  const int tap = own / ci, dy = tap / k - k / 2, dx = tap % k - k / 2;
  const int from = (dy * w + dx) * ci + own % ci, to = o0 + column;
  const int ahead_y = DEPTH / w, ahead_x = DEPTH % w;
  int p = first + deep, px = p % w, py = p / w % h;
  float4 a, b;
  auto fetch = [&] {
    a = b = make_float4(0.f, 0.f, 0.f, 0.f);
    if (p < end) {
      if (left && (unsigned)(py + dy) < (unsigned)h && (unsigned)(px + dx) < (unsigned)w) a = *(const float4*)(x + p * ci + from);
      if (right) b = *(const float4*)(g + p * co + to);
    }
    p += DEPTH, px += ahead_x, py += ahead_y;
    if (px >= w) px -= w, py++;
    while (py >= h) py -= h;
  };
  auto store = [&](float* stage) {
    *(float4*)(stage + deep * SIDE + column) = a;
    *(float4*)(stage + RIGHT + deep * SIDE + column) = b;
  };
  // Row or column i of a thread's EACH, in groups of 4 that lie 64 apart, so that neighbours read neighbouring banks.
  auto at = [](int thread, int i) { return (i >> 2) * 64 + thread * 4 + (i & 3); };
  float acc[EACH][EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) acc[i][j] = 0.f;
  fetch();
  store(buffer);
  for (int start = first, turn = 0; start < end; start += DEPTH, turn ^= 1) {
    __syncthreads();
    const bool more = start + DEPTH < end;
    if (more) fetch();
    const float *l = buffer + turn * STAGE, *r = l + RIGHT;
#pragma unroll 2  // all of them would take more registers than two blocks have
    for (int d = 0; d < DEPTH; d++) {
      float u[EACH], v[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        u[i] = l[d * SIDE + at(ty, i)];
        v[i] = r[d * SIDE + at(tx, i)];
      }
#pragma unroll
      for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) acc[i][j] = fmaf(u[i], v[j], acc[i][j]);
    }
    if (more) store(buffer + (turn ^ 1) * STAGE);
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int row = m0 + at(ty, i);
    if (row >= m) continue;
#pragma unroll
    for (int j = 0; j < EACH; j += 4) {
      const int o = o0 + at(tx, j);
      if (o >= co) continue;
      *(float4*)(parts + (blockIdx.y * m + row) * co + o) = make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
    }
  }
}

}  // namespace window

extern "C" __global__ void __launch_bounds__(256, WINDOW_BLOCKS)
window_128(const float* __restrict__ x, const float* __restrict__ g, float* __restrict__ parts, int rows, int h, int w, int ci,
           int co, int k, int each) {
  window::tile<128>(x, g, parts, rows, h, w, ci, co, k, each);
}

extern "C" __global__ void __launch_bounds__(256, WINDOW_BLOCKS)
window_64(const float* __restrict__ x, const float* __restrict__ g, float* __restrict__ parts, int rows, int h, int w, int ci,
          int co, int k, int each) {
  window::tile<64>(x, g, parts, rows, h, w, ci, co, k, each);
}

extern "C" __global__ void __launch_bounds__(256)
window_sum(const float* __restrict__ parts, float* __restrict__ out, int n, int count, int add) {
  const int e = blockIdx.x * 256 + threadIdx.x;
  if (e >= n) return;
  float sum = add ? out[e] : 0.f;
#pragma unroll 8
  for (int z = 0; z < count; z++) sum += parts[z * n + e];
  out[e] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
window_turn(const float* __restrict__ weight, float* __restrict__ out, int taps, int ci, int co) {
  DYN_SMEM(shared);
  float(*square)[33] = (float(*)[33])shared;
  const int across = (ci + 31) / 32, i0 = blockIdx.x % across * 32, o0 = blockIdx.x / across * 32, tap = blockIdx.y;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int r = warp; r < 32; r += 8)
    if (i0 + r < ci && o0 + lane < co) square[r][lane] = weight[(tap * ci + i0 + r) * co + o0 + lane];
  __syncthreads();
  for (int r = warp; r < 32; r += 8)
    if (o0 + r < co && i0 + lane < ci) out[((taps - 1 - tap) * co + o0 + r) * ci + i0 + lane] = square[lane][r];
}
