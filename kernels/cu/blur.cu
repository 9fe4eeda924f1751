// Gaussian blur along one axis of maps [n, h, w]; twice (down, then across) for both. The bits of the CPU: the centre first,
// then pairs at growing distance, no fused multiply-add.
//
// blur_axis: out[.., i, ..] = kernel[0] x[i] + sum over r = 1 .. radius of kernel[r] (x[i - r] + x[i + r]), indices beyond
// the border reflected, as often as it takes, without repeating the edge (symmetric = 0) or repeating it (1).
//   x, out [n, h, w] f32, not the same; axis 0 is down, 1 across; kernel [radius + 1]; n h w < 2^31.
// Work: 3 radius n h w flops; bytes: 8 n h w to and from memory, 8 radius n h w from L1 and L2.
// Launch: grid ceil(n h w / 256), 256 threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: 32 and 32. Share of roofline: not yet measured.
#include "common/device.cuh"

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

}  // namespace blur

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
