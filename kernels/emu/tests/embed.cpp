// Patch embeddings: sums in their order to the bit, only their own columns written; rows picked.
#include "check.h"
#include "embed.cu"

static void one(int n, int h, int w, int c, int pitch, int offset, unsigned seed) {
  auto in = check::uniform((size_t)n * h * w * c, 4);
  check::Buffer<float> id(in), out((size_t)n * h * w * pitch, -7.f);
  const int pieces = (c | pitch | offset) & 3 ? c : c / 4, slab = std::min(pieces, 32);
  const int each = check::ceil_div(h, check::ceil_div(h, EMBED_ROWS));
  const dim3 grid(check::ceil_div(pieces, slab) * check::ceil_div(w, 256 / slab), std::min<unsigned>(2, n * check::ceil_div(h, each)));
  emu::launch(grid, 256, 0, [&] { embed_mean3(id.data(), out.data(), n, h, w, c, pitch, offset, each); });
  for (int i = 0; i < n; i++)
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++)
        for (int e = 0; e < pitch; e++) {
          float sum = 0;
          const bool own = e >= offset && e < offset + c;
          for (int v = y - 1; own && v <= y + 1; v++)
            for (int u = x - 1; u <= x + 1; u++)
              if (v >= 0 && v < h && u >= 0 && u < w) sum += in[(((size_t)i * h + v) * w + u) * c + e - offset];
          const float got = out[(((size_t)i * h + y) * w + x) * pitch + e], wanted = own ? sum * (1.f / 9.f) : -7.f;
          if (got != wanted) check::fail("mean3 %dx%dx%dx%d seed %u at %d,%d,%d,%d: got %.9g, wanted %.9g", n, h, w, c, seed, i, y, x, e, got, wanted);
        }
}

// Terms as the authors' embedding has them: a few numbers of the neighbourhood for each column, none for some.
static void terms(int n, int h, int w, int c, int columns, int pitch, int offset, unsigned seed) {
  check::Random random(seed + 7);
  std::vector<uint32_t> starts{0}, place;
  std::vector<float> weight;
  for (int j = 0; j < columns; j++) {
    for (int t = random.below(20); t > 0; t--) {
      place.push_back(random.below(c) << 4 | random.below(9));
      weight.push_back(random.uniform());
    }
    starts.push_back(place.size());
  }
  place.push_back(0), weight.push_back(0);  // so that there is one
  auto in = check::uniform((size_t)n * h * w * c, 4), before = check::uniform((size_t)n * h * w * pitch, 5);
  const size_t all = (size_t)n * h * w * columns;
  check::Buffer<float> id(in), wd(weight), out(all), wide(before);
  check::Buffer<uint32_t> sd(starts), pd(place);
  emu::launch(check::ceil_div(all, 256), 256, 0, [&] { embed_terms(id.data(), sd.data(), pd.data(), wd.data(), out.data(), n, h, w, c, columns); });
  emu::launch(check::ceil_div(all, 256), 256, 0, [&] { embed_add(out.data(), wide.data(), n * h * w, columns, pitch, offset); });
  for (int p = 0; p < n * h * w; p++)
    for (int e = 0; e < pitch; e++) {
      const int i = p / (h * w), y = p / w % h, x = p % w, j = e - offset;
      float sum = 0;
      const bool own = j >= 0 && j < columns;
      for (uint32_t t = own ? starts[j] : 0; own && t < starts[j + 1]; t++) {
        const int tap = place[t] % 16, v = y + tap / 3 - 1, u = x + tap % 3 - 1;
        if (v >= 0 && v < h && u >= 0 && u < w) sum += in[(((size_t)i * h + v) * w + u) * c + place[t] / 16] * weight[t];
      }
      if (own && out[(size_t)p * columns + j] != sum) check::fail("terms %dx%dx%dx%d to %d, seed %u at %d,%d", n, h, w, c, columns, seed, p, j);
      const size_t at = (size_t)p * pitch + e;
      if (wide[at] != (own ? before[at] + sum : before[at])) check::fail("add %d columns at %d, seed %u at %d,%d", columns, offset, seed, p, e);
    }
}

static void select(int rows, int count, int c, unsigned seed) {
  auto in = check::uniform((size_t)rows * c, 6);
  check::Random random(seed);
  std::vector<uint32_t> pairs;
  for (int i = 0; i < count; i++) pairs.push_back(random.below(rows)), pairs.push_back(count - 1 - i);
  check::Buffer<float> id(in), out((size_t)count * c);
  check::Buffer<uint32_t> pd(pairs);
  emu::launch(check::ceil_div((size_t)count * c, 256), 256, 0, [&] { embed_select(id.data(), pd.data(), out.data(), count, c); });
  for (int i = 0; i < count; i++)
    for (int e = 0; e < c; e++)
      if (out[(size_t)(count - 1 - i) * c + e] != in[(size_t)pairs[2 * i] * c + e]) check::fail("row %d of %d, %d", i, count, e);
}

int main() {
  check::schedules(4, [](unsigned seed) {
    one(1, 1, 1, 1, 1, 0, seed);
    one(2, 5, 7, 3, 8, 4, seed);
    one(1, 2, 9, 33, 33, 0, seed);
    one(2, 31, 3, 12, 20, 8, seed);
    one(1, 4, 11, 144, 144, 0, seed);
    terms(1, 1, 1, 1, 1, 1, 0, seed);
    terms(2, 4, 3, 17, 40, 50, 7, seed);
    select(1, 1, 1, seed);
    select(40, 33, 29, seed);
  });
  return check::result("embed");
}
