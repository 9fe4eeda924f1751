// The patch embeddings of PatchCore from feature maps [n, h, w, c], and rows picked out of them. The bits of the CPU.
//
// anomalib's: 3 x 3 means of each layer, brought to the first layer's grid, put side by side. Layers whose grid is the first
// one's are written to their columns at once; the others are averaged into a map of their own, then go through resize_bilinear
// (resize.cu) into their columns.
//   embed_mean3: out[n y x][offset + c] = the sum of the 3 x 3 neighbourhood in row order, the border counting as zeros, times
//     1 / 9; out `pitch` floats a pixel. A thread walks down `each` rows; 4 channels at a time if c, pitch and offset allow.
// The authors': each coordinate is a weighted sum of a few numbers of the neighbourhood; maps of other grids are resized then.
//   embed_terms: out[n y x][j] = the sum over terms t of starts[j] .. starts[j + 1] of weight[t] times channel place[t] / 16 of
//     neighbour place[t] % 16 in row order, the border counting as zeros; out `columns` floats a pixel.
//   embed_add: out[p][offset + j] += in[p][j] of `columns` floats a pixel; out `pitch` floats a pixel.
// embed_select: row pairs[2 i + 1] of out [.., c] becomes row pairs[2 i] of in [.., c].
//
// No matrix has 2^31 blocks of 256 numbers or more.
//
// | kernel | launch, 256 threads | flops and bytes a number |
// |---|---|---|
// | embed_mean3 | grid (slabs ceil(w / (256 / slab)), min(n ceil(h / each), 65535)) | 10 flops; 8 bytes, 12 from L1 |
// | embed_terms | grid ceil(n h w columns / 256) | 2 flops a term; 4 c / columns + 4 bytes, 12 a term from L1 and L2 |
// | embed_add | grid ceil(pixels columns / 256) | 1 flop; 12 bytes |
// | embed_select | grid ceil(count c / 256) | 8 bytes |
//
// A slab is up to 32 pieces of 1 or 4 channels. Some 1.4 times the map comes from L2, where rows and columns of neighbours overlap.
// Registers on sm_80 and sm_90, without spills: embed_mean3 53 and 62, embed_terms 28 and 30, the others at most 20.
// Share of roofline: not measured in this form; that before it, H200, 2026-11-28: embed_mean3 16 % of a copy.
#include "common/device.cuh"

// The most rows of a map that a thread walks down; the host shares them out evenly.
#ifndef EMBED_ROWS  // tune: 7 14 28
#define EMBED_ROWS 14
#endif

static_assert(EMBED_ROWS > 0, "rows to walk down");

namespace embed {

// The 3 x 3 neighbourhood of N channels in registers, a row more loaded at each step. A block has up to 32 pieces of N channels
// side by side and 256 / those columns, so that columns beside each other come from L1.
template <int N>
__device__ __forceinline__ void mean3(const float* __restrict__ in, float* __restrict__ out, int n, int h, int w, int c,
                                      int pitch, int offset, int each) {
  const int pieces = c / N, slab = pieces < 32 ? pieces : 32, across = 256 / slab, slabs = (pieces - 1) / slab + 1;
  const int own = threadIdx.x / slab, piece = blockIdx.x % slabs * slab + threadIdx.x % slab;
  const int x = blockIdx.x / slabs * across + own;
  if (own >= across || piece >= pieces || x >= w) return;
  const int parts = (h - 1) / each + 1;
  for (int group = blockIdx.y; group < n * parts; group += gridDim.y) {
    const int image = group / parts, y0 = group % parts * each, y1 = h - y0 < each ? h : y0 + each;
    const float* from = in + ((long long)image * h * w + x) * c + piece * N;
    float* to = out + (((long long)image * h + y0) * w + x) * pitch + offset + piece * N;
    float row[3][3][N];  // above, here, below
    auto load = [&](int y, float (&v)[3][N]) {
      const float* middle = from + (long long)y * w * c;
#pragma unroll
      for (int u = 0; u < 3; u++) {
        // What is beyond the border is added as zeros, which changes no bit of a sum that began at zero.
        const bool there = y >= 0 && y < h && x + u >= 1 && x + u <= w;
        if constexpr (N == 4) {
          const float4 q = there ? *(const float4*)(middle + (u - 1) * c) : make_float4(0.f, 0.f, 0.f, 0.f);
          v[u][0] = q.x, v[u][1] = q.y, v[u][2] = q.z, v[u][3] = q.w;
        } else {
          v[u][0] = there ? middle[(u - 1) * c] : 0.f;
        }
      }
    };
    load(y0 - 1, row[0]);
    load(y0, row[1]);
#pragma unroll 1  // NVRTC 12.4 makes of 3 a loop that passes y1
    for (int y = y0; y < y1; y++, to += (long long)w * pitch) {
      load(y + 1, row[2]);
      float sum[N];
#pragma unroll
      for (int e = 0; e < N; e++) {
        sum[e] = 0.f;
#pragma unroll
        for (int v = 0; v < 3; v++)
#pragma unroll
          for (int u = 0; u < 3; u++) sum[e] += row[v][u][e];
        sum[e] *= 1.f / 9.f;
      }
      if constexpr (N == 4) *(float4*)to = make_float4(sum[0], sum[1], sum[2], sum[3]);
      else to[0] = sum[0];
#pragma unroll
      for (int u = 0; u < 3; u++)
#pragma unroll
        for (int e = 0; e < N; e++) row[0][u][e] = row[1][u][e], row[1][u][e] = row[2][u][e];
    }
  }
}

}  // namespace embed

extern "C" __global__ void __launch_bounds__(256)
embed_mean3(const float* __restrict__ in, float* __restrict__ out, int n, int h, int w, int c, int pitch, int offset,
            int each) {
  if ((c | pitch | offset) & 3) embed::mean3<1>(in, out, n, h, w, c, pitch, offset, each);
  else embed::mean3<4>(in, out, n, h, w, c, pitch, offset, each);
}

extern "C" __global__ void __launch_bounds__(256)
embed_terms(const float* __restrict__ in, const uint32_t* __restrict__ starts, const uint32_t* __restrict__ place,
            const float* __restrict__ weight, float* __restrict__ out, int n, int h, int w, int c, int columns) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)n * h * w * columns) return;
  const int j = (int)(at % columns), x = (int)(at / columns % w), y = (int)(at / columns / w % h);
  const float* image = in + at / columns / w / h * h * w * c;
  float sum = 0.f;
  for (uint32_t t = starts[j]; t < starts[j + 1]; t++) {
    const int tap = (int)(place[t] & 15u), v = y + tap / 3 - 1, u = x + tap % 3 - 1;
    if (v >= 0 && v < h && u >= 0 && u < w) sum += image[((long long)v * w + u) * c + (place[t] >> 4)] * weight[t];
  }
  out[at] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
embed_add(const float* __restrict__ in, float* __restrict__ out, int pixels, int columns, int pitch, int offset) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at < (long long)pixels * columns) out[at / columns * pitch + offset + at % columns] += in[at];
}

extern "C" __global__ void __launch_bounds__(256)
embed_select(const float* __restrict__ in, const uint32_t* __restrict__ pairs, float* __restrict__ out, int count, int c) {
  const long long at = blockIdx.x * 256ll + threadIdx.x, i = at / c;
  if (i >= count) return;
  out[(long long)pairs[2 * i + 1] * c + at % c] = in[(long long)pairs[2 * i] * c + at % c];
}
