// Arithmetic on floating-point numbers, to IEEE 754 where PTX says so. What PTX calls approximate is the right result, moved by
// up to the error it allows: by a hash of the operand, so that equal operands give equal results.
#pragma once
#include <cmath>
#include <immintrin.h>

#include "integers.h"

namespace ptx {

template <class T, class U> inline T as(U u) {
  static_assert(sizeof(T) == sizeof(U));
  T t;
  memcpy(&t, &u, sizeof t);
  return t;
}
// The NaN that f32 arithmetic gives, whatever went in; f64 keeps what the processor makes of it.
inline float canonical(float v) { return v == v ? v : as<float>(0x7fffffffu); }
inline double canonical(double v) { return v; }
inline float flushed(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.f, v) : v; }

struct FloatSum { template <class T> static T of(T a, T b) { return canonical(a + b); } };
struct FloatDifference { template <class T> static T of(T a, T b) { return canonical(a - b); } };
struct FloatProduct { template <class T> static T of(T a, T b) { return canonical(a * b); } };
struct Quotient { template <class T> static T of(T a, T b) { return canonical(a / b); } };
struct Fused { template <class T> static T of(T a, T b, T c) { return canonical(std::fma(a, b, c)); } };
struct Inverse { template <class T> static T of(T a) { return canonical((T)1 / a); } };
struct Root { template <class T> static T of(T a) { return canonical(std::sqrt(a)); } };
struct SignFlipped {
  template <class T>
  static T of(T a) {
    return as<T>((Bits<T>)(as<Bits<T>>(a) ^ (Bits<T>)1 << (sizeof(T) * 8 - 1)));
  }
};
struct Magnitude {
  template <class T>
  static T of(T a) {
    return as<T>((Bits<T>)(as<Bits<T>>(a) & ~((Bits<T>)1 << (sizeof(T) * 8 - 1))));
  }
};
// Of NaN and a number the number; -0 is below +0.
struct FloatSmaller {
  template <class T> static T of(T a, T b) {
    const T least = a < b ? a : b < a ? b : as<T>((Bits<T>)(as<Bits<T>>(a) | as<Bits<T>>(b)));
    return a != a ? canonical(b) : b != b ? a : least;
  }
};
struct FloatLarger {
  template <class T> static T of(T a, T b) {
    const T most = a > b ? a : b > a ? b : as<T>((Bits<T>)(as<Bits<T>>(a) & as<Bits<T>>(b)));
    return a != a ? canonical(b) : b != b ? a : most;
  }
};
// cvt.sat: into 0..1, NaN to 0.
struct Saturated { static float of(float a) { return a > 0.f ? a < 1.f ? a : 1.f : 0.f; } };

struct Unordered { template <class T> static bool of(T a, T b) { return a != a || b != b; } };
struct Ordered { template <class T> static bool of(T a, T b) { return a == a && b == b; } };
template <class F> struct OrUnordered { template <class T> static bool of(T a, T b) { return a != a || b != b || F::of(a, b); } };
struct NotEqual { template <class T> static bool of(T a, T b) { return a < b || a > b; } };

// Another direction of rounding than to nearest, for an action on rows.
template <unsigned MODE, Action F> void rounded(Warp& w, const Instruction& in, uint32_t lanes) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr((before & ~0x6000u) | MODE);
  asm volatile("" ::: "memory");
  F(w, in, lanes);
  asm volatile("" ::: "memory");
  _mm_setcsr(before);
}
constexpr unsigned DOWN = 0x2000, UP = 0x4000, ZERO = 0x6000;

// Conversions.
template <class D, class A> struct Convert {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    D* d = row<D>(w, in.o[0]);
    const A* a = row<A>(w, in.o[1]);
    each(d, lanes, [=](int l) {
      if constexpr (std::is_same_v<D, float>) return canonical((float)a[l]);
      else return (D)a[l];
    });
  }
};
inline void half_to_float(Warp& w, const Instruction& in, uint32_t lanes) {
  float* d = row<float>(w, in.o[0]);
  const uint16_t* a = row<uint16_t>(w, in.o[1]);
  each(d, lanes, [=](int l) { return canonical((float)as<_Float16>(a[l])); });
}
inline void float_to_half(Warp& w, const Instruction& in, uint32_t lanes) {
  uint16_t* d = row<uint16_t>(w, in.o[0]);
  const float* a = row<float>(w, in.o[1]);
  each(d, lanes, [=](int l) { return a[l] == a[l] ? as<uint16_t>((_Float16)a[l]) : (uint16_t)0x7fff; });
}
inline uint32_t bf16_bits(float v) {
  const uint32_t bits = as<uint32_t>(v);
  return v == v ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : 0x7fffu;
}
// The first operand becomes the upper half.
inline void floats_to_bf16(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* d = row<uint32_t>(w, in.o[0]);
  const float *high = row<float>(w, in.o[1]), *low = row<float>(w, in.o[2]);
  each(d, lanes, [=](int l) { return bf16_bits(high[l]) << 16 | bf16_bits(low[l]); });
}

// -most..most, as a hash of the operand's bits has it.
inline int moved(uint64_t bits, int most) {
  bits = (bits + 0x9E3779B97F4A7C15ull) * 0xBF58476D1CE4E5B9ull;
  bits ^= bits >> 29;
  return (int)((bits * 0x94D049BB133111EBull >> 33) % (uint64_t)(2 * most + 1)) - most;
}
inline float ulps(float v, int n) {  // of a positive normal number
  return as<float>(as<uint32_t>(v) + (uint32_t)n);
}

inline void exp2_approx(Warp& w, const Instruction& in, uint32_t lanes) {
  float* d = row<float>(w, in.o[0]);
  const float* a = row<float>(w, in.o[1]);
  one_by_one(lanes, [=](int l) {
    const float x = flushed(a[l]);
    float y = canonical((float)std::exp2((double)x));
    if (y >= 0x1p-125f && y < 0x1p127f && x != 0.f) y = ulps(y, moved(as<uint32_t>(x), 2));
    d[l] = flushed(y);
  });
}
inline void reciprocal_approx(Warp& w, const Instruction& in, uint32_t lanes) {
  float* d = row<float>(w, in.o[0]);
  const float* a = row<float>(w, in.o[1]);
  one_by_one(lanes, [=](int l) {
    const float x = flushed(a[l]);
    float y = canonical(1.f / x);
    const float size = std::fabs(y);
    if (size >= 0x1p-125f && size < 0x1p127f && (as<uint32_t>(x) & 0x7fffffu))
      y = std::copysign(ulps(size, moved(as<uint32_t>(x), 1)), y);
    d[l] = flushed(y);
  });
}
// Works on the upper half of its operand and gives the upper half of a result, to 20 bits.
inline void reciprocal_approx_double(Warp& w, const Instruction& in, uint32_t lanes) {
  double* d = row<double>(w, in.o[0]);
  const double* a = row<double>(w, in.o[1]);
  one_by_one(lanes, [=](int l) {
    const uint64_t upper = as<uint64_t>(a[l]) & ~0xffffffffull;
    double x = as<double>(upper);
    if (std::fabs(x) < 0x1p-1022) x = std::copysign(0.0, x);
    double y = 1.0 / x;
    const double size = std::fabs(y);
    if (size >= 0x1p-1021 && size < 0x1p1023)
      y = as<double>((as<uint64_t>(y) & ~0xffffffffull) + ((uint64_t)(int64_t)moved(upper, 1) << 32));
    else if (size < 0x1p-1022) y = std::copysign(0.0, y);
    d[l] = y;
  });
}

}  // namespace ptx
