// Resizing of pictures and maps, the bits of the CPU. Taps and steps come in tables made by the host in f64.
//
// resize_down (u8 or u16 samples) and resize_across: the two passes of an antialiased resize,
//   down:   mid[y][x] = sum over t < count[y] of weight[y][t] source[start[y] + t][x], in order of t; x over width * channels
//   across: out[y][x][c] = (p0 + p1) + (p2 + p3), p_i = sum over t = i mod 4 of weight[x][t] mid[y][start[x] + t][c], with
//           `taps` (a multiple of 4) weights stored for each x, zero beyond those that count; mid beyond its row is 0.
//   One buffer has the tables of both: from weights_at on, a multiple of 4, the weights; from starts_at on start, then count.
//   resize_down makes N = 4 values a thread if a row has a multiple of 4, else N = 1.
// resize_bilinear: out[n][y][x][c] from in [n, h, w, c], two rows, then two columns; steps are (low, high, weight of high).
//   out has `pitch` floats a pixel, of which c from `offset` on are written: a column block of an embedding, or all. A thread
//   makes `run` pixels of ROWS rows, N = 4 channels at a time if c, pitch and offset allow, else N = 1.
// Work and bytes: antialias 2 taps flops a sample and pass, each input byte read once; bilinear 9 flops a value,
// each input byte read and each output byte written once; from L2 a quarter more than the rows between two rows of output.
// Launch: 256 threads, no shared memory; grid of resize_down (ceil(stride / N / 256), min(height, 65535)), of resize_across
// (ceil(width c / 256), min(height, 65535)), of resize_bilinear (ceil(c / N ceil(out_w / run) / 256), min(n ceil(out_h / ROWS), 65535)).
// Registers on sm_80 and sm_90, without spills: resize_down_u8 and resize_down_u16 at most 40 and 32, resize_across at most 40
// and 38, resize_bilinear 72 and 79. Share of roofline: not measured in this form; that before it, H200, 2026-11-28:
// resize_bilinear 18 %, resize_down_u8 28 %, resize_across 33 % of a copy.
#include "common/device.cuh"

#ifndef RESIZE_ROWS  // tune: 1 2 4
#define RESIZE_ROWS 2
#endif

namespace resize {

constexpr int ROWS = RESIZE_ROWS;

// N samples side by side; 4 or 8 bytes at once if N is 4.
template <int N> __device__ __forceinline__ void samples(const uint8_t* from, float (&v)[N]) {
  if constexpr (N == 4) {
    const uint32_t word = *(const uint32_t*)from;
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = (float)(word >> 8 * e & 0xffu);
  } else {
    v[0] = (float)from[0];
  }
}
template <int N> __device__ __forceinline__ void samples(const uint16_t* from, float (&v)[N]) {
  if constexpr (N == 4) {
    const uint2 words = *(const uint2*)from;
    v[0] = (float)(words.x & 0xffffu), v[1] = (float)(words.x >> 16);
    v[2] = (float)(words.y & 0xffffu), v[3] = (float)(words.y >> 16);
  } else {
    v[0] = (float)from[0];
  }
}

template <int N, class T>
__device__ __forceinline__ void down(const T* __restrict__ source, float* __restrict__ mid, const float* __restrict__ weights,
                                     const int* __restrict__ starts, int taps, int height, int stride) {
  const int x = (blockIdx.x * 256 + threadIdx.x) * N;
  if (x >= stride) return;
  for (int y = blockIdx.y; y < height; y += gridDim.y) {
    const T* from = source + (long long)starts[y] * stride + x;
    const float* weight = weights + (long long)y * taps;
    const int count = starts[height + y];
    float sum[N];
#pragma unroll
    for (int e = 0; e < N; e++) sum[e] = 0.f;
#pragma unroll 8
    for (int t = 0; t < count; t++) {
      float v[N];
      samples<N>(from + (long long)t * stride, v);
#pragma unroll
      for (int e = 0; e < N; e++) sum[e] += weight[t] * v[e];
    }
    float* to = mid + (long long)y * stride + x;
    if constexpr (N == 4) *(float4*)to = make_float4(sum[0], sum[1], sum[2], sum[3]);
    else to[0] = sum[0];
  }
}

template <class T>
__device__ __forceinline__ void downs(const T* __restrict__ source, float* __restrict__ mid, const int* __restrict__ tables,
                                      int weights_at, int starts_at, int taps, int height, int stride) {
  const float* weights = (const float*)tables + weights_at;
  if (stride & 3) down<1>(source, mid, weights, tables + starts_at, taps, height, stride);
  else down<4>(source, mid, weights, tables + starts_at, taps, height, stride);
}

__device__ __forceinline__ float mix(float low, float high, float weight) { return (1.f - weight) * low + weight * high; }

// N floats, of whole float4 if N is 4.
template <int N> __device__ __forceinline__ void load(const float* from, float (&v)[N]) {
  if constexpr (N == 4) {
    const float4 x = *(const float4*)from;
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
  } else {
    v[0] = from[0];
  }
}

// A thread makes N channels of up to `run` pixels side by side in ROWS rows. Columns mixed from two rows are kept while they are
// those of the next pixel, so that enlarging reads each of them once.
template <int N>
__device__ __forceinline__ void bilinear(const float* __restrict__ in, float* __restrict__ out, const int* __restrict__ low_y,
                                         const int* __restrict__ high_y, const float* __restrict__ weight_y,
                                         const int* __restrict__ low_x, const int* __restrict__ high_x,
                                         const float* __restrict__ weight_x, int n, int h, int w, int c, int out_h, int out_w,
                                         int pitch, int offset, int run) {
  const int pieces = c / N, at = blockIdx.x * 256 + threadIdx.x, x0 = at / pieces * run, channel = at % pieces * N;
  if (x0 >= out_w) return;
  const int x1 = out_w - x0 < run ? out_w : x0 + run, groups = (out_h - 1) / ROWS + 1;
  for (int group = blockIdx.y; group < n * groups; group += gridDim.y) {
    const int image = group / groups, y = group % groups * ROWS;
    const float *top[ROWS], *bottom[ROWS];
    float share[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int row = y + r < out_h ? y + r : out_h - 1;
      top[r] = in + (long long)(image * h + low_y[row]) * w * c + channel;
      bottom[r] = in + (long long)(image * h + high_y[row]) * w * c + channel;
      share[r] = weight_y[row];
    }
    float* to = out + ((long long)(image * out_h + y) * out_w + x0) * pitch + offset + channel;
    float left[ROWS][N], right[ROWS][N];
    auto column = [&](int x, float (&v)[ROWS][N]) {
      float low[ROWS][N], high[ROWS][N];
#pragma unroll
      for (int r = 0; r < ROWS; r++) load<N>(top[r] + (long long)x * c, low[r]), load<N>(bottom[r] + (long long)x * c, high[r]);
#pragma unroll
      for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int e = 0; e < N; e++) v[r][e] = mix(low[r][e], high[r][e], share[r]);
    };
    int held_left = low_x[x0], held_right = high_x[x0];
    column(held_left, left);
    column(held_right, right);
    for (int x = x0; x < x1; x++, to += pitch) {
      const int l = low_x[x], r = high_x[x];
      const float weight = weight_x[x];
      if (l != held_left) {
        if (l == held_right) {
#pragma unroll
          for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int e = 0; e < N; e++) left[i][e] = right[i][e];
        } else {
          column(l, left);
        }
        held_left = l;
      }
      if (r != held_right) column(held_right = r, right);
#pragma unroll
      for (int i = 0; i < ROWS; i++) {
        if (y + i >= out_h) break;
        float v[N];
#pragma unroll
        for (int e = 0; e < N; e++) v[e] = mix(left[i][e], right[i][e], weight);
        float* own = to + (long long)i * out_w * pitch;
        if constexpr (N == 4) *(float4*)own = make_float4(v[0], v[1], v[2], v[3]);
        else own[0] = v[0];
      }
    }
  }
}

}  // namespace resize

extern "C" __global__ void __launch_bounds__(256)
resize_down_u8(const uint8_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ tables, int weights_at,
               int starts_at, int taps, int height, int stride) {
  resize::downs(source, mid, tables, weights_at, starts_at, taps, height, stride);
}

extern "C" __global__ void __launch_bounds__(256)
resize_down_u16(const uint16_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ tables, int weights_at,
                int starts_at, int taps, int height, int stride) {
  resize::downs(source, mid, tables, weights_at, starts_at, taps, height, stride);
}

// mid [height, source_width, c] to out [height, width, c].
extern "C" __global__ void __launch_bounds__(256)
resize_across(const float* __restrict__ mid, float* __restrict__ out, const int* __restrict__ tables, int weights_at,
              int starts_at, int taps, int height, int source_width, int width, int c) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= width * c) return;
  const int channel = at % c, x = at / c, start = tables[starts_at + x];
  const float* weight = (const float*)tables + weights_at + (long long)x * taps;
  for (int y = blockIdx.y; y < height; y += gridDim.y) {
    const float* line = mid + (long long)y * source_width * c + channel;
    float part[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 2
    for (int t = 0; t < taps; t += 4) {
      const float4 four = *(const float4*)(weight + t);
      const float by[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int from = start + t + i;
        part[i] += (from < source_width ? line[(long long)from * c] : 0.f) * by[i];
      }
    }
    out[(long long)y * width * c + at] = (part[0] + part[1]) + (part[2] + part[3]);
  }
}

extern "C" __global__ void __launch_bounds__(256)
resize_bilinear(const float* __restrict__ in, float* __restrict__ out, const int* __restrict__ low_y,
                const int* __restrict__ high_y, const float* __restrict__ weight_y, const int* __restrict__ low_x,
                const int* __restrict__ high_x, const float* __restrict__ weight_x, int n, int h, int w, int c, int out_h,
                int out_w, int pitch, int offset, int run) {
  if ((c | pitch | offset) & 3)
    resize::bilinear<1>(in, out, low_y, high_y, weight_y, low_x, high_x, weight_x, n, h, w, c, out_h, out_w, pitch, offset, run);
  else
    resize::bilinear<4>(in, out, low_y, high_y, weight_y, low_x, high_x, weight_x, n, h, w, c, out_h, out_w, pitch, offset, run);
}
