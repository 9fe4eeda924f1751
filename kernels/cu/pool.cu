// What surrounds the convolutions of a network: maps in and out, pooling, squeeze-and-excite gates. Maps are [n, h, w, c] in
// f32 or fp16, c a multiple of N = 4 or 8 (common/element.cuh), below 2^31 numbers; all sums are f32.
//
//   map_pack: f32 [pixels, c] to a map of `wide` channels, those from c on zero.   map_unpack: the first c of them to f32.
//   max_pool: the largest of a window, NaN if there is one; the border does not count.
//   avg_pool: the sum of a window in its order times 1 / its values inside, or with `all` times 1 / (kh kw).
//   global_mean: f32 [n, c], the mean over `positions`: 32 interleaved sums, added in order, divided by `positions`.
//   gate_dense: out [n, o] = act(weight [o, c] in [n, c] + bias), all f32: 32 interleaved sums, added pairwise.
//   gate_scale: out = in gate[n, c], or out itself times the gate where `in` is null.
//
// | kernel | launch, 256 threads | flops and bytes a value (4 or 2 bytes each) |
// |---|---|---|
// | map_pack, map_unpack | grid ceil(pixels wide / N / 256) | read and written once |
// | max_pool, avg_pool | grid (ceil(ow c / N / 256), min(n oh, 65535)) | kh kw flops; map from L1 kh kw / (sy sx) times, out once |
// | global_mean | grid (ceil(c / (8 N)), min(n, 65535)), 1024 N bytes of shared memory | 1 flop; read once |
// | gate_dense | grid (ceil(o / 8), min(n, 65535)) | 2 n o c flops; weights from L2 n times |
// | gate_scale | grid (ceil(positions c / N / 256), min(n, 65535)) | 1 flop; read and written once |
//
// A window of 3 x 3 is loaded as a whole before it is looked at. Registers without spills on every chip: at most 64.
// Share of roofline: not measured in this form; that before it, H200, 2026-11-28: max_pool_f32 78 %, max_pool_f16 56 % of a copy.
#include "common/words.cuh"

namespace pool {

template <class T>
__device__ __forceinline__ void pack(const float* __restrict__ in, T* __restrict__ out, int pixels, int c, int wide) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = wide / N;
  if (at >= pixels * pieces) return;
  const int pixel = at / pieces, channel = at % pieces * N;
  float v[N];
#pragma unroll
  for (int e = 0; e < N; e++) v[e] = channel + e < c ? in[pixel * c + channel + e] : 0.f;
  Pack<T>::store(out + at * N, v);
}

template <class T>
__device__ __forceinline__ void unpack(const T* __restrict__ in, float* __restrict__ out, int pixels, int c, int wide) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = wide / N;
  if (at >= pixels * pieces) return;
  const int pixel = at / pieces, channel = at % pieces * N;
  float v[N];
  Pack<T>::load(in + at * N, v);
  if (c == wide) {
#pragma unroll
    for (int e = 0; e < N; e += 4) *(float4*)(out + at * N + e) = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
  } else {
#pragma unroll
    for (int e = 0; e < N; e++)
      if (channel + e < c) out[pixel * c + channel + e] = v[e];
  }
}

struct Largest {
  static __device__ __forceinline__ float start() { return __uint_as_float(0xff800000u); }
  static __device__ __forceinline__ float fold(float best, float v) { return v > best || v != v ? v : best; }
  static __device__ __forceinline__ float finish(float best, int, int, int) { return best; }
};
struct Mean {
  static __device__ __forceinline__ float start() { return 0.f; }
  static __device__ __forceinline__ float fold(float sum, float v) { return sum + v; }
  static __device__ __forceinline__ float finish(float sum, int inside, int window, int all) {
    return sum * (1.f / (float)(all ? window : inside));
  }
};

template <class T, class How>
__device__ __forceinline__ void windows(const T* __restrict__ in, T* __restrict__ out, int n, int h, int w, int c, int oh,
                                        int ow, int kh, int kw, int sy, int sx, int top, int left, int all) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = c / N;
  if (at >= ow * pieces) return;
  const int ox = at / pieces, channel = at % pieces * N, x0 = ox * sx - left;
  for (int row = blockIdx.y; row < n * oh; row += gridDim.y) {
    const int y0 = row % oh * sy - top;
    const T* image = in + row / oh * h * w * c + channel;
    float held[N], v[N];
    int inside = 0;
#pragma unroll
    for (int e = 0; e < N; e++) held[e] = How::start();
    for (int y = y0 < 0 ? 0 : y0; y < y0 + kh && y < h; y++)
      for (int x = x0 < 0 ? 0 : x0; x < x0 + kw && x < w; x++) {
        inside++;
        Pack<T>::load(image + (y * w + x) * c, v);
#pragma unroll
        for (int e = 0; e < N; e++) held[e] = How::fold(held[e], v[e]);
      }
#pragma unroll
    for (int e = 0; e < N; e++) held[e] = How::finish(held[e], inside, kh * kw, all);
    Pack<T>::store(out + (row * ow + ox) * c + channel, held);
  }
}

// As windows, of 3 x 3: all of a window is on its way before the first of it is looked at.
template <class T, class How>
__device__ __forceinline__ void windows9(const T* __restrict__ in, T* __restrict__ out, int n, int h, int w, int c, int oh,
                                         int ow, int sy, int sx, int top, int left, int all) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = c / N;
  if (at >= ow * pieces) return;
  const int ox = at / pieces, channel = at % pieces * N, x0 = ox * sx - left;
  for (int row = blockIdx.y; row < n * oh; row += gridDim.y) {
    const int y0 = row % oh * sy - top;
    const T* image = in + row / oh * h * w * c + channel;
    float held[N], v[N];
    uint4 words[9];
    int inside = 0;
#pragma unroll
    for (int i = 0; i < 9; i++) {
      const int y = y0 + i / 3, x = x0 + i % 3;
      const bool there = (unsigned)y < (unsigned)h && (unsigned)x < (unsigned)w;
      words[i] = there ? *(const uint4*)(image + (y * w + x) * c) : make_uint4(0u, 0u, 0u, 0u);
    }
#pragma unroll
    for (int e = 0; e < N; e++) held[e] = How::start();
#pragma unroll
    for (int i = 0; i < 9; i++) {
      if ((unsigned)(y0 + i / 3) >= (unsigned)h || (unsigned)(x0 + i % 3) >= (unsigned)w) continue;
      inside++;
      unpack(words[i], v);
#pragma unroll
      for (int e = 0; e < N; e++) held[e] = How::fold(held[e], v[e]);
    }
#pragma unroll
    for (int e = 0; e < N; e++) held[e] = How::finish(held[e], inside, 9, all);
    Pack<T>::store(out + (row * ow + ox) * c + channel, held);
  }
}

// Threads are 8 pieces of channels by 32 positions.
template <class T>
__device__ __forceinline__ void mean(const T* __restrict__ in, float* __restrict__ out, int n, int positions, int c) {
  constexpr int N = Pack<T>::N;
  DYN_SMEM(shared);
  float* sums = (float*)shared;
  const int piece = threadIdx.x & 7, slot = threadIdx.x >> 3, channel = (blockIdx.x * 8 + piece) * N;
  for (int image = blockIdx.y; image < n; image += gridDim.y) {
    float sum[N], v[N];
#pragma unroll
    for (int e = 0; e < N; e++) sum[e] = 0.f;
    if (channel < c)
      for (int p = slot; p < positions; p += 32) {
        Pack<T>::load(in + (image * positions + p) * c + channel, v);
#pragma unroll
        for (int e = 0; e < N; e++) sum[e] += v[e];
      }
    __syncthreads();  // the sums of another image may still be read
#pragma unroll
    for (int e = 0; e < N; e++) sums[slot * 8 * N + piece * N + e] = sum[e];
    __syncthreads();
    const int own = blockIdx.x * 8 * N + threadIdx.x;
    if (threadIdx.x < 8 * N && own < c) {
      float total = 0.f;
      for (int s = 0; s < 32; s++) total += sums[s * 8 * N + threadIdx.x];
      out[image * c + own] = total / (float)positions;
    }
  }
}

template <class T>
__device__ __forceinline__ void scale(const T* in, const float* __restrict__ gate, T* out, int n, int positions, int c) {
  constexpr int N = Pack<T>::N;
  const int at = blockIdx.x * 256 + threadIdx.x, pieces = c / N;
  if (at >= positions * pieces) return;
  for (int image = blockIdx.y; image < n; image += gridDim.y) {
    float v[N], by[N];
    const int place = image * positions * c + at * N;
    Pack<T>::load((in ? in : out) + place, v);
    load_floats<N>(gate + image * c + at % pieces * N, by);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] *= by[e];
    Pack<T>::store(out + place, v);
  }
}

}  // namespace pool

#define MAPS(suffix, T)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  map_pack_##suffix(const float* __restrict__ in, T* __restrict__ out, int pixels, int c, int wide) {                    \
    pool::pack<T>(in, out, pixels, c, wide);                                                                             \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  map_unpack_##suffix(const T* __restrict__ in, float* __restrict__ out, int pixels, int c, int wide) {                  \
    pool::unpack<T>(in, out, pixels, c, wide);                                                                           \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  max_pool_##suffix(const T* __restrict__ in, T* __restrict__ out, int n, int h, int w, int c, int oh, int ow, int kh,   \
                    int kw, int sy, int sx, int top, int left, int all) {                                                \
    if (kh == 3 && kw == 3) pool::windows9<T, pool::Largest>(in, out, n, h, w, c, oh, ow, sy, sx, top, left, all);       \
    else pool::windows<T, pool::Largest>(in, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, all);                   \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  avg_pool_##suffix(const T* __restrict__ in, T* __restrict__ out, int n, int h, int w, int c, int oh, int ow, int kh,   \
                    int kw, int sy, int sx, int top, int left, int all) {                                                \
    if (kh == 3 && kw == 3) pool::windows9<T, pool::Mean>(in, out, n, h, w, c, oh, ow, sy, sx, top, left, all);          \
    else pool::windows<T, pool::Mean>(in, out, n, h, w, c, oh, ow, kh, kw, sy, sx, top, left, all);                      \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  global_mean_##suffix(const T* __restrict__ in, float* __restrict__ out, int n, int positions, int c) {                 \
    pool::mean<T>(in, out, n, positions, c);                                                                             \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                      \
  gate_scale_##suffix(const T* in, const float* __restrict__ gate, T* out, int n, int positions, int c) {                \
    pool::scale<T>(in, gate, out, n, positions, c);                                                                      \
  }
MAPS(f32, float)
MAPS(f16, uint16_t)

extern "C" __global__ void __launch_bounds__(256)
gate_dense(const float* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
           float* __restrict__ out, int n, int c, int o, int act) {
  const int own = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (own >= o) return;
  for (int image = blockIdx.y; image < n; image += gridDim.y) {
    float sum = 0.f;
    for (int j = lane; j < c; j += 32) sum = fmaf(weight[own * c + j], in[image * c + j], sum);
#pragma unroll
    for (int by = 16; by; by >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, by);
    if (lane == 0) out[image * o + own] = activate(sum + bias[own], act);
  }
}
