// Arithmetic on integers and predicates, moves and selections.
#pragma once
#include "state.h"

namespace ptx {

template <class T>
using Wide = std::conditional_t<sizeof(T) == 8, __int128, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;

template <class T, class F> struct Unary {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    T* d = row<T>(w, in.o[0]);
    const T* a = row<T>(w, in.o[1]);
    each(d, lanes, [=](int l) { return (T)F::of(a[l]); });
  }
};
template <class T, class F> struct Binary {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    T* d = row<T>(w, in.o[0]);
    const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
    each(d, lanes, [=](int l) { return (T)F::of(a[l], b[l]); });
  }
};
template <class T, class F> struct Ternary {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    T* d = row<T>(w, in.o[0]);
    const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]), *c = row<T>(w, in.o[3]);
    each(d, lanes, [=](int l) { return (T)F::of(a[l], b[l], c[l]); });
  }
};

struct Copied { template <class T> static T of(T a) { return a; } };
struct Inverted { template <class T> static T of(T a) { return (T)~a; } };
struct Negated { template <class T> static T of(T a) { return (T)(0 - (Bits<T>)a); } };
struct Ones { template <class T> static T of(T a) { return (T)__builtin_popcountll(a); } };
struct Reversed {
  static uint32_t of(uint32_t v) {
    v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
    v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
    v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(v);
  }
};
// bfind.shiftamt: how far the highest bit set has to move to the left, or all ones.
struct Leading { static uint32_t of(uint32_t a) { return a ? (uint32_t)__builtin_clz(a) : ~0u; } };

struct Sum { template <class T> static T of(T a, T b) { return (T)((Bits<T>)a + (Bits<T>)b); } };
struct Difference { template <class T> static T of(T a, T b) { return (T)((Bits<T>)a - (Bits<T>)b); } };
struct Product { template <class T> static T of(T a, T b) { return (T)((uint64_t)a * (uint64_t)b); } };
struct ProductSum { template <class T> static T of(T a, T b, T c) { return (T)((uint64_t)a * (uint64_t)b + (uint64_t)c); } };
struct Smaller { template <class T> static T of(T a, T b) { return b < a ? b : a; } };
struct Larger { template <class T> static T of(T a, T b) { return a < b ? b : a; } };
struct And { template <class T> static T of(T a, T b) { return (T)(a & b); } };
struct Or { template <class T> static T of(T a, T b) { return (T)(a | b); } };
struct Xor { template <class T> static T of(T a, T b) { return (T)(a ^ b); } };

// Of two: division by zero has no result in the language the kernels are written in, so it is an error.
template <class T, bool REST> void divide(Warp& w, const Instruction& in, uint32_t lanes) {
  T* d = row<T>(w, in.o[0]);
  const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
  one_by_one(lanes, [=](int l) {
    if (b[l] == 0) throw Fault{"a division by zero"};
    const bool flip = std::is_signed_v<T> && b[l] == (T)-1;  // the smallest number has no positive counterpart
    if (REST) d[l] = flip ? 0 : (T)(a[l] % b[l]);
    else d[l] = flip ? (T)(0 - (Bits<T>)a[l]) : (T)(a[l] / b[l]);
  });
}

// Shifts by 32-bit amounts, which are clamped to the width.
template <class T, bool LEFT> void shift(Warp& w, const Instruction& in, uint32_t lanes) {
  T* d = row<T>(w, in.o[0]);
  const T* a = row<T>(w, in.o[1]);
  const uint32_t* b = row<uint32_t>(w, in.o[2]);
  constexpr uint32_t WIDTH = sizeof(T) * 8;
  each(d, lanes, [=](int l) {
    const uint32_t by = b[l] < WIDTH ? b[l] : WIDTH - 1;
    const bool out = b[l] >= WIDTH;
    if (LEFT) return out ? (T)0 : (T)((Bits<T>)a[l] << by);
    return out && !std::is_signed_v<T> ? (T)0 : (T)(a[l] >> by);
  });
}

template <class T> void multiply_wide(Warp& w, const Instruction& in, uint32_t lanes) {
  typedef std::conditional_t<sizeof(T) == 4, Wide<T>, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>> W;
  W* d = row<W>(w, in.o[0]);
  const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
  each(d, lanes, [=](int l) { return (W)((W)a[l] * (W)b[l]); });
}

// bfi: `length` bits of a, put into b at `from`.
template <class T> void insert_bits(Warp& w, const Instruction& in, uint32_t lanes) {
  T* d = row<T>(w, in.o[0]);
  const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
  const uint32_t *from = row<uint32_t>(w, in.o[3]), *length = row<uint32_t>(w, in.o[4]);
  constexpr uint32_t WIDTH = sizeof(T) * 8;
  one_by_one(lanes, [=](int l) {
    const uint32_t at = from[l] & 255, n = length[l] & 255;
    if (at >= WIDTH || n == 0) return void(d[l] = b[l]);
    const T field = (T)((n >= WIDTH ? (T)~(T)0 : (T)(((T)1 << n) - 1)) << at);
    d[l] = (b[l] & ~field) | ((T)(a[l] << at) & field);
  });
}

// Conversions between integers: of the lower bits, extended by the sign of A.
template <class D, class A> void resize(Warp& w, const Instruction& in, uint32_t lanes) {
  D* d = row<D>(w, in.o[0]);
  const A* a = row<A>(w, in.o[1]);
  each(d, lanes, [=](int l) { return (D)a[l]; });
}

// The same from the lower half of a wider register.
template <class D, class A, class HELD> void resize_low(Warp& w, const Instruction& in, uint32_t lanes) {
  D* d = row<D>(w, in.o[0]);
  const HELD* a = row<HELD>(w, in.o[1]);
  each(d, lanes, [=](int l) { return (D)(A)a[l]; });
}

// mov of two halves into one, and back.
template <class D, class A> void join(Warp& w, const Instruction& in, uint32_t lanes) {
  D* d = row<D>(w, in.o[0]);
  const A *low = row<A>(w, in.o[1]), *high = row<A>(w, in.o[2]);
  each(d, lanes, [=](int l) { return (D)(low[l] | (D)high[l] << sizeof(A) * 8); });
}
template <class D, class A> void part(Warp& w, const Instruction& in, uint32_t lanes) {
  D *low = row<D>(w, in.o[0]), *high = row<D>(w, in.o[1]);
  const A* a = row<A>(w, in.o[2]);
  A whole[32];
  memcpy(whole, a, sizeof whole);
  each(low, lanes, [&](int l) { return (D)whole[l]; });
  each(high, lanes, [&](int l) { return (D)(whole[l] >> sizeof(D) * 8); });
}

// Comparisons, `bits` from lane 0 on.
struct Equal { template <class T> static bool of(T a, T b) { return a == b; } };
struct Unequal { template <class T> static bool of(T a, T b) { return a != b; } };
struct Less { template <class T> static bool of(T a, T b) { return a < b; } };
struct LessEqual { template <class T> static bool of(T a, T b) { return a <= b; } };
struct Greater { template <class T> static bool of(T a, T b) { return a > b; } };
struct GreaterEqual { template <class T> static bool of(T a, T b) { return a >= b; } };

inline void set(Warp& w, Place p, uint32_t lanes, uint32_t bits) {
  uint32_t& d = w.predicates[(size_t)p];
  d = (d & ~lanes) | (bits & lanes);
}
template <class T, class F> struct Compare {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
    uint32_t bits = 0;
    for (int l = 0; l < 32; l++) bits |= (uint32_t)F::of(a[l], b[l]) << l;
    set(w, in.o[0], lanes, bits);
  }
};
template <class T> void select(Warp& w, const Instruction& in, uint32_t lanes) {
  T* d = row<T>(w, in.o[0]);
  const T *a = row<T>(w, in.o[1]), *b = row<T>(w, in.o[2]);
  const uint32_t p = w.predicates[(size_t)in.o[3]];
  each(d, lanes, [=](int l) { return p >> l & 1 ? a[l] : b[l]; });
}

// Of predicates; a constant one is its bits in `number`.
inline uint32_t bits_of(const Warp& w, const Instruction& in, Place p) {
  return p < 0 ? (uint32_t)in.number : w.predicates[(size_t)p];
}
inline void move_predicate(Warp& w, const Instruction& in, uint32_t lanes) { set(w, in.o[0], lanes, bits_of(w, in, in.o[1])); }
inline void not_predicate(Warp& w, const Instruction& in, uint32_t lanes) {
  set(w, in.o[0], lanes, ~w.predicates[(size_t)in.o[1]]);
}
template <class F> void combine(Warp& w, const Instruction& in, uint32_t lanes) {
  set(w, in.o[0], lanes, F::of(w.predicates[(size_t)in.o[1]], w.predicates[(size_t)in.o[2]]));
}

// mov from a special register: %tid, %ntid, %ctaid, %nctaid of an axis, %laneid.
inline void special(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* d = row<uint32_t>(w, in.o[0]);
  const int axis = (int)in.number % 3, what = (int)in.number / 3;
  if (what == 0) return each(d, lanes, [&](int l) { return w.tid[axis][l]; });
  if (what == 4) return each(d, lanes, [](int l) { return (uint32_t)l; });
  const Index& of = what == 1 ? w.launch->block : what == 2 ? w.block->id : w.launch->grid;
  const uint32_t v = axis == 0 ? of.x : axis == 1 ? of.y : of.z;
  each(d, lanes, [=](int) { return v; });
}

template <class S, class D> void load_parameter(Warp& w, const Instruction& in, uint32_t lanes) {
  S v;
  memcpy(&v, w.launch->parameters + in.number, sizeof v);
  each(row<D>(w, in.o[0]), lanes, [=](int) { return (D)v; });
}

}  // namespace ptx
