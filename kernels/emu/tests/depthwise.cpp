// Depthwise convolutions to the bit: one chain of sums in the order of the kernel, then bias, residual, activation, one
// rounding.
#include "check.h"
#include "depthwise.cu"

struct Case { int n, h, w, c, kh, kw, sy, sx, top, left, bottom, right, act; bool residual; unsigned rows; };

template <class T> static std::vector<T> stored(std::vector<float>& v) {
  std::vector<T> out;
  for (float& x : v) {
    if constexpr (sizeof(T) == 2) {
      out.push_back(float_to_half(x));
      x = half_to_float(out.back());
    } else {
      out.push_back(x);
    }
  }
  return out;
}

template <class T> static void one(const Case& t, unsigned seed, auto kernel) {
  const int oh = (t.h + t.top + t.bottom - t.kh) / t.sy + 1, ow = (t.w + t.left + t.right - t.kw) / t.sx + 1;
  auto in = check::uniform((size_t)t.n * t.h * t.w * t.c, 1), weight = check::uniform((size_t)t.kh * t.kw * t.c, 2);
  auto bias = check::uniform(t.c, 3), residual = check::uniform((size_t)t.n * oh * ow * t.c, 4);
  check::Buffer<T> id(stored<T>(in)), rd(stored<T>(residual)), out(residual.size());
  check::Buffer<float> wd(weight), bd(bias);
  const int across = t.kw == 3 && t.sx == 1 ? 4 : (t.kw == 3 || t.kw == 5) && t.sx <= 2 ? 2 : 1;
  emu::launch({check::ceil_div(check::ceil_div(ow, across) * t.c / Pack<T>::N, 256), t.rows}, 256, 0, [&] {
    kernel(id.data(), wd.data(), bd.data(), t.residual ? rd.data() : nullptr, out.data(), t.n, t.h, t.w, t.c, oh, ow, t.kh, t.kw, t.sy, t.sx,
           t.top, t.left, t.act);
  });
  size_t at = 0;
  for (int i = 0; i < t.n; i++)
    for (int y = 0; y < oh; y++)
      for (int x = 0; x < ow; x++)
        for (int c = 0; c < t.c; c++, at++) {
          float sum = 0;
          for (int ky = 0; ky < t.kh; ky++)
            for (int kx = 0; kx < t.kw; kx++) {
              const int v = y * t.sy - t.top + ky, u = x * t.sx - t.left + kx;
              if (v >= 0 && v < t.h && u >= 0 && u < t.w)
                sum = std::fmaf(in[(((size_t)i * t.h + v) * t.w + u) * t.c + c], weight[((size_t)ky * t.kw + kx) * t.c + c], sum);
            }
          sum += bias[c];
          if (t.residual) sum += residual[at];
          std::vector<float> wanted = {activate(sum, t.act)}, got(1);
          stored<T>(wanted);
          if constexpr (sizeof(T) == 2) got[0] = half_to_float(out[at]);
          else got[0] = out[at];
          if (got != wanted) check::fail("%zu bytes, %dx%dx%dx%d, %dx%d, seed %u at %d,%d,%d,%d: got %.9g, wanted %.9g", sizeof(T), t.n, t.h, t.w, t.c, t.kh, t.kw, seed, i, y, x, c, got[0], wanted[0]);
        }
}

int main() {
  const Case cases[] = {
      {1, 1, 1, 8, 1, 1, 1, 1, 0, 0, 0, 0, ACT_NONE, false, 1},
      {2, 9, 13, 16, 3, 3, 1, 1, 1, 1, 1, 1, ACT_RELU6, false, 18},
      {1, 12, 11, 136, 5, 5, 2, 2, 2, 2, 2, 2, ACT_HARD_SWISH, true, 6},
      {3, 4, 7, 24, 3, 2, 2, 1, 0, 1, 2, 0, ACT_SILU, true, 2},
      {1, 4, 6, 8, 2, 4, 1, 1, 0, 2, 1, 2, ACT_NONE, false, 4},
      {1, 5, 6, 8, 3, 5, 1, 1, 1, 2, 1, 2, ACT_NONE, true, 3},
      {2, 6, 9, 8, 3, 3, 2, 2, 0, 1, 1, 1, ACT_RELU, false, 4},
  };
  check::schedules(3, [&](unsigned seed) {
    for (const Case& t : cases) {
      one<float>(t, seed, depthwise_f32);
      one<uint16_t>(t, seed, depthwise_f16);
    }
  });
  return check::result("depthwise");
}
