// Mahalanobis distance against f64: one level and nested, low rank, odd grids, every remainder of rows and pictures; the same
// bits from every kernel, whatever it is launched with.
#include "check.h"
#include "layout.h"
#include "mahalanobis.cu"

struct Kernel { int pictures, warps; bool tiles; decltype(&mahalanobis_low_rank_1) low_rank; decltype(&mahalanobis_triangle_4) triangle; };

// Distances by one kernel, from weights of groups without anything between them or from a basis.
static std::vector<float> by(const Kernel& kernel, const Layout& l, const std::vector<std::vector<float>>& weights, int rank,
                             const std::vector<float>& basis, const std::vector<float>& scale, float epsilon) {
  std::vector<std::unique_ptr<check::Buffer<float>>> md;
  for (auto& m : l.maps) md.push_back(std::make_unique<check::Buffer<float>>(m));
  check::Buffer<int> shape(l.shape), rows(l.mean_rows);
  check::Buffer<uint32_t> channel(l.channel);
  check::Buffer<float> mean(l.mean);
  check::Buffer<uint64_t> mean_at(l.mean_at);
  const int levels = (int)l.levels.size();
  check::Buffer<float> out((size_t)l.n * l.grid_h * l.grid_w);
  std::unique_ptr<check::Buffer<float>> parents = std::make_unique<check::Buffer<float>>(1);
  for (int k = 0; k < levels && !rank; k++) {
    const Level& level = l.levels[k];
    const size_t floats = weights[k].size() / level.groups, padded = (floats + 7) / 8 * 8;
    std::vector<float> apart(padded * level.groups, NAN);
    for (int g = 0; g < level.groups; g++) std::copy_n(&weights[k][g * floats], floats, &apart[g * padded]);
    check::Buffer<float> weight(apart);
    auto sums = std::make_unique<check::Buffer<float>>((size_t)level.groups * l.n);
    check::Buffer<int> area(level.area);
    check::Buffer<uint32_t> ancestor(l.ancestors(k));
    const int P = kernel.pictures, parts = (int)check::ceil_div(l.n, P), stride = level.b + ((3 - level.b) & 7);
    emu::launch(dim3(level.groups * parts), 32 * mahalanobis::WARPS,
                mahalanobis::WARPS * (4096 * mahalanobis::STAGES / 4 + 4 * P) + 4 * P * stride, [&] {
      kernel.triangle(MAPS, shape.data(), channel.data(), mean.data(), mean_at.data(), rows.data(), area.data(),
                      ancestor.data(), weight.data(), parents->data(), sums->data(), out.data(), k, levels, level.a,
                      level.b, l.n, parts, l.grid_h, l.grid_w);
    });
    parents = std::move(sums);
  }
  if (rank) {
    const Level& level = l.levels.back();
    check::Buffer<float> bd(basis), sd(scale);
    check::Buffer<int> area(level.area);
    check::Buffer<uint32_t> ancestor(l.ancestors(levels - 1));
    const int P = kernel.pictures, parts = (int)check::ceil_div(l.n, P * kernel.warps), tile = (8 * l.d + 6) / 4 * 4;
    emu::launch(dim3(level.groups * parts), 32 * kernel.warps,
                4 * (kernel.warps * P * (l.d + 8) + (rank + 3) / 4 * 4 + (kernel.tiles ? mahalanobis::TILES * tile : 0)), [&] {
      kernel.low_rank(MAPS, shape.data(), channel.data(), mean.data(), mean_at.data(), rows.data(), area.data(),
                      ancestor.data(), bd.data(), sd.data(), out.data(), epsilon, rank, levels, l.d, level.groups, l.n, parts,
                      l.grid_h, l.grid_w);
    });
  }
  std::vector<float> all;
  for (size_t i = 0; i < (size_t)l.n * l.grid_h * l.grid_w; i++) all.push_back(out[i]);
  return all;
}

static void run(const Layout& l, int rank, unsigned seed) {
  const int levels = (int)l.levels.size();
  const size_t positions = (size_t)l.grid_h * l.grid_w;
  std::vector<double> wanted(l.n * positions, 0);
  std::vector<std::vector<float>> weights;
  for (int k = 0; k < levels && !rank; k++) {
    const Level& level = l.levels[k];
    const size_t floats = (size_t)level.b * (level.b + 1) / 2 - (size_t)level.a * (level.a + 1) / 2;
    weights.push_back(check::uniform(level.groups * floats, 90 + k));
    for (int i = 0; i < l.n; i++)
      for (size_t p = 0; p < positions; p++)
        for (int r = level.a; r < level.b; r++) {
          double z = 0;
          for (int c = 0; c <= r; c++)
            z += weights[k][l.group_of[k][p] * floats + packed(level.a, level.b, r, c)] * l.delta(i, (int)p / l.grid_w, (int)p % l.grid_w, c);
          wanted[i * positions + p] += z * z;
        }
  }
  std::vector<float> basis, scale;
  const float epsilon = 0.25f;
  if (rank) {
    const Level& level = l.levels.back();
    // Orthonormal rows: of each group, by Gram-Schmidt in f64.
    scale = check::uniform((size_t)level.groups * rank, 5);
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
  const Kernel all[] = {
      {4, 1, true, mahalanobis_low_rank_4, mahalanobis_triangle_4},
      {8, 1, true, mahalanobis_low_rank_8, mahalanobis_triangle_8},
      {16, 0, true, nullptr, mahalanobis_triangle_16},
      {32, 0, true, nullptr, mahalanobis_triangle_32},
      {1, 3, true, mahalanobis_low_rank_1, nullptr},
      {4, 2, false, mahalanobis_low_rank_wide, nullptr},
      {8, 2, true, mahalanobis_low_rank_8, nullptr},
  };
  std::vector<float> first;
  for (auto& kernel : all) {
    if (rank ? !kernel.low_rank : !kernel.triangle) continue;
    const std::vector<float> out = by(kernel, l, weights, rank, basis, scale, epsilon);
    const bool one = first.empty();
    if (one) first = out;
    for (size_t i = 0; i < wanted.size(); i++) {
      const int before = check::failures;
      if (one) check::near("mahalanobis", out[i], sqrt(wanted[i]), 3e-5, 1e-6);
      else if (__float_as_uint(out[i]) != __float_as_uint(first[i])) check::fail("other bits: %.9g and %.9g", out[i], first[i]);
      if (check::failures > before)
        check::fail("  d %d levels %d rank %d pictures %d seed %u, kernel of %d, value %zu", l.d, levels, rank, l.n, seed, kernel.pictures, i);
    }
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
      {{{2, 2, 40}}, {37}, 19, false, 0},
      {{{5, 7, 9}, {3, 4, 33}}, {9, 33}, 5, true, 6},
      {{{1, 2, 75}}, {73}, 9, false, 21},
      {{{2, 2, 8}}, {8}, 3, false, 8},
      {{{2, 2, 1}}, {1}, 1, false, 1},
  };
  for (auto& c : all)
    check::schedules(3, [&](unsigned seed) { run(make(c.shapes, c.counts, c.n, c.nested), c.rank, seed); });
  return check::result("mahalanobis");
}
