// Resizing of pictures and maps, the bits of the CPU. Taps and steps come in tables made by the host in f64.
//
// resize_down (u8 or u16 samples) and resize_across: the two passes of an antialiased resize,
//   down:   mid[y][x] = sum over t < count[y] of weight[y][t] source[start[y] + t][x], in order of t; x over width * channels
//   across: out[y][x][c] = (p0 + p1) + (p2 + p3), p_i = sum over t = i mod 4 of weight[x][t] mid[y][start[x] + t][c], with
//           `taps` (a multiple of 4) weights stored for each x, zero beyond those that count; mid beyond its row is 0.
// resize_bilinear: out[n][y][x][c] from in [n, h, w, c], two rows, then two columns; steps are (low, high, weight of high).
//   out has `pitch` floats a pixel, of which c from `offset` on are written: a column block of an embedding, or all. A thread
//   makes `run` pixels of ROWS rows, N = 4 channels at a time if c, pitch and offset allow, else N = 1.
// Work and bytes: antialias 2 taps flops a sample and pass, each input byte read once; bilinear 9 flops a value,
// each input byte read and each output byte written once; from L2 a quarter more than the rows between two rows of output.
// Launch: grid ceil(values / 256), of resize_bilinear (ceil(c / N ceil(out_w / run) / 256), min(n ceil(out_h / ROWS), 65535)),
// 256 threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: resize_down_u8 32 and 32, resize_down_u16 32 and 32, resize_across
// 48 and 40, resize_bilinear 78 and 79. Share of roofline: not yet measured.
#include "common/device.cuh"

#ifndef RESIZE_ROWS  // tune: 1 2 4
#define RESIZE_ROWS 2
#endif

namespace resize {

constexpr int ROWS = RESIZE_ROWS;

template <class T>
__device__ __forceinline__ void down(const T* source, float* mid, const int* start, const int* count, const float* weight,
                                     int taps, int height, int stride) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)height * stride) return;
  const int y = (int)(at / stride), x = (int)(at % stride);
  const T* from = source + (long long)start[y] * stride + x;
  float sum = 0.f;
  for (int t = 0; t < count[y]; t++) sum += weight[(long long)y * taps + t] * (float)from[(long long)t * stride];
  mid[at] = sum;
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
resize_down_u8(const uint8_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ start,
               const int* __restrict__ count, const float* __restrict__ weight, int taps, int height, int stride) {
  resize::down(source, mid, start, count, weight, taps, height, stride);
}

extern "C" __global__ void __launch_bounds__(256)
resize_down_u16(const uint16_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ start,
                const int* __restrict__ count, const float* __restrict__ weight, int taps, int height, int stride) {
  resize::down(source, mid, start, count, weight, taps, height, stride);
}

// mid [height, source_width, c] to out [height, width, c].
extern "C" __global__ void __launch_bounds__(256)
resize_across(const float* __restrict__ mid, float* __restrict__ out, const int* __restrict__ start,
              const float* __restrict__ weight, int taps, int height, int source_width, int width, int c) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)height * width * c) return;
  const int channel = (int)(at % c), x = (int)(at / c % width), y = (int)(at / c / width);
  const float* line = mid + (long long)y * source_width * c + channel;
  float part[4] = {0.f, 0.f, 0.f, 0.f};
  for (int t = 0; t < taps; t += 4)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int from = start[x] + t + i;
      part[i] += (from < source_width ? line[(long long)from * c] : 0.f) * weight[(long long)x * taps + t + i];
    }
  out[at] = (part[0] + part[1]) + (part[2] + part[3]);
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
