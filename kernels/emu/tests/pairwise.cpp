// pairwise_squared: the CPU's bits, and f64 within rounding, over sizes that are no multiple of the tile.
#include "check.h"
#include "pairwise.cu"

static void one(int m, int n, int d, unsigned seed) {
  auto q = check::uniform((size_t)m * d, 1 + d), b = check::uniform((size_t)n * d, 2 + n);
  if (n > 1) std::copy_n(q.begin(), d, b.begin() + (n - 1) * d);  // the last row is the first query
  check::Buffer<float> qd(q), bd(b), out((size_t)m * n);
  emu::launch(dim3(check::ceil_div(n, 32), check::ceil_div(m, 32)), 256, lane_tile::Tile<4>::SHARED,
              [&] { pairwise_squared(qd.data(), bd.data(), out.data(), m, n, d); });
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      const float got = out[(size_t)i * n + j], wanted = check::squared(&q[i * d], &b[j * d], d);
      if (__float_as_uint(got) != __float_as_uint(wanted))
        check::fail("pairwise %dx%dx%d seed %u at %d,%d: got %.9g, wanted %.9g", m, n, d, seed, i, j, got, wanted);
      check::near("pairwise against f64", got, check::squared64(&q[i * d], &b[j * d], d), (d / 16 + 8) * 6e-8, 0);
    }
  if (n > 1 && out[n - 1] != 0.f) check::fail("equal rows are not at distance 0");
}

int main() {
  const int sizes[][3] = {{1, 1, 1}, {1, 33, 3}, {33, 1, 100}, {32, 32, 16}, {31, 65, 17}, {70, 40, 33}, {5, 64, 550}, {2, 3, 1792}, {530, 40, 5}};
  for (auto& s : sizes) check::schedules(4, [&](unsigned seed) { one(s[0], s[1], s[2], seed); });
  return check::result("pairwise");
}
