// The layer norm over whole maps against f64, its split into halves, and the gradients of its weight and bias.
#include "check.h"
#include "norm.cu"

struct Case { int n, pixels, c, parts; bool chosen, norm, add; };

static void one(const Case& t, unsigned seed) {
  const int values = t.pixels * t.c, c1 = t.c - t.c / 2, c2 = t.c / 2, p1 = c1 + (t.c % 16 ? 3 : 4), p2 = c2 + (t.c % 16 ? 1 : 4), maps = t.n + 4, turn = 2;
  auto x = check::uniform((size_t)maps * values, 1), weight = check::uniform(values, 2), bias = check::uniform(values, 3);
  for (float& v : x) v = v * 3 + 7;
  std::vector<uint32_t> which((turn + 1) * t.n, 1000000);
  for (int i = 0; i < t.n; i++) which[turn * t.n + i] = (uint32_t)(maps - 1 - i);
  check::Buffer<float> xd(x), wd(weight), bd(bias), x1((size_t)t.n * t.pixels * p1, 5.f), x2((size_t)t.n * t.pixels * p2, 5.f);
  check::Buffer<uint32_t> table(which), at(std::vector<uint32_t>{(uint32_t)turn});
  check::Buffer<double> sums((size_t)t.n * t.parts), squares((size_t)t.n * t.parts), moments(2 * t.n);
  const uint32_t* chosen = t.chosen ? table.data() : nullptr;
  const unsigned high = t.n > 2 ? t.n - 1 : t.n;  // a grid smaller than the batch
  if (t.norm)
    for (int pass = 0; pass < 2; pass++)
      emu::launch({(unsigned)t.parts, high}, 256, 2064, [&] {
        norm_sums(xd.data(), chosen, at.data(), t.n, pass ? sums.data() : nullptr, pass ? squares.data() : sums.data(), t.n, values);
      });
  emu::launch({check::ceil_div(values, 4096), high}, 256, 16 + 16 * t.parts, [&] {
    norm_apply(xd.data(), chosen, at.data(), t.n, t.norm ? sums.data() : nullptr, squares.data(), wd.data(), bd.data(), moments.data(),
               x1.data(), x2.data(), t.n, values, t.parts, t.c, p1, p2);
  });
  auto g1 = check::uniform(x1.n, 4), g2 = check::uniform(x2.n, 5), before = check::uniform(2 * (size_t)values, 6);
  std::vector<double> by_weight(before.begin(), before.begin() + values), by_bias(before.begin() + values, before.end());
  if (!t.add) by_weight.assign(values, 0), by_bias.assign(values, 0);
  for (int i = 0; i < t.n; i++) {
    const float* own = x.data() + (size_t)(t.chosen ? maps - 1 - i : i) * values;
    double mean = 0, square = 0;
    for (int e = 0; e < values; e++) mean += own[e] / (double)values;
    for (int e = 0; e < values; e++) square += (own[e] - mean) * (own[e] - mean) / (double)values;
    const double inverse = 1 / std::sqrt(square + 1e-5);
    if (t.norm) {
      check::near("mean", moments[2 * i], mean, 1e-13, 1e-13);
      check::near("deviation", moments[2 * i + 1], inverse, 1e-12, 0);
    }
    for (int e = 0; e < values; e++) {
      const int row = i * t.pixels + e / t.c, channel = e % t.c;
      const bool first = channel < c1;
      const size_t to = first ? (size_t)row * p1 + channel : (size_t)row * p2 + channel - c1;
      const float y = (float)((own[e] - moments[2 * i]) * moments[2 * i + 1]), got = first ? x1[to] : x2[to];
      const float wanted = t.norm ? y * weight[e] + bias[e] : own[e];
      if (got != wanted) check::fail("%d pixels of %d, seed %u, picture %d at %d: got %.9g, wanted %.9g", t.pixels, t.c, seed, i, e, got, wanted);
      by_weight[e] += (first ? g1[to] : g2[to]) * (double)y, by_bias[e] += first ? g1[to] : g2[to];
    }
    for (int p = i * t.pixels; p < (i + 1) * t.pixels; p++) {
      for (int e = c1; e < p1; e++)
        if (x1[(size_t)p * p1 + e] != 5) check::fail("beyond the first half");
      for (int e = c2; e < p2; e++)
        if (x2[(size_t)p * p2 + e] != 5) check::fail("beyond the second half");
    }
  }
  if (!t.norm) return;
  check::Buffer<float> g1d(g1), g2d(g2), own(std::vector<float>(before.begin(), before.begin() + values)),
      sum(std::vector<float>(before.begin() + values, before.end()));
  emu::launch(check::ceil_div(values, 256), 256, 0, [&] {
    norm_gradient(xd.data(), chosen, at.data(), t.n, moments.data(), g1d.data(), g2d.data(), own.data(), sum.data(), t.n, values,
                  t.c, p1, p2, t.add);
  });
  for (int e = 0; e < values; e++) {
    check::near("gradient of a weight", own[e], by_weight[e], 1e-6, 1e-6);
    check::near("gradient of a bias", sum[e], by_bias[e], 1e-6, 1e-6);
  }
}

int main() {
  const Case cases[] = {
      {1, 1, 2, 1, false, true, false}, {2, 20, 7, 3, true, true, true},  {3, 300, 8, 4, true, true, false}, {4, 33, 64, 5, false, true, true},
      {2, 9, 5, 1, true, false, false}, {5, 2, 3, 4, false, true, false},
      {1, 70, 64, 2, false, true, false}, {2, 1400, 3, 2, false, true, false}, {2, 9, 16, 1, false, false, false},
  };
  check::schedules(3, [&](unsigned seed) {
    for (const Case& t : cases) one(t, seed);
  });
  return check::result("norm");
}
