// Resizing of pictures and maps, the bits of the CPU. Taps and steps come in tables made by the host in f64.
//
// resize_down (u8 or u16 samples) and resize_across: the two passes of an antialiased resize,
//   down:   mid[y][x] = sum over t < count[y] of weight[y][t] source[start[y] + t][x], in order of t; x over width * channels
//   across: out[y][x][c] = (p0 + p1) + (p2 + p3), p_i = sum over t = i mod 4 of weight[x][t] mid[y][start[x] + t][c], with
//           `taps` (a multiple of 4) weights stored for each x, zero beyond those that count; mid beyond its row is 0.
// resize_bilinear: out[n][y][x][c] from in [n, h, w, c], two rows, then two columns; steps are (low, high, weight of high).
//   out has `pitch` floats a pixel, of which c from `offset` on are written: a column block of an embedding, or all.
// Work and bytes: antialias 2 taps flops a sample and pass, each input byte read once; bilinear 9 flops and 20 bytes a value
// (16 of them from L1). Launch: grid ceil(values / 256), 256 threads, no shared memory.
// Registers on sm_80 and sm_90, without spills: resize_down_u8 32 and 32, resize_down_u16 32 and 32, resize_across
// 48 and 40, resize_bilinear 26 and 28. Share of roofline: not yet measured.
#include "common/device.cuh"

namespace resize {

template <class T>
__device__ __forceinline__ void down(const T* source, float* mid, const int* start, const int* count, const float* weight,
                                     int taps, int height, int stride) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)height * stride) return;
  const int y = (int)(at / stride), x = (int)(at % stride);
  const T* from = source + (long long)start[y] * stride + x;
  float sum = 0.f;
  for (int t = 0; t < count[y]; t++) sum += weight[(long long)y * taps + t] * (float)from[(long long)t * stride];
  mid[at] = sum;
}

__device__ __forceinline__ float mix(float low, float high, float weight) { return (1.f - weight) * low + weight * high; }

}  // namespace resize

extern "C" __global__ void __launch_bounds__(256)
resize_down_u8(const uint8_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ start,
               const int* __restrict__ count, const float* __restrict__ weight, int taps, int height, int stride) {
  resize::down(source, mid, start, count, weight, taps, height, stride);
}

extern "C" __global__ void __launch_bounds__(256)
resize_down_u16(const uint16_t* __restrict__ source, float* __restrict__ mid, const int* __restrict__ start,
                const int* __restrict__ count, const float* __restrict__ weight, int taps, int height, int stride) {
  resize::down(source, mid, start, count, weight, taps, height, stride);
}

// mid [height, source_width, c] to out [height, width, c].
extern "C" __global__ void __launch_bounds__(256)
resize_across(const float* __restrict__ mid, float* __restrict__ out, const int* __restrict__ start,
              const float* __restrict__ weight, int taps, int height, int source_width, int width, int c) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)height * width * c) return;
  const int channel = (int)(at % c), x = (int)(at / c % width), y = (int)(at / c / width);
  const float* line = mid + (long long)y * source_width * c + channel;
  float part[4] = {0.f, 0.f, 0.f, 0.f};
  for (int t = 0; t < taps; t += 4)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int from = start[x] + t + i;
      part[i] += (from < source_width ? line[(long long)from * c] : 0.f) * weight[(long long)x * taps + t + i];
    }
  out[at] = (part[0] + part[1]) + (part[2] + part[3]);
}

extern "C" __global__ void __launch_bounds__(256)
resize_bilinear(const float* __restrict__ in, float* __restrict__ out, const int* __restrict__ low_y,
                const int* __restrict__ high_y, const float* __restrict__ weight_y, const int* __restrict__ low_x,
                const int* __restrict__ high_x, const float* __restrict__ weight_x, int n, int h, int w, int c, int out_h,
                int out_w, int pitch, int offset) {
  const long long at = blockIdx.x * 256ll + threadIdx.x;
  if (at >= (long long)n * out_h * out_w * c) return;
  const int channel = (int)(at % c), x = (int)(at / c % out_w), y = (int)(at / c / out_w % out_h);
  const long long image = at / c / out_w / out_h;
  const float* top = in + ((image * h + low_y[y]) * w) * c + channel;
  const float* bottom = in + ((image * h + high_y[y]) * w) * c + channel;
  const long long left = (long long)low_x[x] * c, right = (long long)high_x[x] * c;
  const float a = resize::mix(top[left], bottom[left], weight_y[y]), b = resize::mix(top[right], bottom[right], weight_y[y]);
  out[at / c * pitch + offset + channel] = resize::mix(a, b, weight_x[x]);
}
