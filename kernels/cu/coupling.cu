// The affine coupling of invertible blocks with the global affine and the permutation behind it, forward and back (Ardizzone
// et al., 2018-2022). Rows are samples, or pixels [n, h, w]; of c channels the first c1 = c - c2 stay and c2 = c / 2 are coupled.
//
//   s = clamp tanh(0.1 a1),  y = [x1; x2 e^s + 0.1 a2],  z_i = y_j scale_j + offset_j with j = order_i
//   log_det = sum(s) + log_scale, for each row
//
// coupling_forward: a [rows, 2 c2]: a1, then a2; x1, z1 [rows, c1]; x2, z2 [rows, c2]; s [rows, c2]; with `add` the row's
//   log_det grows, else it is set. No output is an input.
// coupling_backward: from g1, g2, the gradients of z, and slope [rows], that of log_det: ga [rows, 2 c2], and the gradients of x1
//   (what comes through the subnet is not in it) and of x2. `inverse` is the inverse of `order`.
//
// Every matrix but s has a pitch, in numbers, behind it. A row's sum of s is added up by 32 lanes, then pairwise. rows c < 2^31.
//
// | kernel | launch | flops and bytes |
// |---|---|---|
// | coupling_forward | grid ceil(rows / warps), 32 warps threads, 4 warps c2 bytes of shared memory | c2 tanh and e^s; 4 (2 c + 3 c2) bytes a row |
// | coupling_backward | grid ceil(rows c / 256), 256 threads | c2 e^s; 4 (2 c + 4 c2) bytes a row |
//
// Registers on sm_80 and sm_90, without spills: coupling_forward 32 and 32, coupling_backward 21 and 20. Share of roofline,
// H200, 2026-11-28: coupling_forward 58 % of a copy, coupling_backward 58 % in the form before; 131,072 rows of 64 channels.
#include "common/device.cuh"

namespace coupling {

constexpr float DAMPING = 0.1f;

}  // namespace coupling

extern "C" __global__ void __launch_bounds__(256)
coupling_forward(const float* __restrict__ a, int pa, const float* __restrict__ x1, int p1, const float* __restrict__ x2, int p2,
                 const uint32_t* __restrict__ order, const float* __restrict__ scale, const float* __restrict__ offset,
                 const double* __restrict__ log_scale, float* __restrict__ z1, int q1, float* __restrict__ z2, int q2,
                 float* __restrict__ s, float* __restrict__ log_det, int rows, int c1, int c2, float clamp, int add) {
  using coupling::DAMPING;
  DYN_SMEM(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const long long row = (long long)blockIdx.x * (blockDim.x >> 5) + warp;
  if (row >= rows) return;
  float* y2 = (float*)shared + warp * c2;
  const float *a1 = a + row * pa, *a2 = a1 + c2;
  float sum = 0.f;
  for (int j = lane; j < c2; j += 32) {
    const float log = clamp * tanhf(a1[j] * DAMPING);
    s[row * c2 + j] = log;
    sum += log;
    y2[j] = fmaf(x2[row * p2 + j], expf(log), a2[j] * DAMPING);
  }
  __syncwarp();
  for (int i = lane; i < c1 + c2; i += 32) {
    const int j = (int)order[i];
    const float z = (j < c1 ? x1[row * p1 + j] : y2[j - c1]) * scale[j] + offset[j];
    if (i < c1) z1[row * q1 + i] = z;
    else z2[row * q2 + i - c1] = z;
  }
#pragma unroll
  for (int by = 16; by; by >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, by);
  if (lane == 0) {
    const float own = sum + (float)log_scale[0];
    log_det[row] = add ? log_det[row] + own : own;
  }
}

extern "C" __global__ void __launch_bounds__(256)
coupling_backward(const float* __restrict__ g1, int p1, const float* __restrict__ g2, int p2, const uint32_t* __restrict__ inverse,
                  const float* __restrict__ scale, const float* __restrict__ x2, int px, const float* __restrict__ s,
                  const float* __restrict__ slope, float* __restrict__ gx1, int q1, float* __restrict__ gx2, int q2,
                  float* __restrict__ ga, int qa, int rows, int c1, int c2, float clamp) {
  using coupling::DAMPING;
  const int c = c1 + c2;
  // rows c < 2^31: a division of 32 bits.
  const unsigned at = blockIdx.x * 256u + threadIdx.x;
  const long long row = at / (unsigned)c;
  if (row >= rows) return;
  const int j = (int)(at % (unsigned)c), i = (int)inverse[j];
  const float g = (i < c1 ? g1[row * p1 + i] : g2[row * p2 + i - c1]) * scale[j];
  if (j < c1) {
    gx1[row * q1 + j] = g;
    return;
  }
  const int k = j - c1;
  const float log = s[row * c2 + k], dx = g * expf(log), ds = fmaf(dx, x2[row * px + k], slope[row]);
  // clamp (1 - (s / clamp)^2) 0.1, the slope of s
  ga[row * qa + k] = ds * fmaf(-DAMPING / clamp * log, log, clamp * DAMPING);
  ga[row * qa + c2 + k] = g * DAMPING;
  gx2[row * q2 + k] = dx;
}
