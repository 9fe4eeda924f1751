// Exact k nearest rows of a bank, k = 1 .. 32; of rows at the same distance the lower index comes first. Distances are those
// of common/distance.cuh: the bits of the CPU.
//
// The sieve (compute_80 and above). Let c be any vector near the bank's mean and s a power of two. Rows are stored as
// fp16(s (x - c)) with a bound e on what that loses, so by the triangle inequality the distance of two rows differs from that
// of their fp16 forms by at most the sum of their e. Products of fp16 are exact in f32; what summing them in tensor cores can
// lose is bounded from the norms (`error` in common/bounds.cuh). Hence rigorous intervals: every row whose lower bound is above the k-th
// smallest upper bound is out, and the few that are left get their f32 distance.
//   1. nearest_quantize: fp16 rows, squared norms, bounds e; for the bank also their maxima over blocks of 64 rows.
//   2. nearest_sieve: for each query and block the two smallest |b|^2 - 2 q b, the row's number in the low 6 mantissa bits.
//   3. nearest_rerank: bounds, survivors, distances, the k best.
// Lists of survivors that are full are worked off and filled again, so the result is exact always; only the time depends on how
// many rows survive.
//
// Without fp16 tensor cores, and for small banks: pairwise_squared (pairwise.cu), then nearest_select.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | nearest_quantize | grid ceil(n / 8), 256 threads | 0 | reads 4 n d, writes n (2 k + 8) |
// | nearest_sieve | grid ceil(m / NEAREST_ROWS) ceil(n / 256), 256 threads | NEAREST_STAGES (NEAREST_ROWS + 256) 64 | 2 m n k fp16; 2 k (m n / 256 + n m / 128) from L2, writes m n / 8 |
// | nearest_sieve, compute_90a | grid ceil(m / 128) ceil(n / 256), 256 threads | 196,608 | as above |
// | nearest_rerank | grid ceil(m / per), 256 threads | 6,496 | reads m n / 16 (k = 1) or m n / 8, and 4 d for each query and survivor |
// | nearest_select | grid ceil(m / 8), 256 threads | 0 | reads 4 m n |
//
// Registers on sm_80 and sm_90, without spills: nearest_quantize 28 and 30, nearest_sieve 227 and 232,
// nearest_rerank 80 and 80, nearest_select 24 and 22. Share of roofline, H200, 2026-11-28: nearest_quantize 98 % of a copy; nearest_sieve 51 % of
// mma.sync with the tiles row by row (25,088 x 16,384 x 1536). The form for Hopper and this nearest_rerank are not measured; the one before it,
// a warp a query, had 14 % of a copy.
#include "common/bounds.cuh"
#include "common/wgmma.cuh"

#ifndef NEAREST_STAGES  // tune: 3 4
#define NEAREST_STAGES 4
#endif
#ifndef NEAREST_ROWS  // tune: 64 128
#define NEAREST_ROWS 128
#endif
#ifndef NEAREST_RERANK_BLOCKS  // tune: 2 3
#define NEAREST_RERANK_BLOCKS 3
#endif
// NEAREST_WIDE is for the launch code: whether chips of 9.0 get the form of compute_90a. Not before its results were tested on one.
#ifndef NEAREST_WIDE  // tune: 0 1
#define NEAREST_WIDE 0
#endif
#ifndef NEAREST_GROUP
#define NEAREST_GROUP 12
#endif
// Of nearest_rerank: blocks of rows whose bounds a thread has under way, and coordinates of each of two rows.
#ifndef NEAREST_AHEAD
#define NEAREST_AHEAD 8
#endif
#ifndef NEAREST_WHOLE
#define NEAREST_WHOLE 12
#endif

namespace nearest {
constexpr float LARGEST_HALF = 65504.f;
}  // namespace nearest

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
// `half` [n, k] = fp16(scale (rows - centre)), columns d .. k zero, k a multiple of 32; `norm` [n] their squared norms;
// `loss` [n] bounds on the distance between a row's exact and its fp16 form, `floor` included. `block` [ceil(n / 64), 2],
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
    atomicMax((int*)&block[row / 64 * 2], __float_as_int(bound));
    atomicMax((int*)&block[row / 64 * 2 + 1], __float_as_int(squares));
  }
}
#endif

#if defined(EMU) || __CUDA_ARCH__ >= 800
namespace nearest {

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

// What a block of threads shares.
struct Work {
  float2 upper[256];  // the two smallest upper bounds each thread saw
  float whole[64];    // distances of a block of rows
  float reach[8];     // of each query: rows with a lower bound above it are not among the best
  int listed[8], left[8];
  // Each warp's list of rows whose distance is wanted: the first of their blocks, with the lower bound of all others there.
  int query[256], row[256];
  float others[256], found[256];
};
static_assert(sizeof(Work) == 6496, "what the launch gives it");

}  // namespace nearest

// index, distance [m, kept], from the sieve's `values` [2, ceil(n / 64), m]. query [m, d] and bank [n, d] as they were
// before quantising; norm, loss [m] of the queries; `scale` of both; block [ceil(n / 64), 2] of the bank; 1 <= kept <= min(32, n).
// A block of threads has `per` queries, 1, 2, 4 or 8: few where there are few, so that each gets more threads.
extern "C" __global__ void __launch_bounds__(256, NEAREST_RERANK_BLOCKS)
nearest_rerank(const float* __restrict__ query, const float* __restrict__ bank, const float* __restrict__ norm,
               const float* __restrict__ loss, const float2* __restrict__ block, const float* __restrict__ values,
               uint32_t* __restrict__ index, float* __restrict__ distance, float scale, int m, int n, int d, int k, int kept,
               int per) {
  using namespace nearest;
  DYN_SMEM(shared);
  Work& work = *(Work*)shared;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, half = tid >> 4, blocks = (n + 63) >> 6, row0 = blockIdx.x * per;
  // Bounds: neighbouring threads have neighbouring queries, and each every `parts`-th block of rows, from `part` to `end`.
  const int fold = __ffs(per) - 1, parts = 256 >> fold, mine = tid & (per - 1), part = tid >> fold;
  const int row = row0 + mine < m ? row0 + mine : m - 1, end = row0 + mine < m ? blocks : 0;
  const Query q = {norm[row], loss[row], (float)(k / 16 + 4) * 2.4e-7f + (float)(k / 32 + 16) * 1.2e-7f};
  const float *first = values + row, *second = first + (long long)blocks * m;
  auto at = [&](const float* from, int b) { return *(const float*)((const char*)from + (uint64_t)(uint32_t)b * (4u * (uint32_t)m)); };
  // f32 distances are rounded by at most r = (d / 16 + 32) 6e-8 of themselves, and 1 / (1 - r) <= 1 + 2 r.
  const float rounding = 1.000001f + (float)(d / 16 + 32) * 1.2e-7f;
  const float some = part < end ? at(first, part) : 0.f;
  const float g = sqrtf(fmaxf(some + q.norm, 0.01f * q.norm + 1e-30f)), inverse = 1.f / g;
  float v[NEAREST_AHEAD];
  float2 most[NEAREST_AHEAD];
  auto fetch = [&](const float* from, int b0) {
#pragma unroll
    for (int i = 0; i < NEAREST_AHEAD; i++) v[i] = b0 + i * parts < end ? at(from, b0 + i * parts) : NOTHING;
  };
  auto fetch_most = [&](int b0) {
#pragma unroll
    for (int i = 0; i < NEAREST_AHEAD; i++) most[i] = b0 + i * parts < end ? block[b0 + i * parts] : float2{0.f, 0.f};
  };
  float2 least = {none(), none()};
  auto bounds = [&] {
#pragma unroll
    for (int i = 0; i < NEAREST_AHEAD; i++) smallest(least, upper_squared(q, v[i], most[i], g, inverse));
  };
  for (int b0 = part; b0 < end; b0 += NEAREST_AHEAD * parts) {
    fetch(first, b0);
    fetch_most(b0);
    bounds();
    if (kept == 1) continue;  // the smallest bound of all is that of a first value
    fetch(second, b0);
    bounds();
  }
  work.upper[mine * parts + part] = least;
  __syncthreads();
  // From here on warp w also has query w. `bound`: no less than the k-th smallest upper bound, each of which belongs to another
  // row; leaving some out makes it larger.
  if (warp < per) {
    float bound = none();
    least = {none(), none()};
    for (int p = lane; p < parts; p += 32) {
      const float2 u = work.upper[warp * parts + p];
      smallest(least, u.x);
      smallest(least, u.y);
    }
    for (int l = 0; l < kept; l++) {
      bound = warp_min(least.x);
      if (lane == __ffs((int)__ballot_sync(FULL_WARP, least.x == bound)) - 1) least = {least.y, none()};
    }
    bound = bound < NO_BOUND ? sqrtf(bound) * rounding * rounding : none();
    if (lane == 0) work.reach[warp] = bound;
  }
  __syncthreads();
  Found held = {none(), NO_ROW};
  auto tighten = [&] {
    const float kth = sqrtf(__shfl_sync(FULL_WARP, held.v, kept - 1)) * scale * 1.000001f * rounding;
    if (lane == 0) work.reach[warp] = fminf(work.reach[warp], kth);
  };
  // Rounds, since a list may be full: what did not go in has another chance, with what is within reach by then.
  for (int turn = 0, turns = (blocks + parts - 1) / parts;;) {
    const float reach = work.reach[mine];
    int listed = 0;
    for (bool full = false; !full && turn < turns;) {
      const int b0 = part + turn * parts;
      fetch(first, b0);
      fetch_most(b0);
      uint32_t near = 0;
#pragma unroll
      for (int i = 0; i < NEAREST_AHEAD; i++)
        near |= (uint32_t)((b0 + i * parts < end) & within(q, v[i], most[i], reach)) << i;
      if (!__ballot_sync(FULL_WARP, near)) {
        turn += NEAREST_AHEAD;
        continue;
      }
      for (int i = 0; i < NEAREST_AHEAD; i++, turn++) {
        const uint32_t votes = __ballot_sync(FULL_WARP, near >> i & 1);
        full = listed + __popc(votes) > 32;
        if (full) break;
        if (near >> i & 1) {
          const int to = warp * 32 + listed + __popc(votes & ((1u << lane) - 1)), b = b0 + i * parts;
          work.query[to] = mine;
          work.row[to] = b * 64 + (int)(__float_as_uint(at(first, b)) & 63u);
          work.others[to] = lower(q, at(second, b), block[b]);
        }
        listed += __popc(votes);
      }
    }
    if (lane == 0) work.listed[warp] = listed, work.left[warp] = turn < turns;
    __syncthreads();
    int count = 0, left = 0;
#pragma unroll
    for (int w = 0; w < 8; w++) count += work.listed[w], left |= work.left[w];
    // Where the i-th of all is.
    auto place = [&](int i) {
      int w = 0;
      while (i >= work.listed[w]) i -= work.listed[w++];
      return w * 32 + i;
    };
    for (int i0 = warp * 2; i0 < count; i0 += 16) {
      const bool twice = i0 + (lane >> 4) >= count;  // both halves work; one may repeat the other
      const int i = place(twice ? i0 : i0 + (lane >> 4));
      const float* const x[1] = {bank + (long long)work.row[i] * d};
      float s[1];
      squared16<1, 16>(query + (long long)(row0 + work.query[i]) * d, x, d, s);
      if ((lane & 15) == 0 && !twice) work.found[i] = s[0];
    }
    __syncthreads();
    if (warp < per) {
      for (int i0 = 0; i0 < count; i0 += 32) {
        const int i = i0 + lane < count ? place(i0 + lane) : -1;
        const bool offers = i >= 0 && work.query[i] == warp;
        insert_all(held, kept, offers ? work.found[i] : none(), offers ? work.row[i] : NO_ROW);
      }
      tighten();
    }
    __syncthreads();
    // All other rows of blocks whose second smallest is within reach as well, the nearest block first, which brings the reach of
    // its query down. All threads take part, and all warps choose the same.
    for (;;) {
      Found next = {none(), 0};
      for (int j = lane; j < count; j += 32) {
        const int i = place(j);
        if (work.others[i] < next.v && work.others[i] <= work.reach[work.query[i]]) next = {work.others[i], i};
      }
      const float nearest = warp_min(next.v);
      if (nearest == none()) break;
      const int i = __shfl_sync(FULL_WARP, next.i, __ffs((int)__ballot_sync(FULL_WARP, next.v == nearest)) - 1);
      const int of = work.query[i], only = work.row[i], from = only & ~63;
#pragma unroll 1
      for (int r = half; r < 64; r += 32) {
        const int low = from + r < n ? from + r : n - 1, high = from + r + 16 < n ? from + r + 16 : n - 1;
        const float* const x[2] = {bank + (long long)low * d, bank + (long long)high * d};
        float s[2];
        squared16<2, NEAREST_WHOLE>(query + (long long)(row0 + of) * d, x, d, s);
        if ((lane & 15) == 0) work.whole[r] = s[0], work.whole[r + 16] = s[1];
      }
      __syncthreads();
      if (warp == of) {
#pragma unroll
        for (int r = lane; r < 64; r += 32) {
          const bool offers = from + r < n && from + r != only;
          insert_all(held, kept, offers ? work.whole[r] : none(), offers ? from + r : NO_ROW);
        }
        tighten();
        if (lane == 0) work.others[i] = none();
      }
      __syncthreads();
    }
    if (!left) break;
    __syncthreads();  // the list may still be read
  }
  const long long to = (long long)(row0 + warp) * kept;
  if (warp < per && row0 + warp < m) write(held, kept, index + to, distance + to);
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
