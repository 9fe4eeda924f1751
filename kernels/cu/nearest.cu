// Exact k nearest rows of a bank, k = 1 .. 32; of rows at the same distance the lower index comes first. Distances are those
// of common/distance.cuh: the bits of the CPU.
//
// The sieve (compute_80 and above). Let c be any vector near the bank's mean and s a power of two. Rows are stored as
// fp16(s (x - c)) with a bound e on what that loses, so by the triangle inequality the distance of two rows differs from that
// of their fp16 forms by at most the sum of their e. Products of fp16 are exact in f32; what summing them in tensor cores can
// lose is bounded from the norms (`error` below). Hence rigorous intervals: every row whose lower bound is above the k-th
// smallest upper bound is out, and the few that are left get their f32 distance.
//   1. nearest_quantize: fp16 rows, squared norms, bounds e; for the bank also their maxima over blocks of 64 rows.
//   2. nearest_sieve: for each query and block the two smallest |b|^2 - 2 q b, the row's number in the low 6 mantissa bits.
//   3. nearest_rerank: bounds, survivors, distances, the k best.
// No list can overflow, so the result is exact always; only the time depends on how many rows survive.
//
// Without fp16 tensor cores, and for small banks: pairwise_squared (pairwise.cu), then nearest_select.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | nearest_quantize | grid ceil(n / 8), 256 threads | 0 | reads 4 n d, writes n (2 k + 8) |
// | nearest_sieve | grid ceil(m / NEAREST_ROWS) ceil(n / 256), 256 threads | NEAREST_STAGES (NEAREST_ROWS + 256) 64 | 2 m n k fp16; 2 k (m n / 256 + n m / 128) from L2, writes m n / 8 |
// | nearest_sieve, compute_90a | grid ceil(m / 128) ceil(n / 256), 256 threads | 196,608 | as above |
// | nearest_rerank | grid ceil(m / 8), 256 threads | 0 | reads m n / 4 and 4 d for each survivor |
// | nearest_select | grid ceil(m / 8), 256 threads | 0 | reads 4 m n |
//
// Registers on sm_80 and sm_90, without spills: nearest_quantize 28 and 30, nearest_sieve 227 and 232,
// nearest_rerank 64 and 64, nearest_select 24 and 22. Share of roofline, H200, 2026-11-28: nearest_quantize 98 % of a copy; nearest_sieve 51 % of
// mma.sync with the tiles row by row (25,088 x 16,384 x 1536), nearest_rerank 14 % of a copy. The form for Hopper is not measured.
#include "common/distance.cuh"
#include "common/wgmma.cuh"

#ifndef NEAREST_STAGES  // tune: 3 4
#define NEAREST_STAGES 4
#endif
#ifndef NEAREST_ROWS  // tune: 64 128
#define NEAREST_ROWS 128
#endif
#ifndef NEAREST_RERANK_BLOCKS  // tune: 3 4
#define NEAREST_RERANK_BLOCKS 4
#endif
// NEAREST_WIDE is for the launch code: whether chips of 9.0 get the form of compute_90a. Not before its results were tested on one.
#ifndef NEAREST_WIDE  // tune: 0 1
#define NEAREST_WIDE 0
#endif
#ifndef NEAREST_GROUP
#define NEAREST_GROUP 12
#endif

namespace nearest {

constexpr int NO_ROW = 0x7fffffff;
constexpr float LARGEST_HALF = 65504.f;

// The distance of no row.
__device__ __forceinline__ float none() { return __uint_as_float(0x7f800000u); }

struct Found { float v; int i; };

__device__ __forceinline__ bool better(float v, int i, const Found& than) {
  return v < than.v || (v == than.v && i < than.i);
}

// Lane l holds the l-th best. Puts (v, i), the same in all lanes, in its place; what falls off lane 31 is gone.
__device__ __forceinline__ void insert(Found& held, float v, int i) {
  const int lane = threadIdx.x & 31;
  const uint32_t before = __ballot_sync(FULL_WARP, !better(v, i, held));
  const int at = __popc(before);
  const float up_v = __shfl_up_sync(FULL_WARP, held.v, 1);
  const int up_i = __shfl_up_sync(FULL_WARP, held.i, 1);
  if (lane > at) held = {up_v, up_i};
  if (lane == at) held = {v, i};
}

// Puts in each lane's (v, i) that is among the best `k` so far.
__device__ __forceinline__ void insert_all(Found& held, int k, float v, int i) {
  for (;;) {
    const Found kth = {__shfl_sync(FULL_WARP, held.v, k - 1), __shfl_sync(FULL_WARP, held.i, k - 1)};
    const uint32_t wanted = __ballot_sync(FULL_WARP, better(v, i, kth));
    if (!wanted) return;
    const int from = __ffs((int)wanted) - 1;
    insert(held, __shfl_sync(FULL_WARP, v, from), __shfl_sync(FULL_WARP, i, from));
    if ((int)(threadIdx.x & 31) == from) v = none(), i = NO_ROW;
  }
}

__device__ __forceinline__ void write(const Found& held, int k, uint32_t* index, float* distance) {
  const int lane = threadIdx.x & 31;
  if (lane < k) {
    index[lane] = (uint32_t)held.i;
    distance[lane] = sqrtf(held.v);
  }
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int by = 16; by; by >>= 1) v += __shfl_xor_sync(FULL_WARP, v, by);
  return v;
}

}  // namespace nearest

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
// `half` [n, k] = fp16(scale (rows - centre)), columns d .. k zero, k a multiple of 32; `norm` [n] their squared norms;
// `loss` [n] bounds on the distance between a row's exact and its fp16 form, `floor` included. `block` [2, ceil(n / 64)],
// zero at first, if not null: the largest loss and squared norm of each 64 rows.
extern "C" __global__ void __launch_bounds__(256)
nearest_quantize(const float* __restrict__ rows, const float* __restrict__ centre, uint16_t* __restrict__ half,
                 float* __restrict__ norm, float* __restrict__ loss, float* __restrict__ block, float scale, float floor,
                 int n, int d, int k) {
  const int row = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= n) return;
  const float* x = rows + (long long)row * d;
  float lost = 0.f, squares = 0.f, moved = 0.f;
  for (int j = lane; j < k; j += 32) {
    const float v = j < d ? (x[j] - centre[j]) * scale : 0.f;
    const uint16_t bits = float_to_half(fminf(fmaxf(v, -nearest::LARGEST_HALF), nearest::LARGEST_HALF));
    const float h = half_to_float(bits), r = v - h;
    half[(long long)row * k + j] = bits;
    lost = fmaf(r, r, lost);
    squares = fmaf(h, h, squares);
    moved = fmaf(v, v, moved);
  }
  lost = nearest::warp_sum(lost);
  squares = nearest::warp_sum(squares);
  moved = nearest::warp_sum(moved);
  if (lane) return;
  // x - c is rounded by at most 2^-24 of itself; the sums' own rounding is far below the factors.
  const float bound = sqrtf(lost) * 1.0001f + sqrtf(moved) * 1.2e-7f + floor;
  norm[row] = squares;
  loss[row] = bound;
  if (block) {
    const int blocks = (n + 63) / 64;
    atomicMax((int*)&block[row / 64], __float_as_int(bound));
    atomicMax((int*)&block[blocks + row / 64], __float_as_int(squares));
  }
}
#endif

#if defined(EMU) || __CUDA_ARCH__ >= 800
namespace nearest {

constexpr float NOTHING = 3e38f;  // the sieve's value of a row that is not there

// Which tile a block has: those of NEAREST_GROUP tiles of queries go side by side through the bank, so that what runs at a time
// comes from the second-level cache.
struct Tile { int query, bank; };
__device__ __forceinline__ Tile tile_of(int block, int across, int along) {
  const int first = block / (NEAREST_GROUP * along) * NEAREST_GROUP, rest = block % (NEAREST_GROUP * along);
  const int wide = across - first < NEAREST_GROUP ? across - first : NEAREST_GROUP;
  return {first + rest % wide, rest / wide};
}

// norm[b] - 2 q b of 64 rows from `from` on and the query `row`, 16 of them in each of four lanes in turn: the smallest and second
// smallest to `out`. `at(j, e)` is q b of row 8 j + 2 (lane mod 4) + e.
template <class Products>
__device__ __forceinline__ void keep_two(const float (&squares)[8][2], Products at, float* out, int row, int block, int m, int blocks) {
  const int lane = threadIdx.x & 31, column = (lane & 3) * 2;
  float first = NOTHING, second = NOTHING;
#pragma unroll
  for (int j = 0; j < 8; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float v = squares[j][e] - 2.f * at(j, e);
      v = __uint_as_float((__float_as_uint(v) & ~63u) | (uint32_t)(j * 8 + column + e));
      second = fminf(second, fmaxf(first, v));
      first = fminf(first, v);
    }
#pragma unroll
  for (int by = 1; by < 4; by <<= 1) {
    const float other = __shfl_xor_sync(FULL_WARP, first, by), next = __shfl_xor_sync(FULL_WARP, second, by);
    second = fminf(fmaxf(first, other), fminf(second, next));
    first = fminf(first, other);
  }
  if ((lane & 3) == 0 && row < m && block < blocks) {
    out[(long long)block * m + row] = first;
    out[(long long)(blocks + block) * m + row] = second;
  }
}

__device__ __forceinline__ void norms(float (&squares)[8][2], const float* norm, int from, int n) {
  const int column = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int j = 0; j < 8; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int row = from + j * 8 + column + e;
      squares[j][e] = row < n ? norm[row] : NOTHING;
    }
}

}  // namespace nearest
#endif

// out [2, ceil(n / 64), m]: the smallest and second smallest norm[b] - 2 q b of each block of 64 rows, with the row's number
// within its block in the low 6 bits. q [m, k] and b [n, k] fp16, aligned to 16 bytes, k a multiple of 32.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Two groups of four warps, 64 queries each, against 256 rows. Slices of 64 columns are copied two turns before they are multiplied
// and overwritten two turns after, when both groups are done with them.
namespace nearest {
enum { QUERIES = 128, BANK = 256, DEPTH = 64, STAGES = 4, SLICE = (QUERIES + BANK) * DEPTH * 2 };
}

extern "C" __global__ void __launch_bounds__(256, 1)
nearest_sieve(const uint16_t* __restrict__ q, const uint16_t* __restrict__ b, const float* __restrict__ norm,
              float* __restrict__ out, int m, int n, int k) {
  using namespace nearest;
  extern __shared__ __align__(1024) unsigned char slices[];
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, steps = (k + DEPTH - 1) / DEPTH;
  const Tile tile = tile_of(blockIdx.x, (m + QUERIES - 1) / QUERIES, (n + BANK - 1) / BANK);
  const int q0 = tile.query * QUERIES, b0 = tile.bank * BANK;
  const int own = tid >> 3, piece = tid & 7;  // of each slice, a thread copies piece `piece` of every 32nd row
  auto load = [&](int step) {
    unsigned char* to = slices + step % STAGES * SLICE + wgmma::swizzled(own, piece);
    const int column = step * DEPTH + piece * 8;
#pragma unroll
    for (int i = 0; i < (QUERIES + BANK) / 32; i++) {
      const bool query = i < QUERIES / 32;
      const int row = own + 32 * i + (query ? q0 : b0 - QUERIES);
      const bool valid = row < (query ? m : n) && column < k;
      cp_async16(to + i * 32 * 128, (query ? q : b) + (valid ? (long long)row * k + column : 0), valid);
    }
  };
  float sum[128];
#pragma unroll
  for (int i = 0; i < 128; i++) sum[i] = 0.f;
  for (int s = 0; s < STAGES - 2; s++) {
    if (s < steps) load(s);
    cp_commit();
  }
  for (int s = 0; s < steps; s++) {
    cp_wait<STAGES - 3>();
    wgmma::publish();
    __syncthreads();
    const unsigned char* left = slices + s % STAGES * SLICE;
    const uint64_t rows = wgmma::descriptor(left + (warp >> 2) * 64 * 128), bank = wgmma::descriptor(left + QUERIES * 128);
    wgmma::begin();
#pragma unroll
    for (int kk = 0; kk < DEPTH / 16; kk++) wgmma::multiply(sum, rows + 2 * kk, bank + 2 * kk);
    wgmma::commit();
    if (s + STAGES - 2 < steps) load(s + STAGES - 2);
    cp_commit();
    wgmma::wait<1>();
  }
  wgmma::finish(sum);
#pragma unroll
  for (int p = 0; p < BANK / 64; p++) {
    float squares[8][2];
    norms(squares, norm, b0 + p * 64, n);
#pragma unroll
    for (int h = 0; h < 2; h++)
      keep_two(squares, [&](int j, int e) { return sum[p * 32 + j * 4 + h * 2 + e]; }, out, q0 + warp * 16 + h * 8 + (lane >> 2),
               (b0 >> 6) + p, m, (n + 63) >> 6);
  }
}
#elif defined(EMU) || __CUDA_ARCH__ >= 800
namespace nearest {

enum { ROWS = NEAREST_ROWS, BANK = 256, DEPTH = 32, PARTS = ROWS / 32, STAGES = NEAREST_STAGES, TILE = (ROWS + BANK) * DEPTH * 2, SHARED = STAGES * TILE };

// Byte of a 16-byte piece of a row of 64 bytes: rotated so that eight rows of ldmatrix hit all banks.
__device__ __forceinline__ int swizzled(int row, int piece) { return row * (DEPTH * 2) + ((piece ^ ((row >> 1) & 3)) << 4); }

}  // namespace nearest

extern "C" __global__ void __launch_bounds__(256, 1)
nearest_sieve(const uint16_t* __restrict__ q, const uint16_t* __restrict__ b, const float* __restrict__ norm,
              float* __restrict__ out, int m, int n, int k) {
  using namespace nearest;
  DYN_SMEM(shared);
  const int tid = threadIdx.x, lane = tid & 31, wq = (tid >> 5) & 1, wb = tid >> 6;
  const Tile tile = tile_of(blockIdx.x, (m + ROWS - 1) / ROWS, (n + BANK - 1) / BANK);
  const int q0 = tile.query * ROWS, b0 = tile.bank * BANK, steps = k / DEPTH;
  float acc[PARTS][8][4];  // a warp has half of the queries and 64 rows of the bank
#pragma unroll
  for (int i = 0; i < PARTS; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;
  auto load = [&](int step) {
    unsigned char* stage = shared + step % STAGES * TILE;
#pragma unroll
    for (int i = 0; i < (ROWS + BANK) * 4 / 256; i++) {
      const int c = i * 256 + tid, r = c >> 2, piece = c & 3;
      const bool query = r < ROWS;
      const int row = query ? q0 + r : b0 + r - ROWS;
      const bool valid = row < (query ? m : n);
      const uint16_t* from = (query ? q : b) + (long long)(valid ? row : 0) * k + step * DEPTH + piece * 8;
      cp_async16(stage + (query ? swizzled(r, piece) : ROWS * DEPTH * 2 + swizzled(r - ROWS, piece)), from, valid);
    }
  };
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) load(s);
    cp_commit();
  }
  for (int s = 0; s < steps; s++) {
    cp_wait<STAGES - 2>();
    __syncthreads();
    if (s + STAGES - 1 < steps) load(s + STAGES - 1);
    cp_commit();
    const unsigned char *left = shared + s % STAGES * TILE, *right = left + ROWS * DEPTH * 2;
#pragma unroll
    for (int kk = 0; kk < DEPTH / 16; kk++) {
      uint32_t fa[PARTS][4], fb[8][2];
#pragma unroll
      for (int i = 0; i < PARTS; i++) ldmatrix_x4(fa[i], left + swizzled(wq * 16 * PARTS + i * 16 + (lane & 15), kk * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t r[4];
        ldmatrix_x4(r, right + swizzled(wb * 64 + j * 16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1)));
        fb[2 * j][0] = r[0], fb[2 * j][1] = r[1], fb[2 * j + 1][0] = r[2], fb[2 * j + 1][1] = r[3];
      }
#pragma unroll
      for (int i = 0; i < PARTS; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) mma_f16(acc[i][j], fa[i], fb[j]);
    }
  }
  float squares[8][2];
  norms(squares, norm, b0 + wb * 64, n);
#pragma unroll
  for (int i = 0; i < PARTS; i++)
#pragma unroll
    for (int h = 0; h < 2; h++)
      keep_two(squares, [&](int j, int e) { return acc[i][j][h * 2 + e]; }, out, q0 + (wq * PARTS + i) * 16 + h * 8 + (lane >> 2),
               (b0 >> 6) + wb, m, (n + 63) >> 6);
}
#endif

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL) && (defined(EMU) || __CUDA_ARCH__ >= 800)
namespace nearest {

// What is known of the distance of a query to the row a sieve value belongs to.
struct Query { float norm, root, loss, products, sums, rounding; };
struct Range { float lower, upper; };

__device__ __forceinline__ Range bounds(const Query& q, float value, float block_loss, float block_norm) {
  if (!(value < NOTHING * 0.9f)) return {NOTHING, NOTHING};
  const float squared = value + q.norm, b = sqrtf(block_norm);
  // Tensor cores may truncate each of k / 16 partial sums; norms are sums of k / 32 terms; the number took 6 bits.
  const float error = q.products * q.root * b + q.sums * (q.norm + block_norm) + 7.7e-6f * fabsf(value) + 1e-37f;
  const float around = q.loss + block_loss;
  return {(sqrtf(fmaxf(squared - error, 0.f)) - around) * (1.f - q.rounding),
          (sqrtf(fmaxf(squared + error, 0.f)) + around) * (1.f + q.rounding)};
}

}  // namespace nearest

// index, distance [m, kept], from the sieve's `values` [2, ceil(n / 64), m]. query [m, d] and bank [n, d] as they were
// before quantising; norm, loss [m] of the queries; `scale` of both; block [2, ceil(n / 64)] of the bank; 1 <= kept <= min(32, n).
extern "C" __global__ void __launch_bounds__(256, NEAREST_RERANK_BLOCKS)
nearest_rerank(const float* __restrict__ query, const float* __restrict__ bank, const float* __restrict__ norm,
               const float* __restrict__ loss, const float* __restrict__ block, const float* __restrict__ values,
               uint32_t* __restrict__ index, float* __restrict__ distance, float scale, int m, int n, int d, int k, int kept) {
  using namespace nearest;
  const int row = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= m) return;
  const int blocks = (n + 63) >> 6;
  Query q;
  q.norm = norm[row];
  q.root = sqrtf(q.norm);
  q.loss = loss[row];
  q.products = 2.f * (float)(k / 16 + 4) * 2.4e-7f;
  q.sums = (float)(k / 32 + 16) * 1.2e-7f;
  q.rounding = (float)(d / 16 + 32) * 6e-8f;
  const float *first = values + row, *second = first + (long long)blocks * m;
  // The k-th smallest upper bound; each belongs to another row.
  Found kth = {NOTHING, NO_ROW};
  for (int b0 = 0; b0 < blocks; b0 += 32) {
    const int b = b0 + lane;
    float u1 = none(), u2 = none();
    if (b < blocks) {
      u1 = bounds(q, first[(long long)b * m], block[b], block[blocks + b]).upper;
      u2 = bounds(q, second[(long long)b * m], block[b], block[blocks + b]).upper;
    }
    insert_all(kth, kept, u1, b < blocks ? 2 * b : NO_ROW);
    insert_all(kth, kept, u2, b < blocks ? 2 * b + 1 : NO_ROW);
  }
  const Found bound = kth;  // lane l: the l-th smallest
  kth = {__shfl_sync(FULL_WARP, bound.v, kept - 1), __shfl_sync(FULL_WARP, bound.i, kept - 1)};
  Found held = {none(), NO_ROW};
  const float* x = query + (long long)row * d;
  // Distances of what a block may hold: its packed row, or all rows if the second smallest is within reach as well.
  auto visit = [&](int b) {
    const float value = first[(long long)b * m], next = second[(long long)b * m];
    const float least = sqrtf(__shfl_sync(FULL_WARP, held.v, kept - 1)) * scale * 1.000001f;
    const float reach = fminf(kth.v, least);
    if (!(bounds(q, value, block[b], block[blocks + b]).lower <= reach)) return;
    const bool every = bounds(q, next, block[b], block[blocks + b]).lower <= reach;
    const int only = (int)(__float_as_uint(value) & 63u);
    // Two rows at a time, one for each half of the warp.
    for (int r = 0; r < (every ? 64 : 1); r += 2) {
      const int i = b * 64 + (every ? r + (lane >> 4) : only);
      const bool offers = i < n && (lane == 0 || (every && lane == 16));
      const float s = squared16(x, bank + (long long)(i < n ? i : n - 1) * d, d);
      insert_all(held, kept, offers ? s : none(), offers ? i : NO_ROW);
    }
  };
  // First the blocks of the smallest bounds, which brings the k-th distance down; a block's first value is always before its
  // second.
  for (int l = 0; l < kept; l++) {
    const int at = __shfl_sync(FULL_WARP, bound.i, l);
    if (at != NO_ROW && (at & 1) == 0) visit(at >> 1);
  }
  for (int b0 = 0; b0 < blocks; b0 += 32) {
    const int b = b0 + lane;
    bool near = false;
    if (b < blocks) {
      const Range range = bounds(q, first[(long long)b * m], block[b], block[blocks + b]);
      near = range.lower <= kth.v && better(kth.v, kth.i, {range.upper, 2 * b});  // and not yet visited
    }
    for (uint32_t left = __ballot_sync(FULL_WARP, near); left; left &= left - 1) visit(b0 + __ffs((int)left) - 1);
  }
  write(held, kept, index + (long long)row * kept, distance + (long long)row * kept);
}
#endif

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
// index, distance [m, kept] from all `squared` [m, n]; 1 <= kept <= min(32, n).
extern "C" __global__ void __launch_bounds__(256)
nearest_select(const float* __restrict__ squared, uint32_t* __restrict__ index, float* __restrict__ distance, int m, int n,
               int kept) {
  using namespace nearest;
  const int row = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= m) return;
  const float* values = squared + (long long)row * n;
  Found held = {none(), NO_ROW};
  for (int j0 = 0; j0 < n; j0 += 32) {
    const int j = j0 + lane;
    insert_all(held, kept, j < n ? values[j] : none(), j < n ? j : NO_ROW);
  }
  write(held, kept, index + (long long)row * kept, distance + (long long)row * kept);
}
#endif
