// Sparse random projection (kernels/src/kcenter/projection.rs): the matrix is drawn by a hash of seed, output and input, so it is
// that of the CPU, and so are the sums, to the bit.
//
// projection_draw: for each output the inputs it adds up, ascending, in entry [out_dim, in_dim] from the front, the sign in the
//   highest bit, and how many they are. constants: the hashed seed, and the limit below which 53 random bits are an entry.
// projection_apply: rows first .. first + n of out [.., out_dim] from rows [n, in_dim], `staged` of them a block: ROWS or half of
//   them, which then lie in shared memory, inputs side by side; or 0, for ROWS / 2 that are read as they are needed.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | projection_draw | grid ceil(out_dim / 8), 256 threads | 0 | a hash for each entry; 4 an entry that is not 0 |
// | projection_apply | grid ceil(n / rows), 512 threads | 4 in_dim staged | 1 for each row and entry; 4 in_dim + 4 out_dim a row |
//
// Above the bytes of memory, projection_apply is bound by shared memory: 4 bytes for each row and entry, of which 16 rows (64
// bytes) of two entries meet in the same banks half of the time; 32 rows never do, but fill all of a multiprocessor at 1536 inputs.
// Registers on sm_80 and sm_90, without spills: projection_apply 61 and 60, projection_draw at most 32.
// Share of roofline: not measured in this form; that before it, H200, 2026-11-28: 12 to 17 % of a copy.
#include "common/device.cuh"

#ifndef PROJECTION_ROWS  // tune: 8 16 32
#define PROJECTION_ROWS 16
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

struct Job {
  const float* __restrict__ rows;
  const uint32_t* __restrict__ entry;
  const int* __restrict__ count;
  float* __restrict__ out;
  float scale;
  int first, n, in_dim, out_dim;
};

// x [in_dim, R] from R rows; those from `there` on are zeros. LANES lanes, each with 4 of the rows, bring 4 inputs of each a time
// and turn them; which of the 4 is stored first differs between lanes, so that they meet in no bank.
template <int R>
__device__ __forceinline__ void stage(const float* __restrict__ from, float* x, int in_dim, int there) {
  constexpr int LANES = R / 4;
  const int quad = threadIdx.x % LANES, turn = threadIdx.x / LANES % (LANES < 2 ? 4 : 8 / LANES);
  if (in_dim & 3) {
    for (int at = threadIdx.x; at < in_dim * R; at += blockDim.x) {
      const int r = at / in_dim, j = at % in_dim;
      x[j * R + r] = r < there ? from[(long long)r * in_dim + j] : 0.f;
    }
    return;
  }
#pragma unroll 2
  for (int j = threadIdx.x / LANES * 4; j < in_dim; j += blockDim.x / LANES * 4) {
    float4 v[4];  // of each row
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int r = 4 * quad + i;
      v[i] = r < there ? *(const float4*)(from + (long long)r * in_dim + j) : make_float4(0.f, 0.f, 0.f, 0.f);
    }
    float4 turned[4] = {make_float4(v[0].x, v[1].x, v[2].x, v[3].x), make_float4(v[0].y, v[1].y, v[2].y, v[3].y),
                        make_float4(v[0].z, v[1].z, v[2].z, v[3].z), make_float4(v[0].w, v[1].w, v[2].w, v[3].w)};
#pragma unroll
    for (int by = 1; by < 4; by *= 2)
      if (turn & by)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (!(i & by)) {
            const float4 kept = turned[i];
            turned[i] = turned[i ^ by], turned[i ^ by] = kept;
          }
#pragma unroll
    for (int i = 0; i < 4; i++) *(float4*)(x + (j + (i ^ turn)) * R + 4 * quad) = turned[i];
  }
}

// R rows of a block, which lie in shared memory; each output of LANES lanes, four rows a lane.
template <int R> __device__ __forceinline__ void apply(const Job& job) {
  constexpr int LANES = R / 4;
  DYN_SMEM(shared);
  float* x = (float*)shared;
  const int r0 = blockIdx.x * R, there = job.n - r0 < R ? job.n - r0 : R, quad = threadIdx.x % LANES;
  stage<R>(job.rows + (long long)r0 * job.in_dim, x, job.in_dim, there);
  __syncthreads();
  const unsigned char* own = shared + 16 * quad;
  for (int output = threadIdx.x / LANES; output < job.out_dim; output += blockDim.x / LANES) {
    const uint32_t* e = job.entry + (long long)output * job.in_dim;
    const int count = job.count[output];
    float sum[4] = {0.f, 0.f, 0.f, 0.f};
    // A product with 1 or -1 is exact: the sum is rounded as it is without.
    auto add = [&](uint32_t entry) {
      const float sign = __uint_as_float((entry & NEGATIVE) | 0x3f800000u);
      // In bytes, among which the sign is lost.
      const float4 v = *(const float4*)(own + entry * (4u * R));
      sum[0] = fmaf(v.x, sign, sum[0]), sum[1] = fmaf(v.y, sign, sum[1]);
      sum[2] = fmaf(v.z, sign, sum[2]), sum[3] = fmaf(v.w, sign, sum[3]);
    };
    int k = 0;
    if (!(job.in_dim & 3) && count >= 4) {
      // Four entries at a time, the next ones on their way.
      uint4 next = *(const uint4*)e;
      for (; k + 4 <= count; k += 4) {
        const uint4 four = next;
        if (k + 8 <= count) next = *(const uint4*)(e + k + 4);
        add(four.x), add(four.y), add(four.z), add(four.w);
      }
    }
    for (; k < count; k++) add(e[k]);
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (4 * quad + i < there) job.out[(long long)(job.first + r0 + 4 * quad + i) * job.out_dim + output] = sum[i] * job.scale;
  }
}

// As apply<ROWS / 2>, read from memory as they are needed.
__device__ __forceinline__ void direct(const Job& job) {
  constexpr int R = ROWS / 2;
  const int r0 = blockIdx.x * R, there = job.n - r0 < R ? job.n - r0 : R;
  const float* from = job.rows + (long long)r0 * job.in_dim;
  for (int output = threadIdx.x; output < job.out_dim; output += blockDim.x) {
    const uint32_t *e = job.entry + (long long)output * job.in_dim, *end = e + job.count[output];
    float sum[R];
#pragma unroll
    for (int r = 0; r < R; r++) sum[r] = 0.f;
#pragma unroll 1
    for (; e < end; e++) {
      const float* at = from + (*e & ~NEGATIVE);
#pragma unroll
      for (int r = 0; r < R; r++)
        if (r < there) sum[r] += __uint_as_float(__float_as_uint(at[(long long)r * job.in_dim]) ^ (*e & NEGATIVE));
    }
#pragma unroll
    for (int r = 0; r < R; r++)
      if (r < there) job.out[(long long)(job.first + r0 + r) * job.out_dim + output] = sum[r] * job.scale;
  }
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

extern "C" __global__ void __launch_bounds__(512, 2)
projection_apply(const float* __restrict__ rows, const uint32_t* __restrict__ entry, const int* __restrict__ count,
                 float* __restrict__ out, float scale, int first, int n, int in_dim, int out_dim, int staged) {
  using namespace projection;
  const Job job = {rows, entry, count, out, scale, first, n, in_dim, out_dim};
  if (staged == ROWS) apply<ROWS>(job);
  else if (staged) apply<ROWS / 2>(job);
  else direct(job);
}
