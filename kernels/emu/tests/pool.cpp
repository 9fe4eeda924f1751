// Maps in and out, pooling and gates, to the bit; NaN and borders included.
#include "check.h"
#include "pool.cu"

template <class T> static float value(T v) {
  if constexpr (sizeof(T) == 2) return half_to_float(v);
  else return v;
}
template <class T> static T bits(float v) {
  if constexpr (sizeof(T) == 2) return float_to_half(v);
  else return v;
}
template <class T> static std::vector<T> stored(const std::vector<float>& v) {
  std::vector<T> out;
  for (float x : v) out.push_back(bits<T>(x));
  return out;
}
static bool same(float a, float b) { return a == b || (a != a && b != b); }
static unsigned seed;

template <class T> static void maps(int pixels, int c, int wide, auto pack, auto unpack) {
  const auto in = check::uniform((size_t)pixels * c, 5);
  check::Buffer<float> id(in), back((size_t)pixels * c);
  check::Buffer<T> mid((size_t)pixels * wide);
  const unsigned blocks = check::ceil_div((size_t)pixels * wide / Pack<T>::N, 256);
  emu::launch(blocks, 256, 0, [&] { pack(id.data(), mid.data(), pixels, c, wide); });
  emu::launch(blocks, 256, 0, [&] { unpack(mid.data(), back.data(), pixels, c, wide); });
  for (int p = 0; p < pixels; p++)
    for (int e = 0; e < wide; e++) {
      const float wanted = e < c ? value(bits<T>(in[p * c + e])) : 0.f;
      if (value(mid[p * wide + e]) != wanted || (e < c && back[p * c + e] != wanted)) check::fail("maps %d %d seed %u at %d,%d", c, wide, seed, p, e);
    }
}

template <class T> static void windows(int n, int h, int w, int c, int kh, int kw, int sy, int sx, const int (&pad)[4], bool all, unsigned rows, auto most, auto mean) {
  const int oh = (h + pad[0] + pad[2] - kh) / sy + 1, ow = (w + pad[1] + pad[3] - kw) / sx + 1;
  auto in = stored<T>(check::uniform((size_t)n * h * w * c, 6));
  in[in.size() / 2] = bits<T>(std::numeric_limits<float>::quiet_NaN());
  const size_t values = (unsigned)(n * oh * ow * c);
  check::Buffer<T> id(in), largest(values), average(values);
  const dim3 grid(check::ceil_div((size_t)ow * c / Pack<T>::N, 256), rows);
  emu::launch(grid, 256, 0, [&] { most(id.data(), largest.data(), n, h, w, c, oh, ow, kh, kw, sy, sx, pad[0], pad[1], 0); });
  emu::launch(grid, 256, 0, [&] { mean(id.data(), average.data(), n, h, w, c, oh, ow, kh, kw, sy, sx, pad[0], pad[1], all); });
  size_t at = 0;
  for (int i = 0; i < n; i++)
    for (int y = 0; y < oh; y++)
      for (int x = 0; x < ow; x++)
        for (int e = 0; e < c; e++, at++) {
          float best = -INFINITY, sum = 0;
          int inside = 0;
          for (int ky = 0; ky < kh; ky++)
            for (int kx = 0; kx < kw; kx++) {
              const int v = y * sy - pad[0] + ky, u = x * sx - pad[1] + kx;
              if (v < 0 || v >= h || u < 0 || u >= w) continue;
              const float one = value(in[(((size_t)i * h + v) * w + u) * c + e]);
              best = one > best || one != one ? one : best;
              sum += one;
              inside++;
            }
          if (!same(value(largest[at]), best)) check::fail("max %dx%dx%dx%d seed %u at %d,%d,%d,%d: got %.9g, wanted %.9g", n, h, w, c, seed, i, y, x, e, value(largest[at]), best);
          const float wanted = value(bits<T>(sum * (1.f / (float)(all ? kh * kw : inside))));
          if (!same(value(average[at]), wanted)) check::fail("mean %dx%dx%dx%d seed %u at %d,%d,%d,%d: got %.9g, wanted %.9g", n, h, w, c, seed, i, y, x, e, value(average[at]), wanted);
        }
}

template <class T> static void gates(int n, int positions, int c, int reduced, unsigned rows, auto mean, auto scale) {
  constexpr int N = Pack<T>::N;
  const auto in = stored<T>(check::uniform((size_t)n * positions * c, 7));
  const auto weight = check::uniform((size_t)reduced * c, 8), bias = check::uniform(reduced, 9);
  check::Buffer<T> id(in), out(in.size()), place(in);
  check::Buffer<float> wd(weight), bd(bias), means((size_t)n * c), hidden((size_t)n * reduced);
  emu::launch({check::ceil_div(c, 8 * N), rows}, 256, 1024 * N, [&] { mean(id.data(), means.data(), n, positions, c); });
  emu::launch({check::ceil_div(reduced, 8), rows}, 256, 0, [&] { gate_dense(means.data(), wd.data(), bd.data(), hidden.data(), n, c, reduced, ACT_RELU); });
  const dim3 grid(check::ceil_div((size_t)positions * c / N, 256), rows);
  emu::launch(grid, 256, 0, [&] { scale(id.data(), means.data(), out.data(), n, positions, c); });
  emu::launch(grid, 256, 0, [&] { scale((const T*)nullptr, means.data(), place.data(), n, positions, c); });
  for (int i = 0; i < n; i++) {
    for (int e = 0; e < c; e++) {
      float part[32] = {}, sum = 0;
      for (int p = 0; p < positions; p++) part[p % 32] += value(in[((size_t)i * positions + p) * c + e]);
      for (float v : part) sum += v;
      if (means[i * c + e] != sum / (float)positions) check::fail("global mean %d of %d seed %u at %d,%d", positions, c, seed, i, e);
      for (int p = 0; p < positions; p++) {
        const size_t at = ((size_t)i * positions + p) * c + e;
        const float wanted = value(bits<T>(value(in[at]) * means[i * c + e]));
        if (value(out[at]) != wanted || value(place[at]) != wanted) check::fail("scale %d of %d seed %u at %d,%d,%d", positions, c, seed, i, p, e);
      }
    }
    for (int r = 0; r < reduced; r++) {
      float part[32] = {};
      for (int e = 0; e < c; e++) part[e % 32] = std::fmaf(weight[(size_t)r * c + e], means[i * c + e], part[e % 32]);
      for (int width = 16; width; width /= 2)
        for (int l = 0; l < width; l++) part[l] += part[l + width];
      if (hidden[i * reduced + r] != std::max(part[0] + bias[r], 0.f)) check::fail("dense %d to %d seed %u at %d,%d", c, reduced, seed, i, r);
    }
  }
}

int main() {
  check::schedules(3, [](unsigned s) {
    seed = s;
    maps<float>(7, 3, 4, map_pack_f32, map_unpack_f32);
    maps<uint16_t>(300, 3, 8, map_pack_f16, map_unpack_f16);
    maps<uint16_t>(5, 16, 16, map_pack_f16, map_unpack_f16);
    maps<float>(70, 12, 12, map_pack_f32, map_unpack_f32);
    windows<float>(2, 7, 9, 8, 3, 3, 2, 2, {1, 1, 1, 1}, false, 8, max_pool_f32, avg_pool_f32);
    windows<uint16_t>(3, 8, 40, 64, 3, 3, 2, 2, {1, 1, 1, 1}, true, 5, max_pool_f16, avg_pool_f16);
    windows<uint16_t>(1, 5, 6, 8, 2, 4, 1, 3, {0, 3, 1, 0}, false, 4, max_pool_f16, avg_pool_f16);
    gates<float>(2, 49, 100, 9, 2, global_mean_f32, gate_scale_f32);
    gates<uint16_t>(5, 33, 72, 6, 2, global_mean_f16, gate_scale_f16);
    gates<uint16_t>(1, 1, 8, 1, 1, global_mean_f16, gate_scale_f16);
  });
  return check::result("pool");
}
