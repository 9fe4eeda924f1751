// The sparse projection against plain loops, bit for bit: the matrix and the sums.
#include "check.h"
#include "projection.cu"

static void run(int n, int in_dim, int out_dim, uint64_t seed, int staged) {
  auto values = check::uniform((size_t)n * in_dim, seed);
  const uint64_t limit = (uint64_t)(1.0 / sqrt((double)in_dim) * 9007199254740992.0);
  const float scale = 0.37f;
  check::Buffer<float> rows(values), out((size_t)(n + 3) * out_dim);
  check::Buffer<uint32_t> entry((size_t)in_dim * out_dim);
  check::Buffer<int> count(out_dim);
  check::Buffer<uint64_t> constants(std::vector<uint64_t>{projection::mix(seed), limit});
  emu::launch(check::ceil_div(out_dim, 8), 256, 0,
              [&] { projection_draw(constants.data(), entry.data(), count.data(), in_dim, out_dim); });
  emu::launch(check::ceil_div(n, staged ? staged : projection::ROWS / 2), 512, 4 * staged * in_dim, [&] {
    projection_apply(rows.data(), entry.data(), count.data(), out.data(), scale, 3, n, in_dim, out_dim, staged);
  });
  for (int i = 0; i < out_dim; i++) {
    std::vector<uint32_t> wanted;
    for (int j = 0; j < in_dim; j++) {
      const uint64_t bits = projection::mix(projection::mix(projection::mix(seed) ^ (uint64_t)i) ^ (uint64_t)j);
      if (bits >> 11 < limit) wanted.push_back((uint32_t)j | (bits & 1) << 31);
    }
    bool same = count[i] == (int)wanted.size();
    for (size_t e = 0; same && e < wanted.size(); e++) same = entry[(size_t)i * in_dim + e] == wanted[e];
    if (!same) check::fail("output %d of %d x %d: other entries", i, in_dim, out_dim);
    for (int r = 0; r < n; r++) {
      float sum = 0;
      for (uint32_t e : wanted) {
        const float v = values[(size_t)r * in_dim + (e & 0x7fffffff)];
        sum += e >> 31 ? -v : v;
      }
      if (out[(size_t)(3 + r) * out_dim + i] != sum * scale) check::fail("row %d, output %d", r, i);
    }
  }
}

int main() {
  struct Case { int n, in_dim, out_dim; } all[] = {{1, 1, 1}, {9, 100, 13}, {17, 33, 260}, {19, 1536, 20}, {5, 64, 7}};
  for (auto& c : all)
    check::schedules(3, [&](unsigned seed) { run(c.n, c.in_dim, c.out_dim, seed + 40, (int[]){projection::ROWS, projection::ROWS / 2, 0}[seed]); });
  return check::result("projection");
}
