// Products of linear layers to the bit: a chain of sums for each group of threads, which takes pieces of the depth in turn. (The
// emulated tensor core adds products one by one in f32, and products of bf16 are exact there.) Odd sizes, pitches, one matrix or
// two, several tiles.
#include "check.h"
#include "product.cu"

struct Case { int n, c1, k, outputs, first, pad; bool relu, add, mask; };

static bool reduced;  // operands in bf16

static float operand(float v) { return reduced ? bf16_to_float(float_to_bf16(v)) : v; }
static float grow(float sum, float a, float b) { return reduced ? sum + operand(a) * operand(b) : std::fmaf(a, b, sum); }

// The sum over the depth of the products that `pair` adds to a sum, by `groups` groups.
template <class Pair> static float total(int depth, int groups, Pair pair) {
  const int piece = reduced ? 32 : 16;
  float all = 0;
  for (int g = 0; g < groups; g++) {
    float sum = 0;
    for (int d = 0; d < depth; d++)
      if (d / piece % groups == g) sum = pair(sum, d);
    all = g ? all + sum : sum;
  }
  return all;
}

// A matrix [rows, width] with a pitch; what lies between its rows must not change.
struct Rows {
  int rows, width, pitch;
  check::Buffer<float> data;
  Rows(int rows, int width, int pad, uint64_t seed) : rows(rows), width(width), pitch(width + pad), data(std::vector<float>((size_t)rows * pitch, 7.f)) {
    auto v = check::uniform((size_t)rows * width, seed);
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < width; i++) at(r, i) = v[(size_t)r * width + i];
  }
  float& at(int r, int i) { return data[(size_t)r * pitch + i]; }
  void kept(const char* what) {
    for (int r = 0; r < rows; r++)
      for (int i = width; i < pitch; i++)
        if (at(r, i) != 7.f) check::fail("%s wrote beyond its columns", what);
  }
};

static void same(const char* what, const Case& t, unsigned seed, int row, int column, float got, float wanted) {
  if (!(got == wanted)) check::fail("%s%s n %d, %d + %d to %d, seed %u at %d, %d: got %.9g, wanted %.9g", what, reduced ? " bf16" : "", t.n, t.c1, t.k, t.outputs, seed, row, column, got, wanted);
}

// Launches a kernel on a tile of these rows, columns and threads.
static void launch(int rows, int columns, int high, int wide, int threads, int shared, const std::function<void()>& body) {
  emu::launch({check::ceil_div(rows, high), check::ceil_div(columns, wide)}, threads, shared, body);
}
template <class Tile> static void plain(int rows, int columns, const std::function<void()>& body) {
  const int shared = std::max(Tile::GROUPS * 128 * (Tile::ROWS + Tile::COLUMNS + 8), (Tile::GROUPS - 1) * 4 * Tile::ROWS * Tile::COLUMNS);
  launch(rows, columns, Tile::ROWS, Tile::COLUMNS, Tile::THREADS * Tile::GROUPS, shared, body);
}
template <class Tile> static void cores(int rows, int columns, const std::function<void()>& body) {
  const int shared = std::max(Tile::GROUPS * 160 * (Tile::ROWS + Tile::COLUMNS), (Tile::GROUPS - 1) * 4 * Tile::ROWS * Tile::COLUMNS);
  launch(rows, columns, Tile::ROWS, Tile::COLUMNS, Tile::THREADS * Tile::GROUPS, shared, body);
}

static void one(const Case& t, unsigned seed) {
  using namespace product;
  const int inputs = t.c1 + t.k, n = t.n, o = t.outputs;
  ::Rows x(n, t.c1, t.pad, 1), cond(n, t.k ? t.k : 1, t.pad, 2), g(n, o, t.pad, 3), mask(n, t.first, t.pad, 4);
  for (int r = 0; r < n; r++)
    for (int i = r % 3; i < t.first; i += 3) mask.at(r, i) = 0;
  check::Buffer<float> weight(check::uniform((size_t)o * inputs, 5)), bias(check::uniform(o, 6));
  const float* other = t.k ? cond.data.data() : nullptr;
  auto input = [&](int r, int i) { return i < t.c1 ? x.at(r, i) : cond.at(r, i - t.c1); };

  for (int many = 0; many < (reduced ? 1 : 2); many++) {
    ::Rows out(n, o, t.pad, 7);
    const int groups = reduced ? CoresRows::GROUPS : many ? Many::GROUPS : product::Rows::GROUPS;
    auto body = [&] {
      (reduced ? product_forward_bf16 : many ? product_forward_many_f32 : product_forward_f32)(
          x.data.data(), x.pitch, other, cond.pitch, weight.data(), bias.data(), out.data.data(), out.pitch, n, t.c1, t.k, o, t.relu);
    };
    if (reduced) cores<CoresRows>(n, o, body);
    else if (many) plain<Many>(n, o, body);
    else plain<product::Rows>(n, o, body);
    for (int r = 0; r < n; r++)
      for (int j = 0; j < o; j++) {
        float sum = total(inputs, groups, [&](float sum, int i) { return grow(sum, input(r, i), weight[(size_t)j * inputs + i]); });
        sum += bias[j];
        same("forward", t, seed, r, j, out.at(r, j), t.relu && sum < 0 ? 0 : sum);
      }
    out.kept("forward");
  }
  {
    ::Rows out(n, t.first, t.pad, 8), before(n, t.first, t.pad, 8);
    auto body = [&] {
      (reduced ? product_backward_bf16 : product_backward_f32)(g.data.data(), g.pitch, weight.data(), t.mask ? mask.data.data() : nullptr, mask.pitch,
                                                               out.data.data(), out.pitch, n, o, inputs, t.first, t.add);
    };
    if (reduced) cores<CoresRows>(n, t.first, body);
    else plain<product::Rows>(n, t.first, body);
    for (int r = 0; r < n; r++)
      for (int i = 0; i < t.first; i++) {
        float sum = total(o, reduced ? CoresRows::GROUPS : product::Rows::GROUPS,
                          [&](float sum, int j) { return grow(sum, g.at(r, j), weight[(size_t)j * inputs + i]); });
        if (t.add) sum += before.at(r, i);
        same("backward", t, seed, r, i, out.at(r, i), t.mask && !(mask.at(r, i) > 0) ? 0 : sum);
      }
    out.kept("backward");
  }
  // Two steps to come, of which the second has its turn.
  check::Buffer<float> numbers(std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0, 0.9f, 0.99f, 0.02f, 0.4f, 1e-3f, 0.25f, 0.75f, 0});
  check::Buffer<uint32_t> turn(1, 1u);
  const adam::Step step = adam::load(numbers.data(), turn.data());
  check::Buffer<float> first(check::uniform((size_t)o * inputs, 9)), second(check::uniform((size_t)o * inputs, 10)), gradient((size_t)o * inputs);
  for (size_t i = 0; i < second.n; i++) second[i] += 0.5f;
  std::vector<float> p(weight.data(), weight.data() + weight.n), m(first.data(), first.data() + first.n), v(second.data(), second.data() + second.n);
  for (int take = 0; take < 2; take++) {
    auto body = [&] {
      (reduced ? product_update_bf16 : product_update_f32)(numbers.data(), turn.data(), g.data.data(), g.pitch, x.data.data(), x.pitch, other, cond.pitch,
                                                           take ? nullptr : gradient.data(), weight.data(), first.data(), second.data(), n, o, t.c1, t.k);
    };
    if (reduced) cores<CoresWeights>(o, inputs, body);
    else plain<Weights>(o, inputs, body);
  }
  for (int j = 0; j < o; j++)
    for (int i = 0; i < inputs; i++) {
      float sum = total(n, reduced ? CoresWeights::GROUPS : Weights::GROUPS,
                        [&](float sum, int r) { return grow(sum, g.at(r, j), input(r, i)); });
      const size_t at = (size_t)j * inputs + i;
      same("gradient", t, seed, j, i, gradient[at], sum);
      adam::apply(step, p[at], m[at], v[at], sum);
      same("weight", t, seed, j, i, weight[at], p[at]);
      same("first moment", t, seed, j, i, first[at], m[at]);
      same("second moment", t, seed, j, i, second[at], v[at]);
    }
}

int main() {
  const Case cases[] = {
      {1, 1, 0, 1, 1, 0, false, false, false},
      {70, 24, 12, 40, 24, 4, true, true, false},
      {33, 36, 0, 68, 36, 0, false, false, true},
      {67, 7, 4, 39, 5, 1, true, false, true},
      {20, 18, 21, 130, 38, 3, false, true, true},
      {131, 6, 2, 10, 8, 2, true, true, false},
      {5, 290, 14, 301, 33, 0, false, false, false},
  };
  check::schedules(3, [&](unsigned seed) {
    for (const Case& t : cases)
      for (bool bf16 : {false, true}) {
        reduced = bf16;
        one(t, seed);
      }
  });
  return check::result("product");
}
