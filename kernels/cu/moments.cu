// PaDiM's fit: sums of embeddings and of their products at every position, and from them the inverse Cholesky factors that
// mahalanobis.cu reads. Tables and packing are those of mahalanobis.cu; levels go coarse to fine, and what a level shares is
// computed once for all groups that share it.
//
// moments_shift: for each group the mean of the first batch, from which all later values are taken, so that totals stay small.
// moments_add_f32, moments_add_f64: adds up to 4 `quads` pictures from `first` on. Their products are summed in f32, in the order
//   of the pictures, before they go to the totals; sums of values are f64. Every total has one thread, whatever the grid.
// moments_covariance: rows a .. b of the covariance (divisor N - 1) with epsilon on the diagonal, f64, unpacked, zeros beyond
//   the diagonal.
// moments_factor: the same rows of W = L^-1, where L L^T is the covariance, in place. 32 rows at a time extend what is there,
//   W_A of the leading block, be it of this level or of those above: with rows [B, D], L = B W_A^T, W_D = chol(D - L L^T)^-1,
//   and the new rows are [-W_D L W_A, W_D]. The work is that of Cholesky and inversion; nothing is solved twice for groups that
//   share their leading rows. f64, since the values differ by the covariance's condition number.
// moments_pack: those rows, packed, in f32, to the groups of `weight` from `at` on, which are `stride` floats apart.
//
// Blocks stand for groups from `start` on; `rows` [.., b - a, b] has its first of them at `place`. constants: N, epsilon, 1 / N,
// 1 / (N - 1).
//
// | kernel | launch | shared bytes | flops, bytes for a group |
// |---|---|---|---|
// | moments_shift | grid groups, 256 threads | 0 | n (b - a); 4 n (b - a) |
// | moments_add | grid (groups, parts), 256 threads | 16 quads (b - a to a multiple of 16, + a) | 2 n floats of W; 2 totals for each of them every 32 pictures |
// | moments_covariance | grid (groups, parts), 256 threads | 0 | 4 floats of W; 4 or 8 floats of W read, 8 b (b - a) written |
// | moments_factor | grid groups, 128 threads | 34,816 | 2/3 (b^3 - a^3) in f64; b - a rows by 32 over 8 b^2 from L2 |
// | moments_pack | grid (groups, parts), 256 threads | 4,160 | 12 floats of W |
//
// Share of roofline: not measured in this form; that before it, H200, 2026-11-28: moments_factor 10 % of multiply-adds in f64.
#include "common/gather.cuh"

#ifndef MOMENTS_ADD_BLOCKS  // tune: 1 2
#define MOMENTS_ADD_BLOCKS 2
#endif
#ifndef MOMENTS_FACTOR_BLOCKS  // tune: 2 3
#define MOMENTS_FACTOR_BLOCKS 3
#endif

namespace moments {

constexpr int TILE = 32, PITCH = 33, WIDE = 64;

// Where rows a + 16 p .. of the packed triangle begin, in a group.
__device__ __forceinline__ long long panel_at(int a, int p) { return (long long)p * (16 * a + 136) + 128ll * p * (p - 1); }

// Entry (row, c), c <= row, of the packed rows a .. b.
__device__ __forceinline__ long long packed_at(int a, int b, int row, int c) {
  const int p = (row - a) >> 4, r0 = a + 16 * p, h = b - r0 < 16 ? b - r0 : 16, k = c - r0;
  const long long at = panel_at(a, p);
  return c < r0 ? at + (long long)c * h + row - r0 : at + (long long)r0 * h + k * h - k * (k - 1) / 2 + row - c;
}

__device__ __forceinline__ long long triangle(int n) { return (long long)n * (n + 1) / 2; }

// 1 / sqrt(v) for v in 1e-30 .. 1e30, to rounding: Newton's steps, in f32 as far as they carry, since dividing in f64 is a call
// that spills registers.
__device__ __forceinline__ double inverse_root(double v) {
  const float f = (float)v;
  float y = __int_as_float(0x5f3759df - (__float_as_int(f) >> 1));
#pragma unroll
  for (int i = 0; i < 3; i++) y = y * fmaf(-0.5f * f * y, y, 1.5f);
  double root = y;
#pragma unroll
  for (int i = 0; i < 2; i++) root = root * fma(-0.5 * v * root, root, 1.5);
  return root;
}

// Totals are kept in blocks of 4 rows and all columns, [rows / 4][columns][4], 16 rows a panel and as many columns as its last
// row has: a warp reads and writes whole lines. What lies beyond the diagonal or the last row is never read.
__device__ __forceinline__ long long total_at(int a, int p) { return 16ll * p * a + 128ll * p * (p + 1); }
__device__ __forceinline__ long long totals(int a, int b) { return total_at(a, (b - a + 15) / 16); }

__device__ __forceinline__ void add4(float* to, const float* sum) {
  const float4 v = *(const float4*)to;
  *(float4*)to = make_float4(v.x + sum[0], v.y + sum[1], v.z + sum[2], v.w + sum[3]);
}
__device__ __forceinline__ void add4(double* to, const float* sum) {
#pragma unroll
  for (int i = 0; i < 4; i++) to[i] += (double)sum[i];
}

// Products of the 16 rows from r0 on with columns c and, COLUMNS being 2, c + 32, where they are below `width`; x has `pitch`
// entries a quad of pictures.
template <int COLUMNS, class Total>
__device__ __forceinline__ void add_unit(const float4* x, int quads, int pitch, int r0, int c, int width, Total* to) {
  const float4 *row = x + r0, *own[COLUMNS];
  float sum[COLUMNS][16];
#pragma unroll
  for (int k = 0; k < COLUMNS; k++) own[k] = x + (c + 32 * k < width ? c + 32 * k : r0);
#pragma unroll
  for (int k = 0; k < COLUMNS; k++)
#pragma unroll
    for (int i = 0; i < 16; i++) sum[k][i] = 0.f;
  for (int q = 0; q < quads; q++, row += pitch) {
    float4 column[COLUMNS];
#pragma unroll
    for (int k = 0; k < COLUMNS; k++) column[k] = own[k][q * pitch];
#pragma unroll
    for (int i = 0; i < 16; i++) {
      const float4 v = row[i];
#pragma unroll
      for (int k = 0; k < COLUMNS; k++) {
        sum[k][i] = fmaf(v.x, column[k].x, sum[k][i]);
        sum[k][i] = fmaf(v.y, column[k].y, sum[k][i]);
        sum[k][i] = fmaf(v.z, column[k].z, sum[k][i]);
        sum[k][i] = fmaf(v.w, column[k].w, sum[k][i]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < COLUMNS; k++) {
    if (c + 32 * k >= width) continue;
#pragma unroll
    for (int s = 0; s < 4; s++) add4(to + 4 * ((long long)s * width + c + 32 * k), sum[k] + 4 * s);
  }
}

// x [quads, pitch], zeros from entry b on. Warps take 16 rows by 32 COLUMNS columns in turn.
template <int COLUMNS, class Total>
__device__ __forceinline__ void add_turns(const float4* x, int quads, int pitch, int a, int b, Total* products) {
  constexpr int WIDTH = 32 * COLUMNS;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, step = 8 * gridDim.y;
  int turn = blockIdx.y * 8 + warp;
  for (int p = 0; a + 16 * p < b; p++) {
    const int r0 = a + 16 * p, width = r0 + 16, units = (width + WIDTH - 1) / WIDTH;
    for (; turn < units; turn += step) {
      Total* to = products + total_at(a, p);
      const int c = WIDTH * turn + lane;
      if (COLUMNS == 1 || WIDTH * turn + 32 < width) add_unit<COLUMNS>(x, quads, pitch, r0, c, width, to);
      else add_unit<1>(x, quads, pitch, r0, c, width, to);
    }
    turn -= units;
  }
}

template <class Total>
__device__ __forceinline__ void add(const float4* x, int quads, int pitch, int a, int b, Total* products) {
  // Narrow turns where wide ones would be too few for the warps there are; the totals are the same.
  int wide = 0;
  for (int r0 = a; r0 < b; r0 += 16) wide += (r0 + 16 + 63) / 64;
  if (wide < 8 * (int)gridDim.y) add_turns<1>(x, quads, pitch, a, b, products);
  else add_turns<2>(x, quads, pitch, a, b, products);
}

}  // namespace moments

#define MOMENTS_TABLES                                                                                                        \
  const float *__restrict__ map0, const float *__restrict__ map1, const float *__restrict__ map2,                            \
      const float *__restrict__ map3, const int *__restrict__ shape, const uint32_t *__restrict__ channel,                   \
      const uint64_t *__restrict__ mean_at, const int *__restrict__ mean_rows, const int *__restrict__ area,                 \
      const uint32_t *__restrict__ ancestor

extern "C" __global__ void __launch_bounds__(256)
moments_shift(MOMENTS_TABLES, float* __restrict__ shift, int level, int a, int b, int n, int grid_h, int grid_w) {
  const int group = blockIdx.x, *own = area + 4 * group;
  const mahalanobis::Maps maps = {{map0, map1, map2, map3}};
  for (int j = a + threadIdx.x; j < b; j += blockDim.x) {
    long long picture;
    const float* from = mahalanobis::entry(maps, shape, channel + 4 * j, own[0], own[2], grid_h, grid_w, picture);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += from[i * picture];
    shift[mean_at[level] + (uint64_t)group * mean_rows[level] + (j - a)] = (float)(sum / n);
  }
}

#define MOMENTS_ADD(name, Total)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, MOMENTS_ADD_BLOCKS)                                                       \
  name(MOMENTS_TABLES, const float* __restrict__ shift, double* __restrict__ sums, Total* __restrict__ products, int level,   \
       int levels, int a, int b, int first, int n, int quads, int grid_h, int grid_w) {                                       \
    DYN_SMEM(shared);                                                                                                         \
    float4* x = (float4*)shared; /* [quads, pitch] */                                                                         \
    const int group = blockIdx.x, pitch = a + (b - a + 15) / 16 * 16;                                                         \
    for (int q = 0; q < quads; q++) {                                                                                         \
      mahalanobis::gather({{map0, map1, map2, map3}}, shape, channel, shift, mean_at, mean_rows, area + 4 * group,            \
                          ancestor + (long long)group * levels, b, grid_h, grid_w, first + 4 * q, n, x + q * pitch);          \
      for (int j = b + threadIdx.x; j < pitch; j += blockDim.x) x[q * pitch + j] = make_float4(0.f, 0.f, 0.f, 0.f);           \
    }                                                                                                                         \
    __syncthreads();                                                                                                          \
    if (blockIdx.y == 0)                                                                                                      \
      for (int r = a + threadIdx.x; r < b; r += blockDim.x) {                                                                 \
        double* sum = sums + mean_at[level] + (uint64_t)group * mean_rows[level] + (r - a);                                   \
        double total = *sum;                                                                                                  \
        for (int q = 0; q < quads; q++) {                                                                                     \
          const float4 v = x[q * pitch + r];                                                                                  \
          total = (((total + v.x) + v.y) + v.z) + v.w;                                                                        \
        }                                                                                                                     \
        *sum = total;                                                                                                         \
      }                                                                                                                       \
    moments::add(x, quads, pitch, a, b, products + group * moments::totals(a, b));                                            \
  }
MOMENTS_ADD(moments_add_f32, float)
MOMENTS_ADD(moments_add_f64, double)

#define MOMENTS_COVARIANCE(name, Total)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                                           \
  name(const Total* __restrict__ products, const double* __restrict__ sums, const uint32_t* __restrict__ channel,             \
       const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows, const uint32_t* __restrict__ ancestor,        \
       const double* __restrict__ constants, double* __restrict__ rows, int levels, int a, int b, int start, int place) {     \
    const int group = start + blockIdx.x, height = b - a, count = (height + 3) / 4 * b;                                       \
    const Total* product = products + group * moments::totals(a, b);                                                          \
    double* out = rows + (long long)(place + blockIdx.x) * height * b;                                                        \
    auto sum = [&](int j) {                                                                                                   \
      const uint32_t* c = channel + 4 * j;                                                                                    \
      return sums[mean_at[c[2]] + (uint64_t)ancestor[(long long)group * levels + c[2]] * mean_rows[c[2]] + c[3]];             \
    };                                                                                                                        \
    /* Four rows at a time, as the totals lie. */                                                                             \
    _Pragma("unroll 1")                                                                                                       \
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += gridDim.y * blockDim.x) {                             \
      const int r = 4 * (i / b), c = i % b, p = r >> 4, width = a + 16 * p + 16;                                              \
      const double own = sum(c) * constants[2];                                                                               \
      const Total* total = product + moments::total_at(a, p) + 4 * ((long long)(r >> 2 & 3) * width + c);                     \
      _Pragma("unroll 1")                                                                                                     \
      for (int e = 0; e < 4 && r + e < height; e++) {                                                                         \
        double v = 0;                                                                                                         \
        if (c <= a + r + e) v = ((double)total[e] - sum(a + r + e) * own) * constants[3];                                     \
        out[(long long)(r + e) * b + c] = c == a + r + e ? v + constants[1] : v;                                              \
      }                                                                                                                       \
    }                                                                                                                         \
  }
MOMENTS_COVARIANCE(moments_covariance_f32, float)
MOMENTS_COVARIANCE(moments_covariance_f64, double)

extern "C" __global__ void __launch_bounds__(128, MOMENTS_FACTOR_BLOCKS)
moments_factor(const double* above0, const double* above1, const double* above2,  // what `rows` may hold: not read as a constant
               const int* __restrict__ starts, const uint32_t* __restrict__ ancestor, double* rows, double* scratch,
               uint32_t* __restrict__ failed, int level, int levels, int a, int b, int start, int place) {
  using namespace moments;
  DYN_SMEM(shared);
  double(*left)[PITCH] = (double(*)[PITCH])shared, (*right)[PITCH] = left + TILE, (*inverse)[PITCH] = right + WIDE,
        (*line)[TILE] = (double(*)[TILE])(inverse + TILE), (*tile)[WIDE + 1] = (double(*)[WIDE + 1])right;
  // Of products of 32 x 64, a thread has rows y, y + 8, .. and columns x, x + 16, ..
  const int t = threadIdx.x, warp = t >> 5, lane = t & 31, x = t & 15, y = t >> 4;
  double *own = rows + (long long)(place + blockIdx.x) * (b - a) * b, *through = scratch + (long long)blockIdx.x * TILE * b;
  const uint32_t* group = ancestor + (long long)(start + blockIdx.x) * levels;
  // Where the levels above end, and what this group has of them.
  const int end0 = level > 0 ? starts[1] : 0, end1 = level > 1 ? starts[2] : end0, end2 = level > 2 ? starts[3] : end1;
  const double *known0 = level > 0 ? above0 + (long long)group[0] * end0 * end0 : own,
               *known1 = level > 1 ? above1 + (long long)group[1] * (end1 - end0) * end1 : own,
               *known2 = level > 2 ? above2 + (long long)group[2] * (end2 - end1) * end2 : own;
  // Row k of what is known of W, to its diagonal.
  auto known = [&](int k) -> const double* {
    if (k >= a) return own + (long long)(k - a) * b;
    if (k < end0) return known0 + (long long)k * end0;
    return k < end1 ? known1 + (long long)(k - end0) * end1 : known2 + (long long)(k - end1) * end2;
  };
  for (int r0 = a; r0 < b; r0 += TILE) {
    const int h = b - r0 < TILE ? b - r0 : TILE;
    double rest[4][2] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
    for (int k0 = 0; k0 < r0; k0 += WIDE) {
      double sum[4][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
      for (int c0 = 0; c0 < k0 + WIDE && c0 < r0; c0 += TILE) {
        const int c = c0 + lane;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          const int u = warp + 4 * i;
          left[u][lane] = u < h && c < r0 ? own[(long long)(r0 + u - a) * b + c] : 0;
        }
#pragma unroll 8
        for (int i = 0; i < 16; i++) {
          const int k = k0 + warp + 4 * i;
          right[warp + 4 * i][lane] = k < r0 && c <= k ? known(k)[c] : 0;
        }
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < TILE; j++) {
          double r[4];
#pragma unroll
          for (int m = 0; m < 4; m++) r[m] = right[x + 16 * m][j];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const double l = left[y + 8 * i][j];
#pragma unroll
            for (int m = 0; m < 4; m++) sum[i][m] = fma(l, r[m], sum[i][m]);
          }
        }
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int m = 0; m < 4; m++) {
          const int u = y + 8 * i, v = x + 16 * m;
          tile[u][v] = sum[i][m];
          if (k0 + v < r0) through[(long long)u * b + k0 + v] = sum[i][m];
        }
      __syncthreads();
#pragma unroll 4
      for (int j = 0; j < WIDE; j++) {
        const double r0j = tile[x][j], r1j = tile[x + 16][j];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const double l = -tile[y + 8 * i][j];
          rest[i][0] = fma(l, r0j, rest[i][0]);
          rest[i][1] = fma(l, r1j, rest[i][1]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int m = 0; m < 2; m++) {
        const int u = y + 8 * i, v = x + 16 * m;
        const bool there = u < h && v <= u;
        inverse[u][v] = there ? own[(long long)(r0 + u - a) * b + r0 + v] + rest[i][m] : u == v;
      }
    __syncthreads();
    // Gauss's steps in place, rows warp, warp + 4, .. of column `lane` in registers: what is left of the tile after column j
    // lies beyond it, the inverse factor before. Column and row j go round in turns of two, so that one barrier a step is enough.
    double part[8];
#pragma unroll
    for (int i = 0; i < 8; i++) part[i] = lane <= warp + 4 * i ? inverse[warp + 4 * i][lane] : 0;
#pragma unroll 1
    for (int j = 0; j < TILE; j++) {
      double *column = line[2 * (j & 1)], *row = line[2 * (j & 1) + 1];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int u = warp + 4 * i;
        if (lane == j) column[u] = part[i];
        if (u == j) row[lane] = part[i];
      }
      __syncthreads();  // of the step
      double pivot = column[j];
      if (!(pivot > 1e-30 && pivot < 1e30)) {
        if (t == 0) atomicMax(failed, 1u + start + blockIdx.x);
        pivot = 1;
      }
      const double root = inverse_root(pivot), factor = lane < j ? row[lane] * root : lane == j ? root : column[lane] * root;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int u = warp + 4 * i;
        if (lane <= u && u > j) part[i] = fma(-root * column[u], factor, lane == j ? 0 : part[i]);
        if (lane <= u && u == j) part[i] = factor;
      }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) inverse[warp + 4 * i][lane] = part[i];
    for (int c0 = 0; c0 < r0; c0 += WIDE) {
      double sum[4][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
      for (int k0 = c0; k0 < r0; k0 += TILE) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; i++) {
          const int u = warp + 4 * i;
          left[u][lane] = k0 + lane < r0 ? through[(long long)u * b + k0 + lane] : 0;
        }
#pragma unroll 8
        for (int i = 0; i < 16; i++) {
          const int u = (t >> 6) + 2 * i, v = t & 63, k = k0 + u;
          tile[u][v] = k < r0 && c0 + v <= k ? known(k)[c0 + v] : 0;
        }
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < TILE; j++) {
          double r[4];
#pragma unroll
          for (int m = 0; m < 4; m++) r[m] = tile[j][x + 16 * m];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const double l = left[y + 8 * i][j];
#pragma unroll
            for (int m = 0; m < 4; m++) sum[i][m] = fma(l, r[m], sum[i][m]);
          }
        }
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int m = 0; m < 4; m++) tile[y + 8 * i][x + 16 * m] = sum[i][m], sum[i][m] = 0;
      __syncthreads();
#pragma unroll 4
      for (int j = 0; j < TILE; j++) {
        double r[4];
#pragma unroll
        for (int m = 0; m < 4; m++) r[m] = tile[j][x + 16 * m];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const double l = -inverse[y + 8 * i][j];
#pragma unroll
          for (int m = 0; m < 4; m++) sum[i][m] = fma(l, r[m], sum[i][m]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int m = 0; m < 4; m++) {
          const int u = y + 8 * i, c = c0 + x + 16 * m;
          if (u < h && c < r0) own[(long long)(r0 + u - a) * b + c] = sum[i][m];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int u = warp + 4 * i;
      if (u < h && lane < h) own[(long long)(r0 + u - a) * b + r0 + lane] = inverse[u][lane];
    }
    __syncthreads();  // before the rows that follow
  }
}

// Through shared memory, so that both sides go in whole lines.
extern "C" __global__ void __launch_bounds__(256)
moments_pack(const double* __restrict__ rows, float* __restrict__ weight, int a, int b, int place, int at, int stride) {
  using namespace moments;
  DYN_SMEM(shared);
  float(*tile)[WIDE + 1] = (float(*)[WIDE + 1])shared;  // [16]
  const double* from = rows + (long long)(place + blockIdx.x) * (b - a) * b;
  float* to = weight + (long long)(at + blockIdx.x) * stride;
  int turn = blockIdx.y;
  for (int p = 0; a + 16 * p < b; p++) {
    const int r0 = a + 16 * p, h = b - r0 < 16 ? b - r0 : 16, units = (r0 + h + WIDE - 1) / WIDE;
    for (; turn < units; turn += gridDim.y) {
      const int c0 = WIDE * turn, full = (r0 - c0 < WIDE ? r0 - c0 : WIDE) * h;
      __syncthreads();
      for (int i = threadIdx.x; i < 16 * WIDE; i += 256) {
        const int u = i / WIDE, v = i % WIDE;
        if (u < h && c0 + v <= r0 + u) tile[u][v] = (float)from[(long long)(r0 - a + u) * b + c0 + v];
      }
      __syncthreads();
      for (int i = threadIdx.x; i < full; i += 256) to[panel_at(a, p) + (long long)c0 * h + i] = tile[i % h][i / h];
      for (int i = threadIdx.x; i < 16 * WIDE; i += 256) {
        const int u = i / WIDE, v = i % WIDE;
        if (u < h && c0 + v >= r0 && c0 + v <= r0 + u) to[packed_at(a, b, r0 + u, c0 + v)] = tile[u][v];
      }
    }
    turn -= units;
  }
}
