// Mahalanobis distance against f64: one level and nested, low rank, odd grids, every remainder of rows and pictures.
#include "check.h"
#include "layout.h"
#include "mahalanobis.cu"

static void run(const Layout& l, int rank, unsigned seed) {
  std::vector<std::unique_ptr<check::Buffer<float>>> md;
  for (auto& m : l.maps) md.push_back(std::make_unique<check::Buffer<float>>(m));
  check::Buffer<int> shape(l.shape), rows(l.mean_rows);
  check::Buffer<uint32_t> channel(l.channel);
  check::Buffer<float> mean(l.mean);
  check::Buffer<uint64_t> mean_at(l.mean_at);
  const int levels = (int)l.levels.size();
  const size_t positions = (size_t)l.grid_h * l.grid_w;
  std::vector<double> wanted(l.n * positions, 0);
  check::Buffer<float> out(l.n * positions);
  std::unique_ptr<check::Buffer<float>> parents = std::make_unique<check::Buffer<float>>(1);
  for (int k = 0; k < levels && !rank; k++) {
    const Level& level = l.levels[k];
    const size_t floats = (size_t)level.b * (level.b + 1) / 2 - (size_t)level.a * (level.a + 1) / 2;
    auto w = check::uniform(level.groups * floats, 90 + k);
    check::Buffer<float> weight(w);
    auto sums = std::make_unique<check::Buffer<float>>((size_t)level.groups * l.n);
    check::Buffer<int> area(level.area);
    check::Buffer<uint32_t> ancestor(l.ancestors(k));
    emu::launch(dim3(level.groups, check::ceil_div(l.n, 4)), 256, 16 * level.b + 128, [&] {
      mahalanobis_triangle(MAPS, shape.data(), channel.data(), mean.data(), mean_at.data(), rows.data(), area.data(),
                           ancestor.data(), weight.data(), parents->data(), sums->data(), out.data(), k, levels, level.a,
                           level.b, l.n, l.grid_h, l.grid_w);
    });
    for (int i = 0; i < l.n; i++)
      for (size_t p = 0; p < positions; p++)
        for (int r = level.a; r < level.b; r++) {
          double z = 0;
          for (int c = 0; c <= r; c++)
            z += w[l.group_of[k][p] * floats + packed(level.a, level.b, r, c)] * l.delta(i, (int)p / l.grid_w, (int)p % l.grid_w, c);
          wanted[i * positions + p] += z * z;
        }
    parents = std::move(sums);
  }
  if (rank) {
    const Level& level = l.levels.back();
    // Orthonormal rows: of each group, by Gram-Schmidt in f64.
    std::vector<float> basis, scale = check::uniform((size_t)level.groups * rank, 5);
    for (auto& s : scale) s += 1.f;
    std::vector<double> exact;
    for (int g = 0; g < level.groups; g++) {
      std::vector<std::vector<double>> b;
      auto raw = check::uniform((size_t)rank * l.d, 300 + g);
      for (int r = 0; r < rank; r++) {
        std::vector<double> v(raw.begin() + r * l.d, raw.begin() + (r + 1) * l.d);
        for (int twice = 0; twice < 2; twice++)
          for (auto& u : b) {
            double dot = 0;
            for (int j = 0; j < l.d; j++) dot += u[j] * v[j];
            for (int j = 0; j < l.d; j++) v[j] -= dot * u[j];
          }
        double norm = 0;
        for (double e : v) norm += e * e;
        for (auto& e : v) e /= sqrt(norm);
        b.push_back(v);
        for (double e : v) basis.push_back((float)e), exact.push_back(e);
      }
    }
    const float epsilon = 0.25f;
    check::Buffer<float> bd(basis), sd(scale);
    check::Buffer<int> area(level.area);
    check::Buffer<uint32_t> ancestor(l.ancestors(levels - 1));
    emu::launch(dim3(level.groups, check::ceil_div(l.n, 4)), 128, 16 * l.d, [&] {
      mahalanobis_low_rank(MAPS, shape.data(), channel.data(), mean.data(), mean_at.data(), rows.data(), area.data(),
                           ancestor.data(), bd.data(), sd.data(), out.data(), epsilon, rank, levels, l.d, l.n, l.grid_h, l.grid_w);
    });
    for (int i = 0; i < l.n; i++)
      for (size_t p = 0; p < positions; p++) {
        const size_t g = l.group_of.back()[p];
        double rest = 0, sum = 0;
        for (int j = 0; j < l.d; j++) rest += pow(l.delta(i, (int)p / l.grid_w, (int)p % l.grid_w, j), 2);
        for (int r = 0; r < rank; r++) {
          double c = 0;
          for (int j = 0; j < l.d; j++) c += exact[(g * rank + r) * l.d + j] * l.delta(i, (int)p / l.grid_w, (int)p % l.grid_w, j);
          sum += scale[g * rank + r] * c * c, rest -= c * c;
        }
        wanted[i * positions + p] = sum + rest / epsilon;
      }
  }
  for (size_t i = 0; i < wanted.size(); i++) {
    const int before = check::failures;
    check::near("mahalanobis", out[i], sqrt(wanted[i]), 3e-5, 1e-6);
    if (check::failures > before) check::fail("  d %d levels %d rank %d pictures %d seed %u, value %zu", l.d, levels, rank, l.n, seed, i);
  }
}

int main() {
  struct Case { std::vector<std::vector<int>> shapes; std::vector<int> counts; int n; bool nested; int rank; };
  const Case all[] = {
      {{{1, 1, 1}}, {1}, 1, false, 0},
      {{{3, 5, 20}}, {17}, 5, false, 0},
      {{{4, 8, 30}, {2, 4, 50}, {1, 2, 70}}, {13, 40, 31}, 3, true, 0},
      {{{4, 8, 30}, {2, 4, 50}, {1, 2, 70}}, {13, 40, 31}, 6, false, 0},
      {{{5, 7, 9}, {3, 4, 33}}, {9, 33}, 4, true, 0},
      {{{2, 3, 100}, {1, 1, 250}}, {100, 250}, 1, true, 0},
      {{{5, 7, 9}, {3, 4, 33}}, {9, 33}, 5, true, 6},
      {{{2, 2, 1}}, {1}, 1, false, 1},
  };
  for (auto& c : all)
    check::schedules(3, [&](unsigned seed) { run(make(c.shapes, c.counts, c.n, c.nested), c.rank, seed); });
  return check::result("mahalanobis");
}
