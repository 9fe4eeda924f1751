// Sparse random projection (kernels/src/kcenter/projection.rs): the matrix is drawn by a hash of seed, output and input, so it is
// that of the CPU, and so are the sums, to the bit.
//
// projection_draw: for each output the inputs it adds up, ascending, in entry [out_dim, in_dim] from the front, the sign in the
//   highest bit, and how many they are. constants: the hashed seed, and the limit below which 53 random bits are an entry.
// projection_apply: rows first .. first + n of out [.., out_dim] from rows [n, in_dim]; PROJECTION_ROWS rows a block.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | projection_draw | grid ceil(out_dim / 8), 256 threads | 0 | a hash for each entry; 4 an entry that is not 0 |
// | projection_apply | grid ceil(n / PROJECTION_ROWS), 256 threads | 4 in_dim a row, or 0 if `staged` is 0 | 1 for each row and entry; 4 in_dim + 4 out_dim a row |
//
// Share of roofline: not yet measured.
#include "common/device.cuh"

#ifndef PROJECTION_ROWS  // tune: 4 8 16
#define PROJECTION_ROWS 8
#endif

namespace projection {

constexpr int ROWS = PROJECTION_ROWS;
constexpr uint32_t NEGATIVE = 0x80000000u;

// The finaliser of SplitMix64.
__device__ __forceinline__ uint64_t mix(uint64_t x) {
  uint64_t z = x + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace projection

extern "C" __global__ void __launch_bounds__(256)
projection_draw(const uint64_t* __restrict__ constants, uint32_t* __restrict__ entry, int* __restrict__ count, int in_dim,
                int out_dim) {
  using namespace projection;
  const int output = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (output >= out_dim) return;
  const uint64_t own = mix(constants[0] ^ (uint64_t)output), limit = constants[1];
  uint32_t* to = entry + (long long)output * in_dim;
  int found = 0;
  for (int at = 0; at < in_dim; at += 32) {
    const int j = at + lane;
    const uint64_t bits = mix(own ^ (uint64_t)j);
    const bool is = j < in_dim && bits >> 11 < limit;
    const unsigned all = __ballot_sync(FULL_WARP, is);
    if (is) to[found + __popc(all & ((1u << lane) - 1))] = (uint32_t)j | (bits & 1 ? NEGATIVE : 0);
    found += __popc(all);
  }
  if (lane == 0) count[output] = found;
}

extern "C" __global__ void __launch_bounds__(256)
projection_apply(const float* __restrict__ rows, const uint32_t* __restrict__ entry, const int* __restrict__ count,
                 float* __restrict__ out, float scale, int first, int n, int in_dim, int out_dim, int staged) {
  using namespace projection;
  DYN_SMEM(shared);
  float* x = (float*)shared;  // [in_dim, ROWS]
  const int r0 = blockIdx.x * ROWS, there = n - r0 < ROWS ? n - r0 : ROWS;
  const float* from = rows + (long long)r0 * in_dim;
  if (staged) {
    for (int r = 0; r < ROWS; r++)
      for (int j = threadIdx.x; j < in_dim; j += blockDim.x) x[j * ROWS + r] = r < there ? from[(long long)r * in_dim + j] : 0.f;
    __syncthreads();
  }
  for (int output = threadIdx.x; output < out_dim; output += blockDim.x) {
    const uint32_t* e = entry + (long long)output * in_dim;
    float sum[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) sum[r] = 0.f;
    const uint32_t* end = e + count[output];
    if (staged) {
#pragma unroll 1
      for (; e < end; e++) {
        const float* at = x + (*e & ~NEGATIVE) * ROWS;
#pragma unroll
        for (int r = 0; r < ROWS; r++) sum[r] += __uint_as_float(__float_as_uint(at[r]) ^ (*e & NEGATIVE));
      }
    } else {
#pragma unroll 1
      for (; e < end; e++) {
        const float* at = from + (*e & ~NEGATIVE);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
          if (r < there) sum[r] += __uint_as_float(__float_as_uint(at[(long long)r * in_dim]) ^ (*e & NEGATIVE));
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if (r < there) out[(long long)(first + r0 + r) * out_dim + output] = sum[r] * scale;
  }
}
