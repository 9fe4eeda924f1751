// The patch embeddings of PatchCore from feature maps [n, h, w, c], and rows picked out of them. The bits of the CPU.
//
// anomalib's: 3 x 3 means of each layer, brought to the first layer's grid, put side by side. Layers whose grid is the first
// one's are written to their columns at once; the others are averaged into a map of their own, then go through resize_bilinear
// (resize.cu) into their columns.
//   embed_mean3: out[n y x][offset + c] = the sum of the 3 x 3 neighbourhood in row order, the border counting as zeros, times
//     1 / 9; out `pitch` floats a pixel.
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
// | embed_mean3 | grid ceil(n h w c / 256) | 10 flops; 8 bytes, 36 from L1 and L2 |
// | embed_terms | grid ceil(n h w columns / 256) | 2 flops a term; 4 c / columns + 4 bytes, 12 a term from L1 and L2 |
// | embed_add | grid ceil(pixels columns / 256) | 1 flop; 12 bytes |
// | embed_select | grid ceil(count c / 256) | 8 bytes |
//
// Registers on sm_80 and sm_90, without spills: embed_mean3 24 and 26, embed_terms 28 and 30, the others at most 20.
// Share of roofline: not measured yet; on a GPU,
// `cargo bench -p blemish-kernels --features cuda --bench gpu -- --kernel embed`
// measures it.
#include "common/device.cuh"

extern "C" __global__ void __launch_bounds__(256)
embed_mean3(const float* __restrict__ in, float* __restrict__ out, int n, int h, int w, int c, int pitch, int offset) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)n * h * w * c) return;
  const int channel = (int)(at % c), x = (int)(at / c % w), y = (int)(at / c / w % h);
  const float* image = in + at / c / w / h * h * w * c + channel;
  float sum = 0.f;
  for (int v = y ? y - 1 : 0; v <= y + 1 && v < h; v++)
    for (int u = x ? x - 1 : 0; u <= x + 1 && u < w; u++) sum += image[((long long)v * w + u) * c];
  out[at / c * pitch + offset + channel] = sum * (1.f / 9.f);
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
