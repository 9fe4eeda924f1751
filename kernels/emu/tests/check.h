// What the emulated tests share: a generator, buffers that notice writes beyond their ends, counting of failures.
#pragma once
#define EMU
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "cuda_emu.h"

namespace check {

inline int failures = 0, cases = 0;

__attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  if (++failures > 10) return;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
}

inline int result(const char* name) {
  printf("%-12s %4d cases, %d failures\n", name, cases, failures);
  return failures != 0;
}

struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15ull + 1) {}
  uint32_t bits() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 32);
  }
  float uniform() { return (float)(bits() >> 8) * (1.f / 16777216.f) - 0.5f; }
  int below(int n) { return (int)(bits() % (uint32_t)n); }
};

inline std::vector<float> uniform(size_t n, uint64_t seed) {
  Random r(seed);
  std::vector<float> v(n);
  for (auto& x : v) x = r.uniform();
  return v;
}

// Device memory: poisoned, with guards on both sides that are looked at in the end; under ASan it ends where the heap block
// does, so that a read beyond it is seen as well.
template <class T> struct Buffer {
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t FRONT = 64, BACK = 0;
#else
  static constexpr size_t FRONT = 64, BACK = 64;
#endif
  std::vector<unsigned char> bytes;
  size_t n;
  static constexpr unsigned char MARK = 0xa5;  // not what poison is made of, so that spilling poison is seen
  explicit Buffer(size_t n) : bytes(FRONT + n * sizeof(T) + BACK, MARK), n(n) { memset((void*)data(), 0xff, n * sizeof(T)); }
  Buffer(size_t n, T value) : Buffer(n) { std::fill(data(), data() + n, value); }
  explicit Buffer(const std::vector<T>& v) : Buffer(v.size()) { std::copy(v.begin(), v.end(), data()); }
  Buffer(const Buffer&) = delete;
  ~Buffer() {
    bool whole = true;
    for (size_t i = 0; i < FRONT; i++) whole &= bytes[i] == MARK;
    for (size_t i = 0; i < BACK; i++) whole &= bytes[bytes.size() - 1 - i] == MARK;
    if (!whole) fail("a kernel wrote outside a buffer of %zu", n);
  }
  T* data() { return (T*)(bytes.data() + FRONT); }
  T& operator[](size_t i) { return data()[i]; }
};

// The distance of the CPU: 16 lanes, fused multiply-adds, pairwise sum.
inline float squared(const float* a, const float* b, int d) {
  float lanes[16] = {};
  for (int j = 0; j < d; j++) {
    const float t = a[j] - b[j];
    lanes[j % 16] = std::fmaf(t, t, lanes[j % 16]);
  }
  for (int width = 8; width; width /= 2)
    for (int l = 0; l < width; l++) lanes[l] += lanes[l + width];
  return lanes[0];
}
inline double squared64(const float* a, const float* b, int d) {
  double sum = 0;
  for (int j = 0; j < d; j++) sum += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
  return sum;
}

inline void near(const char* what, double got, double wanted, double relative, double absolute) {
  if (!(std::fabs(got - wanted) <= absolute + relative * std::fabs(wanted))) fail("%s: got %.9g, wanted %.9g", what, got, wanted);
}

inline unsigned ceil_div(size_t a, size_t b) { return (unsigned)((a + b - 1) / b); }

// Runs `body` under several schedules.
template <class Body> void schedules(unsigned count, Body body) {
  for (unsigned seed = 0; seed < count; seed++) {
    emu::S.seed = seed;
    cases++;
    body(seed);
  }
}

}  // namespace check
