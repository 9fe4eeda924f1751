// The patch embedding of PatchCore: 3 x 3 means of each layer, brought to the first layer's grid, put side by side. The bits
// of the CPU. The layers whose grid is the first one's are written to their columns at once; the others are averaged into a
// map of their own, then go through resize_bilinear (resize.cu) into their columns.
//
// embed_mean3: out[n y x][offset + c] = the sum of the 3 x 3 neighbourhood in row order, the border counting as zeros, times
//   1 / 9; in [n, h, w, c], out `pitch` floats a pixel, n h w c < 2^31 blocks of 256.
// Work: 10 flops and 8 bytes a value to and from memory, 36 bytes from L1 and L2. Launch: grid ceil(n h w c / 256), 256
// threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: 24 and 26. Share of roofline: not yet measured.
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
