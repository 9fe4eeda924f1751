// The interpreter's arithmetic, opcode by opcode, on all pairs of telling numbers, against plain C++ written another way.
#include "ptx.h"

using namespace ptx;
typedef uint64_t U;

static const std::vector<U> WORDS = {
    0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 255, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe,
    0x12345678, 0xdeadbeef, 0x00000000ffffffff, 0x8000000000000000, 0x7fffffffffffffff, 0xffffffffffffffff, 0x123456789abcdef0};
static const std::vector<U> FLOATS = {
    0, 0x80000000, 0x3f800000, 0xbf800000, 0x3f800001, 0x40490fdb, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f812345, 1, 0x80000001,
    0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x33800000, 0x3effffff, 0x4b800000, 0xcb800001, 0x2edbe6ff, 0x42c80000, 0xc2ae0000};
static const std::vector<double> DOUBLES = {
    0, -0.0, 1, -1, 1.5, M_PI, INFINITY, -INFINITY, NAN, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e-8, -3e9, 1. / 3, 1e40, 1.0000000596046448};

// "f32" -> "%f".
static std::string reg(const std::string& type, int i) {
  const char* name = type == "pred" ? "%p" : type == "f32" ? "%f" : type == "f64" ? "%fd" : type.substr(1) == "64" ? "%rd" : type.substr(1) == "16" ? "%rs" : "%r";
  return name + std::to_string(i);
}
static std::string plain(const std::string& type) {
  if (type == "pred") return type;
  return type[0] == 'f' && type != "f16" ? type : "u" + type.substr(type.find_first_of("123468"));
}

static bool same(const std::string& type, U got, U wanted) {
  if (type == "f64") return got == wanted || (std::isnan(as<double>(got)) && std::isnan(as<double>(wanted)));
  return got == wanted;
}

// `op` of operands of `types` (the result's first) on all combinations of `numbers`.
static void check(const std::string& op, const std::vector<std::string>& types, const std::vector<U>& numbers, std::function<U(U, U, U)> wanted) {
  const size_t operands = types.size() - 1, n = numbers.size();
  std::vector<U> in;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < (operands > 1 ? n : 1); j++) in.insert(in.end(), {numbers[i], numbers[j], numbers[(i * 7 + j * 5 + 3) % n], 0});
  while (in.size() % 128) in.push_back(0), in.push_back(1), in.push_back(1), in.push_back(0);
  std::string body, list;
  for (size_t i = 0; i < operands; i++) {
    const std::string r = reg(types[i + 1], 10 + (int)i), t = plain(types[i + 1]);
    if (types[i + 1] == "pred") body += "ld.global.u32 %r" + std::to_string(20 + i) + ", [%rd3+" + std::to_string(8 * i) + "];\nsetp.ne.s32 " + r + ", %r" + std::to_string(20 + i) + ", 0;\n";
    else body += "ld.global." + t + " " + r + ", [%rd3+" + std::to_string(8 * i) + "];\n";
    list += ", " + r;
  }
  const std::string d = reg(types[0], 9);
  body += op + " " + d + list + ";\n";
  if (types[0] == "pred") body += "selp.b32 %r30, 1, 0, " + d + ";\nst.global.u32 [%rd4], %r30;\n";
  else body += "st.global." + plain(types[0]) + " [%rd4], " + d + ";\n";
  const unsigned threads = 32, blocks = (unsigned)(in.size() / 128);
  const std::vector<U> out = right(body, in, {blocks, threads});
  // The same for a part of a warp: lanes that do not take part keep what they had.
  const std::vector<U> part = right("and.b32 %r40, %r2, 5;\nsetp.eq.s32 %p20, %r40, 1;\n@%p20 bra $END;\n" + body, in, {blocks, threads});
  for (size_t i = 0; i < in.size() / 4; i++) {
    const U want = wanted(in[4 * i], in[4 * i + 1], in[4 * i + 2]);
    if (!same(types[0], out[4 * i], want))
      fail("%s %llx %llx %llx: got %llx, wanted %llx", op.c_str(), (long long)in[4 * i], (long long)in[4 * i + 1], (long long)in[4 * i + 2], (long long)out[4 * i], (long long)want);
    if (part[4 * i] != ((i % 32 & 5) == 1 ? 0 : out[4 * i])) fail("%s in a part of a warp: lane %zu got %llx", op.c_str(), i % 32, (long long)part[4 * i]);
  }
}

static std::vector<U> doubles() {
  std::vector<U> v;
  for (double d : DOUBLES) v.push_back(as<U>(d));
  return v;
}
template <class T> static U bits(T t) { return as<U>(t); }

template <class T> static void whole(const char* type) {
  const std::string t = type;
  typedef __int128 W;
  typedef std::make_unsigned_t<T> B;
  const int width = sizeof(T) * 8;
  auto two = [&](const char* op, auto f) {
    check(op + ("." + t), {t, t, t}, WORDS, [=](U a, U b, U) { return (U)(B)(T)f((W)(T)a, (W)(T)b); });
  };
  two("add", [](W a, W b) { return a + b; });
  two("sub", [](W a, W b) { return a - b; });
  two("mul.lo", [](W a, W b) { return (W)((U)a * (U)b); });
  two("min", [](W a, W b) { return a < b ? a : b; });
  two("max", [](W a, W b) { return a > b ? a : b; });
  check("mad.lo." + t, {t, t, t, t}, WORDS, [](U a, U b, U c) { return (U)(B)(a * b + c); });
  check("mov." + t, {t, t}, WORDS, [](U a, U, U) { return (U)(B)a; });
  if (std::is_signed_v<T>) check("neg." + t, {t, t}, WORDS, [](U a, U, U) { return (U)(B)(0 - a); });
  std::vector<U> nonzero;
  for (U v : WORDS)
    if ((T)v) nonzero.push_back(v);
  check("div." + t, {t, t, t}, nonzero, [](U a, U b, U) { return (U)(B)(T)((W)(T)a / (W)(T)b); });
  check("rem." + t, {t, t, t}, nonzero, [](U a, U b, U) { return (U)(B)(T)((W)(T)a % (W)(T)b); });
  check("shr." + t, {t, t, "u32"}, WORDS, [=](U a, U b, U) {
    const int by = (uint32_t)b > 127 ? 127 : (int)(uint32_t)b;
    return (U)(B)(T)((W)(T)a >> (by > width ? width : by));
  });
  check("setp.lt." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)((W)(T)a < (W)(T)b); });
  check("setp.le." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)!((W)(T)b < (W)(T)a); });
  check("setp.gt." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)((W)(T)b < (W)(T)a); });
  check("setp.ge." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)!((W)(T)a < (W)(T)b); });
  check("setp.eq." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)((W)(T)a - (W)(T)b == 0); });
  check("setp.ne." + t, {"pred", t, t}, WORDS, [](U a, U b, U) { return (U)((W)(T)a - (W)(T)b != 0); });
  check("selp." + t, {t, t, t, "pred"}, WORDS, [](U a, U b, U c) { return (U)(B)((uint32_t)c ? a : b); });
  if (width < 64)
    check("mul.wide." + t, {t[0] + std::to_string(2 * width), t, t}, WORDS, [=](U a, U b, U) {
      return (U)((W)(T)a * (W)(T)b) & (width == 16 ? 0xffffffffull : ~0ull);
    });
}
template <class B> static void bitwise(const char* type) {
  const std::string t = type;
  const int width = sizeof(B) * 8;
  check("and." + t, {t, t, t}, WORDS, [](U a, U b, U) { return (U)(B)~(~a | ~b); });
  check("or." + t, {t, t, t}, WORDS, [](U a, U b, U) { return (U)(B)~(~a & ~b); });
  check("xor." + t, {t, t, t}, WORDS, [](U a, U b, U) { return (U)(B)((a | b) - (a & b)); });
  check("not." + t, {t, t}, WORDS, [](U a, U, U) { return (U)(B)(-1 - a); });
  check("shl." + t, {t, t, "u32"}, WORDS, [=](U a, U b, U) { return (uint32_t)b >= (uint32_t)width ? 0 : (U)(B)(a * (1ull << (b & 63))); });
}

template <class T> static T quiet(T v) { return v != v && sizeof(T) == 4 ? as<T>(0x7fffffffu) : v; }
template <class T> static void real(const char* type, const std::vector<U>& numbers) {
  const std::string t = type;
  auto two = [&](const std::string& op, auto f) {
    check(op + "." + t, {t, t, t}, numbers, [=](U a, U b, U) { return bits(quiet((T)f(as<T>(a), as<T>(b)))); });
  };
  // Sums and products of floats in long double, which holds them with bits to spare, rounded once.
  typedef long double L;
  two("add.rn", [](T a, T b) { return a + b; });
  two("sub.rn", [](T a, T b) { return a - b; });
  two("mul.rn", [](T a, T b) { return a * b; });
  two("div.rn", [](T a, T b) { return a / b; });
  auto smaller = [](T a, T b) { return a != a ? b : b != b ? a : std::signbit(a) != std::signbit(b) && a == b ? (std::signbit(a) ? a : b) : std::fmin(a, b); };
  two("min", smaller);
  two("max", [=](T a, T b) { return a != a ? b : b != b ? a : -smaller(-a, -b); });
  check("fma.rn." + t, {t, t, t, t}, numbers, [](U a, U b, U c) { return bits(quiet(std::fma(as<T>(a), as<T>(b), as<T>(c)))); });
  check("rcp.rn." + t, {t, t}, numbers, [](U a, U, U) { return bits(quiet((T)1 / as<T>(a))); });
  check("sqrt.rn." + t, {t, t}, numbers, [](U a, U, U) { return bits(quiet(std::sqrt(as<T>(a)))); });
  check("neg." + t, {t, t}, numbers, [](U a, U, U) { return a ^ 1ull << (sizeof(T) * 8 - 1); });
  check("abs." + t, {t, t}, numbers, [](U a, U, U) { return a & ((1ull << (sizeof(T) * 8 - 1)) - 1); });
  struct { const char* name; bool less, equal, greater, unordered; } all[] = {
      {"eq", 0, 1, 0, 0}, {"ne", 1, 0, 1, 0}, {"lt", 1, 0, 0, 0}, {"le", 1, 1, 0, 0}, {"gt", 0, 0, 1, 0}, {"ge", 0, 1, 1, 0}, {"num", 1, 1, 1, 0},
      {"equ", 0, 1, 0, 1}, {"neu", 1, 0, 1, 1}, {"ltu", 1, 0, 0, 1}, {"leu", 1, 1, 0, 1}, {"gtu", 0, 0, 1, 1}, {"geu", 0, 1, 1, 1}, {"nan", 0, 0, 0, 1}};
  for (auto& c : all)
    check(std::string("setp.") + c.name + "." + t, {"pred", t, t}, numbers, [=](U x, U y, U) {
      const T a = as<T>(x), b = as<T>(y);
      return (U)(std::isunordered(a, b) ? c.unordered : a < b ? c.less : a > b ? c.greater : c.equal);
    });
  // Other directions: the nearest, moved if it lies on the wrong side of the exact sum.
  auto direct = [](L exact, bool zero, T away) {
    T near = (T)exact;
    if (std::isinf(near) || std::isnan(near)) near = std::isinf(exact) || exact != exact ? near : std::copysign(std::numeric_limits<T>::max(), near);
    if (exact == 0 || std::isinf(exact)) return near;
    if (zero ? std::fabs((L)near) > std::fabs(exact) : (L)near > exact) near = std::nextafter(near, zero ? (T)0 : away);
    return near;
  };
  if (sizeof(T) == 4) {
    std::vector<U> tame;  // sums exact in 64 bits
    for (U v : numbers) {
      const float f = as<float>(v);
      if (f == 0 || (std::fabs(f) > 1e-9 && std::fabs(f) < 1e9)) tame.push_back(v);
    }
    // A sum of zero is -0 towards -infinity, unless both are +0.
    check("add.rz.f32", {"f32", "f32", "f32"}, tame, [=](U a, U b, U) {
      const L exact = (L)as<float>(a) + as<float>(b);
      return exact == 0 ? bits(as<float>(a) + as<float>(b)) : bits(direct(exact, true, 0));
    });
    check("fma.rm.f32", {"f32", "f32", "f32", "f32"}, tame, [=](U a, U b, U c) {
      const L exact = (L)as<float>(a) * as<float>(b) + as<float>(c);
      const bool positive = !std::signbit(as<float>(a) * as<float>(b)) && !std::signbit(as<float>(c));
      return exact == 0 ? bits(positive ? 0.f : -0.f) : bits(direct(exact, false, -INFINITY));
    });
  }
}

static void conversions() {
  auto f = [](U a) { return as<float>(a); };
  check("cvt.f32.f16", {"f32", "b16"}, {0, 1, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x8000, 0x3555, 0xd123}, [](U a, U, U) {
    const int e = (int)(a >> 10 & 31), m = (int)(a & 1023);
    const float size = e == 31 ? (m ? NAN : INFINITY) : std::ldexp((float)(e ? 1024 + m : m), (e ? e : 1) - 25);
    return size != size ? 0x7fffffffu : bits(a >> 15 ? -size : size);
  });
  std::vector<U> near = FLOATS;
  for (float v : {65504.f, 65519.f, 65520.f, 6e-8f, 2.9802322e-8f, 2.9802326e-8f, 1.0004883f, 1.0014648f, 0.33325195f, -7.f}) near.push_back(bits(v));
  check("cvt.rn.f16.f32", {"b16", "f32"}, near, [=](U a, U, U) -> U {
    const float v = f(a);
    if (v != v) return 0x7fff;
    U best = 0;
    double distance = INFINITY;
    if (std::fabs(v) >= 65520.f) return 0x7c00 | (U)std::signbit(v) << 15;
    for (U h = 0; h < 0x7c00; h++) {  // the nearest of all, even of two
      const int e = (int)(h >> 10), m = (int)(h & 1023);
      const double d = std::fabs(std::ldexp((double)(e ? 1024 + m : m), (e ? e : 1) - 25) - std::fabs((double)v));
      if (d < distance || (d == distance && !(h & 1))) best = h, distance = d;
    }
    return best | (U)std::signbit(v) << 15;
  });
  check("cvt.rn.bf16x2.f32", {"b32", "f32", "f32"}, FLOATS, [=](U a, U b, U) {
    auto one = [](float v) -> U {
      if (v != v) return 0x7fff;
      const uint32_t low = as<uint32_t>(v) & 0xffff0000u, high = low + 0x10000u;
      const uint32_t rest = as<uint32_t>(v) - low;
      return (rest > 0x8000u || (rest == 0x8000u && (low >> 16 & 1)) ? high : low) >> 16;
    };
    return one(f(a)) << 16 | one(f(b));
  });
  check("cvt.sat.f32.f32", {"f32", "f32"}, FLOATS, [=](U a, U, U) { return bits(f(a) >= 1 ? 1.f : f(a) > 0 ? f(a) : 0.f); });
  check("cvt.f64.f32", {"f64", "f32"}, FLOATS, [=](U a, U, U) { return bits((double)f(a)); });
  check("cvt.rn.f32.f64", {"f32", "f64"}, doubles(), [](U a, U, U) { return bits(quiet((float)as<double>(a))); });
  check("cvt.rn.f32.s32", {"f32", "b32"}, WORDS, [](U a, U, U) { return bits((float)(double)(int32_t)a); });
  check("cvt.rn.f32.u32", {"f32", "b32"}, WORDS, [](U a, U, U) { return bits((float)(double)(uint32_t)a); });
  check("cvt.rn.f32.u16", {"f32", "b16"}, WORDS, [](U a, U, U) { return bits((float)(int)(a & 0xffff)); });
  check("cvt.rn.f64.s32", {"f64", "b32"}, WORDS, [](U a, U, U) { return bits((double)(int32_t)a); });
  check("cvt.u16.u32", {"b16", "b32"}, WORDS, [](U a, U, U) { return a & 0xffff; });
  check("cvt.u32.u16", {"b32", "b16"}, WORDS, [](U a, U, U) { return a & 0xffff; });
  check("cvt.s32.s16", {"b32", "b16"}, WORDS, [](U a, U, U) { return (a & 0x8000 ? a | 0xffff0000u : a & 0x7fff) & 0xffffffffu; });
  check("cvt.u64.u32", {"b64", "b32"}, WORDS, [](U a, U, U) { return a % 0x100000000ull; });
  check("cvt.s64.s32", {"b64", "b32"}, WORDS, [](U a, U, U) { return a & 0x80000000u ? a | 0xffffffff00000000ull : a & 0x7fffffffu; });
  check("cvt.s64.s32", {"b64", "b64"}, WORDS, [](U a, U, U) { return a & 0x80000000u ? a | 0xffffffff00000000ull : a & 0x7fffffffu; });
  check("cvt.u32.u64", {"b32", "b64"}, WORDS, [](U a, U, U) { return a % 0x100000000ull; });
}

static void others() {
  check("popc.b32", {"b32", "b32"}, WORDS, [](U a, U, U) { U n = 0; for (a &= 0xffffffffu; a; a /= 2) n += a % 2; return n; });
  check("brev.b32", {"b32", "b32"}, WORDS, [](U a, U, U) { U r = 0; for (int i = 0; i < 32; i++) r = r * 2 + (a >> i & 1); return r; });
  check("bfind.shiftamt.u32", {"b32", "b32"}, WORDS, [](U a, U, U) { for (U i = 0; i < 32; i++) if (a >> (31 - i) & 1) return i; return (U)0xffffffffu; });
  for (int width : {32, 64}) {
    const std::string t = "b" + std::to_string(width), r = width == 32 ? "%r" : "%rd";
    for (int from : {0, 5, 31, 40})
      for (int n : {0, 1, 16, 27, 32, 64}) {
        std::vector<U> in;
        for (int i = 0; i < 32; i++) in.insert(in.end(), {WORDS[(size_t)i % WORDS.size()], WORDS[(size_t)(i * 3 + 1) % WORDS.size()], 0, 0});
        const std::string u = "u" + t.substr(1);
        auto out = right("ld.global." + u + " " + r + "10, [%rd3];\nld.global." + u + " " + r + "11, [%rd3+8];\nbfi." + t + " " + r + "12, " + r + "10, " + r + "11, " +
                             std::to_string(from) + ", " + std::to_string(n) + ";\nst.global." + u + " [%rd4], " + r + "12;", in, {});
        for (size_t i = 0; i < 32; i++) {
          U wanted = in[4 * i + 1] & (width == 32 ? 0xffffffffull : ~0ull);
          for (int k = 0; k < n && from + k < width; k++) wanted = (wanted & ~(1ull << (from + k))) | (k < 64 ? in[4 * i] >> k & 1 : 0) << (from + k);
          if (out[4 * i] != wanted) fail("bfi.%s at %d, %d bits: got %llx, wanted %llx", t.c_str(), from, n, (long long)out[4 * i], (long long)wanted);
        }
      }
  }
  // Predicates, and both ways of a guard.
  std::vector<U> pairs;
  for (U i = 0; i < 32; i++) pairs.insert(pairs.end(), {i & 1, i >> 1 & 1, 0, 0});
  auto out = right("ld.global.u32 %r10, [%rd3];\nld.global.u32 %r11, [%rd3+8];\nsetp.ne.s32 %p1, %r10, 0;\nsetp.ne.s32 %p2, %r11, 0;\nand.pred %p3, %p1, %p2;\nor.pred %p4, %p1, %p2;\n"
                   "xor.pred %p5, %p1, %p2;\nnot.pred %p6, %p1;\nmov.pred %p7, -1;\nmov.pred %p8, %p2;\nmov.u32 %r12, 0;\n@%p3 add.s32 %r12, %r12, 1;\n@%p4 add.s32 %r12, %r12, 2;\n"
                   "@%p5 add.s32 %r12, %r12, 4;\n@%p6 add.s32 %r12, %r12, 8;\n@%p7 add.s32 %r12, %r12, 16;\n@!%p8 add.s32 %r12, %r12, 32;\nst.global.u32 [%rd4], %r12;", pairs, {});
  for (size_t i = 0; i < 32; i++) {
    const U a = pairs[4 * i], b = pairs[4 * i + 1], wanted = (a && b) + 2 * (a || b) + 4 * (a != b) + 8 * !a + 16 + 32 * !b;
    if (out[4 * i] != wanted) fail("predicates of %d %d: got %d, wanted %d", (int)a, (int)b, (int)out[4 * i], (int)wanted);
  }
  // Halves.
  out = right("ld.global.u64 %rd10, [%rd3];\nmov.b64 {%r10, %r11}, %rd10;\nmov.b64 %rd11, {%r11, %r10};\nst.global.u64 [%rd4], %rd11;\ncvt.u16.u32 %rs10, %r10;\nshr.u32 %r12, %r10, 16;\n"
              "cvt.u16.u32 %rs11, %r12;\nmov.b32 %r13, {%rs11, %rs10};\nst.global.u32 [%rd4+8], %r13;", {std::vector<U>(128, 0x123456789abcdef0)}, {});
  if (out[0] != 0x9abcdef012345678 || out[1] != 0xdef09abc) fail("halves: %llx %llx", (long long)out[0], (long long)out[1]);
}

// Approximate functions: near enough, not always right, and the same for equal operands.
static void approximate() {
  struct { const char* op; const char* type; double (*exact)(double); double ulps; } all[] = {
      {"ex2.approx.ftz.f32", "f32", [](double v) { return std::exp2(v); }, 2.501},
      {"rcp.approx.ftz.f32", "f32", [](double v) { return 1 / v; }, 1.501}};
  for (auto& c : all) {
    std::vector<U> in;
    for (int i = 0; i < 1024; i++) in.insert(in.end(), {bits((float)((i % 512) * 0.037 - 9.1)), 0, 0, 0});
    auto out = right(std::string("ld.global.f32 %f10, [%rd3];\n") + c.op + " %f11, %f10;\nst.global.f32 [%rd4], %f11;", in, {32, 32});
    int off = 0;
    for (size_t i = 0; i < 1024; i++) {
      const double exact = c.exact(as<float>(in[4 * i])), got = as<float>(out[4 * i]);
      const double ulp = std::ldexp(1., std::ilogb(exact) - 23), error = std::fabs(got - exact) / ulp;
      if (!(error <= c.ulps)) fail("%s of %g: %g ulps off", c.op, as<float>(in[4 * i]), error);
      off += error > 0.501;
      if (out[4 * i] != out[4 * (i % 512)]) fail("%s is not the same for equal operands", c.op);
    }
    if (off < 100) fail("%s is too good: %d of 1024 are not the nearest", c.op, off);
  }
  const U special[][2] = {{0, 0x3f800000}, {0x80000000, 0x3f800000}, {0x7f800000, 0x7f800000}, {0xff800000, 0}, {0x7fc00001, 0x7fffffff}, {1, 0x3f800000}, {0xc3020000, 0}};
  for (auto& s : special) {
    auto out = right("ld.global.f32 %f10, [%rd3];\nex2.approx.ftz.f32 %f11, %f10;\nst.global.f32 [%rd4], %f11;", std::vector<U>(128, s[0]), {});
    if (out[0] != s[1]) fail("ex2.approx of %llx: got %llx", (long long)s[0], (long long)out[0]);
  }
  auto out = right("ld.global.f64 %fd10, [%rd3];\nrcp.approx.ftz.f64 %fd11, %fd10;\nst.global.f64 [%rd4], %fd11;", std::vector<U>(128, bits(3.7)), {});
  if (!(std::fabs(as<double>(out[0]) * 3.7 - 1) < 4e-6) || out[0] & 0xffffffffu) fail("rcp.approx.ftz.f64: %.17g", as<double>(out[0]));
}

int main() {
  whole<int16_t>("s16"), whole<uint16_t>("u16"), whole<int32_t>("s32"), whole<uint32_t>("u32"), whole<int64_t>("s64"), whole<uint64_t>("u64");
  bitwise<uint16_t>("b16"), bitwise<uint32_t>("b32"), bitwise<uint64_t>("b64");
  real<float>("f32", FLOATS), real<double>("f64", doubles());
  conversions();
  others();
  approximate();
  return result("ptx_arithmetic");
}
