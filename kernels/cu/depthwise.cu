// Depthwise convolution: each channel of a map with its own kernel, bias, residual and activation as in conv.cu.
//
//   out[n, y, x, c] = act(sum over (ky, kx) of in[n, y sy - top + ky, x sx - left + kx, c] weight[ky, kx, c] + bias[c]
//                         + residual[n, y, x, c])
//
// The sum is one chain of fused multiply-adds in f32, in the order of the kernel; borders count as zeros. c is a multiple of 4
// (f32) or 8 (fp16), no map has 2^31 numbers, `residual` may be null, `out` is no other operand. Weights are f32 for both.
//
// Launch: grid (ceil(ow c / N / 256), min(n oh, 65535)), 256 threads, N = 4 or 8; no shared memory. A thread makes N channels
// of one pixel. Work: 2 n oh ow c kh kw flops; the map once from memory and kh kw / (sy sx) times from L1, the output once; 4
// or 2 bytes a value.
//
// Registers on sm_80 and sm_90, without spills: depthwise_f32 43 and 43, depthwise_f16 46 and 40.
// Share of roofline: not measured yet; on a GPU,
// `cargo bench -p blemish-kernels --features cuda --bench gpu -- --kernel depthwise`
// measures it.
#include "common/element.cuh"

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

}  // namespace depthwise

extern "C" __global__ void __launch_bounds__(256)
depthwise_f32(const float* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
              const float* __restrict__ residual, float* __restrict__ out, int n, int h, int w, int c, int oh, int ow, int kh,
              int kw, int sy, int sx, int top, int left, int act) {
  depthwise::run(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, act);
}

extern "C" __global__ void __launch_bounds__(256)
depthwise_f16(const uint16_t* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
              const uint16_t* __restrict__ residual, uint16_t* __restrict__ out, int n, int h, int w, int c, int oh, int ow,
              int kh, int kw, int sy, int sx, int top, int left, int act) {
  depthwise::run(in, weight, bias, residual, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, act);
}
