// Convolutions to the bit: one chain of sums in the order of the depth, then bias, residual, activation, one rounding. (The
// emulated tensor core adds products one by one in f32, and products of fp16 are exact there.)
#include "check.h"
#include "conv.cu"

struct Case { int n, h, w, c, o, kh, kw, sy, sx, top, left, bottom, right, act; bool residual; };

static float act64(double v, int act) {
  const double six = std::min(std::max(v + 3, 0.0), 6.0) / 6;
  switch (act) {
    case ACT_RELU: return (float)std::max(v, 0.0);
    case ACT_RELU6: return (float)std::min(std::max(v, 0.0), 6.0);
    case ACT_HARD_SWISH: return (float)(v * six);
    case ACT_SILU: return (float)(v / (1 + std::exp(-v)));
    case ACT_SIGMOID: return (float)(1 / (1 + std::exp(-v)));
    case ACT_HARD_SIGMOID: return (float)six;
    default: return (float)v;
  }
}

// Sums before the activation, from numbers as they are stored.
static std::vector<float> sums(const Case& t, int oh, int ow, const std::vector<float>& in, const std::vector<float>& weight,
                               const std::vector<float>& bias, const std::vector<float>& residual, bool fused) {
  std::vector<float> out;
  for (int i = 0; i < t.n; i++)
    for (int y = 0; y < oh; y++)
      for (int x = 0; x < ow; x++)
        for (int o = 0; o < t.o; o++) {
          float sum = 0;
          for (int ky = 0; ky < t.kh; ky++)
            for (int kx = 0; kx < t.kw; kx++) {
              const int v = y * t.sy - t.top + ky, u = x * t.sx - t.left + kx;
              if (v < 0 || v >= t.h || u < 0 || u >= t.w) continue;
              for (int c = 0; c < t.c; c++) {
                const float a = in[(((size_t)i * t.h + v) * t.w + u) * t.c + c];
                const float b = weight[(((size_t)ky * t.kw + kx) * t.c + c) * t.o + o];
                sum = fused ? std::fmaf(a, b, sum) : sum + a * b;
              }
            }
          sum += bias[o];
          const float other = t.residual ? residual[out.size()] : 0;
          sum = t.act != ACT_MASK ? sum + other : other > 0 ? sum : 0;
          out.push_back(sum);
        }
  return out;
}

static std::vector<uint16_t> halves(std::vector<float>& v) {
  std::vector<uint16_t> bits;
  for (float& x : v) {
    bits.push_back(float_to_half(x));
    x = half_to_float(bits.back());
  }
  return bits;
}

static void compare(const char* kernel, const Case& t, unsigned seed, const std::vector<float>& sum, auto got, bool half) {
  for (size_t i = 0; i < sum.size(); i++) {
    const float v = got(i), exact = activate(sum[i], t.act);
    const float wanted = half ? half_to_float(float_to_half(exact)) : exact;
    if (v != wanted) check::fail("%s %dx%dx%dx%d to %d, %dx%d, seed %u at %zu: got %.9g, wanted %.9g", kernel, t.n, t.h, t.w, t.c, t.o, t.kh, t.kw, seed, i, v, wanted);
    check::near("activation", exact, act64(sum[i], t.act), 1e-6, 1e-7);
  }
}

static void one(const Case& t, unsigned seed) {
  const int oh = (t.h + t.top + t.bottom - t.kh) / t.sy + 1, ow = (t.w + t.left + t.right - t.kw) / t.sx + 1;
  const int m = t.n * oh * ow, deep = t.kh * t.kw * t.c, depth = (deep + 31) / 32 * 32;
  auto in = check::uniform((size_t)t.n * t.h * t.w * t.c, 1), weight = check::uniform((size_t)deep * t.o, 2);
  auto bias = check::uniform(t.o, 3), residual = check::uniform((size_t)m * t.o, 4);
  for (float& v : bias) v *= 8;  // so that every part of an activation is reached
  {
    const auto sum = sums(t, oh, ow, in, weight, bias, residual, true);
    check::Buffer<float> id(in), wd(weight), bd(bias), rd(residual);
    for (int side : {128, 64}) {
      check::Buffer<float> out(sum.size());
      emu::launch({check::ceil_div(m, side), check::ceil_div(t.o, side)}, 256, 16896, [&] {
        (side == 128 ? conv_f32_128 : conv_f32_64)(id.data(), wd.data(), bd.data(), t.residual ? rd.data() : nullptr, out.data(), m, t.h, t.w, t.c,
                                                   oh, ow, t.o, t.kh, t.kw, t.sy, t.sx, t.top, t.left, t.act);
      });
      compare(side == 128 ? "f32_128" : "f32_64", t, seed, sum, [&](size_t i) { return out[i]; }, false);
    }
  }
  if (t.c % 8 || t.o % 8) return;
  auto ih = halves(in), rh = halves(residual), wh = halves(weight);
  std::vector<uint16_t> packed((size_t)t.o * depth, 0);
  for (int k = 0; k < deep; k++)
    for (int o = 0; o < t.o; o++) packed[(size_t)o * depth + k] = wh[(size_t)k * t.o + o];
  const auto sum = sums(t, oh, ow, in, weight, bias, residual, false);
  check::Buffer<uint16_t> id(ih), wd(packed), rd(rh);
  check::Buffer<float> bd(bias);
  auto run = [&]<class Tile>(const char* name, auto kernel, Tile) {
    check::Buffer<uint16_t> out(sum.size());
    const int shared = Tile::STAGES * Tile::STAGE;
    emu::launch({check::ceil_div(m, Tile::ROWS), check::ceil_div(t.o, Tile::COLUMNS)}, Tile::THREADS, shared, [&] {
      kernel(id.data(), wd.data(), bd.data(), t.residual ? rd.data() : nullptr, out.data(), m, t.h, t.w, t.c, oh, ow, t.o, t.kh, t.kw, t.sy, t.sx,
             t.top, t.left, depth, t.act);
    });
    compare(name, t, seed, sum, [&](size_t i) { return half_to_float(out[i]); }, true);
  };
  using conv::Large, conv::Small;
  run("f16_128", conv_f16_128, Large());
  run("f16_64", conv_f16_64, Small());
  if (t.kh != 1 || t.kw != 1 || t.sy != 1 || t.sx != 1 || t.top || t.left || t.bottom || t.right) return;
  run("f16_point_128", conv_f16_point_128, Large());
  run("f16_point_64", conv_f16_point_64, Small());
}

int main() {
  const Case cases[] = {
      {1, 1, 1, 8, 8, 1, 1, 1, 1, 0, 0, 0, 0, ACT_NONE, false},
      {2, 9, 13, 16, 24, 3, 3, 1, 1, 1, 1, 1, 1, ACT_RELU, true},
      {1, 15, 11, 8, 64, 7, 7, 2, 2, 3, 3, 3, 3, ACT_RELU, false},
      {1, 12, 12, 40, 136, 1, 1, 1, 1, 0, 0, 0, 0, ACT_HARD_SWISH, true},
      {3, 7, 7, 72, 16, 1, 1, 2, 2, 0, 0, 0, 0, ACT_SILU, false},
      {1, 6, 5, 4, 12, 3, 2, 2, 1, 0, 1, 1, 0, ACT_RELU6, true},
      {1, 5, 28, 48, 72, 3, 5, 1, 2, 1, 2, 0, 1, ACT_SIGMOID, true},
      {2, 7, 6, 16, 24, 3, 3, 1, 1, 1, 1, 1, 1, ACT_MASK, true},
      {5, 6, 5, 160, 8, 1, 1, 1, 1, 0, 0, 0, 0, ACT_HARD_SIGMOID, false},
  };
  check::schedules(3, [&](unsigned seed) {
    for (const Case& t : cases) one(t, seed);
  });
  return check::result("conv");
}
