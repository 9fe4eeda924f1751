// The ceilings' kernels do the work that is counted for them.
#include "check.h"
#include "ceiling.cu"

static void copy(int n, int blocks) {
  auto values = check::uniform(4 * (size_t)n, (unsigned)n);
  check::Buffer<float> in(values), out(4 * (size_t)n);
  emu::launch(dim3(blocks), 256, 0, [&] { ceiling_copy((const float4*)in.data(), (float4*)out.data(), n); });
  for (size_t i = 0; i < 4 * (size_t)n; i++)
    if (out[i] != values[i]) check::fail("copy of %d at %zu: got %g, wanted %g", n, i, out[i], values[i]);
}

static void arithmetic(int rounds) {
  // Sums of small whole numbers and halves are exact in any order.
  std::vector<float> values = {1.f, 0.5f};
  check::Buffer<float> start(values), out(512), tensor(512);
  emu::launch(dim3(2), 256, 0, [&] { ceiling_multiply_add(start.data(), out.data(), rounds); });
  emu::launch(dim3(2), 256, 0, [&] { ceiling_tensor(start.data(), tensor.data(), rounds); });
  for (size_t t = 0; t < 512; t++) {
    if (out[t] != 120.f + 16 * 0.5f * rounds) check::fail("multiply-add, %d rounds: got %g", rounds, out[t]);
    if (tensor[t] != 4 * (28.f + 8 * 8.f * rounds)) check::fail("tensor, %d rounds: got %g", rounds, tensor[t]);
  }
}

int main() {
  check::schedules(2, [&](unsigned) {
    copy(1, 1);
    copy(1000, 3);
    arithmetic(0);
    arithmetic(7);
  });
  return check::result("ceiling");
}
