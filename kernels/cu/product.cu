// Products of linear layers on few rows, for training: the weights are what moves. Forward, back to the layer before, and the
// gradient of a weight, which Adam uses up as it is found.
//
//   product_forward:  out [n, outputs] = x W^T + bias, negative values zero with `relu`
//   product_backward: out [n, first] = (g W)[:, ..first], added to what is there with `add`; zero where `mask` is not above zero
//   product_update:   the gradient g^T x [outputs, inputs] into `gradient`, if that is not null; else a step of Adam
//                     (common/adam.cuh) on W and its moments `first` and `second`
//
// W is [outputs, inputs], row by row as PyTorch has it, g [n, outputs]. x [n, inputs] is two matrices side by side, [n, c1] and
// [n, k] (or null), which need not be put together. Matrices but W and the gradient have a pitch, in numbers. No matrix has 2^31
// numbers. Sizes are arbitrary; rows are read 16 bytes at a time where all widths and pitches are multiples of 4. No operand is
// another, but for W and its moments.
//
// A block's threads are groups that take pieces of the depth in turn, whose sums are added in the order of the groups: the few rows
// of a step are few blocks, whose time is that of the pieces one after the other. A result does not depend on other rows.
// *_f32: a group's sum is one chain of fused multiply-adds in the order of the depth, 16 steps in each piece.
//   product_forward_many_f32 is product_forward_f32 with a larger tile and one group, for many rows.
// *_bf16 (compute_80 and above): operands are rounded to bf16 as they enter shared memory, sums are f32 of tensor cores. Biases,
//   masks, what is added to, Adam and W itself are f32.
//
// | kernel | grid (rows and columns of the result over those of the tile) | flops | bytes |
// |---|---|---|---|
// | forward | (n, outputs) | 2 n outputs inputs | 4 outputs inputs + 4 n (inputs + outputs) |
// | backward | (n, first) | 2 n outputs first | 4 outputs first + 4 n (outputs + first) |
// | update | (outputs, inputs) | 2 n outputs inputs | 24 outputs inputs (4 for a gradient) + 4 n (outputs + inputs) |
//
// Tiles are PRODUCT_ROWS, PRODUCT_MANY and PRODUCT_UPDATE for f32 (rows, columns, those of a thread, groups; 128 (rows + columns + 8)
// bytes of shared memory for each group), PRODUCT_CORES and PRODUCT_CORES_UPDATE for bf16 (warps down and across, fragments of 16
// rows and of 8 columns of each, groups; 160 (rows + columns) bytes for each), or 4 rows columns bytes for each group but one, if
// that is more. A group's next piece is on its way while one is multiplied.
//
// Registers on sm_80 and sm_90, without spills: forward_f32 87 and 88, forward_many_f32 96 and 96, backward_f32 86 and 87,
// update_f32 78 and 77, forward_bf16 84 and 83, backward_bf16 90 and 90, update_bf16 120 and 121.
// Share of roofline, H200, 2026-11-28: few rows, 2304 outputs of 1152 inputs, of the nearer ceiling: update_f32 60 %,
// update_bf16 48 % of a copy with 64 rows; forward, backward, update 25, 37, 37 % of multiply-adds with 256 in f32.
#include "common/adam.cuh"
#include "common/bf16.cuh"
#include "common/element.cuh"

#ifndef PRODUCT_ROWS  // tune: 64,32,4,4,4 64,32,4,4,2 32,16,4,4,8 32,32,4,4,4 32,32,4,4,8 64,32,8,4,4 64,64,4,4,2
#define PRODUCT_ROWS 64,32,4,4,4
#endif
#ifndef PRODUCT_MANY  // tune: 128,64,8,4,1 128,128,8,8,1 64,64,4,4,1
#define PRODUCT_MANY 128,64,8,4,1
#endif
#ifndef PRODUCT_UPDATE  // tune: 64,64,4,4,1 32,64,4,4,1 32,128,4,4,1 64,128,8,4,1
#define PRODUCT_UPDATE 64,64,4,4,1
#endif
#ifndef PRODUCT_CORES  // tune: 2,2,2,2,4 2,2,2,2,2 2,2,2,2,1 4,1,1,4,4 2,2,1,2,4
#define PRODUCT_CORES 2,2,2,2,4
#endif
#ifndef PRODUCT_CORES_UPDATE  // tune: 2,2,2,4,1 2,4,2,2,1 2,2,2,2,1
#define PRODUCT_CORES_UPDATE 2,2,2,4,1
#endif

namespace product {

// A matrix whose columns from `split` on lie in `b`.
struct Matrix {
  const float *a, *b;
  int pa, pb, split, rows, columns;
  bool quads;  // every fourth column begins 16 bytes that lie together
};

__device__ __forceinline__ Matrix matrix(const float* a, int pitch, int rows, int columns) {
  return {a, nullptr, pitch, 0, columns, rows, columns, (pitch | columns) % 4 == 0};
}
__device__ __forceinline__ Matrix beside(const float* a, int pa, int c, const float* b, int pb, int k, int rows) {
  return {a, b, pa, pb, c, rows, c + k, (pa | c | k | (k ? pb : 0)) % 4 == 0};
}

__device__ __forceinline__ const float* at(const Matrix& m, int row, int column) {
  return column < m.split ? m.a + row * m.pa + column : m.b + row * m.pb + column - m.split;
}

// Four numbers of a row; zeros outside the matrix.
__device__ __forceinline__ float4 quad(const Matrix& m, int row, int column) {
  float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
  if (row >= m.rows) return v;
  if (m.quads) return column < m.columns ? *(const float4*)at(m, row, column) : v;
  if (column < m.columns) v.x = *at(m, row, column);
  if (column + 1 < m.columns) v.y = *at(m, row, column + 1);
  if (column + 2 < m.columns) v.z = *at(m, row, column + 2);
  if (column + 3 < m.columns) v.w = *at(m, row, column + 3);
  return v;
}

// A piece of a matrix on its way to shared memory: `LINES` rows of `WIDTH` columns, spread over the threads of a group.
template <int LINES, int WIDTH, int THREADS> struct Piece {
  static constexpr int ACROSS = WIDTH / 4, N = LINES * ACROSS / THREADS;
  static_assert(N > 0 && N * THREADS == LINES * ACROSS, "every thread has the same number of quads");
  float4 v[N];
  __device__ __forceinline__ void fetch(const Matrix& m, int row, int column) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int q = threadIdx.x % THREADS + i * THREADS;
      v[i] = quad(m, row + q / ACROSS, column + q % ACROSS * 4);
    }
  }
  // put(line, column, quad) for each quad.
  template <class Put> __device__ __forceinline__ void store(Put put) const {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int q = threadIdx.x % THREADS + i * THREADS;
      put(q / ACROSS, q % ACROSS * 4, v[i]);
    }
  }
};

// One side of a product: SIDE rows or columns of the result, DEPTH steps of the sums. ALONG: the depth runs along the rows of the
// matrix, else down its columns.
template <int SIDE, int DEPTH, int THREADS, bool ALONG> struct Side {
  Piece<ALONG ? SIDE : DEPTH, ALONG ? DEPTH : SIDE, THREADS> piece;
  __device__ __forceinline__ void fetch(const Matrix& m, int from, int depth) {
    if (ALONG) piece.fetch(m, from, depth);
    else piece.fetch(m, depth, from);
  }
};

// N numbers of a row, `count` of which exist; together if they may be read and written at once.
template <int N> __device__ __forceinline__ void get(const float* from, bool together, int count, float (&v)[N]) {
  if (together && count >= N) {
    if constexpr (N == 4) load_floats<4>(from, v);
    else {
      const float2 x = *(const float2*)from;
      v[0] = x.x, v[1] = x.y;
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < N; e++) v[e] = e < count ? from[e] : 0.f;
}
template <int N> __device__ __forceinline__ void put(float* to, bool together, int count, const float (&v)[N]) {
  if (together && count >= N) {
    if constexpr (N == 4) *(float4*)to = make_float4(v[0], v[1], v[2], v[3]);
    else *(float2*)to = make_float2(v[0], v[1]);
    return;
  }
#pragma unroll
  for (int e = 0; e < N; e++)
    if (e < count) to[e] = v[e];
}
template <int N> __device__ __forceinline__ bool together(int pitch) { return pitch % N == 0; }

// Adds what the groups have found, in their order: `v` of each thread, `N` numbers, to those of its fellow in the first group,
// which alone gets true. `shared` has room for the numbers of all groups but one; all threads call it.
template <int N, int THREADS, int GROUPS> __device__ __forceinline__ bool join(float* v, float* shared) {
  if (GROUPS == 1) return true;
  const int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
  __syncthreads();  // the last pieces may still be read
  if (group > 0) {
#pragma unroll
    for (int i = 0; i < N; i++) shared[((group - 1) * N + i) * THREADS + thread] = v[i];
  }
  __syncthreads();
  if (group > 0) return false;
  for (int g = 0; g < GROUPS - 1; g++) {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] += shared[(g * N + i) * THREADS + thread];
  }
  return true;
}

// What happens to a result: `N` neighbours of a row of it.
struct Forward {
  const float* bias;
  float* out;
  int po, n, outputs, relu;
  template <int N> __device__ __forceinline__ void operator()(int row, int column, float (&v)[N]) const {
    if (row >= n || column >= outputs) return;
    float add[N];
    get<N>(bias + column, true, outputs - column, add);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] = activate(v[e] + add[e], relu ? ACT_RELU : ACT_NONE);
    put<N>(out + row * po + column, together<N>(po), outputs - column, v);
  }
};

struct Backward {
  const float* mask;
  float* out;
  int pm, po, n, first, add;
  template <int N> __device__ __forceinline__ void operator()(int row, int column, float (&v)[N]) const {
    if (row >= n || column >= first) return;
    float other[N];
    float* to = out + row * po + column;
    const int count = first - column;
    if (add) {
      get<N>(to, together<N>(po), count, other);
#pragma unroll
      for (int e = 0; e < N; e++) v[e] += other[e];
    }
    if (mask) {
      get<N>(mask + row * pm + column, together<N>(pm), count, other);
#pragma unroll
      for (int e = 0; e < N; e++) v[e] = other[e] > 0.f ? v[e] : 0.f;
    }
    put<N>(to, together<N>(po), count, v);
  }
};

struct Update {
  const float* numbers;
  const uint32_t* turn;
  float *gradient, *weight, *first, *second;
  int outputs, inputs;
  template <int N> __device__ __forceinline__ void operator()(int row, int column, float (&v)[N]) const {
    if (row >= outputs || column >= inputs) return;
    const int to = row * inputs + column, count = inputs - column;
    const bool whole = together<N>(inputs);
    if (gradient) return put<N>(gradient + to, whole, count, v);
    const adam::Step step = adam::load(numbers, turn);
    float p[N], m[N], s[N];
    get<N>(weight + to, whole, count, p);
    get<N>(first + to, whole, count, m);
    get<N>(second + to, whole, count, s);
#pragma unroll
    for (int e = 0; e < N; e++) adam::apply(step, p[e], m[e], s[e], v[e]);
    put<N>(weight + to, whole, count, p);
    put<N>(first + to, whole, count, m);
    put<N>(second + to, whole, count, s);
  }
};

}  // namespace product

#define PRODUCT_THREADS(tile) (product::tile::THREADS * product::tile::GROUPS)
#define PRODUCT_BLOCKS(tile) (PRODUCT_THREADS(tile) > 256 || product::tile::SUMS > 32 ? 1 : PRODUCT_THREADS(tile) > 128 ? 2 : 4)
#define PRODUCT_BOUNDS(tile) __launch_bounds__(PRODUCT_THREADS(tile), PRODUCT_BLOCKS(tile))

#if defined(EMU) || __CUDA_ARCH__ < 800
namespace product {

template <int ROWS_, int COLUMNS_, int HIGH_, int WIDE_, int GROUPS_> struct Plain {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, HIGH = HIGH_, WIDE = WIDE_, GROUPS = GROUPS_, DEPTH = 16;
  static constexpr int DOWN = ROWS / HIGH, ACROSS = COLUMNS / WIDE, THREADS = DOWN * ACROSS, SUMS = HIGH * WIDE;
  // Shared memory is [DEPTH, side]; padded, so that what is turned on its way falls into other banks.
  static constexpr int LEFT = ROWS + 4, RIGHT = COLUMNS + 4, STAGE = DEPTH * (LEFT + RIGHT);
  // Row or column i of a thread, in groups of 4.
  static __device__ __forceinline__ int row(int thread, int i) { return (i >> 2) * DOWN * 4 + thread * 4 + (i & 3); }
  static __device__ __forceinline__ int column(int thread, int i) { return (i >> 2) * ACROSS * 4 + thread * 4 + (i & 3); }
};
using Rows = Plain<PRODUCT_ROWS>;
using Many = Plain<PRODUCT_MANY>;
using Weights = Plain<PRODUCT_UPDATE>;

// The quad of a piece into [DEPTH, side] of pitch `P`.
template <bool ALONG, int P> __device__ __forceinline__ void settle(float* to, int line, int column, float4 v) {
  if (ALONG) {
    float* down = to + column * P + line;
    down[0] = v.x, down[P] = v.y, down[2 * P] = v.z, down[3 * P] = v.w;
  } else {
    *(float4*)(to + line * P + column) = v;
  }
}

// The tile of the block of left [rows, depth] times right [depth, columns], each in its own order.
template <class Tile, bool LEFT_ALONG, bool RIGHT_ALONG, class Write>
__device__ __forceinline__ void plain(const Matrix& left, const Matrix& right, int depth, const Write& write) {
  constexpr int HIGH = Tile::HIGH, WIDE = Tile::WIDE, DEPTH = Tile::DEPTH;
  DYN_SMEM(shared);
  const int group = threadIdx.x / Tile::THREADS, thread = threadIdx.x % Tile::THREADS;
  const int tx = thread % Tile::ACROSS, ty = thread / Tile::ACROSS;
  float* buffer = (float*)shared + group * 2 * Tile::STAGE;
  const int r0 = blockIdx.x * Tile::ROWS, c0 = blockIdx.y * Tile::COLUMNS;
  Side<Tile::ROWS, DEPTH, Tile::THREADS, LEFT_ALONG> l;
  Side<Tile::COLUMNS, DEPTH, Tile::THREADS, RIGHT_ALONG> r;
  auto fetch = [&](int at) {
    l.fetch(left, r0, at);
    r.fetch(right, c0, at);
  };
  auto store = [&](float* to) {
    l.piece.store([=](int line, int column, float4 v) { settle<LEFT_ALONG, Tile::LEFT>(to, line, column, v); });
    to += DEPTH * Tile::LEFT;
    r.piece.store([=](int line, int column, float4 v) { settle<RIGHT_ALONG, Tile::RIGHT>(to, line, column, v); });
  };
  float acc[HIGH][WIDE];
#pragma unroll
  for (int i = 0; i < HIGH; i++)
#pragma unroll
    for (int j = 0; j < WIDE; j++) acc[i][j] = 0.f;
  constexpr int STEP = DEPTH * Tile::GROUPS;
  fetch(group * DEPTH);
  store(buffer);
  for (int at = 0, turn = 0; at < depth; at += STEP, turn ^= 1) {
    __syncthreads();
    const bool more = at + STEP < depth;
    if (more) fetch(at + STEP + group * DEPTH);
    const float *a = buffer + turn * Tile::STAGE, *b = a + DEPTH * Tile::LEFT;
#pragma unroll 4
    for (int k = 0; k < DEPTH; k++) {
      float x[HIGH], y[WIDE];
#pragma unroll
      for (int i = 0; i < HIGH; i++) x[i] = a[k * Tile::LEFT + Tile::row(ty, i)];
#pragma unroll
      for (int j = 0; j < WIDE; j++) y[j] = b[k * Tile::RIGHT + Tile::column(tx, j)];
#pragma unroll
      for (int i = 0; i < HIGH; i++)
#pragma unroll
        for (int j = 0; j < WIDE; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
    }
    if (more) store(buffer + (turn ^ 1) * Tile::STAGE);
  }
  if (!join<HIGH * WIDE, Tile::THREADS, Tile::GROUPS>(&acc[0][0], (float*)shared)) return;
#pragma unroll
  for (int i = 0; i < HIGH; i++)
#pragma unroll
    for (int j = 0; j < WIDE; j += 4) {
      float v[4] = {acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]};
      write(r0 + Tile::row(ty, i), c0 + Tile::column(tx, j), v);
    }
}

}  // namespace product
extern "C" __global__ void PRODUCT_BOUNDS(Rows)
product_forward_f32(const float* __restrict__ x, int px, const float* __restrict__ cond, int pc,
                    const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ out, int po, int n,
                    int c1, int k, int outputs, int relu) {
  using namespace product;
  plain<Rows, true, true>(beside(x, px, c1, cond, pc, k, n), matrix(weight, c1 + k, outputs, c1 + k), c1 + k,
                          Forward{bias, out, po, n, outputs, relu});
}

extern "C" __global__ void PRODUCT_BOUNDS(Many)
product_forward_many_f32(const float* __restrict__ x, int px, const float* __restrict__ cond, int pc,
                         const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ out, int po,
                         int n, int c1, int k, int outputs, int relu) {
  using namespace product;
  plain<Many, true, true>(beside(x, px, c1, cond, pc, k, n), matrix(weight, c1 + k, outputs, c1 + k), c1 + k,
                          Forward{bias, out, po, n, outputs, relu});
}

extern "C" __global__ void PRODUCT_BOUNDS(Rows)
product_backward_f32(const float* __restrict__ g, int pg, const float* __restrict__ weight, const float* __restrict__ mask,
                     int pm, float* __restrict__ out, int po, int n, int outputs, int inputs, int first, int add) {
  using namespace product;
  plain<Rows, true, false>(matrix(g, pg, n, outputs), matrix(weight, inputs, outputs, inputs), outputs,
                           Backward{mask, out, pm, po, n, first, add});
}

extern "C" __global__ void PRODUCT_BOUNDS(Weights)
product_update_f32(const float* __restrict__ numbers, const uint32_t* __restrict__ turn, const float* __restrict__ g, int pg,
                   const float* __restrict__ x, int px, const float* __restrict__ cond, int pc, float* __restrict__ gradient,
                   float* __restrict__ weight, float* __restrict__ first, float* __restrict__ second, int n, int outputs,
                   int c1, int k) {
  using namespace product;
  plain<Weights, false, false>(matrix(g, pg, n, outputs), beside(x, px, c1, cond, pc, k, n), n,
                               Update{numbers, turn, gradient, weight, first, second, outputs, c1 + k});
}
#endif

#if defined(EMU) || __CUDA_ARCH__ >= 800
namespace product {

template <int WM_, int WN_, int FM_, int FN_, int GROUPS_> struct Cores {
  static constexpr int WM = WM_, WN = WN_, FM = FM_, FN = FN_, GROUPS = GROUPS_, DEPTH = 32;
  static constexpr int THREADS = WM * WN * 32, ROWS = WM * FM * 16, COLUMNS = WN * FN * 8, SUMS = 4 * FM * FN;
  // Shared memory holds a side as it lies in its matrix. Rows are padded by 16 bytes, so that the eight of ldmatrix hit all banks.
  static constexpr int STAGE = (ROWS + COLUMNS) * (DEPTH + 8);
  static_assert(FN % 2 == 0 && ROWS >= 32 && COLUMNS >= 32, "fragments of columns in pairs, sides that fit a stage either way");
};
using CoresRows = Cores<PRODUCT_CORES>;
using CoresWeights = Cores<PRODUCT_CORES_UPDATE>;

// Where 8 numbers begin that lane `lane` gives to ldmatrix: fragments of 16 by 16, `side` and `depth` from the corner. INNER: the
// depth changes from one matrix to the next before the side does.
template <bool ALONG, int SIDE, int DEPTH, bool INNER>
__device__ __forceinline__ const uint16_t* corner(const uint16_t* from, int side, int depth, int lane) {
  const int one = (lane >> 3 & 1) * 8, two = (lane >> 4) * 8, more = lane & 7;
  side += INNER ? two : one, depth += INNER ? one : two;
  return ALONG ? from + (side + more) * (DEPTH + 8) + depth : from + (depth + more) * (SIDE + 8) + side;
}

template <class Tile, bool LEFT_ALONG, bool RIGHT_ALONG, class Write>
__device__ __forceinline__ void cores(const Matrix& left, const Matrix& right, int depth, const Write& write) {
  constexpr int FM = Tile::FM, FN = Tile::FN, DEPTH = Tile::DEPTH, ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS;
  DYN_SMEM(shared);
  const int group = threadIdx.x / Tile::THREADS, warp = threadIdx.x % Tile::THREADS >> 5;
  const int lane = threadIdx.x & 31, wm = warp % Tile::WM, wn = warp / Tile::WM;
  uint16_t* buffer = (uint16_t*)shared + group * 2 * Tile::STAGE;
  const int r0 = blockIdx.x * ROWS, c0 = blockIdx.y * COLUMNS;
  Side<ROWS, DEPTH, Tile::THREADS, LEFT_ALONG> l;
  Side<COLUMNS, DEPTH, Tile::THREADS, RIGHT_ALONG> r;
  auto fetch = [&](int at) {
    l.fetch(left, r0, at);
    r.fetch(right, c0, at);
  };
  auto store = [&](uint16_t* to) {
    auto round = [](uint16_t* to, float4 v) { *(uint2*)to = make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w)); };
    constexpr int LEFT = (LEFT_ALONG ? DEPTH : ROWS) + 8, RIGHT = (RIGHT_ALONG ? DEPTH : COLUMNS) + 8;
    l.piece.store([=](int line, int column, float4 v) { round(to + line * LEFT + column, v); });
    to += ROWS * (DEPTH + 8);
    r.piece.store([=](int line, int column, float4 v) { round(to + line * RIGHT + column, v); });
  };
  float acc[FM][FN][4];
#pragma unroll
  for (int i = 0; i < FM; i++)
#pragma unroll
    for (int j = 0; j < FN; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;
  constexpr int STEP = DEPTH * Tile::GROUPS;
  fetch(group * DEPTH);
  store(buffer);
  for (int at = 0, stage = 0; at < depth; at += STEP, stage ^= 1) {
    __syncthreads();
    const bool more = at + STEP < depth;
    if (more) fetch(at + STEP + group * DEPTH);
    const uint16_t *a = buffer + stage * Tile::STAGE, *b = a + ROWS * (DEPTH + 8);
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
      uint32_t fa[FM][4], fb[FN][2];
#pragma unroll
      for (int i = 0; i < FM; i++)
        matrices<!LEFT_ALONG>(fa[i], corner<LEFT_ALONG, ROWS, DEPTH, false>(a, (wm * FM + i) * 16, k, lane));
#pragma unroll
      for (int j = 0; j < FN; j += 2) {
        uint32_t q[4];
        matrices<!RIGHT_ALONG>(q, corner<RIGHT_ALONG, COLUMNS, DEPTH, true>(b, (wn * FN + j) * 8, k, lane));
        fb[j][0] = q[0], fb[j][1] = q[1], fb[j + 1][0] = q[2], fb[j + 1][1] = q[3];
      }
#pragma unroll
      for (int i = 0; i < FM; i++)
#pragma unroll
        for (int j = 0; j < FN; j++) mma_bf16(acc[i][j], fa[i], fb[j]);
    }
    if (more) store(buffer + (stage ^ 1) * Tile::STAGE);
  }
  if (!join<FM * FN * 4, Tile::THREADS, Tile::GROUPS>(&acc[0][0][0], (float*)shared)) return;
#pragma unroll
  for (int i = 0; i < FM; i++)
#pragma unroll
    for (int j = 0; j < FN; j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float v[2] = {acc[i][j][half * 2], acc[i][j][half * 2 + 1]};
        write(r0 + (wm * FM + i) * 16 + half * 8 + (lane >> 2), c0 + (wn * FN + j) * 8 + (lane & 3) * 2, v);
      }
}

}  // namespace product

extern "C" __global__ void PRODUCT_BOUNDS(CoresRows)
product_forward_bf16(const float* __restrict__ x, int px, const float* __restrict__ cond, int pc,
                     const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ out, int po, int n,
                     int c1, int k, int outputs, int relu) {
  using namespace product;
  cores<CoresRows, true, true>(beside(x, px, c1, cond, pc, k, n), matrix(weight, c1 + k, outputs, c1 + k), c1 + k,
                               Forward{bias, out, po, n, outputs, relu});
}

extern "C" __global__ void PRODUCT_BOUNDS(CoresRows)
product_backward_bf16(const float* __restrict__ g, int pg, const float* __restrict__ weight, const float* __restrict__ mask,
                      int pm, float* __restrict__ out, int po, int n, int outputs, int inputs, int first, int add) {
  using namespace product;
  cores<CoresRows, true, false>(matrix(g, pg, n, outputs), matrix(weight, inputs, outputs, inputs), outputs,
                                Backward{mask, out, pm, po, n, first, add});
}

extern "C" __global__ void PRODUCT_BOUNDS(CoresWeights)
product_update_bf16(const float* __restrict__ numbers, const uint32_t* __restrict__ turn, const float* __restrict__ g, int pg,
                    const float* __restrict__ x, int px, const float* __restrict__ cond, int pc, float* __restrict__ gradient,
                    float* __restrict__ weight, float* __restrict__ first, float* __restrict__ second, int n, int outputs,
                    int c1, int k) {
  using namespace product;
  cores<CoresWeights, false, false>(matrix(g, pg, n, outputs), beside(x, px, c1, cond, pc, k, n), n,
                                    Update{numbers, turn, gradient, weight, first, second, outputs, c1 + k});
}
#endif
