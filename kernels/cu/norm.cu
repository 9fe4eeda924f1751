// The layer norm over whole maps with a weight and a bias for each number of a map, and their gradients. Maps are f32
// [.., values], values = pixels c below 2^31; picture i of a batch is map which[turn[0] each + i] of them (turn[0] counts as 0
// without `turn`), or i without `which`.
//
//   norm_sums:     sums[i, part] = the sum of part `part` of picture i; with `means`, the sums that an earlier launch left, of
//                  squared differences from the mean. f64; part lengths are ceil(values / parts), up
//                  to the next multiple of 4; parts <= 128.
//   norm_apply:    y = (x - mean) / sqrt(variance + 1e-5) in f64, rounded, then y weight + bias in f32, split into channels
//                  0 .. c1 to x1 [pixels of all pictures, p1] and the others to x2 [.., p2]. moments[i] = (mean, 1 / deviation).
//                  Without `sums` the numbers are split alone.
//   norm_gradient: weight[e] (+)= the sum over pictures of g[i, e] y[i, e] in their order, bias[e] (+)= that of g[i, e], where g
//                  comes in the two halves; added to what is there with `add`.
//
// What a picture becomes does not depend on the others. Numbers go four at a time where values, or c / 2 and the pitches, are
// multiples of four.
//
// | kernel | launch, 256 threads | shared bytes | bytes and flops a number |
// |---|---|---|---|
// | norm_sums | grid (parts, min(images, 65535)) | 2064 | 4 bytes; 1 or 3 flops f64 |
// | norm_apply | grid (ceil(values / 4096), min(images, 65535)) | 16 + 16 parts | 8 bytes, weight and bias from L2; 2 flops f64, 2 f32 |
// | norm_gradient | grid ceil(values / 256) | 0 | 8 bytes; 2 flops f64, 3 f32 |
//
// Registers on sm_80 and sm_90, without spills: norm_sums at most 40 and 40, norm_apply at most 48 and 40, norm_gradient 40 and 32.
// Share of roofline, H200, 2026-11-28: norm_gradient 69 to 80 % of a copy; norm_maps 53 % in the form before.
#include "common/device.cuh"

namespace layer_norm {

__device__ __forceinline__ const float* picture(const float* maps, const uint32_t* which, const uint32_t* turn, int each, int i,
                                                int values) {
  const uint32_t at = which ? which[(turn ? turn[0] : 0u) * (uint32_t)each + (uint32_t)i] : (uint32_t)i;
  return maps + (long long)at * values;
}

// The parts of a picture in their order, over `values`.
__device__ __forceinline__ double mean(const double* sums, int parts, int values) {
  double total = 0;
#pragma unroll 4
  for (int part = 0; part < parts; part++) total += sums[part];
  return total / (double)values;
}

}  // namespace layer_norm

extern "C" __global__ void __launch_bounds__(256, 4)
norm_sums(const float* __restrict__ maps, const uint32_t* __restrict__ which, const uint32_t* __restrict__ turn, int each,
          const double* __restrict__ means, double* __restrict__ sums, int images, int values) {
  DYN_SMEM(shared);
  double *lane = (double*)shared, *center = lane + 256;
  // Whole fours, so that parts of aligned pictures are aligned.
  const int parts = gridDim.x, share = ((values - 1) / parts / 4 + 1) * 4;
  const int first = values / share < (int)blockIdx.x ? values : blockIdx.x * share;
  const int end = values - first < share ? values : first + share, t = threadIdx.x;
  for (int image = blockIdx.y; image < images; image += gridDim.y) {
    const float* x = layer_norm::picture(maps, which, turn, each, image, values);
    if (means && t < parts) lane[t] = means[(long long)image * parts + t];
    __syncthreads();  // all parts are there
    if (t == 0) center[0] = means ? layer_norm::mean(lane, parts, values) : 0;
    __syncthreads();
    const double from = center[0];
    double sum = 0;
    auto add = [&](float v) {
      const double d = v - from;
      sum += means ? d * d : d;
    };
    int e = first + t;
    if (!(values & 3)) {
      e = first + 4 * t;
#pragma unroll 4
      for (; e < end; e += 1024) {
        const float4 v = *(const float4*)(x + e);
        add(v.x), add(v.y), add(v.z), add(v.w);
      }
    } else {
#pragma unroll 4
      for (; e < end; e += 256) add(x[e]);
    }
    lane[t] = sum;
    for (int half = 128; half; half >>= 1) {
      __syncthreads();
      if (t < half) lane[t] += lane[t + half];
    }
    if (t == 0) sums[(long long)image * parts + blockIdx.x] = lane[0];
    __syncthreads();  // the sum is read before the next parts come
  }
}

extern "C" __global__ void __launch_bounds__(256, 4)
norm_apply(const float* __restrict__ maps, const uint32_t* __restrict__ which, const uint32_t* __restrict__ turn, int each,
           const double* __restrict__ sums, const double* __restrict__ squares, const float* __restrict__ weight,
           const float* __restrict__ bias, double* __restrict__ moments, float* __restrict__ x1, float* __restrict__ x2,
           int images, int values, int parts, int c, int p1, int p2) {
  DYN_SMEM(shared);
  double *own = (double*)shared, *part = own + 2;
  const int c1 = c - c / 2, pixels = values / c, t = threadIdx.x;
  const unsigned base = blockIdx.x * 4096u;
  const bool fours = !((c & 7) | (p1 & 3) | (p2 & 3));
  for (int image = blockIdx.y; image < images; image += gridDim.y) {
    if (sums) {
      if (t < 2 * parts) part[t] = t < parts ? sums[(long long)image * parts + t] : squares[(long long)image * parts + t - parts];
      __syncthreads();
      if (t == 0) {
        own[0] = layer_norm::mean(part, parts, values);
        own[1] = 1 / sqrt(layer_norm::mean(part + parts, parts, values) + 1e-5);
        if (blockIdx.x == 0) moments[2ll * image] = own[0], moments[2ll * image + 1] = own[1];
      }
      __syncthreads();
    }
    const double from = sums ? own[0] : 0, by = sums ? own[1] : 0;
    const float* x = layer_norm::picture(maps, which, turn, each, image, values);
    auto normal = [&](float v, float w, float b) { return sums ? (float)((v - from) * by) * w + b : v; };
    if (fours) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const unsigned e = base + i * 1024 + 4 * t;
        if (e < (unsigned)values) {
          float4 v = *(const float4*)(x + e), w = v, b = v;
          if (sums) w = *(const float4*)(weight + e), b = *(const float4*)(bias + e);
          v = make_float4(normal(v.x, w.x, b.x), normal(v.y, w.y, b.y), normal(v.z, w.z, b.z), normal(v.w, w.w, b.w));
          const int channel = (int)(e % (unsigned)c);
          const long long row = (long long)image * pixels + e / (unsigned)c;
          *(float4*)(channel < c1 ? x1 + row * p1 + channel : x2 + row * p2 + channel - c1) = v;
        }
      }
    } else {
#pragma unroll 4
      for (unsigned e = base + t; e < (unsigned)values && e < base + 4096; e += 256) {
        const float v = normal(x[e], sums ? weight[e] : 0.f, sums ? bias[e] : 0.f);
        const int channel = (int)(e % (unsigned)c);
        const long long row = (long long)image * pixels + e / (unsigned)c;
        if (channel < c1) x1[row * p1 + channel] = v;
        else x2[row * p2 + channel - c1] = v;
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
norm_gradient(const float* __restrict__ maps, const uint32_t* __restrict__ which, const uint32_t* __restrict__ turn, int each,
              const double* __restrict__ moments, const float* __restrict__ g1, const float* __restrict__ g2,
              float* __restrict__ weight, float* __restrict__ bias, int images, int values, int c, int p1, int p2, int add) {
  const int e = blockIdx.x * 256 + threadIdx.x;
  if (e >= values) return;
  const int c1 = c - c / 2, pixels = values / c, channel = e % c, pitch = channel < c1 ? p1 : p2;
  const float* g = channel < c1 ? g1 + channel : g2 + channel - c1;
  float own = add ? weight[e] : 0.f, sum = add ? bias[e] : 0.f;
#pragma unroll 4
  for (int image = 0; image < images; image++) {
    const float x = layer_norm::picture(maps, which, turn, each, image, values)[e];
    const float by = g[((long long)image * pixels + e / c) * pitch];
    own += by * (float)((x - moments[2ll * image]) * moments[2ll * image + 1]);
    sum += by;
  }
  weight[e] = own;
  bias[e] = sum;
}
