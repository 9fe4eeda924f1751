// Mahalanobis distance of every position of a feature grid to a Gaussian of its own (kernels/src/mahalanobis has the forms
// and the layout of the tensors, which are the same here, but that in a level's triangles each group begins at a multiple of 8
// floats). Channels are gathered from NHWC maps of several grids at the nearest index and the mean is taken off while they are
// loaded: no embedding is ever stored.
//
// mahalanobis_triangle_*, once a level, coarse to fine: for each group of the level and each picture the sum of squares of rows
//   a .. b of W (x - mean), W packed in panels of up to 16 rows, plus what the group's parent has. A level that is not the last
//   leaves it in sums [groups, n]; the last writes its root to all positions of the group in out [n, grid_h, grid_w].
//   The triangle form is the nested one with a single level.
// mahalanobis_low_rank_*: sum over i < rank of scale_i c_i^2 + |rest|^2 / epsilon, where c_i is the part of x - mean along the
//   orthonormal row i of basis [groups, rank, d] and rest what remains after all of them. Eight rows at a time: their parts,
//   then what they leave of x (Gram-Schmidt, classical within the eight, modified between them).
//
// The number in a kernel's name is that of the pictures of a block (triangle) or a warp (low rank): each weight is read once for
// so many. Any of them gives the same bits: a picture's sums run in one order whatever it is launched with.
//
// Tables of the host: maps [4][3] height, width, channels; channel [d][4]: map, channel in it, level, place in that level's
// mean; mean: all levels one after the other, mean_at [levels] where each begins and mean_rows [levels] its rows a group;
// area [groups][4]: first and end row, first and end column of the grid; ancestor [groups][levels]: the group of each level
// it lies in, itself included. At most 4 maps. Block i is of group i / parts and has the pictures of part i % parts, so that
// the blocks of a group run at the same time and memory is read for the first of them.
//
// | kernel | launch | shared bytes | flops, bytes |
// |---|---|---|---|
// | mahalanobis_triangle_P | groups parts blocks, MAHALANOBIS_WARPS warps | (1024 STAGES + 4 P) a warp, 4 P s, s >= b, s % 8 = 3 | 2 n floats of W; 4 floats of W for every P pictures |
// | mahalanobis_low_rank_P | groups parts blocks, up to 8 warps (4 of P = 8) | 4 P d + 32 P a warp, 4 rank', STAGES tiles of 4 (8 d + 3)' | 4 n rank d; 4 rank d for every P warps pictures |
// | mahalanobis_low_rank_wide | the same, P = 4 | without tiles: for more channels than those leave room for | 4 rank d for every 4 pictures from L2 |
//
// A quote means rounded up to a multiple of 4. STAGES is MAHALANOBIS_STAGES for the triangle and MAHALANOBIS_TILES for low rank.
// Registers on sm_80 and sm_90, without spills: mahalanobis_triangle_4 69 and 69, _8 79 and 80, _16 107 and 109, _32 122 and
// 123; mahalanobis_low_rank_1 96 and 96, _4 96 and 97, _8 128 and 125, _wide 96 and 100. Share of roofline: not
// measured in this form; that before it, H200, 2026-11-28: triangle 81, 42 and 12 % of a copy with 1, 8 and 32 pictures, low_rank 25, 7 and 3 %.
// Shared memory, of 128 bytes a clock: a warp of triangle_32 reads 64 bytes (in 8 clocks) for 64 fused multiply-adds a lane (16
// clocks); one of low_rank_8 32 + 2 32 bytes a lane (40 clocks) for 128 (32 clocks), of low_rank_4 28 clocks for 16.
#include "common/distance.cuh"
#include "common/gather.cuh"

#ifndef MAHALANOBIS_WARPS  // tune: 4 8 16
#define MAHALANOBIS_WARPS 8
#endif
#ifndef MAHALANOBIS_STAGES  // tune: 3 4 6
#define MAHALANOBIS_STAGES 4
#endif
#ifndef MAHALANOBIS_TILES  // tune: 2 3
#define MAHALANOBIS_TILES 2
#endif
#ifndef MAHALANOBIS_MANY  // tune: 4 8
#define MAHALANOBIS_MANY 8
#endif
#ifndef MAHALANOBIS_UNROLL  // tune: 2 4 8
#define MAHALANOBIS_UNROLL 4
#endif

namespace mahalanobis {

// Copies of 16 bytes to shared memory that are waited for later; older chips wait at once.
#if defined(EMU) || __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy16(float* to, const float* from) { cp_async16(to, from); }
__device__ __forceinline__ void copied() { cp_commit(); }
template <int N> __device__ __forceinline__ void wait() { cp_wait<N>(); }
#else
__device__ __forceinline__ void copy16(float* to, const float* from) { *(float4*)to = *(const float4*)from; }
__device__ __forceinline__ void copied() {}
template <int N> __device__ __forceinline__ void wait() {}
#endif

// The root of a square to all positions of an area.
__device__ __forceinline__ void fill(float* out, const int* area, int picture, float square, int grid_h, int grid_w, int lane,
                                     int lanes) {
  const int width = area[3] - area[2], count = (area[1] - area[0]) * width;
  const float root = sqrtf(square);
  for (int i = lane; i < count; i += lanes)
    out[((long long)picture * grid_h + area[0] + i / width) * grid_w + area[2] + i % width] = root;
}

// x [planes, stride, V]: the first `b` entries of the embeddings at a group of `planes` times V pictures from `first` on, mean
// taken off; zeros for pictures that are not there.
template <int V>
__device__ __forceinline__ void gather_planes(const Maps& maps, const int* shape, const uint32_t* channel, const float* mean,
                                              const uint64_t* mean_at, const int* mean_rows, const int* area,
                                              const uint32_t* ancestor, int b, int grid_h, int grid_w, int first, int n, int planes,
                                              int stride, float* x) {
  const int y = area[0], column = area[2];
  for (int j = threadIdx.x; j < b; j += blockDim.x) {
    const uint32_t* c = channel + 4 * j;
    long long picture;
    const float* own = entry(maps, shape, c, y, column, grid_h, grid_w, picture);
    own += first * picture;
    const float mu = mean[mean_at[c[2]] + (uint64_t)ancestor[c[2]] * mean_rows[c[2]] + c[3]];
#pragma unroll 2
    for (int p = 0; p < planes; p++) {
      float v[V];
#pragma unroll
      for (int i = 0; i < V; i++) v[i] = first + V * p + i < n ? own[(V * p + i) * picture] - mu : 0.f;
      float* to = x + ((long long)p * stride + j) * V;
      if constexpr (V == 4) {
        *(float4*)to = make_float4(v[0], v[1], v[2], v[3]);
      } else {
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = v[i];
      }
    }
  }
}

// A sum over the lanes that BY tells apart and, while BY > LAST, those of BY / 2 and so on: of N values each lane keeps half at
// every step, those of the upper half where it has the bit, until there is one. Always the same pairs, whatever N.
template <int BY, int LAST, int N, int M> __device__ __forceinline__ void reduce(float (&v)[M]) {
  if constexpr (N > 1) {
    const bool upper = threadIdx.x & BY;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      const float mine = upper ? v[i + N / 2] : v[i], theirs = upper ? v[i] : v[i + N / 2];
      v[i] = mine + __shfl_xor_sync(FULL_WARP, theirs, BY);
    }
  } else {
    v[0] += __shfl_xor_sync(FULL_WARP, v[0], BY);
  }
  if constexpr (BY > LAST) reduce<BY / 2, LAST, (N > 1 ? N / 2 : 1)>(v);
}

// --- Triangles ---------------------------------------------------------------------------------------------------------------
//
// A warp takes one panel after the other. Its lanes share the 16 rows (ROWS each), the pictures of the block (PICS each) and the
// columns (every fourth). The weights come through a ring of the warp's own, of pieces of 16 columns or the diagonal block.
constexpr int WARPS = MAHALANOBIS_WARPS, STAGES = MAHALANOBIS_STAGES, PIECE = 256;

// Distance of planes: neighbouring planes and columns then lie in different banks.
__device__ __forceinline__ int plane_stride(int b) { return b + ((3 - b) & 7); }

// Rows a .. b of a group's triangle, from the last panel to the first: panels grow, and passes go to and fro over the warps, so
// that these finish together.
struct Panels {
  const float* triangle;
  int a, b, warp, pass;
  int r0, h;  // first row and rows of the panel; h = 0 after the last
  const float* from;
  __device__ __forceinline__ Panels(const float* triangle, int a, int b, int warp)
      : triangle(triangle), a(a), b(b), warp(warp), pass(-1) { next(); }
  __device__ __forceinline__ void next() {
    pass++;
    const int p = (b - a + 15) / 16 - 1 - pass * WARPS - (pass & 1 ? WARPS - 1 - warp : warp);
    r0 = a + 16 * p;
    h = p < 0 ? 0 : b - r0 < 16 ? b - r0 : 16;
    from = triangle + (long long)p * (16 * a + 136) + 128ll * p * (p - 1);
  }
};

// Brings one piece after the other.
struct Source {
  Panels panel;
  float* ring;  // [STAGES, PIECE], of the warp
  int at, column;
  __device__ __forceinline__ void bring() {
    const int lane = threadIdx.x & 31, h = panel.h, columns = panel.r0 - column;
    float* to = ring + at * PIECE + 4 * lane;
    at = at + 1 == STAGES ? 0 : at + 1;
    if (h == 16 && columns >= 16) {
      const float* from = panel.from + column * 16 + 4 * lane;
      copy16(to, from);
      copy16(to + 128, from + 128);
      column += 16;
    } else if (h > 0) {
      // The diagonal block of fewer than 16 rows may begin anywhere: it is brought from the last multiple of 16 bytes on.
      const int start = column * h, whole = columns > 0 ? start : start & ~3;
      const int floats = columns <= 0 ? start - whole + h * (h + 1) / 2 : (columns < 16 ? columns : 16) * h;
      const float* from = panel.from + whole + 4 * lane;
      if (4 * lane < floats) copy16(to, from);
      if (4 * lane + 128 < floats) copy16(to + 128, from + 128);
      if (columns > 0) column += columns < 16 ? columns : 16;
      else column = 0, panel.next();
    }
    copied();
  }
};

template <int ROWS> __device__ __forceinline__ void load_rows(float (&w)[ROWS], const float* from) {
  if constexpr (ROWS == 2) {
    const float2 v = *(const float2*)from;
    w[0] = v.x, w[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) {
      const float4 v = *(const float4*)(from + i);
      w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
    }
  }
}

template <int PICS> __device__ __forceinline__ void load_pictures(float (&v)[PICS], const float4* x, int stride) {
#pragma unroll
  for (int i = 0; i < PICS; i += 4) {
    const float4 four = x[i / 4 * stride];
    v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
  }
}

template <int ROWS, int PICS>
__device__ __forceinline__ void triangle(const Maps& maps, const int* shape, const uint32_t* channel, const float* mean,
                                         const uint64_t* mean_at, const int* mean_rows, const int* area,
                                         const uint32_t* ancestor, const float* weight, const float* parents, float* sums,
                                         float* out, int level, int levels, int a, int b, int n, int parts, int grid_h,
                                         int grid_w) {
  constexpr int GROUPS = ROWS / 2, P = PICS * GROUPS;
  DYN_SMEM(shared);
  const int group = blockIdx.x / parts, first = blockIdx.x % parts * P, lane = threadIdx.x & 31;
  const int warp = __shfl_sync(FULL_WARP, (int)threadIdx.x >> 5, 0);  // the compiler sees that lanes agree
  const int stride = plane_stride(b);
  float* ring = (float*)shared;                        // [WARPS, STAGES, PIECE]
  float* partial = ring + WARPS * STAGES * PIECE;      // [WARPS, P]
  float4* x = (float4*)(partial + WARPS * P);          // [P / 4, stride]
  area += 4 * group;
  ancestor += (long long)group * levels;
  const long long floats = (long long)b * (b + 1) / 2 - (long long)a * (a + 1) / 2;
  const float* own = weight + group * ((floats + 7) & ~7ll);
  Source source{Panels(own, a, b, warp), ring + warp * STAGES * PIECE, 0, 0};
#pragma unroll 1
  for (int i = 0; i < STAGES - 1; i++) source.bring();
  gather_planes<4>(maps, shape, channel, mean, mean_at, mean_rows, area, ancestor, b, grid_h, grid_w, first, n, P / 4, stride, (float*)x);
  __syncthreads();
  // Neighbouring lanes share pictures or, two apart, rows: so shared memory serves a half-warp at once.
  const int rows = ROWS * (ROWS == 8 ? lane & 1 : ROWS == 4 ? (lane & 1) | (lane >> 1 & 2) : lane & 7), quarter = lane >> 3;
  const int pictures = ROWS == 8 ? lane >> 1 & 3 : ROWS == 4 ? lane >> 1 & 1 : 0;
  x += pictures * (PICS / 4) * stride + quarter;
  const float* piece = source.ring;
  auto next = [&] {
    __syncwarp();  // lanes may come from columns of their own
    wait<STAGES - 2>();
    __syncwarp();  // what all lanes brought is there, and what is overwritten was read
    source.bring();
    const float* own = piece;
    piece = piece + PIECE == source.ring + STAGES * PIECE ? source.ring : piece + PIECE;
    return own;
  };
  float total[PICS / 4] = {};
  for (Panels panel(own, a, b, warp); panel.h > 0; panel.next()) {
    const int r0 = panel.r0, h = panel.h;
    float z[PICS * ROWS] = {}, w[ROWS], v[PICS];
    auto add = [&](int r) {
#pragma unroll
      for (int i = 0; i < PICS; i++) z[i * ROWS + r] = fmaf(w[r], v[i], z[i * ROWS + r]);
    };
    for (int column = 0;; column += 16) {
      const float* from = next();
      if (h == 16 && column + 16 <= r0) {
        from += quarter * 16 + rows;
#pragma unroll
        for (int c = 0; c < 16; c += 4) {
          load_rows<ROWS>(w, from + c * 16);
          load_pictures<PICS>(v, x + column + c, stride);
#pragma unroll
          for (int r = 0; r < ROWS; r++) add(r);
        }
        continue;
      }
      if (column < r0) {
        // The last columns before the diagonal block, or a panel of fewer rows: those that are not there are cleared below.
        const int end = r0 - column < 16 ? r0 - column : 16;
#pragma unroll 1
        for (int c = quarter; c < end; c += 4) {
          load_pictures<PICS>(v, x + column + c - quarter, stride);
#pragma unroll
          for (int r = 0; r < ROWS; r++) {
            w[r] = rows + r < h ? from[c * h + rows + r] : 0.f;
            add(r);
          }
        }
        continue;
      }
      from += r0 * h & 3;
#pragma unroll 1
      for (int c = quarter; c < h; c += 4) {
        load_pictures<PICS>(v, x + r0 + c - quarter, stride);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          if (rows + r < c || rows + r >= h) continue;
          w[r] = from[c * h - c * (c - 1) / 2 - c + rows + r];
          add(r);
        }
      }
      break;
    }
    if (h < 16)
#pragma unroll
      for (int i = 0; i < PICS * ROWS; i++) z[i] = rows + i % ROWS < h ? z[i] : 0.f;
    reduce<16, 8, PICS * ROWS>(z);
    // Squares of the 16 rows in pairs, these in pairs and so on, whichever lanes have them.
#pragma unroll
    for (int i = 0; i < PICS / 4; i++) {
      float s[ROWS / 2];
#pragma unroll
      for (int r = 0; r < ROWS; r += 2) s[r / 2] = fmaf(z[i * ROWS + r + 1], z[i * ROWS + r + 1], z[i * ROWS + r] * z[i * ROWS + r]);
#pragma unroll
      for (int m = ROWS / 4; m; m /= 2)
#pragma unroll
        for (int r = 0; r < m; r++) s[r] = s[2 * r] + s[2 * r + 1];
      s[0] += __shfl_xor_sync(FULL_WARP, s[0], 1);
      if (ROWS == 2) s[0] += __shfl_xor_sync(FULL_WARP, s[0], 2);
      if (ROWS < 8) s[0] += __shfl_xor_sync(FULL_WARP, s[0], 4);
      total[i] += s[0];
    }
  }
  if (rows == 0)
#pragma unroll
    for (int i = 0; i < PICS / 4; i++)
      partial[warp * P + pictures * PICS + (lane & 16 ? PICS / 2 : 0) + (lane & 8 ? PICS / 4 : 0) + i] = total[i];
  __syncthreads();
  for (int i = warp; i < P && first + i < n; i += WARPS) {
    const int picture = first + i;
    float square = level ? parents[(long long)ancestor[level - 1] * n + picture] : 0.f;
#pragma unroll
    for (int k = 0; k < WARPS; k++) square += partial[k * P + i];
    if (level + 1 < levels) {
      if (lane == 0) sums[(long long)group * n + picture] = square;
    } else {
      fill(out, area, picture, square, grid_h, grid_w, lane, 32);
    }
  }
}

// --- Low rank ----------------------------------------------------------------------------------------------------------------
//
// A warp has P pictures; its lanes share the channels, lane l those that leave l when divided by 32.
constexpr int BLOCK = 8, TILES = MAHALANOBIS_TILES;
static_assert(MAHALANOBIS_MANY == 4 || MAHALANOBIS_MANY == 8, "more than 16 pictures are given to that kernel");

template <int P, bool STAGED>
__device__ __forceinline__ void low_rank(const Maps& maps, const int* shape, const uint32_t* channel, const float* mean,
                                         const uint64_t* mean_at, const int* mean_rows, const int* area,
                                         const uint32_t* ancestor, const float* basis, const float* scale, float* out,
                                         float epsilon, int rank, int levels, int d, int groups, int n, int parts, int grid_h,
                                         int grid_w) {
  constexpr int V = P < 4 ? P : 4, N = BLOCK * P, OWN = N > 32 ? N / 32 : 1;
  [[maybe_unused]] constexpr int UNROLL = P == 8 || !STAGED ? MAHALANOBIS_UNROLL / 2 : MAHALANOBIS_UNROLL;
  DYN_SMEM(shared);
  const int group = blockIdx.x / parts, warps = blockDim.x >> 5, lane = threadIdx.x & 31;
  const int warp = __shfl_sync(FULL_WARP, (int)threadIdx.x >> 5, 0);
  const int first = blockIdx.x % parts * warps * P, tile_floats = (BLOCK * d + 6) & ~3;
  float* tiles = (float*)shared;                                // [TILES, tile_floats]
  float* all_parts = tiles + (STAGED ? TILES * tile_floats : 0);  // [warps, BLOCK, P]
  float* scales = all_parts + warps * N;                        // [rank], to a multiple of 4
  float* all_x = scales + ((rank + 3) & ~3);                    // [warps, P / V, d, V]
  area += 4 * group;
  ancestor += (long long)group * levels;
  scale += (long long)group * rank;
  const long long floats = (long long)groups * rank * d, start = (long long)group * rank * d;
  auto bring = [&](int t) {
    if (STAGED && t * BLOCK < rank) {
      // From the last multiple of 16 bytes on, so that a tile begins up to 3 floats later.
      const long long from = (start + (long long)t * BLOCK * d) & ~3ll;
      const int rows = rank - t * BLOCK < BLOCK ? rank - t * BLOCK : BLOCK;
      const long long end = start + ((long long)t * BLOCK + rows) * d;
      const int count = (int)(end - from), sure = (int)(floats - from < count + 3 ? floats - from : count + 3) & ~3;
      float* to = tiles + t % TILES * tile_floats;
      for (int f = 4 * threadIdx.x; f < sure; f += 4 * blockDim.x) copy16(to + f, basis + from + f);
      // The last floats of all groups.
      for (int f = sure + threadIdx.x; f < count; f += blockDim.x) to[f] = basis[from + f];
    }
    copied();
  };
#pragma unroll
  for (int t = 0; t < TILES - 1; t++) bring(t);
  for (int i = threadIdx.x; i < rank; i += blockDim.x) scales[i] = scale[i];
  gather_planes<V>(maps, shape, channel, mean, mean_at, mean_rows, area, ancestor, d, grid_h, grid_w, first, n, warps * (P / V), d, all_x);
  float* c = all_parts + warp * N;          // [BLOCK, P]
  float* x = all_x + (long long)warp * P * d;  // [P / V, d, V]
  auto load = [&](float (&v)[P], int k) {
    if constexpr (P >= 4) load_pictures<P>(v, (const float4*)x + k, d);
    else v[0] = x[k];
  };
  float square = 0.f;  // of picture `lane`
  if (!STAGED) __syncthreads();
  for (int t = 0; t * BLOCK < rank; t++) {
    if (STAGED) {
      wait<TILES - 2>();
      __syncthreads();  // the tile is there, and the one overwritten was read
      bring(t + TILES - 1);
    }
    const long long from = start + (long long)t * BLOCK * d;
    const float* tile = STAGED ? tiles + t % TILES * tile_floats + (from & 3) : basis + from;
    const int rows = rank - t * BLOCK < BLOCK ? rank - t * BLOCK : BLOCK;
    // A row that is not there is the first again, of which no part is taken.
    const float* row[BLOCK];
#pragma unroll
    for (int r = 0; r < BLOCK; r++) row[r] = tile + (r < rows ? r * d : 0);
    float sum[N] = {}, v[P];
#pragma unroll UNROLL
    for (int k = lane; k < d; k += 32) {
      load(v, k);
#pragma unroll
      for (int r = 0; r < BLOCK; r++) {
        const float u = row[r][k];
#pragma unroll
        for (int i = 0; i < P; i++) sum[r * P + i] = fmaf(u, v[i], sum[r * P + i]);
      }
    }
    reduce<16, 1, N>(sum);
    // Now lane l has the sums of index l N / 32 on.
    if (N >= 32 || lane % (32 / (N < 32 ? N : 32)) == 0)
#pragma unroll
      for (int i = 0; i < OWN; i++) c[lane * N / 32 + i] = (lane * N / 32 + i) / P < rows ? sum[i] : 0.f;
    __syncwarp();
    if (lane < P)
#pragma unroll
      for (int r = 0; r < BLOCK; r++) {
        const float part = c[r * P + lane];
        if (r < rows) square = fmaf(scales[t * BLOCK + r] * part, part, square);
      }
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 four = *(const float4*)(c + i);
      sum[i] = -four.x, sum[i + 1] = -four.y, sum[i + 2] = -four.z, sum[i + 3] = -four.w;
    }
#pragma unroll UNROLL
    for (int k = lane; k < d; k += 32) {
      load(v, k);
#pragma unroll
      for (int r = 0; r < BLOCK; r++) {
        const float u = row[r][k];
#pragma unroll
        for (int i = 0; i < P; i++) v[i] = fmaf(sum[r * P + i], u, v[i]);
      }
      if constexpr (P >= 4) {
#pragma unroll
        for (int i = 0; i < P; i += 4) *((float4*)x + i / 4 * d + k) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
      } else {
        x[k] = v[0];
      }
    }
    __syncwarp();  // the parts were read
  }
  if (STAGED && rank == 0) __syncthreads();
  float rest[P] = {}, v[P];
#pragma unroll 1
  for (int k = lane; k < d; k += 32) {
    load(v, k);
#pragma unroll
    for (int i = 0; i < P; i++) rest[i] = fmaf(v[i], v[i], rest[i]);
  }
  reduce<16, 1, P>(rest);
  if (lane % (32 / P) == 0) c[lane * P / 32] = rest[0];
  __syncwarp();
  if (lane < P) square += c[lane] / epsilon;
#pragma unroll
  for (int i = 0; i < P; i++) {
    const int picture = first + warp * P + i;
    const float own = __shfl_sync(FULL_WARP, square, i);
    if (picture < n) fill(out, area, picture, own, grid_h, grid_w, lane, 32);
  }
}

}  // namespace mahalanobis

#define TRIANGLE(P, ROWS, PICS, BLOCKS)                                                                                      \
  extern "C" __global__ void __launch_bounds__(32 * MAHALANOBIS_WARPS, BLOCKS)                                               \
  mahalanobis_triangle_##P(                                                                                                  \
      const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,                        \
      const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,                   \
      const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,               \
      const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ weight,                 \
      const float* __restrict__ parents, float* __restrict__ sums, float* __restrict__ out, int level, int levels, int a,    \
      int b, int n, int parts, int grid_h, int grid_w) {                                                                     \
    mahalanobis::triangle<ROWS, PICS>({{map0, map1, map2, map3}}, shape, channel, mean, mean_at, mean_rows, area, ancestor,  \
                                      weight, parents, sums, out, level, levels, a, b, n, parts, grid_h, grid_w);            \
  }
TRIANGLE(4, 2, 4, 24 / MAHALANOBIS_WARPS)
TRIANGLE(8, 4, 4, 24 / MAHALANOBIS_WARPS)
TRIANGLE(16, 4, 8, 16 / MAHALANOBIS_WARPS)
#if __CUDA_ARCH__ >= 800
TRIANGLE(32, 8, 8, 16 / MAHALANOBIS_WARPS)
#else
TRIANGLE(32, 8, 8, 1)
#endif

#define LOW_RANK(NAME, P, STAGED, THREADS, BLOCKS)                                                                           \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                              \
  mahalanobis_low_rank_##NAME(                                                                                               \
      const float* __restrict__ map0, const float* __restrict__ map1, const float* __restrict__ map2,                        \
      const float* __restrict__ map3, const int* __restrict__ shape, const uint32_t* __restrict__ channel,                   \
      const float* __restrict__ mean, const uint64_t* __restrict__ mean_at, const int* __restrict__ mean_rows,               \
      const int* __restrict__ area, const uint32_t* __restrict__ ancestor, const float* __restrict__ basis,                  \
      const float* __restrict__ scale, float* __restrict__ out, float epsilon, int rank, int levels, int d, int groups,      \
      int n, int parts, int grid_h, int grid_w) {                                                                            \
    mahalanobis::low_rank<P, STAGED>({{map0, map1, map2, map3}}, shape, channel, mean, mean_at, mean_rows, area, ancestor,   \
                                     basis, scale, out, epsilon, rank, levels, d, groups, n, parts, grid_h, grid_w);         \
  }
LOW_RANK(1, 1, true, 256, 2)
LOW_RANK(4, 4, true, 256, 2)
LOW_RANK(8, 8, true, 128, 3)
LOW_RANK(wide, 4, false, 256, 2)
