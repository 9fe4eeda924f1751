// The 3 x 3 mean of the patch embedding: sums in row order to the bit, only its own columns written.
#include "check.h"
#include "embed.cu"

static void one(int n, int h, int w, int c, int pitch, int offset, unsigned seed) {
  auto in = check::uniform((size_t)n * h * w * c, 4);
  check::Buffer<float> id(in), out((size_t)n * h * w * pitch, -7.f);
  emu::launch(check::ceil_div(in.size(), 256), 256, 0, [&] { embed_mean3(id.data(), out.data(), n, h, w, c, pitch, offset); });
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

int main() {
  check::schedules(4, [](unsigned seed) {
    one(1, 1, 1, 1, 1, 0, seed);
    one(2, 5, 7, 3, 8, 4, seed);
    one(1, 2, 9, 33, 33, 0, seed);
  });
  return check::result("embed");
}
