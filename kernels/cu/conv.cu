// Convolution as a matrix product whose left side is gathered from the map as it is needed: rows are output pixels, columns
// output channels, and the depth runs over (kernel row, kernel column, input channel). Bias, residual and activation are
// applied before an output is written.
//
//   out[p, o] = act(sum over k of in(p, k) weight[k, o] + bias[o] + residual[p, o]),   p = (n, y, x) of [n, oh, ow]
//
// Maps are [n, h, w, c]; c and `o` are multiples of 4 (f32) or 8 (fp16), channels beyond the network's are zero; borders count
// as zeros. `residual` may be null and `out` must be no other operand. No operand has 2^31 numbers or more. A result does not
// depend on the tile, nor on the other pictures of a batch. With the activation ACT_MASK, `residual` is no summand: results are
// zero where it is not above zero.
//
// conv_f32_*: each sum is one chain of fused multiply-adds in the order of the depth, then bias, then residual; `weight`
//   [kh kw c, o].
// conv_f16_* (compute_80 and above): tensor cores, fp16 in, f32 sums, rounded once as an output is written; `weight` [o, depth],
//   the depth kh kw c padded with zeros to a multiple of 32. *_point: 1 x 1 kernels of stride 1 without a border, where rows
//   of the left side are pixels as they lie. What is beyond fp16 becomes infinite and stays visible.
//
// | kernel | launch (m = n oh ow) | shared bytes | flops |
// |---|---|---|---|
// | conv_f32_128 | grid (ceil(m / 128), ceil(o / 128)), 256 threads | 16896 | 2 m o kh kw c f32 |
// | conv_f32_64 | grid (ceil(m / 64), ceil(o / 64)), 256 threads | 16896 | the same |
// | conv_f16_128, conv_f16_point_128 | grid (ceil(m / 128), ceil(o / 128)), 128 threads | 65536 | 2 m o depth fp16 |
// | conv_f16_64, conv_f16_point_64 | grid (ceil(m / 64), ceil(o / 64)), 128 threads | 32768 | the same |
//
// Bytes: the map and the weights once from memory where L2 holds the rest (a tile of side T reads depth (1/T + 1/T) values a
// result from L2), the residual once, the output once; 4 bytes a value, or 2.
//
// Shared memory, for 32 steps of the depth: a warp of the large tile reads 8 KB for its 64 x 64 results, and a block writes 16 KB:
// 47 bytes a thousand flops, where warps of 64 x 32 have 63. Instructions (sm_90): 2.9 for each of mma.sync, 2.2 with *_point.
//
// Registers on sm_80 and sm_90, without spills: conv_f32_128 123 and 124, conv_f32_64 72 and 72, conv_f16_128 210 and 216,
// conv_f16_64 86 and 90, conv_f16_point_128 206 and 214, conv_f16_point_64 84 and 89.
// Share of roofline, H200, 2026-11-28: of multiply-adds conv_f32_128 47 to 63 %, conv_f32_64 30 to 45 %; of mma.sync
// conv_f16_128 45 to 48 %, conv_f16_64 29 %, conv_f16_point_128 32 to 37 %; 32 pictures.
#include "common/element.cuh"

// Of the tensor core tiles: how many warps side by side in rows and columns, and how many fragments of 16 rows and of 8 columns
// each of them has.
#ifndef CONV_LARGE  // tune: 2,2,4,8 4,2,4,8 2,4,4,8 2,4,4,4
#define CONV_LARGE 2,2,4,8
#endif
#ifndef CONV_SMALL  // tune: 2,2,2,4 1,4,4,2
#define CONV_SMALL 2,2,2,4
#endif
#ifndef CONV_STAGES  // tune: 3 4
#define CONV_STAGES 4
#endif
// Whether pieces of the map come through a multiprocessor's own cache, where the next tap of a window finds them.
#ifndef CONV_CACHED  // tune: 0 1
#define CONV_CACHED 0
#endif

namespace conv {

// Where the window of an output pixel begins: row and column, and offset of that pixel; outside the map at its borders.
struct Window { int at, y, x; };

__device__ __forceinline__ Window window(int pixel, int h, int w, int c, int oh, int ow, int sy, int sx, int top, int left) {
  const int rest = pixel / ow, y = rest % oh * sy - top, x = pixel % ow * sx - left;
  return {((rest / oh * h + y) * w + x) * c, y, x};
}

__device__ __forceinline__ bool within(int at, int size) { return (unsigned)at < (unsigned)size; }

// A position in the depth: kernel row and column, and the piece of channels.
struct Tap {
  int ky, kx, piece;
  __device__ __forceinline__ void forward(int by, int pieces, int kw) {
    piece += by;
    while (piece >= pieces) {
      piece -= pieces;
      if (++kx == kw) kx = 0, ky++;
    }
  }
};

// Writes the results in `slab` [rows, pitch], of which row r belongs to pixel row_of(r), from column o0 on.
template <class T, int COLUMNS, int THREADS, class RowOf>
__device__ __forceinline__ void write_slab(const float* slab, int pitch, int rows, const float* __restrict__ bias,
                                           const T* __restrict__ residual, T* __restrict__ out, int m, int o, int o0,
                                           int act, RowOf row_of) {
  constexpr int N = Pack<T>::N, ACROSS = COLUMNS / N;
#pragma unroll 1
  for (int at = threadIdx.x; at < rows * ACROSS; at += THREADS) {
    const int r = at / ACROSS, column = at % ACROSS * N, p = row_of(r);
    if (p >= m || o0 + column >= o) continue;
    const int to = p * o + o0 + column;
    float v[N], add[N];
    load_floats<N>(slab + r * pitch + column, v);
    load_floats<N>(bias + o0 + column, add);
#pragma unroll
    for (int e = 0; e < N; e++) v[e] += add[e];
    if (residual) {
      Pack<T>::load(residual + to, add);
#pragma unroll
      for (int e = 0; e < N; e++) v[e] = act == ACT_MASK ? (add[e] > 0.f ? v[e] : 0.f) : v[e] + add[e];
    }
#pragma unroll
    for (int e = 0; e < N; e++) v[e] = activate(v[e], act);
    Pack<T>::store(out + to, v);
  }
}

// ---- f32

constexpr int THREADS = 256;

template <int SIDE> struct Plain {
  static constexpr int EACH = SIDE / 16, DEPTH = 1024 / SIDE, PITCH = SIDE + 4;
  static constexpr int LEFT = DEPTH * PITCH, STAGE = LEFT + DEPTH * SIDE;
  static constexpr int SHARED = (2 * STAGE > 32 * PITCH ? 2 * STAGE : 32 * PITCH) * 4;
  // Row or column i of a thread's EACH, in groups of 4 that lie 64 apart, so that neighbours read neighbouring banks.
  static __device__ __forceinline__ int at(int thread, int i) { return (i >> 2) * 64 + thread * 4 + (i & 3); }
};

template <int SIDE>
__device__ __forceinline__ void plain(const float* __restrict__ in, const float* __restrict__ weight,
                                      const float* __restrict__ bias, const float* __restrict__ residual,
                                      float* __restrict__ out, int m, int h, int w, int c, int oh, int ow, int o, int kh,
                                      int kw, int sy, int sx, int top, int left, int act) {
  using Tile = Plain<SIDE>;
  constexpr int EACH = Tile::EACH, DEPTH = Tile::DEPTH;
  DYN_SMEM(shared);
  float* buffer = (float*)shared;
  const int tid = threadIdx.x, tx = tid & 15, ty = tid >> 4, m0 = blockIdx.x * SIDE, o0 = blockIdx.y * SIDE;
  // On the left each thread brings 4 channels of one row, on the right 4 columns of one step of the depth.
  const int row = tid / (DEPTH / 4), part = tid % (DEPTH / 4), deep = tid / (SIDE / 4), column = tid % (SIDE / 4) * 4;
  const bool pixel = m0 + row < m, channels = o0 + column < o;
  const Window from = window(pixel ? m0 + row : 0, h, w, c, oh, ow, sy, sx, top, left);
  const int pieces = c / 4, depth = kh * kw * c;
  Tap tap = {0, 0, 0};
  tap.forward(part, pieces, kw);
  float4 a, b;
  auto fetch = [&](int at) {
    const bool inside = pixel && tap.ky < kh && within(from.y + tap.ky, h) && within(from.x + tap.kx, w);
    a = b = make_float4(0.f, 0.f, 0.f, 0.f);
    if (inside) a = *(const float4*)(in + from.at + (tap.ky * w + tap.kx) * c + tap.piece * 4);
    if (channels && at + deep < depth) b = *(const float4*)(weight + (at + deep) * o + o0 + column);
    tap.forward(DEPTH / 4, pieces, kw);
  };
  auto store = [&](float* to) {
    float* rows = to + part * 4 * Tile::PITCH + row;
    rows[0] = a.x, rows[Tile::PITCH] = a.y, rows[2 * Tile::PITCH] = a.z, rows[3 * Tile::PITCH] = a.w;
    *(float4*)(to + Tile::LEFT + deep * SIDE + column) = b;
  };
  float acc[EACH][EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) acc[i][j] = 0.f;
  fetch(0);
  store(buffer);
  for (int at = 0, turn = 0; at < depth; at += DEPTH, turn ^= 1) {
    __syncthreads();
    const bool more = at + DEPTH < depth;
    if (more) fetch(at + DEPTH);
    const float *l = buffer + turn * Tile::STAGE, *r = l + Tile::LEFT;
#pragma unroll 2  // all of them would take more registers than two blocks have
    for (int k = 0; k < DEPTH; k++) {
      float x[EACH], y[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        x[i] = l[k * Tile::PITCH + Tile::at(ty, i)];
        y[i] = r[k * SIDE + Tile::at(tx, i)];
      }
#pragma unroll
      for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
    }
    if (more) store(buffer + (turn ^ 1) * Tile::STAGE);
  }
#pragma unroll
  for (int i0 = 0; i0 < EACH; i0 += 2) {
    __syncthreads();  // the last step, or the slab before, may still be read
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < EACH; j++) buffer[(ty * 2 + i) * Tile::PITCH + Tile::at(tx, j)] = acc[i0 + i][j];
    __syncthreads();
    write_slab<float, SIDE, THREADS>(buffer, Tile::PITCH, 32, bias, residual, out, m, o, o0, act,
                                     [=](int r) { return m0 + Tile::at(r >> 1, i0 + (r & 1)); });
  }
}

}  // namespace conv

#if defined(EMU) || __CUDA_ARCH__ < 800
extern "C" __global__ void __launch_bounds__(256, 2)
conv_f32_128(const float* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
             const float* __restrict__ residual, float* __restrict__ out, int m, int h, int w, int c, int oh, int ow, int o,
             int kh, int kw, int sy, int sx, int top, int left, int act) {
  conv::plain<128>(in, weight, bias, residual, out, m, h, w, c, oh, ow, o, kh, kw, sy, sx, top, left, act);
}

extern "C" __global__ void __launch_bounds__(256, 2)
conv_f32_64(const float* __restrict__ in, const float* __restrict__ weight, const float* __restrict__ bias,
            const float* __restrict__ residual, float* __restrict__ out, int m, int h, int w, int c, int oh, int ow, int o,
            int kh, int kw, int sy, int sx, int top, int left, int act) {
  conv::plain<64>(in, weight, bias, residual, out, m, h, w, c, oh, ow, o, kh, kw, sy, sx, top, left, act);
}
#endif

#if defined(EMU) || __CUDA_ARCH__ >= 800
namespace conv {

// WM x WN warps, each with FM fragments of 16 rows and FN of 8 columns.
template <int WM_, int WN_, int FM_, int FN_> struct Cores {
  static constexpr int WM = WM_, WN = WN_, FM = FM_, FN = FN_;
  static constexpr int THREADS = WM * WN * 32, ROWS = WM * FM * 16, COLUMNS = WN * FN * 8, DEPTH = 32, STAGES = CONV_STAGES;
  static constexpr int STAGE = (ROWS + COLUMNS) * DEPTH * 2;
  // Blocks of a multiprocessor that the registers of the sums leave room for.
  static constexpr int ROOM = 8192 / (THREADS * FM * FN), BLOCKS = ROOM < 1 ? 1 : ROOM > 4 ? 4 : ROOM;
  // Rows of each side that a thread brings a quarter of.
  static constexpr int MINE = ROWS * 4 / THREADS, OTHERS = COLUMNS * 4 / THREADS;
  // Results on their way out: two fragments of rows of every warp, padded so that rows begin in other banks.
  static constexpr int PITCH = COLUMNS + 8, SLAB = WM * 32;
  static_assert(FM % 2 == 0 && SLAB * PITCH * 4 <= STAGES * STAGE, "the results must fit the stages");
};
using Large = Cores<CONV_LARGE>;  // 128 x 128
using Small = Cores<CONV_SMALL>;  // 64 x 64

// Byte of a 16-byte piece of a row of 64 bytes: rotated so that eight rows of ldmatrix hit all banks.
__device__ __forceinline__ int swizzled(int row, int piece) { return row * 64 + ((piece ^ ((row >> 1) & 3)) << 4); }

template <class Tile, bool POINT>
__device__ __forceinline__ void cores(const uint16_t* __restrict__ in, const uint16_t* __restrict__ weight,
                                      const float* __restrict__ bias, const uint16_t* __restrict__ residual,
                                      uint16_t* __restrict__ out, int m, int h, int w, int c, int oh, int ow, int o, int kh,
                                      int kw, int sy, int sx, int top, int left, int depth, int act) {
  constexpr int FM = Tile::FM, FN = Tile::FN, STAGES = Tile::STAGES, SKIP = Tile::THREADS / 4;
  static_assert(SKIP % 8 == 0, "the rotation is the same for all rows of a thread");
  DYN_SMEM(shared);
  const int tid = threadIdx.x, lane = tid & 31, wm = (tid >> 5) % Tile::WM, wn = (tid >> 5) / Tile::WM;
  const int m0 = blockIdx.x * Tile::ROWS, o0 = blockIdx.y * Tile::COLUMNS, steps = depth / Tile::DEPTH;
  const int quarter = tid & 3, first = tid >> 2, pieces = c / 8;
  // What is the same in all steps is computed once, so that a step has few instructions besides the products.
  Window from[Tile::MINE];
#pragma unroll
  for (int i = 0; i < Tile::MINE; i++) {
    const int p = m0 + first + i * SKIP;
    if (POINT) from[i] = {p < m ? p * c : -8, 0, 0};  // a copy that reads nothing has an aligned address too
    else if (p < m) from[i] = window(p, h, w, c, oh, ow, sy, sx, top, left);
    else from[i] = {0, -0x40000000, 0};  // outside in every row of the kernel
  }
  Tap tap = {0, 0, 0};
  if (POINT) tap.piece = quarter;
  else tap.forward(quarter, pieces, kw);
  const uint16_t* filters = weight + (o0 + first) * depth + quarter * 8;
  bool exists[Tile::OTHERS];
#pragma unroll
  for (int i = 0; i < Tile::OTHERS; i++) exists[i] = o0 + first + i * SKIP < o;
  // Byte of the thread's first piece of either side in a stage; its others follow SKIP rows apart.
  const int to = swizzled(first, quarter);
  auto load = [&](int stage) {
    unsigned char *l = shared + stage * Tile::STAGE + to, *r = l + Tile::ROWS * 64;
    const int offset = (POINT ? 0 : (tap.ky * w + tap.kx) * c) + tap.piece * 8;
    const bool row = POINT ? tap.piece < pieces : tap.ky < kh;
#pragma unroll
    for (int i = 0; i < Tile::MINE; i++) {
      const Window& f = from[i];
      const bool inside = POINT ? row && f.at >= 0 : row && within(f.y + tap.ky, h) && within(f.x + tap.kx, w);
      // Of what is outside nothing is read.
      cp_async16<CONV_CACHED && !POINT>(l + i * SKIP * 64, in + (f.at + offset), inside);
    }
#pragma unroll
    for (int i = 0; i < Tile::OTHERS; i++) cp_async16(r + i * SKIP * 64, filters + i * SKIP * depth, exists[i]);
    filters += Tile::DEPTH;
    if (POINT) tap.piece += 4;
    else tap.forward(4, pieces, kw);
  };
  float acc[FM][FN][4];
#pragma unroll
  for (int i = 0; i < FM; i++)
#pragma unroll
    for (int j = 0; j < FN; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] = 0.f;
  // Bytes of the lane's row of the warp's first fragment; the others follow 16 rows apart, and the second half of a step's
  // depth differs in one bit.
  const int a0 = swizzled(wm * FM * 16 + (lane & 15), lane >> 4);
  const int b0 = Tile::ROWS * 64 + swizzled(wn * FN * 8 + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) load(s);
    cp_commit();
  }
  for (int s = 0; s < steps; s++) {
    cp_wait<STAGES - 2>();
    __syncthreads();
    if (s + STAGES - 1 < steps) load((s + STAGES - 1) % STAGES);
    cp_commit();
    const unsigned char* stage = shared + s % STAGES * Tile::STAGE;
#pragma unroll
    for (int kk = 0; kk < 2; kk++) {
      const unsigned char *l = stage + (a0 ^ kk * 32), *r = stage + (b0 ^ kk * 32);
      uint32_t fa[FM][4], fb[FN][2];
#pragma unroll
      for (int i = 0; i < FM; i++) ldmatrix_x4(fa[i], l + i * 1024);
#pragma unroll
      for (int j = 0; j < FN; j += 2) {
        uint32_t q[4];
        ldmatrix_x4(q, r + j * 512);
        fb[j][0] = q[0], fb[j][1] = q[1], fb[j + 1][0] = q[2], fb[j + 1][1] = q[3];
      }
#pragma unroll
      for (int i = 0; i < FM; i++)
#pragma unroll
        for (int j = 0; j < FN; j++) mma_f16(acc[i][j], fa[i], fb[j]);
    }
  }
  // Results go through shared memory, so that whole pieces of rows are read and written.
  float* slab = (float*)shared;
#pragma unroll
  for (int i0 = 0; i0 < FM; i0 += 2) {
    __syncthreads();  // the last stage, or the slab before, may still be read
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < FN; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float* to = slab + (wm * 32 + i * 16 + half * 8 + (lane >> 2)) * Tile::PITCH + (wn * FN + j) * 8 + (lane & 3) * 2;
          to[0] = acc[i0 + i][j][half * 2];
          to[1] = acc[i0 + i][j][half * 2 + 1];
        }
    __syncthreads();
    write_slab<uint16_t, Tile::COLUMNS, Tile::THREADS>(slab, Tile::PITCH, Tile::SLAB, bias, residual, out, m, o, o0, act,
                                                       [=](int r) { return m0 + ((r >> 5) * FM + i0) * 16 + (r & 31); });
  }
}

}  // namespace conv

#define CONV_F16(name, tile, point)                                                                                      \
  extern "C" __global__ void __launch_bounds__(conv::tile::THREADS, conv::tile::BLOCKS)                                            \
  name(const uint16_t* __restrict__ in, const uint16_t* __restrict__ weight, const float* __restrict__ bias,             \
       const uint16_t* __restrict__ residual, uint16_t* __restrict__ out, int m, int h, int w, int c, int oh, int ow,    \
       int o, int kh, int kw, int sy, int sx, int top, int left, int depth, int act) {                                   \
    conv::cores<conv::tile, point>(in, weight, bias, residual, out, m, h, w, c, oh, ow, o, kh, kw, sy, sx, top, left,    \
                                   depth, act);                                                                          \
  }
CONV_F16(conv_f16_128, Large, false)
CONV_F16(conv_f16_64, Small, false)
CONV_F16(conv_f16_point_128, Large, true)
CONV_F16(conv_f16_point_64, Small, true)
#endif
