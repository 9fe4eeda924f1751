// Gradients of convolutions' weights to the bit: chains of fused multiply-adds pixel by pixel, then the parts in their order; and
// the weight of the way back.
#include "check.h"
#include "window.cu"

struct Case { int n, h, w, ci, co, k, each; bool add; };

static void one(const Case& t, unsigned seed) {
  const int rows = t.n * t.h * t.w, m = t.k * t.k * t.ci, half = t.k / 2, parts = (rows + t.each - 1) / t.each;
  auto x = check::uniform((size_t)rows * t.ci, 1), g = check::uniform((size_t)rows * t.co, 2);
  auto before = check::uniform((size_t)m * t.co, 3);
  std::vector<float> wanted, each((size_t)parts * m * t.co);
  for (int z = 0; z < parts; z++)
    for (int r = 0; r < m; r++)
      for (int o = 0; o < t.co; o++) {
        const int tap = r / t.ci, dy = tap / t.k - half, dx = tap % t.k - half;
        float sum = 0;
        for (int p = z * t.each; p < std::min(rows, (z + 1) * t.each); p++) {
          const int y = p / t.w % t.h + dy, u = p % t.w + dx;
          if (y < 0 || y >= t.h || u < 0 || u >= t.w) continue;
          sum = std::fmaf(x[(size_t)(p + dy * t.w + dx) * t.ci + r % t.ci], g[(size_t)p * t.co + o], sum);
        }
        each[((size_t)z * m + r) * t.co + o] = sum;
      }
  for (int e = 0; e < m * t.co; e++) {
    float sum = t.add ? before[e] : 0;
    for (int z = 0; z < parts; z++) sum += each[(size_t)z * m * t.co + e];
    wanted.push_back(sum);
  }
  check::Buffer<float> xd(x), gd(g);
  for (int side : {128, 64}) {
    check::Buffer<float> part(each.size()), out(before);
    emu::launch({check::ceil_div(m, side) * check::ceil_div(t.co, side), (unsigned)parts}, 256, 16384, [&] {
      (side == 128 ? window_128 : window_64)(xd.data(), gd.data(), part.data(), rows, t.h, t.w, t.ci, t.co, t.k, t.each);
    });
    emu::launch(check::ceil_div(m * t.co, 256), 256, 0, [&] { window_sum(part.data(), out.data(), m * t.co, parts, t.add); });
    for (int e = 0; e < m * t.co; e++)
      if (out[e] != wanted[e]) check::fail("window_%d of %dx%dx%dx%d to %d, %dx%d, seed %u at %d: got %.9g, wanted %.9g", side, t.n, t.h, t.w, t.ci, t.co, t.k, t.k, seed, e, out[e], wanted[e]);
  }
  const int taps = t.k * t.k;
  check::Buffer<float> weight(before), back(before.size());
  emu::launch({check::ceil_div(t.ci, 32) * check::ceil_div(t.co, 32), (unsigned)taps}, 256, 4224,
              [&] { window_turn(weight.data(), back.data(), taps, t.ci, t.co); });
  for (int tap = 0; tap < taps; tap++)
    for (int i = 0; i < t.ci; i++)
      for (int o = 0; o < t.co; o++)
        if (back[((size_t)(taps - 1 - tap) * t.co + o) * t.ci + i] != before[((size_t)tap * t.ci + i) * t.co + o])
          check::fail("turn of %d to %d, %d taps: tap %d, %d, %d", t.ci, t.co, taps, tap, i, o);
}

int main() {
  const Case cases[] = {
      {1, 1, 1, 4, 4, 1, 1, false},   {2, 5, 7, 12, 20, 3, 33, true},  {3, 4, 3, 16, 36, 3, 100, false}, {1, 9, 2, 4, 8, 5, 7, true},
      {2, 6, 9, 68, 132, 1, 40, true}, {1, 3, 20, 8, 72, 3, 60, false}, {5, 2, 2, 8, 4, 3, 9, false},
  };
  check::schedules(3, [&](unsigned seed) {
    for (const Case& t : cases) one(t, seed);
  });
  return check::result("window");
}
