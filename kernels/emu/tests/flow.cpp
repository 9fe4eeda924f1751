// A flow's coupling, ends and vectors against plain loops in f64; Adam to the bit; odd sizes, pitches, several parts.
#include "check.h"
#include "adam.cu"
#include "coupling.cu"
#include "flow.cu"

struct Sizes { int rows, c, h, k, part; };

// A matrix with a pitch; what is beyond its columns must not be touched.
struct Rows {
  unsigned rows, width, pitch;
  check::Buffer<float> data;
  Rows(unsigned rows, unsigned width, unsigned more, uint64_t seed) : rows(rows), width(width), pitch(width + more), data(std::vector<float>((size_t)rows * pitch, 7.f)) {
    if (!seed) return;
    auto v = check::uniform((size_t)rows * width, seed);
    for (unsigned r = 0; r < rows; r++)
      for (unsigned i = 0; i < width; i++) at(r, i) = v[(size_t)r * width + i];
  }
  float& at(unsigned r, unsigned i) { return data[(size_t)r * pitch + i]; }
  float* ptr() { return data.data(); }
  void kept(const char* what) {
    for (unsigned r = 0; r < rows; r++)
      for (unsigned i = width; i < pitch; i++)
        if (at(r, i) != 7.f) check::fail("%s wrote beyond its columns", what);
  }
};

static std::vector<uint32_t> permutation(int c, uint64_t seed) {
  check::Random random(seed);
  std::vector<uint32_t> order(c);
  for (int i = 0; i < c; i++) order[i] = i;
  for (int i = c - 1; i > 0; i--) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

static void one(const Sizes& t, unsigned seed) {
  const int c = t.c, c2 = c / 2, c1 = c - c2, rows = t.rows, h = t.h;
  const float clamp = 1.9f;
  auto order = permutation(c, seed + 5);
  std::vector<uint32_t> inverse(c);
  for (int i = 0; i < c; i++) inverse[order[i]] = i;
  check::Buffer<uint32_t> od(order), vd(inverse);
  Rows a(rows, 2 * c2, 3, 1), x1(rows, c1, 1, 2), x2(rows, c2, 2, 3), z1(rows, c1, 0, 0), z2(rows, c2, 5, 0);
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < 2 * c2; i++) a.at(r, i) *= 30;  // so that the hyperbolic tangent bends

  // Scales.
  check::Buffer<float> theta(check::uniform(c, 9)), offset(check::uniform(c, 10)), scale(c), s((size_t)rows * c2), det(rows, 0.25f);
  check::Buffer<double> log_scale(1);
  for (int j = 0; j < c; j++) theta[j] = 10 + 4 * theta[j] + (j % 7 == 3) * 40;
  emu::launch(1, 256, 2048, [&] { flow_scale(theta.data(), scale.data(), log_scale.data(), c); });
  double logs = 0;
  std::vector<double> scales(c);
  for (int j = 0; j < c; j++) {
    scales[j] = 0.2 * std::log1p(std::exp(0.5 * theta[j]));
    logs += std::log(scales[j]);
    check::near("scale", scale[j], scales[j], 1e-6, 0);
  }
  check::near("log scale", log_scale[0], logs, 1e-6, 1e-6 * c);

  // Forward.
  const int warps = 3;
  for (int add = 0; add < 2; add++)
    emu::launch(check::ceil_div(rows, warps), 32 * warps, 4 * warps * c2, [&] {
      coupling_forward(a.ptr(), a.pitch, x1.ptr(), x1.pitch, x2.ptr(), x2.pitch, od.data(), scale.data(), offset.data(), log_scale.data(), z1.ptr(),
                       z1.pitch, z2.ptr(), z2.pitch, s.data(), det.data(), rows, c1, c2, clamp, add);
    });
  for (int r = 0; r < rows; r++) {
    double sum = 0;
    std::vector<double> y(c);
    for (int j = 0; j < c1; j++) y[j] = x1.at(r, j);
    for (int j = 0; j < c2; j++) {
      const double own = clamp * std::tanh(0.1 * a.at(r, j));
      sum += own;
      y[c1 + j] = x2.at(r, j) * std::exp(own) + 0.1 * a.at(r, c2 + j);
      check::near("s", s[(size_t)r * c2 + j], own, 1e-6, 1e-6);
    }
    for (int i = 0; i < c; i++) {
      const double z = y[order[i]] * scales[order[i]] + offset[order[i]];
      check::near("z", i < c1 ? z1.at(r, i) : z2.at(r, i - c1), z, 2e-6, 2e-6);
    }
    check::near("log det, set and added to", det[r], 2 * (sum + logs), 2e-6, 2e-6 * c);  // once set, once added
  }
  z1.kept("z1"), z2.kept("z2");

  // The end: likelihood and energy, with and without gradients.
  Rows g1(rows, c1, 2, 0), g2(rows, c2, 1, 0);
  check::Buffer<float> value(rows), slope(rows), alone(rows);
  check::Buffer<double> loss(rows);
  for (int energy : {1, 0}) {
    const float share = 0.37f;
    emu::launch(check::ceil_div(rows, 32), 256, 0, [&] {
      flow_output(z1.ptr(), z1.pitch, z2.ptr(), z2.pitch, det.data(), value.data(), loss.data(), g1.ptr(), g1.pitch, g2.ptr(), g2.pitch, slope.data(),
                  rows, c1, c2, energy, share);
    });
    emu::launch(check::ceil_div(rows, 32), 256, 0, [&] {
      flow_output(z1.ptr(), z1.pitch, z2.ptr(), z2.pitch, det.data(), alone.data(), nullptr, nullptr, 0, nullptr, 0, nullptr, rows, c1, c2, energy, 0.f);
    });
    double total = 0;
    for (int r = 0; r < rows; r++) {
      double squares = 0;
      auto z = [&](int i) { return (double)(i < c1 ? z1.at(r, i) : z2.at(r, i - c1)); };
      for (int i = 0; i < c; i++) squares += z(i) * z(i);
      const double l = (det[r] - 0.5 * squares - 0.5 * c * std::log(2 * M_PI)) / c, wanted = energy ? squares / c : l;
      const double weight = energy ? share : share / (1 + std::exp(l));
      check::near("value", value[r], wanted, 2e-6, 2e-6);
      if (alone[r] != value[r]) check::fail("the value depends on the gradients");
      check::near("loss", loss[r], energy ? 0.5 * squares - det[r] : std::log1p(std::exp(-l)), 2e-6, 2e-6);
      check::near("slope", slope[r], -weight, 2e-6, 0);
      for (int i = 0; i < c; i++) check::near("g", i < c1 ? g1.at(r, i) : g2.at(r, i - c1), weight * z(i), 4e-6, 1e-9);
      total += loss[r];
    }
    check::Buffer<uint32_t> turn(1, 1u);
    check::Buffer<double> losses(3, 0.);
    for (int twice = 0; twice < 3; twice++) emu::launch(1, 256, 2048, [&] { flow_next(loss.data(), turn.data(), losses.data(), rows, 4, 3); });
    check::near("losses", losses[1], total / 4, 1e-12, 0);
    if (losses[0] != 0 || losses[2] != losses[1] || turn[0] != 2) check::fail("the turn is %u", turn[0]);
  }
  g1.kept("g1"), g2.kept("g2");

  // Back through the coupling.
  Rows ga(rows, 2 * c2, 1, 0), gx1(rows, c1, 1, 0), gx2(rows, c2, 0, 0), gh(rows, h, 2, 20);
  emu::launch(check::ceil_div((size_t)rows * c, 256), 256, 0, [&] {
    coupling_backward(g1.ptr(), g1.pitch, g2.ptr(), g2.pitch, vd.data(), scale.data(), x2.ptr(), x2.pitch, s.data(), slope.data(), gx1.ptr(), gx1.pitch,
                      gx2.ptr(), gx2.pitch, ga.ptr(), ga.pitch, rows, c1, c2, clamp);
  });
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < c; j++) {
      const int i = inverse[j];
      const double g = (i < c1 ? g1.at(r, i) : g2.at(r, i - c1)) * (double)scale[j];
      if (j < c1) {
        check::near("gx1", gx1.at(r, j), g, 1e-6, 0);
        continue;
      }
      const int k = j - c1;
      const double own = s[(size_t)r * c2 + k], dx = g * std::exp(own);
      check::near("gx2", gx2.at(r, k), dx, 1e-6, 0);
      check::near("ga2", ga.at(r, c2 + k), 0.1 * g, 1e-6, 0);
      const double ds = dx * x2.at(r, k) + slope[r], size = std::fabs(dx * x2.at(r, k)) + std::fabs(slope[r]);
      check::near("ga1", ga.at(r, k), ds * 0.1 * clamp * (1 - own * own / clamp / clamp), 1e-6, 1e-6 * size);
    }
  ga.kept("ga"), gx1.kept("gx1"), gx2.kept("gx2");

  // Gradients of the vectors, and Adam.
  const int columns = 2 * c2 + h + c + 1, parts = (rows + t.part - 1) / t.part, n = 2 * c + h + 2 * c2;
  check::Buffer<double> sums((size_t)parts * (columns + c)), more(sums.n, 0.5);
  for (bool add : {false, true})
    emu::launch({check::ceil_div(columns, 32), (unsigned)parts}, 256, 4096, [&] {
      flow_sums(ga.ptr(), ga.pitch, gh.ptr(), gh.pitch, g1.ptr(), g1.pitch, g2.ptr(), g2.pitch, z1.ptr(), z1.pitch, z2.ptr(), z2.pitch, slope.data(),
                (add ? more : sums).data(), rows, t.part, c1, c2, h, add);
    });
  for (size_t i = 0; i < sums.n; i++)
    if (more[i] != 0.5 + sums[i]) check::fail("sum %zu is not added", i);
  auto start = check::uniform(n, 30);
  for (int j = 0; j < c; j++) start[j] = theta[j], start[c + j] = offset[j];
  const float numbers[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0.9f, 0.999f, 1e-2f, 0.3f, 1e-8f, 1e-3f, 0.99f, 0};
  check::Buffer<float> nd(std::vector<float>(numbers, numbers + 16)), values(start), gradient(n), outer(h), inner(2 * c2);
  check::Buffer<float> first(check::uniform(n, 31)), second(check::uniform(n, 32)), old(std::vector<float>(offset.data(), offset.data() + c));
  for (int i = 0; i < n; i++) second[i] = std::fabs(second[i]);
  check::Buffer<uint32_t> turn(1, 1u);
  std::vector<float> m(first.data(), first.data() + n), v(second.data(), second.data() + n);
  auto vectors = [&](bool update) {
    emu::launch(check::ceil_div(c + h + 2 * c2, 256), 256, 0, [&] {
      flow_vectors(update ? nd.data() : nullptr, update ? turn.data() : nullptr, sums.data(), vd.data(), scale.data(), values.data(), first.data(),
                   second.data(), gradient.data(), offset.data(), outer.data(), inner.data(), parts, c1, c2, h);
    });
  };
  vectors(false);
  double det_sum = 0;
  for (int r = 0; r < rows; r++) det_sum += slope[r];
  auto close = [&](const char* what, int i, double wanted, double size) { check::near(what, gradient[i], wanted, 1e-6, 2e-6 * size); };
  for (int j = 0; j < c; j++) {
    const int i = inverse[j];
    double sum = 0, through = 0, size = 0;
    for (int r = 0; r < rows; r++) {
      const double g = i < c1 ? g1.at(r, i) : g2.at(r, i - c1), z = i < c1 ? z1.at(r, i) : z2.at(r, i - c1);
      sum += g, through += g * z, size += std::fabs(g) + std::fabs(g * z);
    }
    const double rise = 0.1 / (1 + std::exp(-0.5 * theta[j])), g = scales[j];
    close("theta", j, ((through - (double)old[j] * sum + det_sum) / g) * rise, size / g + std::fabs(det_sum));
    close("offset", c + j, sum, size);
  }
  auto column = [&](const char* what, int at, Rows& rows_of, int i) {
    double sum = 0, size = 0;
    for (int r = 0; r < rows; r++) sum += rows_of.at(r, i), size += std::fabs(rows_of.at(r, i));
    close(what, at, sum, size);
  };
  for (int i = 0; i < h; i++) column("outer bias", 2 * c + i, gh, i);
  for (int i = 0; i < 2 * c2; i++) column("inner bias", 2 * c + h + i, ga, i);
  for (int i = 0; i < n; i++)
    if (values[i] != start[i] || first[i] != m[i]) check::fail("a value moved without a step");
  std::vector<float> gradients(gradient.data(), gradient.data() + n);
  vectors(true);
  for (int i = 0; i < n; i++) {
    const float *u = numbers + 8, was = start[i], g = gradients[i] + u[5] * was;
    const float mean = m[i] + (1.f - u[0]) * (g - m[i]), square = u[1] * v[i] + (1.f - u[1]) * g * g;
    const float moved = was * u[6] - u[2] * u[3] * (mean / (std::sqrt(square) + u[4] * u[3]));
    if (gradient[i] != gradients[i] || first[i] != mean || second[i] != square || values[i] != moved) check::fail("Adam at %d of %d", i, n);
  }
  for (int j = 0; j < c; j++)
    if (offset[j] != values[c + j]) check::fail("the copy of offset %d", j);
  for (int i = 0; i < h; i++)
    if (outer[i] != values[2 * c + i]) check::fail("the copy of outer bias %d", i);
  for (int i = 0; i < 2 * c2; i++)
    if (inner[i] != values[2 * c + h + i]) check::fail("the copy of inner bias %d", i);

  // The same step on its own.
  check::Buffer<float> p(start), pm(m), pv(v), pg(gradients);
  emu::launch(check::ceil_div(n, 256), 256, 0, [&] { adam_step(nd.data(), turn.data(), p.data(), pm.data(), pv.data(), pg.data(), n); });
  for (int i = 0; i < n; i++)
    if (p[i] != values[i] || pm[i] != first[i] || pv[i] != second[i]) check::fail("Adam alone at %d of %d", i, n);
}

static void gathered(const Sizes& t, unsigned) {
  const int c = t.c, c2 = c / 2, c1 = c - c2, n = t.rows, m = n + 9, positions = 7, listed = n > 1 ? 2 * n - 1 : 2;
  check::Buffer<float> features(check::uniform((size_t)m * c, 1)), codes(check::uniform((size_t)positions * t.k, 2));
  check::Random random(3);
  check::Buffer<uint32_t> fibres(listed), turn(1, 1u);
  for (int i = 0; i < listed; i++) fibres[i] = random.below(m);
  fibres[n] = m;  // there is none
  Rows x1(n, c1, 1, 0), x2(n, c2, 0, 0), cond(n, t.k, 2, 0);
  emu::launch(check::ceil_div((size_t)n * (c + t.k), 256), 256, 0, [&] {
    flow_gather(turn.data(), fibres.data(), features.data(), codes.data(), x1.ptr(), x1.pitch, x2.ptr(), x2.pitch, cond.ptr(), cond.pitch, listed, m, n, n,
                positions, c1, c2, t.k);
  });
  for (int r = 0; r < n; r++) {
    const bool none = r == 0 || n + r >= listed;
    const size_t fibre = none ? 0 : fibres[n + r];
    auto same = [&](float got, float wanted) {
      if (none ? got == got : got != wanted) check::fail("gathered row %d of %d", r, n);
    };
    for (int j = 0; j < c; j++) same(j < c1 ? x1.at(r, j) : x2.at(r, j - c1), features[fibre * c + j]);
    for (int j = 0; j < t.k; j++) same(cond.at(r, j), codes[fibre % positions * t.k + j]);
  }
  x1.kept("x1"), x2.kept("x2"), cond.kept("cond");
}

int main() {
  const Sizes cases[] = {{1, 2, 1, 1, 1}, {5, 3, 4, 2, 5}, {70, 24, 40, 32, 64}, {131, 67, 131, 6, 50}, {9, 130, 33, 128, 9}, {125, 9, 11, 3, 60}};
  for (const Sizes& t : cases)
    check::schedules(3, [&](unsigned seed) {
      one(t, seed);
      gathered(t, seed);
    });
  return check::result("flow");
}
