// Gaussian blur: the CPU's order of sums to the bit, f64 within rounding, maps smaller than the kernel, both borders.
#include "check.h"
#include "blur.cu"

static int mirrored(int at, int length, bool symmetric) {  // one step at a time
  while (length > 1 && (at < 0 || at >= length)) {
    if (at < 0) at = symmetric ? -1 - at : -at;
    if (at >= length) at = symmetric ? 2 * length - 1 - at : 2 * (length - 1) - at;
  }
  return length == 1 ? 0 : at;
}

static void one(int n, int h, int w, int radius, bool symmetric, unsigned seed) {
  auto x = check::uniform((size_t)n * h * w, h * 31 + w), kernel = check::uniform(radius + 1, radius);
  check::Buffer<float> xd(x), kd(kernel), mid(x.size()), out(x.size());
  const unsigned grid = check::ceil_div(x.size(), 256);
  emu::launch(grid, 256, 0, [&] { blur_axis(xd.data(), mid.data(), kd.data(), n, h, w, radius, 0, symmetric); });
  emu::launch(grid, 256, 0, [&] { blur_axis(mid.data(), out.data(), kd.data(), n, h, w, radius, 1, symmetric); });
  check::Buffer<float> both(x.size());
  const size_t shared = 4 * ((radius + 4) / 4 * 4 + 2 * (blur::HIGH + radius) * (blur::WIDE + 2 * radius + 1));
  const dim3 tiles(check::ceil_div(w, blur::WIDE) * check::ceil_div(h, blur::HIGH), std::min(n, 2));
  emu::launch(tiles, 256, shared, [&] { blur_tile(xd.data(), both.data(), kd.data(), n, h, w, radius, symmetric); });
  for (size_t i = 0; i < x.size(); i++)
    if (both[i] != out[i]) check::fail("tile of %dx%dx%d radius %d seed %u at %zu: got %.9g, wanted %.9g", n, h, w, radius, seed, i, both[i], out[i]);
  std::vector<float> half(x.size());
  std::vector<double> half64(x.size());
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < n; i++)
      for (int y = 0; y < h; y++)
        for (int c = 0; c < w; c++) {
          auto at = [&](int o) {
            return ((size_t)i * h + (pass ? y : mirrored(y + o, h, symmetric))) * w + (pass ? mirrored(c + o, w, symmetric) : c);
          };
          auto value = [&](int o) { return pass ? half[at(o)] : x[at(o)]; };
          auto value64 = [&](int o) { return pass ? half64[at(o)] : (double)x[at(o)]; };
          float sum = kernel[0] * value(0);
          double sum64 = kernel[0] * value64(0), size = fabs(sum64);
          for (int r = 1; r <= radius; r++) {
            sum += kernel[r] * (value(-r) + value(r));
            sum64 += kernel[r] * (value64(-r) + value64(r));
            size += fabs(kernel[r]) * (fabs(value64(-r)) + fabs(value64(r)));
          }
          const size_t here = ((size_t)i * h + y) * w + c;
          const float got = pass ? out[here] : mid[here];
          if (got != sum) check::fail("blur %dx%dx%d radius %d pass %d seed %u at %d,%d,%d: got %.9g, wanted %.9g", n, h, w, radius, pass, seed, i, y, c, got, sum);
          check::near("blur against f64", got, sum64, 0, 1e-5 * (size + 1));
          if (!pass) half[here] = sum, half64[here] = sum64;
        }
}

int main() {
  const int sizes[][4] = {{1, 1, 1, 3}, {2, 5, 7, 2}, {1, 33, 20, 16}, {3, 2, 40, 9}, {1, 9, 1, 0}, {2, 34, 270, 10}, {1, 3, 140, 16}};
  for (auto& s : sizes)
    check::schedules(4, [&](unsigned seed) { one(s[0], s[1], s[2], s[3], seed & 1, seed); });
  return check::result("blur");
}
