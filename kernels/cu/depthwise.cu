// Depthwise convolution: each channel of a map with its own kernel, bias, residual and activation as in conv.cu.
//
//   out[n, y, x, c] = act(sum over (ky, kx) of in[n, y sy - top + ky, x sx - left + kx, c] weight[ky, kx, c] + bias[c]
//                         + residual[n, y, x, c])
//
// The sum is one chain of fused multiply-adds in f32, in the order of the kernel; borders count as zeros. c is a multiple of 4
// (f32) or 8 (fp16), no map has 2^31 numbers, `residual` may be null, `out` is no other operand. Weights are f32 for both.
//
// Launch: grid (ceil(ceil(ow / TX) c / N / 256), min(n oh, 65535)), 256 threads, N = 4 or 8; no shared memory. A thread makes N
// channels of TX pixels side by side: 4 for kernels 3 wide at steps of 1, 2 for those 5 wide or at steps of 2, else 1.
// Work: 2 n oh ow c kh kw flops; the map once from memory and kh / sy times from L2, the output once; 4 or 2 bytes a value.
//
// Registers on sm_80 and sm_90, without spills: depthwise_f32 at most 88, depthwise_f16 110 and 110.
// Share of roofline: not measured in this form; that before it, H200, 2026-11-28: depthwise_f32 36 %, depthwise_f16 17 to 26 %
// of a copy.
#include "common/words.cuh"

namespace depthwise {

template <class T>
__device__ __forceinline__ void run(const T* __restrict__ in, const float* __restrict__ weight,
                                    const float* __restrict__ bias, const T* __restrict__ residual, T* __restrict__ out,
                                    int n, int h, int w, int c, int oh, int ow, int kh, int kw, int sy, int sx, int top,
                                    int left, int act) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = c / N;
  if (at >= ow * pieces) return;
  const int ox = at / pieces, channel = at % pieces * N, x0 = ox * sx - left;
  for (int row = blockIdx.y; row < n * oh; row += gridDim.y) {
    const int y0 = row % oh * sy - top;
    const T* image = in + row / oh * h * w * c + channel;
    float sum[N], v[N], k[N];
#pragma unroll
    for (int e = 0; e < N; e++) sum[e] = 0.f;
    for (int ky = 0; ky < kh; ky++) {
      const int y = y0 + ky;
      if (y < 0 || y >= h) continue;
      for (int kx = 0; kx < kw; kx++) {
        const int x = x0 + kx;
        if (x < 0 || x >= w) continue;
        Pack<T>::load(image + (y * w + x) * c, v);
        load_floats<N>(weight + (ky * kw + kx) * c + channel, k);
#pragma unroll
        for (int e = 0; e < N; e++) sum[e] = fmaf(v[e], k[e], sum[e]);
      }
    }
    const int to = (row * ow + ox) * c + channel;
    load_floats<N>(bias + channel, k);
#pragma unroll
    for (int e = 0; e < N; e++) sum[e] += k[e];
    if (residual) {
      Pack<T>::load(residual + to, v);
#pragma unroll
      for (int e = 0; e < N; e++) sum[e] += v[e];
    }
#pragma unroll
    for (int e = 0; e < N; e++) sum[e] = activate(sum[e], act);
    Pack<T>::store(out + to, sum);
  }
}

// As run, TX pixels side by side a thread, for kernels KW wide at steps of SX: each number and each weight of a row is read once.
template <class T, int KW, int SX, int TX>
__device__ __forceinline__ void beside(const T* __restrict__ in, const float* __restrict__ weight,
                                       const float* __restrict__ bias, const T* __restrict__ residual, T* __restrict__ out,
                                       int n, int h, int w, int c, int oh, int ow, int kh, int sy, int top, int left, int act) {
  constexpr int N = Pack<T>::N, COLUMNS = (TX - 1) * SX + KW;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = c / N;
  const int ox = at / pieces * TX, channel = at % pieces * N, x0 = ox * SX - left;
  if (ox >= ow) return;
  for (int row = blockIdx.y; row < n * oh; row += gridDim.y) {
    const int y0 = row % oh * sy - top;
    const T* image = in + row / oh * h * w * c + channel;
    float sum[TX][N], v[N], k[N];
#pragma unroll
    for (int t = 0; t < TX; t++)
#pragma unroll
      for (int e = 0; e < N; e++) sum[t][e] = 0.f;
    for (int ky = 0; ky < kh; ky++) {
      const int y = y0 + ky;
      if (y < 0 || y >= h) continue;
      uint4 held[COLUMNS];
      float by[KW][N];
#pragma unroll
      for (int j = 0; j < COLUMNS; j++)
        held[j] = x0 + j >= 0 && x0 + j < w ? *(const uint4*)(image + (y * w + x0 + j) * c) : make_uint4(0u, 0u, 0u, 0u);
#pragma unroll
      for (int kx = 0; kx < KW; kx++) load_floats<N>(weight + (ky * KW + kx) * c + channel, by[kx]);
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) {
        if (x0 + j < 0 || x0 + j >= w) continue;
        unpack(held[j], v);
#pragma unroll
        for (int t = 0; t < TX; t++)
          if (j >= t * SX && j < t * SX + KW)
#pragma unroll
            for (int e = 0; e < N; e++) sum[t][e] = fmaf(v[e], by[j - t * SX][e], sum[t][e]);
      }
    }
    load_floats<N>(bias + channel, k);
    // One after the other, the sums moving up, so that all activations are in the program once.
#pragma unroll 1
    for (int t = 0; t < TX && ox + t < ow; t++) {
      const int to = (row * ow + ox + t) * c + channel;
#pragma unroll
      for (int e = 0; e < N; e++) sum[0][e] += k[e];
      if (residual) {
        Pack<T>::load(residual + to, v);
#pragma unroll
        for (int e = 0; e < N; e++) sum[0][e] += v[e];
      }
#pragma unroll
      for (int e = 0; e < N; e++) sum[0][e] = activate(sum[0][e], act);
      Pack<T>::store(out + to, sum[0]);
#pragma unroll
      for (int i = 1; i < TX; i++)
#pragma unroll
        for (int e = 0; e < N; e++) sum[i - 1][e] = sum[i][e];
    }
  }
}

// The pixels of a thread follow from the width and the step of the kernel; the host counts them as well.
template <class T>
__device__ __forceinline__ void any(const T* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
                                    const T* __restrict__ residual, T* __restrict__ out, int n, int h, int w, int c, int oh,
                                    int ow, int kh, int kw, int sy, int sx, int top, int left, int act) {
#define BESIDE(KW, SX, TX) \
  if (kw == KW && sx == SX) return beside<T, KW, SX, TX>(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, sy, top, left, act)
  BESIDE(3, 1, 4);
  BESIDE(3, 2, 2);
  BESIDE(5, 1, 2);
  BESIDE(5, 2, 2);
  run(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, act);
}

}  // namespace depthwise

extern "C" __global__ void __launch_bounds__(256, 2)
depthwise_f32(const float* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
              const float* __restrict__ residual, float* __restrict__ out, int n, int h, int w, int c, int oh, int ow, int kh,
              int kw, int sy, int sx, int top, int left, int act) {
  depthwise::any(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, act);
}

extern "C" __global__ void __launch_bounds__(256, 2)
depthwise_f16(const uint16_t* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
              const uint16_t* __restrict__ residual, uint16_t* __restrict__ out, int n, int h, int w, int c, int oh, int ow,
              int kh, int kw, int sy, int sx, int top, int left, int act) {
  depthwise::any(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, act);
}
