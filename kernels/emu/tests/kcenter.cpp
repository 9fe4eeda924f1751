// Greedy k-center: the picks and distances of the plain loop, whatever the pool's size, with ties, duplicates and more picks
// than different points.
#include "check.h"
#include "kcenter.cu"

using check::ceil_div;

struct Case { int n, d, total, size, grid, values; bool kept; };

static void one(const Case& c, unsigned seed) {
  check::Random r(3 + c.n);
  std::vector<float> p((size_t)c.n * c.d);
  for (auto& v : p) v = c.values ? (float)r.below(c.values) : r.uniform();
  const int start = c.n / 2;
  std::vector<int> wanted = {start};
  std::vector<float> near(c.n, INFINITY), wanted_squared = {INFINITY};
  while ((int)wanted.size() < c.total) {
    int best = 0;
    for (int i = 0; i < c.n; i++) near[i] = fminf(near[i], check::squared(&p[(size_t)i * c.d], &p[(size_t)wanted.back() * c.d], c.d));
    for (int i = 1; i < c.n; i++)
      if (near[i] > near[best]) best = i;
    wanted.push_back(best);
    wanted_squared.push_back(near[best]);
  }
  check::Buffer<float> points(p), distance((unsigned)c.n, INFINITY), squared((unsigned)c.total);
  check::Buffer<uint32_t> picks(c.total), histogram(65536, 0u), state(kcenter::STATE, 0u), pool(c.size);
  check::Buffer<uint64_t> best(2 * c.grid), farthest(1);
  picks[0] = start, squared[0] = INFINITY, state[kcenter::PICKS] = 1;
  int first = 0, epochs = 0;
  while ((int)state[kcenter::PICKS] < c.total) {
    const int count = (int)state[kcenter::PICKS] - first;
    emu::launch(ceil_div(c.n, 64), 256, lane_tile::Tile<8>::SHARED,
                [&] { kcenter_update(points.data(), distance.data(), picks.data(), first, count, c.n, c.d); });
    first += count;
    farthest[0] = 0;
    for (int level = 0; level < 2; level++) {
      emu::launch(2, 256, 0, [&] { kcenter_histogram(distance.data(), histogram.data(), state.data(), farthest.data(), c.n, level); });
      emu::launch(1, 1024, 4096, [&] { kcenter_threshold(histogram.data(), state.data(), c.size, level); });
    }
    emu::launch(ceil_div(c.n, 256), 256, 0, [&] { kcenter_collect(distance.data(), state.data(), pool.data(), c.n); });
    const int rows = c.kept ? (int)ceil_div(c.size, c.grid) : 0, members = (int)state[kcenter::POOL];
    if (members > c.size || (c.n <= c.size && members != c.n)) check::fail("a pool of %d points", members);
    // What is above the threshold is in; as many as fit.
    int above = 0;
    for (int i = 0; i < c.n; i++) above += __float_as_int(distance[i]) > (int)state[kcenter::THRESHOLD];
    if (above != members) check::fail("%d points above the threshold, %d in the pool", above, members);
    if (c.n > c.size) {
      int at_least = 0;
      for (int i = 0; i < c.n; i++) at_least += __float_as_int(distance[i]) >= (int)state[kcenter::THRESHOLD];
      if (at_least <= c.size) check::fail("the pool has room: %d points at the threshold or above", at_least);
    }
    emu::launch_cooperative(c.grid, 256, 512 + 4 * rows * c.d, [&] {
      kcenter_greedy(points.data(), distance.data(), state.data(), pool.data(), best.data(), farthest.data(), picks.data(),
                     squared.data(), c.total, c.d, rows);
    });
    if ((int)state[kcenter::PICKS] <= first || ++epochs > c.total) return check::fail("no progress after %d picks", first);
  }
  for (int i = 0; i < c.total; i++)
    if (picks[i] != (uint32_t)wanted[i] || squared[i] != wanted_squared[i])
      return check::fail("kcenter n %d d %d size %d grid %d seed %u: pick %d is %u at %.9g, wanted %d at %.9g", c.n, c.d, c.size,
                         c.grid, seed, i, picks[i], squared[i], wanted[i], wanted_squared[i]);
  for (int b = 0; b < 65536; b++)
    if (histogram[b]) return check::fail("the histogram is not cleared");
}

int main() {
  const Case all[] = {{1, 1, 1, 4, 1, 0, true},     {2, 3, 2, 4, 2, 0, true},     {300, 17, 60, 32, 3, 0, true}, {300, 17, 60, 32, 3, 0, false},
                      {400, 2, 80, 16, 2, 5, true}, {90, 2, 40, 8, 2, 3, false},  {70, 2, 70, 128, 3, 4, true},
                      {65, 100, 20, 16, 5, 0, true},
                      {260, 4, 100, 128, 2, 0, true}, {40, 4, 30, 8, 2, 1, true}};
  for (auto& c : all) check::schedules(3, [&](unsigned seed) { one(c, seed); });
  return check::result("kcenter");
}
