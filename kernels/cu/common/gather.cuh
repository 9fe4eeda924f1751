// Reading the channels of an embedding from feature maps [n, h, w, c] of several grids at the nearest index, the mean taken off:
// no embedding is ever stored. The tables are those that mahalanobis.cu describes.
#pragma once
#include "common/device.cuh"

namespace mahalanobis {

constexpr int PICTURES = 4;

struct Maps { const float* map[4]; };

// Where the entry of a channel table begins in the map it comes from, for the position (y, column) of the first picture;
// `picture` becomes the distance to the next one.
__device__ __forceinline__ const float* entry(const Maps& maps, const int* shape, const uint32_t* c, int y, int column, int grid_h,
                                              int grid_w, long long& picture) {
  const float* map = c[0] == 0 ? maps.map[0] : c[0] == 1 ? maps.map[1] : c[0] == 2 ? maps.map[2] : maps.map[3];
  const int* dim = shape + 3 * c[0];
  picture = (long long)dim[0] * dim[1] * dim[2];
  return map + ((long long)(y * (long long)dim[0] / grid_h) * dim[1] + column * (long long)dim[1] / grid_w) * dim[2] + c[1];
}

// x [.., PICTURES]: the first `b` entries of the embeddings at a group from picture `first` on, mean taken off; zeros for
// pictures that are not there.
__device__ __forceinline__ void gather(const Maps& maps, const int* shape, const uint32_t* channel, const float* mean,
                                       const uint64_t* mean_at, const int* mean_rows, const int* area, const uint32_t* ancestor,
                                       int b, int grid_h, int grid_w, int first, int n, float4* x) {
  const int y = area[0], column = area[2];
  for (int j = threadIdx.x; j < b; j += blockDim.x) {
    const uint32_t* c = channel + 4 * j;
    long long picture;
    const float* own = entry(maps, shape, c, y, column, grid_h, grid_w, picture);
    const float mu = mean[mean_at[c[2]] + (uint64_t)ancestor[c[2]] * mean_rows[c[2]] + c[3]];
    float v[PICTURES];
#pragma unroll
    for (int i = 0; i < PICTURES; i++) v[i] = first + i < n ? own[(first + i) * picture] - mu : 0.f;
    x[j] = make_float4(v[0], v[1], v[2], v[3]);
  }
}

}  // namespace mahalanobis
