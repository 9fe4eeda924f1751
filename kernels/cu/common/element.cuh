// Maps [n, h, w, c] of a network, in f32 or in fp16 (as its bits): 16 bytes at a time, so c is a multiple of 4 or of 8; sums
// and activations are f32.
#pragma once
#include "common/device.cuh"

template <class T> struct Pack;

template <> struct Pack<float> {
  static constexpr int N = 4;
  static __device__ __forceinline__ void load(const float* from, float (&v)[N]) {
    const float4 x = *(const float4*)from;
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
  }
  static __device__ __forceinline__ void store(float* to, const float (&v)[N]) {
    *(float4*)to = make_float4(v[0], v[1], v[2], v[3]);
  }
};

template <> struct Pack<uint16_t> {
  static constexpr int N = 8;
  static __device__ __forceinline__ void load(const uint16_t* from, float (&v)[N]) {
    const uint4 x = *(const uint4*)from;
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      v[2 * i] = half_to_float((uint16_t)(words[i] & 0xffffu));
      v[2 * i + 1] = half_to_float((uint16_t)(words[i] >> 16));
    }
  }
  static __device__ __forceinline__ void store(uint16_t* to, const float (&v)[N]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = (uint32_t)float_to_half(v[2 * i]) | (uint32_t)float_to_half(v[2 * i + 1]) << 16;
    *(uint4*)to = make_uint4(words[0], words[1], words[2], words[3]);
  }
};

// Loads N floats, aligned to 16 bytes.
template <int N> __device__ __forceinline__ void load_floats(const float* from, float (&v)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const float4 x = *(const float4*)(from + i);
    v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
  }
}

// The numbers the host gives for activations. NaN goes through all of them. ACT_MASK is for convolutions alone: their `residual`
// is then no summand, but where it is not above zero the result becomes zero (the way back through a ReLU).
enum { ACT_NONE, ACT_RELU, ACT_RELU6, ACT_HARD_SWISH, ACT_SILU, ACT_SIGMOID, ACT_HARD_SIGMOID, ACT_MASK };

__device__ __forceinline__ float clamp_below(float v) { return v < 0.f ? 0.f : v; }
__device__ __forceinline__ float clamp_six(float v) { return v < 0.f ? 0.f : v > 6.f ? 6.f : v; }

__device__ __forceinline__ float activate(float v, int act) {
  switch (act) {
    case ACT_RELU: return clamp_below(v);
    case ACT_RELU6: return clamp_six(v);
    case ACT_HARD_SWISH: return v * (clamp_six(v + 3.f) * (1.f / 6.f));
    case ACT_SILU: return v / (1.f + expf(-v));
    case ACT_SIGMOID: return 1.f / (1.f + expf(-v));
    case ACT_HARD_SIGMOID: return clamp_six(v + 3.f) * (1.f / 6.f);
    default: return v;
  }
}
