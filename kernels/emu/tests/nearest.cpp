// Nearest neighbour: the sieve's two values of each block, the bounds, and the k best, exact with ties and duplicates.
#include "check.h"
// So that a small case has several columns of tiles.
#define NEAREST_GROUP 2
#include "nearest.cu"

#include <numeric>

using check::ceil_div;

struct Case { int m, n, d, kept; float spread; int values; };

// Rows of a few clusters, so that near rows are near; `values` > 0 makes whole numbers of so few values that ties abound.
static std::vector<float> rows(int n, const Case& c, uint64_t seed) {
  check::Random r(seed);
  std::vector<float> centres = check::uniform(5 * c.d, 77), v((size_t)n * c.d);
  for (int i = 0; i < n; i++) {
    const int k = r.below(5);
    for (int j = 0; j < c.d; j++)
      v[(size_t)i * c.d + j] = c.values ? (float)r.below(c.values) : 3.f + centres[k * c.d + j] + c.spread * r.uniform();
  }
  return v;
}

static void verify(const char* how, const Case& c, const std::vector<float>& q, const std::vector<float>& b,
                   check::Buffer<uint32_t>& index, check::Buffer<float>& distance, unsigned seed) {
  for (int i = 0; i < c.m; i++) {
    std::vector<float> s(c.n);
    std::vector<int> order(c.n);
    for (int j = 0; j < c.n; j++) s[j] = check::squared(&q[(size_t)i * c.d], &b[(size_t)j * c.d], c.d);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + c.kept, order.end(),
                      [&](int x, int y) { return s[x] < s[y] || (s[x] == s[y] && x < y); });
    for (int l = 0; l < c.kept; l++) {
      const size_t at = (size_t)i * c.kept + l;
      if (index[at] != (uint32_t)order[l] || distance[at] != sqrtf(s[order[l]]))
        check::fail("%s %dx%dx%d k %d seed %u: query %d place %d is row %u at %.9g, wanted %d at %.9g", how, c.m, c.n, c.d,
                    c.kept, seed, i, l, index[at], distance[at], order[l], sqrtf(s[order[l]]));
    }
  }
}

static void sieve(const Case& c, unsigned seed, bool outlier, bool prunes = false, bool far = false) {
  const int k = (c.d + 31) / 32 * 32, blocks = (c.n + 63) / 64;
  auto b = rows(c.n, c, 5), q = rows(c.m, c, 6);
  if (prunes)  // blocks far apart, the queries near the first
    for (int i = 0; i < c.n; i++)
      for (int j = 0; j < c.d; j++) b[(size_t)i * c.d + j] = 10.f * (float)(i / 64) + 0.1f * (float)((i * 31 + j * 7) % 64);
  if (prunes)
    for (auto& v : q) v = 0.05f * v;
  else if (c.n > 3) std::copy_n(b.begin(), c.d, b.begin() + (size_t)(c.n - 1) * c.d);  // a duplicate far away
  if (!prunes) std::copy_n(b.begin(), c.d, q.begin());  // a query that is a row
  if (outlier)
    for (int j = 0; j < c.d; j++) q[(size_t)(c.m - 1) * c.d + j] = 1e9f * (float)(j + 1);  // beyond fp16
  if (far) {  // queries beyond fp16, so that bounds leave nothing out; the last row is the nearest
    for (auto& v : q) v = 300.f * fabsf(v);
    for (int j = 0; j < c.d; j++) b[(size_t)(c.n - 1) * c.d + j] = 8.f;
  }
  std::vector<float> centre(c.d);
  for (int j = 0; j < c.d; j++) {
    double sum = 0;
    for (int i = 0; i < c.n; i++) sum += b[(size_t)i * c.d + j];
    centre[j] = (float)(sum / c.n);
  }
  float most = 1e-30f;
  for (size_t i = 0; i < b.size(); i++) most = fmaxf(most, fabsf(b[i] - centre[i % c.d]));
  const float scale = exp2f(floorf(log2f(1024.f / most)));
  const float floor = scale * 1e-20f;
  check::Buffer<float> qd(q), bd(b), cd(centre), qn(c.m), ql(c.m), bn(c.n), bl(c.n), block((size_t)2 * (unsigned)blocks, 0.f);
  check::Buffer<float> values((size_t)2 * blocks * c.m);
  // 16-byte alignment, as the driver's allocations have it.
  check::Buffer<uint16_t> qh((size_t)c.m * k + 8), bh((size_t)c.n * k + 8);
  auto aligned = [](uint16_t* p) { return (uint16_t*)(((uintptr_t)p + 15) / 16 * 16); };
  uint16_t *qp = aligned(qh.data()), *bp = aligned(bh.data());
  emu::launch(ceil_div(c.n, 8), 256, 0, [&] {
    nearest_quantize(bd.data(), cd.data(), bp, bn.data(), bl.data(), block.data(), scale, floor, c.n, c.d, k);
  });
  emu::launch(ceil_div(c.m, 8), 256, 0, [&] {
    nearest_quantize(qd.data(), cd.data(), qp, qn.data(), ql.data(), nullptr, scale, floor, c.m, c.d, k);
  });
  // The bounds of quantising hold.
  for (int i = 0; i < c.n; i++) {
    double lost = 0, norm = 0;
    for (int j = 0; j < k; j++) {
      const double h = half_to_float(bp[(size_t)i * k + j]);
      const double v = j < c.d ? ((double)b[(size_t)i * c.d + j] - centre[j]) * scale : 0;
      lost += (v - h) * (v - h), norm += h * h;
    }
    if (!(bl[i] >= sqrt(lost))) check::fail("row %d loses %.9g, bound %.9g", i, sqrt(lost), bl[i]);
    check::near("norm", bn[i], norm, 1e-5, 0);
    if (block[i / 64 * 2] < bl[i] || block[i / 64 * 2 + 1] < bn[i]) check::fail("a block's maximum is below row %d", i);
  }
  emu::launch(ceil_div(c.m, nearest::ROWS) * ceil_div(c.n, nearest::BANK), 256, nearest::SHARED,
              [&] { nearest_sieve(qp, bp, bn.data(), values.data(), c.m, c.n, k); });
  for (int i = 0; i < c.m; i++)
    for (int g = 0; g < blocks; g++) {
      double first = INFINITY, second = INFINITY;
      for (int j = g * 64; j < std::min(c.n, g * 64 + 64); j++) {
        double dot = 0;
        for (int e = 0; e < k; e++) dot += (double)half_to_float(qp[(size_t)i * k + e]) * half_to_float(bp[(size_t)j * k + e]);
        const double v = bn[j] - 2 * dot;
        if (v < first) second = first, first = v;
        else if (v < second) second = v;
      }
      const double size = qn[i] + block[g * 2 + 1];
      check::near("smallest of a block", values[(size_t)g * c.m + i], first, 1e-5, 1e-5 * size + 1e-37);
      if (second < INFINITY) check::near("second of a block", values[(size_t)(blocks + g) * c.m + i], second, 1e-5, 1e-5 * size + 1e-37);
      else if (values[(size_t)(blocks + g) * c.m + i] < 2.9e38f) check::fail("a second value where there is none");
    }
  // Rows that bounds leave out are not looked at, but for the first of a block: here they would win.
  for (int i = 64; prunes && i < c.n; i++)
    if ((__float_as_uint(values[(size_t)(i / 64) * c.m]) & 63) != (unsigned)i % 64) std::copy_n(q.begin(), c.d, bd.data() + (size_t)i * c.d);
  for (int per = 1; per <= 8; per *= 2) {
    check::Buffer<float> distance((size_t)c.m * c.kept);
    check::Buffer<uint32_t> index((size_t)c.m * c.kept);
    emu::launch(ceil_div(c.m, per), 256, sizeof(nearest::Work), [&] {
      nearest_rerank(qd.data(), bd.data(), qn.data(), ql.data(), (const float2*)block.data(), values.data(), index.data(), distance.data(),
                     scale, c.m, c.n, c.d, k, c.kept, per);
    });
    verify("sieve", c, q, b, index, distance, seed);
  }
}

static void select(const Case& c, unsigned seed) {
  auto b = rows(c.n, c, 8), q = rows(c.m, c, 9);
  check::Buffer<float> all((size_t)c.m * c.n), distance((size_t)c.m * c.kept);
  check::Buffer<uint32_t> index((size_t)c.m * c.kept);
  for (int i = 0; i < c.m; i++)
    for (int j = 0; j < c.n; j++) all[(size_t)i * c.n + j] = check::squared(&q[(size_t)i * c.d], &b[(size_t)j * c.d], c.d);
  emu::launch(ceil_div(c.m, 8), 256, 0,
              [&] { nearest_select(all.data(), index.data(), distance.data(), c.m, c.n, c.kept); });
  verify("select", c, q, b, index, distance, seed);
}

int main() {
  const Case sieved[] = {{1, 1, 1, 1, 1.f, 0},     {3, 2, 3, 2, 1.f, 0},      {130, 65, 100, 9, 0.3f, 0}, {9, 300, 550, 1, 0.1f, 0},
                         {40, 513, 33, 32, 0.2f, 0}, {20, 400, 8, 5, 0.f, 3}, {7, 64, 40, 32, 0.f, 1}};
  for (auto& c : sieved) check::schedules(3, [&](unsigned seed) { sieve(c, seed, false); });
  check::schedules(4, [&](unsigned seed) { sieve({9, 2200, 2, 3, 1.f, 0}, seed, false, false, true); });  // lists overflow
  check::schedules(1, [&](unsigned seed) { sieve({12, 200, 20, 3, 0.2f, 0}, seed, true); });
  check::schedules(1, [&](unsigned seed) { sieve({1, 500, 64, 7, 0.f, 0}, seed, false, true); });
  const Case scanned[] = {{1, 1, 1, 1, 1.f, 0}, {9, 33, 3, 32, 1.f, 0}, {17, 1000, 2, 9, 0.f, 4}, {8, 70, 5, 7, 0.f, 1}};
  for (auto& c : scanned) check::schedules(4, [&](unsigned seed) { select(c, seed); });
  return check::result("nearest");
}
