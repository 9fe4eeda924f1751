// The fit of PaDiM against f64: means, sums and inverse factors, one level and nested, f32 and f64 totals, odd sizes.
#include "layout.h"
#include "moments.cu"

typedef std::vector<double> Matrix;  // [d, d]

// The inverse Cholesky factor of the covariance at a position, the plain way.
static Matrix wanted_factor(const Layout& l, int y, int x, double epsilon, std::vector<double>& mean) {
  const int d = l.d;
  mean.assign(d, 0);
  for (int j = 0; j < d; j++)
    for (int i = 0; i < l.n; i++) mean[j] += l.delta(i, y, x, j) / l.n;
  Matrix c(d * d), w(d * d, 0);
  for (int r = 0; r < d; r++)
    for (int k = 0; k <= r; k++) {
      double sum = 0;
      for (int i = 0; i < l.n; i++) sum += (l.delta(i, y, x, r) - mean[r]) * (l.delta(i, y, x, k) - mean[k]);
      c[r * d + k] = sum / (l.n - 1) + (r == k ? epsilon : 0);
    }
  for (int j = 0; j < d; j++) {
    for (int k = 0; k < j; k++) c[j * d + j] -= c[j * d + k] * c[j * d + k];
    c[j * d + j] = sqrt(c[j * d + j]);
    for (int r = j + 1; r < d; r++) {
      for (int k = 0; k < j; k++) c[r * d + j] -= c[r * d + k] * c[j * d + k];
      c[r * d + j] /= c[j * d + j];
    }
  }
  for (int j = 0; j < d; j++)
    for (int r = j; r < d; r++) {
      double v = r == j;
      for (int k = j; k < r; k++) v -= c[r * d + k] * w[k * d + j];
      w[r * d + j] = v / c[r * d + r];
    }
  return w;
}

#define TABLES MAPS, shape.data(), channel.data(), mean_at.data(), rows.data(), area.data(), ancestor.data()

template <class Total> static void run(Layout& l, unsigned seed) {
  std::vector<std::unique_ptr<check::Buffer<float>>> md;
  for (auto& m : l.maps) md.push_back(std::make_unique<check::Buffer<float>>(m));
  check::Buffer<int> shape(l.shape), rows(l.mean_rows);
  check::Buffer<uint32_t> channel(l.channel);
  check::Buffer<uint64_t> mean_at(l.mean_at);
  check::Buffer<float> shift(l.mean.size());
  check::Buffer<double> sums(std::vector<double>(l.mean.size()));
  const int levels = (int)l.levels.size(), batch = std::min(l.n, 5), part = l.n > 40 ? 8 : 1;
  const double epsilon = 0.05;
  std::vector<double> constant = {(double)l.n, epsilon, 1. / l.n, 1. / (l.n - 1)};
  check::Buffer<double> constants(constant);
  std::vector<int> start = {0};
  for (auto& level : l.levels) start.push_back(level.b);
  check::Buffer<int> starts(start);
  std::fill(l.mean.begin(), l.mean.end(), 0.f);  // so that delta() is the value itself
  std::vector<std::unique_ptr<check::Buffer<double>>> factors;
  check::Buffer<uint32_t> failed(1, 0u);
  const double tolerance = 2e-4;
  for (int k = 0; k < levels; k++) {
    const Level& level = l.levels[k];
    const int a = level.a, b = level.b, height = b - a;
    const size_t floats = (size_t)b * (b + 1) / 2 - (size_t)a * (a + 1) / 2;
    check::Buffer<int> area(level.area);
    check::Buffer<uint32_t> ancestor(l.ancestors(k));
    check::Buffer<Total> products(std::vector<Total>(level.groups * moments::totals(a, b)));
    const int pitch = a + (height + 15) / 16 * 16;
    emu::launch(level.groups, 256, 0, [&] { moments_shift(TABLES, shift.data(), k, a, b, batch, l.grid_h, l.grid_w); });
    for (int first = 0; first < l.n; first += 4 * part) {
      auto add = [&] {
        if constexpr (sizeof(Total) == 4)
          moments_add_f32(TABLES, shift.data(), sums.data(), products.data(), k, levels, a, b, first, l.n, part, l.grid_h, l.grid_w);
        else
          moments_add_f64(TABLES, shift.data(), sums.data(), products.data(), k, levels, a, b, first, l.n, part, l.grid_h, l.grid_w);
      };
      emu::launch(dim3(level.groups, 2), 256, 16 * part * pitch, add);
    }
    // In two halves, the second of which begins elsewhere in the rows.
    const int half = (level.groups + 1) / 2;
    auto all = std::make_unique<check::Buffer<double>>((size_t)level.groups * height * b);
    check::Buffer<float> weight(level.groups * floats);
    auto above = [&](size_t i) { return i < factors.size() ? factors[i]->data() : nullptr; };
    for (int from = 0; from < level.groups; from += half) {
      const int count = std::min(half, level.groups - from);
      check::Buffer<double> scratch((size_t)count * 32 * b);
      emu::launch(dim3(count, 2), 256, 0, [&] {
        if constexpr (sizeof(Total) == 4)
          moments_covariance_f32(products.data(), sums.data(), channel.data(), mean_at.data(), rows.data(), ancestor.data(),
                                 constants.data(), all->data(), levels, a, b, from, from);
        else
          moments_covariance_f64(products.data(), sums.data(), channel.data(), mean_at.data(), rows.data(), ancestor.data(),
                                 constants.data(), all->data(), levels, a, b, from, from);
      });
      emu::launch(count, 128, 34816, [&] {
        moments_factor(above(0), above(1), above(2), starts.data(), ancestor.data(), all->data(), scratch.data(), failed.data(), k,
                       levels, a, b, from, from);
      });
      emu::launch(dim3(count, 2), 256, 4160, [&] { moments_pack(all->data(), weight.data(), a, b, from, from, (int)floats); });
    }
    std::vector<bool> seen(level.groups);
    for (int p = 0; p < l.grid_h * l.grid_w; p++) {
      const uint32_t g = l.group_of[k][p];
      if (seen[g]) continue;
      seen[g] = true;
      std::vector<double> mean;
      const int d = l.d, y = p / l.grid_w, x = p % l.grid_w;
      const Matrix w = wanted_factor(l, y, x, epsilon, mean);
      for (int r = a; r < b; r++) {
        const size_t at = l.mean_at[k] + (size_t)g * height + r - a;
        check::near("mean", shift[at] + sums[at] / l.n, mean[r], 1e-6, 1e-6);
        double first = 0;
        for (int i = 0; i < batch; i++) first += l.delta(i, y, x, r) / batch;
        check::near("shift", shift[at], first, 1e-6, 1e-6);
        double largest = 0;
        for (int c = 0; c <= r; c++) largest = std::max(largest, std::fabs(w[r * d + c]));
        for (int c = 0; c <= r; c++)
          check::near("factor", weight[g * floats + packed(a, b, r, c)], w[r * d + c], 0, tolerance * largest);
        for (int c = r + 1; c < b; c++)
          if ((*all)[((size_t)g * height + r - a) * b + c] != 0) check::fail("beyond the diagonal: row %d, column %d", r, c);
      }
      if (check::failures) check::fail("  d %d level %d pictures %d seed %u group %u", l.d, k, l.n, seed, g);
    }
    factors.push_back(std::move(all));
  }
  if (failed[0]) check::fail("a covariance failed");
}

int main() {
  struct Case { std::vector<std::vector<int>> shapes; std::vector<int> counts; int n; bool nested; };
  const Case all[] = {
      {{{1, 1, 1}}, {1}, 2, false},
      {{{2, 3, 20}}, {17}, 7, false},
      {{{2, 4, 30}, {1, 2, 50}, {1, 1, 70}}, {13, 40, 31}, 6, true},
      {{{1, 2, 30}, {1, 1, 70}}, {13, 70}, 45, false},
      {{{5, 3, 9}, {3, 2, 33}}, {9, 33}, 9, true},
      {{{1, 1, 250}}, {250}, 5, false},  // wide turns
  };
  for (auto& c : all)
    check::schedules(2, [&](unsigned seed) {
      Layout l = make(c.shapes, c.counts, c.n, c.nested);
      seed ? run<double>(l, seed) : run<float>(l, seed);
    });
  // A covariance that is not positive is told, with its group.
  Layout l = make({{1, 2, 3}}, {3}, 3, false);
  check::Buffer<double> rows(std::vector<double>{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 2, 1, 0, 0, 0, NAN}), scratch(2 * 32 * 3);
  check::Buffer<int> starts(std::vector<int>{0, 3});
  check::Buffer<uint32_t> ancestor(l.ancestors(0)), failed(1, 0u);
  emu::launch(2, 128, 34816, [&] {
    moments_factor(nullptr, nullptr, nullptr, starts.data(), ancestor.data(), rows.data(), scratch.data(), failed.data(), 0, 1, 0, 3, 0, 0);
  });
  if (failed[0] != 2) check::fail("the second group fails, told was %u", failed[0]);
  return check::result("moments");
}
