// What a GPU can do at best: the denominators of a roofline.
//
// ceiling_copy: out[i] = in[i], 16 bytes a thread and turn; in, out [4 n] f32, not the same. Bytes: 32 n.
// ceiling_multiply_add: out[thread] = the sum of 16 values that each went through x = x factor + step `rounds` times, from 0
//   to 15; start [2]: factor, step. Flops: 32 rounds a thread, none of which waits for memory.
// ceiling_tensor (compute_80 and above): the same for the fp16 products of mma.sync, 8 independent sums a warp: out[thread] =
//   the sum of its 32 values; start [2]. Every product adds 16 factor step. Flops: 8 x 4096 rounds a warp.
// Launch: any grid, 256 threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: ceiling_copy 32 and 32, ceiling_multiply_add 24 and 31, ceiling_tensor
// 42 and 42. Share of roofline: these are the roofline.
#include "common/device.cuh"

extern "C" __global__ void __launch_bounds__(256)
ceiling_copy(const float4* __restrict__ in, float4* __restrict__ out, int n) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) out[i] = in[i];
}

extern "C" __global__ void __launch_bounds__(256)
ceiling_multiply_add(const float* __restrict__ start, float* __restrict__ out, int rounds) {
  const float factor = start[0], step = start[1];
  float x[16];
#pragma unroll
  for (int i = 0; i < 16; i++) x[i] = (float)i;
#pragma unroll 4
  for (int r = 0; r < rounds; r++)
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = fmaf(x[i], factor, step);
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 16; i++) sum += x[i];
  out[blockIdx.x * 256 + threadIdx.x] = sum;
}

#if defined(EMU) || __CUDA_ARCH__ >= 800
extern "C" __global__ void __launch_bounds__(256)
ceiling_tensor(const float* __restrict__ start, float* __restrict__ out, int rounds) {
  const uint32_t left = float_to_half(start[0]), right = float_to_half(start[1]);
  const uint32_t a[4] = {left * 0x10001u, left * 0x10001u, left * 0x10001u, left * 0x10001u};
  const uint32_t b[2] = {right * 0x10001u, right * 0x10001u};
  float x[8][4];
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int e = 0; e < 4; e++) x[i][e] = (float)i;
#pragma unroll 2
  for (int r = 0; r < rounds; r++)
#pragma unroll
    for (int i = 0; i < 8; i++) mma_f16(x[i], a, b);
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int e = 0; e < 4; e++) sum += x[i][e];
  out[blockIdx.x * 256 + threadIdx.x] = sum;
}
#endif
