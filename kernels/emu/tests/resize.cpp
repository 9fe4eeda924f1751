// Resizing: the CPU's order of sums to the bit and f64 within rounding, for tables of any shape.
#include "check.h"
#include "resize.cu"

struct Taps { std::vector<int> start, count; std::vector<float> weight; int width; };

// Any taps inside 0..in: what the host makes is tested there.
static Taps taps(int in, int out, uint64_t seed) {
  check::Random r(seed);
  Taps t;
  int most = 0;
  for (int i = 0; i < out; i++) {
    t.start.push_back(r.below(in));
    t.count.push_back(1 + r.below(in - t.start[i]));
    most = std::max(most, t.count[i]);
  }
  t.width = (most + 3) / 4 * 4;
  for (int i = 0; i < out; i++)
    for (int k = 0; k < t.width; k++) t.weight.push_back(k < t.count[i] ? r.uniform() + 0.6f : 0.f);
  return t;
}

template <class T, class Down> static void antialias(int h, int w, int c, int oh, int ow, unsigned seed, Down down) {
  check::Random r(h + w);
  std::vector<T> source((size_t)h * w * c);
  for (auto& v : source) v = (T)r.bits();
  const Taps rows = taps(h, oh, 5), columns = taps(w, ow, 6);
  check::Buffer<T> sd(source);
  std::vector<int> all;
  for (auto weights : {&rows.weight, &columns.weight})
    for (float v : *weights) all.push_back(__float_as_int(v));
  const int starts = all.size();
  for (auto ints : {&rows.start, &rows.count, &columns.start}) all.insert(all.end(), ints->begin(), ints->end());
  check::Buffer<int> tables(all);
  check::Buffer<float> mid((size_t)oh * w * c), out((size_t)oh * ow * c);
  const unsigned wide = w * c % 4 ? 1 : 4, strips = (unsigned)std::min(oh, 7);
  emu::launch({check::ceil_div(w * c, 256 * wide), strips}, 256, 0,
              [&] { down(sd.data(), mid.data(), tables.data(), 0, starts, rows.width, oh, w * c); });
  emu::launch({check::ceil_div(ow * c, 256), strips}, 256, 0, [&] {
    resize_across(mid.data(), out.data(), tables.data(), rows.weight.size(), starts + 2 * oh, columns.width, oh, w, ow, c);
  });
  for (int y = 0; y < oh; y++)
    for (int x = 0; x < w * c; x++) {
      float sum = 0;
      for (int t = 0; t < rows.count[y]; t++) sum += rows.weight[y * rows.width + t] * (float)source[(size_t)(rows.start[y] + t) * w * c + x];
      if (mid[(size_t)y * w * c + x] != sum) check::fail("down %dx%dx%d seed %u at %d,%d", h, w, c, seed, y, x);
    }
  for (int y = 0; y < oh; y++)
    for (int x = 0; x < ow; x++)
      for (int e = 0; e < c; e++) {
        float part[4] = {};
        double sum = 0;
        for (int t = 0; t < columns.count[x]; t++) {
          const float weight = columns.weight[x * columns.width + t];
          part[t % 4] += mid[((size_t)y * w + columns.start[x] + t) * c + e] * weight;
          for (int u = 0; u < rows.count[y]; u++)
            sum += (double)weight * rows.weight[y * rows.width + u] * source[((size_t)(rows.start[y] + u) * w + columns.start[x] + t) * c + e];
        }
        const float got = out[((size_t)y * ow + x) * c + e];
        if (got != (part[0] + part[1]) + (part[2] + part[3])) check::fail("across %dx%dx%d seed %u at %d,%d,%d", h, w, c, seed, y, x, e);
        check::near("resize against f64", got, sum, 1e-5, 0);
      }
}

static void bilinear(int n, int h, int w, int c, int oh, int ow, int pitch, int offset, int run, unsigned seed) {
  check::Random r(w);
  auto in = check::uniform((size_t)n * h * w * c, 9);
  std::vector<int> low[2], high[2];
  std::vector<float> weight[2];
  for (int axis = 0; axis < 2; axis++)
    for (int i = 0; i < (axis ? ow : oh); i++) {
      // Some of the pixels share columns with the one before.
      const bool same = i > 0 && r.below(2);
      low[axis].push_back(same ? r.below(2) ? low[axis][i - 1] : high[axis][i - 1] : r.below(axis ? w : h));
      high[axis].push_back(same && r.below(2) ? high[axis][i - 1] : r.below(axis ? w : h));
      weight[axis].push_back(r.uniform() + 0.5f);
    }
  check::Buffer<float> id(in), wy(weight[0]), wx(weight[1]), out((size_t)n * oh * ow * pitch, -7.f);
  check::Buffer<int> ly(low[0]), hy(high[0]), lx(low[1]), hx(high[1]);
  const int pieces = (c | pitch | offset) & 3 ? c : c / 4;
  const dim3 grid(check::ceil_div((size_t)pieces * check::ceil_div(ow, run), 256), std::min<unsigned>(3, n * check::ceil_div(oh, resize::ROWS)));
  emu::launch(grid, 256, 0, [&] {
    resize_bilinear(id.data(), out.data(), ly.data(), hy.data(), wy.data(), lx.data(), hx.data(), wx.data(), n, h, w, c, oh, ow, pitch, offset, run);
  });
  auto mix = [](float a, float b, float t) { return (1.f - t) * a + t * b; };
  for (int i = 0; i < n; i++)
    for (int y = 0; y < oh; y++)
      for (int x = 0; x < ow; x++)
        for (int e = 0; e < pitch; e++) {
          auto at = [&](int v, int u) { return in[(((size_t)i * h + v) * w + u) * c + e - offset]; };
          const bool own = e >= offset && e < offset + c;
          const float wanted = !own ? -7.f
                                    : mix(mix(at(low[0][y], low[1][x]), at(high[0][y], low[1][x]), weight[0][y]),
                                          mix(at(low[0][y], high[1][x]), at(high[0][y], high[1][x]), weight[0][y]), weight[1][x]);
          const float got = out[(((size_t)i * oh + y) * ow + x) * pitch + e];
          if (got != wanted) check::fail("bilinear %dx%dx%dx%d seed %u at %d,%d,%d,%d: got %.9g, wanted %.9g", n, h, w, c, seed, i, y, x, e, got, wanted);
        }
}

int main() {
  check::schedules(3, [](unsigned seed) {
    antialias<uint8_t>(37, 23, 3, 9, 14, seed, resize_down_u8);
    antialias<uint8_t>(1, 1, 1, 3, 2, seed, resize_down_u8);
    antialias<uint8_t>(19, 100, 3, 8, 30, seed, resize_down_u8);
    antialias<uint16_t>(15, 16, 1, 4, 5, seed, resize_down_u16);
    antialias<uint16_t>(12, 41, 1, 20, 7, seed, resize_down_u16);
    bilinear(2, 5, 7, 3, 9, 11, 3, 0, 1, seed);
    bilinear(1, 3, 2, 5, 4, 4, 9, 2, 3, seed);
    bilinear(1, 1, 1, 1, 1, 3, 1, 0, 1, seed);
    bilinear(2, 3, 4, 8, 7, 9, 16, 4, 4, seed);
    bilinear(1, 2, 6, 132, 3, 12, 132, 0, 16, seed);
  });
  return check::result("resize");
}
