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
// moments_pack: those rows, packed, in f32.
//
// Blocks stand for groups from `start` on; `rows` [.., b - a, b] has its first of them at `place`. constants: N, epsilon.
//
// | kernel | launch | shared bytes | flops, bytes for a group |
// |---|---|---|---|
// | moments_shift | grid groups, 256 threads | 0 | n (b - a); 4 n (b - a) |
// | moments_add | grid (groups, parts), 256 threads | 16 quads b | 2 n floats of W; 2 totals for each of them every 32 pictures |
// | moments_covariance, moments_pack | grid (groups, parts), 256 threads | 0 | 4 floats of W; 12 or 16 floats of W |
// | moments_factor | grid groups, 256 threads | 33,792 | 2/3 (b^3 - a^3) in f64; b - a rows by 32 over 8 b^2 |
//
// Share of roofline: not yet measured.
#include "common/gather.cuh"

#ifndef MOMENTS_ADD_BLOCKS  // tune: 1 2 3 4
#define MOMENTS_ADD_BLOCKS 1
#endif
#ifndef MOMENTS_FACTOR_BLOCKS  // tune: 1 2 3
#define MOMENTS_FACTOR_BLOCKS 2
#endif

namespace moments {

constexpr int TILE = 32, PITCH = 33;

// Where rows a + 16 p .. of the packed triangle begin, in a group.
__device__ __forceinline__ long long panel_at(int a, int p) { return (long long)p * (16 * a + 136) + 128ll * p * (p - 1); }

// Entry (row, c), c <= row, of the packed rows a .. b.
__device__ __forceinline__ long long packed_at(int a, int b, int row, int c) {
  const int p = (row - a) >> 4, r0 = a + 16 * p, h = b - r0 < 16 ? b - r0 : 16, k = c - r0;
  const long long at = panel_at(a, p);
  return c < r0 ? at + (long long)c * h + row - r0 : at + (long long)r0 * h + k * h - k * (k - 1) / 2 + row - c;
}

__device__ __forceinline__ long long triangle(int n) { return (long long)n * (n + 1) / 2; }

// 1 / sqrt(v) for v in 1e-30 .. 1e30, to rounding: Newton's steps, since dividing in f64 is a call that spills registers.
__device__ __forceinline__ double inverse_root(double v) {
  double y = __int_as_float(0x5f3759df - (__float_as_int((float)v) >> 1));
#pragma unroll 1
  for (int i = 0; i < 5; i++) y = y * fma(-0.5 * v * y, y, 1.5);
  return y;
}

template <class Total>
__device__ __forceinline__ void add(const float4* x, int quads, int a, int b, Total* products) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, step = 8 * gridDim.y;
  int turn = blockIdx.y * 8 + warp;
  for (int p = 0; a + 16 * p < b; p++) {
    const int r0 = a + 16 * p, h = b - r0 < 16 ? b - r0 : 16, units = (r0 + h + 31) / 32;
    for (; turn < units; turn += step) {
      const int c = 32 * turn + lane;
      if (c >= r0 + h) continue;
      float sum[16];
#pragma unroll
      for (int i = 0; i < 16; i++) sum[i] = 0.f;
      for (int q = 0; q < quads; q++) {
        const float4 own = x[q * b + c];
#pragma unroll
        for (int i = 0; i < 16; i++) {
          const float4 row = x[q * b + (i < h ? r0 + i : r0)];
          sum[i] = fmaf(row.x, own.x, sum[i]);
          sum[i] = fmaf(row.y, own.y, sum[i]);
          sum[i] = fmaf(row.z, own.z, sum[i]);
          sum[i] = fmaf(row.w, own.w, sum[i]);
        }
      }
      const int k = c < r0 ? 0 : c - r0;
      Total* to = products + panel_at(a, p) + (c < r0 ? (long long)c * h : (long long)r0 * h + k * h - k * (k - 1) / 2 - k);
#pragma unroll
      for (int i = 0; i < 16; i++)
        if (i >= k && i < h) to[i] += (Total)sum[i];
    }
    turn -= units;
  }
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
    float4* x = (float4*)shared; /* [quads, b] */                                                                            \
    const int group = blockIdx.x;                                                                                             \
    for (int q = 0; q < quads; q++)                                                                                           \
      mahalanobis::gather({{map0, map1, map2, map3}}, shape, channel, shift, mean_at, mean_rows, area + 4 * group,            \
                          ancestor + (long long)group * levels, b, grid_h, grid_w, first + 4 * q, n, x + q * b);              \
    __syncthreads();                                                                                                          \
    if (blockIdx.y == 0)                                                                                                      \
      for (int r = a + threadIdx.x; r < b; r += blockDim.x) {                                                                 \
        double* sum = sums + mean_at[level] + (uint64_t)group * mean_rows[level] + (r - a);                                   \
        double total = *sum;                                                                                                  \
        for (int q = 0; q < quads; q++) {                                                                                     \
          const float4 v = x[q * b + r];                                                                                      \
          total = (((total + v.x) + v.y) + v.z) + v.w;                                                                        \
        }                                                                                                                     \
        *sum = total;                                                                                                         \
      }                                                                                                                       \
    moments::add(x, quads, a, b, products + group * (moments::triangle(b) - moments::triangle(a)));                           \
  }
MOMENTS_ADD(moments_add_f32, float)
MOMENTS_ADD(moments_add_f64, double)

#define MOMENTS_COVARIANCE(name, Total)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                                           \
  name(const Total* __restrict__ products, const double* __restrict__ sums, const uint32_t* __restrict__ channel,             \
       const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows, const uint32_t* __restrict__ ancestor,        \
       const double* __restrict__ constants, double* __restrict__ rows, int levels, int a, int b, int start, int place) {     \
    const int group = start + blockIdx.x, height = b - a;                                                                     \
    const Total* product = products + group * (moments::triangle(b) - moments::triangle(a));                                  \
    double* out = rows + (long long)(place + blockIdx.x) * height * b;                                                        \
    const double n = constants[0];                                                                                            \
    auto sum = [&](int j) {                                                                                                   \
      const uint32_t* c = channel + 4 * j;                                                                                    \
      return sums[mean_at[c[2]] + (uint64_t)ancestor[(long long)group * levels + c[2]] * mean_rows[c[2]] + c[3]];             \
    };                                                                                                                        \
    const long long count = (long long)height * b, step = (long long)gridDim.y * blockDim.x;                                  \
    for (long long i = (long long)blockIdx.y * blockDim.x + threadIdx.x; i < count; i += step) {                              \
      const int r = (int)(i / b), c = (int)(i % b), row = a + r;                                                              \
      double v = 0;                                                                                                           \
      if (c <= row) v = ((double)product[moments::packed_at(a, b, row, c)] - sum(row) * sum(c) / n) / (n - 1);                \
      out[i] = c == row ? v + constants[1] : v;                                                                               \
    }                                                                                                                         \
  }
MOMENTS_COVARIANCE(moments_covariance_f32, float)
MOMENTS_COVARIANCE(moments_covariance_f64, double)

extern "C" __global__ void __launch_bounds__(256, MOMENTS_FACTOR_BLOCKS)
moments_factor(const double* __restrict__ above0, const double* __restrict__ above1, const double* __restrict__ above2,
               const int* __restrict__ starts, const uint32_t* __restrict__ ancestor, double* rows, double* scratch,
               uint32_t* __restrict__ failed, int level, int levels, int a, int b, int start, int place) {
  using namespace moments;
  DYN_SMEM(shared);
  double(*left)[PITCH] = (double(*)[PITCH])shared, (*right)[PITCH] = left + TILE, (*lower)[PITCH] = right + TILE,
        (*inverse)[PITCH] = lower + TILE;
  const int t = threadIdx.x, x = t & 15, y = t >> 4;  // of each tile, a thread has rows y, y + 16 and columns x, x + 16
  double *own = rows + (long long)(place + blockIdx.x) * (b - a) * b, *through = scratch + (long long)blockIdx.x * TILE * b;
  const uint32_t* group = ancestor + (long long)(start + blockIdx.x) * levels;
  // Entry (k, c) of what is known of W; zero beyond the diagonal.
  auto known = [&](int k, int c) -> double {
    if (c > k) return 0;
    if (k >= a) return own[(long long)(k - a) * b + c];
    const int l = k < starts[1] ? 0 : k < starts[2] ? 1 : 2, first = starts[l], width = starts[l + 1];
    const double* from = l == 0 ? above0 : l == 1 ? above1 : above2;
    return from[((long long)group[l] * (width - first) + (k - first)) * width + c];
  };
  for (int r0 = a; r0 < b; r0 += TILE) {
    const int h = b - r0 < TILE ? b - r0 : TILE;
    double rest[4] = {0, 0, 0, 0};
    for (int k0 = 0; k0 < r0; k0 += TILE) {
      double sum[4] = {0, 0, 0, 0};
      for (int c0 = 0; c0 <= k0; c0 += TILE) {
        for (int i = t; i < TILE * TILE; i += 256) {
          const int u = i >> 5, v = i & 31;
          left[u][v] = u < h && c0 + v < r0 ? own[(long long)(r0 + u - a) * b + c0 + v] : 0;
          right[u][v] = k0 + u < r0 && c0 + v < r0 ? known(k0 + u, c0 + v) : 0;
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < TILE; j++)
#pragma unroll
          for (int i = 0; i < 4; i++) sum[i] = fma(left[y + 16 * (i >> 1)][j], right[x + 16 * (i & 1)][j], sum[i]);
        __syncthreads();
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int u = y + 16 * (i >> 1), v = x + 16 * (i & 1);
        left[u][v] = sum[i];
        if (k0 + v < r0) through[(long long)u * b + k0 + v] = sum[i];
      }
      __syncthreads();
#pragma unroll 8
      for (int j = 0; j < TILE; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) rest[i] = fma(-left[y + 16 * (i >> 1)][j], left[x + 16 * (i & 1)][j], rest[i]);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int u = y + 16 * (i >> 1), v = x + 16 * (i & 1);
      const bool there = u < h && v <= u;
      lower[u][v] = there ? own[(long long)(r0 + u - a) * b + r0 + v] + rest[i] : u == v;
      inverse[u][v] = 0;
    }
    for (int j = 0; j < TILE; j++) {
      __syncthreads();
      double pivot = lower[j][j];
      if (!(pivot > 1e-30 && pivot < 1e30)) {
        if (t == 0) atomicMax(failed, 1u + start + blockIdx.x);
        pivot = 1;
      }
      const double root = inverse_root(pivot);
      __syncthreads();
      // The diagonal is kept inverted.
      if (t >= j && t < TILE) lower[t][j] = t == j ? root : lower[t][j] * root;
      __syncthreads();
      for (int i = t; i < TILE * TILE; i += 256) {
        const int u = i >> 5, v = i & 31;
        if (v > j && v <= u) lower[u][v] = fma(-lower[u][j], lower[v][j], lower[u][v]);
      }
    }
    __syncthreads();
    if (t < TILE)
      for (int i = t; i < TILE; i++) {
        double v = i == t;
        for (int k = t; k < i; k++) v = fma(-lower[i][k], inverse[k][t], v);
        inverse[i][t] = v * lower[i][i];
      }
    for (int c0 = 0; c0 < r0; c0 += TILE) {
      double sum[4] = {0, 0, 0, 0};
      for (int k0 = c0; k0 < r0; k0 += TILE) {
        __syncthreads();
        for (int i = t; i < TILE * TILE; i += 256) {
          const int u = i >> 5, v = i & 31;
          left[u][v] = k0 + v < r0 ? through[(long long)u * b + k0 + v] : 0;
          right[u][v] = k0 + u < r0 && c0 + v < r0 ? known(k0 + u, c0 + v) : 0;
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < TILE; j++)
#pragma unroll
          for (int i = 0; i < 4; i++) sum[i] = fma(left[y + 16 * (i >> 1)][j], right[j][x + 16 * (i & 1)], sum[i]);
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; i++) left[y + 16 * (i >> 1)][x + 16 * (i & 1)] = sum[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int u = y + 16 * (i >> 1), v = x + 16 * (i & 1);
        double out = 0;
        for (int j = 0; j <= u; j++) out = fma(-inverse[u][j], left[j][v], out);
        if (u < h && c0 + v < r0) own[(long long)(r0 + u - a) * b + c0 + v] = out;
      }
    }
    __syncthreads();
    for (int i = t; i < TILE * TILE; i += 256) {
      const int u = i >> 5, v = i & 31;
      if (u < h && v < h) own[(long long)(r0 + u - a) * b + r0 + v] = inverse[u][v];
    }
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(256)
moments_pack(const double* __restrict__ rows, float* __restrict__ weight, int a, int b, int place) {
  using namespace moments;
  const int height = b - a;
  const double* from = rows + (long long)(place + blockIdx.x) * height * b;
  float* to = weight + blockIdx.x * (triangle(b) - triangle(a));
  const long long count = (long long)height * b, step = (long long)gridDim.y * blockDim.x;
  for (long long i = (long long)blockIdx.y * blockDim.x + threadIdx.x; i < count; i += step) {
    const int r = (int)(i / b), c = (int)(i % b);
    if (c <= a + r) to[packed_at(a, b, a + r, c)] = (float)from[i];
  }
}
