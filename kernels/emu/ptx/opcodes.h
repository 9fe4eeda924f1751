// The instructions whose operands are registers and numbers of fixed types. Those with addresses, lists or control of their own
// are in decode.h.
#pragma once
#include <unordered_map>

#include "tensor.h"

namespace ptx {

// `types`: of the result, then of the operands.
struct Opcode {
  std::vector<Type> types;
  Action run;
};
typedef std::unordered_map<std::string, Opcode> Opcodes;

namespace opcodes {

inline Type type(const std::string& name) {
  Type t;
  if (!is_type(name, t)) throw Invalid{0, "no type " + name};
  return t;
}

struct Maker {
  Opcodes& all;
  std::string of;  // a type's name
  // One with a result and `n` operands of the type.
  void same(const char* name, int n, Action run) { all[name + ("." + of)] = {std::vector<Type>((size_t)n + 1, type(of)), run}; }
  void with(const std::string& name, std::initializer_list<const char*> types, Action run) {
    Opcode& o = all[name];
    for (const char* t : types) o.types.push_back(type(t));
    o.run = run;
  }
  void compare(const char* how, Action run) {
    all[std::string("setp.") + how + "." + of] = {{type("pred"), type(of), type(of)}, run};
  }
  void choose(Action run) { all["selp." + of] = {{type(of), type(of), type(of), type("pred")}, run}; }
};

template <class T> void integers(Opcodes& all, const char* of) {
  Maker m{all, of};
  m.same("add", 2, Binary<T, Sum>::run);
  m.same("sub", 2, Binary<T, Difference>::run);
  m.same("mul.lo", 2, Binary<T, Product>::run);
  m.same("mad.lo", 3, Ternary<T, ProductSum>::run);
  m.same("min", 2, Binary<T, Smaller>::run);
  m.same("max", 2, Binary<T, Larger>::run);
  m.same("div", 2, divide<T, false>);
  m.same("rem", 2, divide<T, true>);
  if (std::is_signed_v<T>) m.same("neg", 1, Unary<T, Negated>::run);
  m.same("mov", 1, Unary<T, Copied>::run);
  all[std::string("shr.") + of] = {{type(of), type(of), type("u32")}, shift<T, false>};
  m.compare("eq", Compare<T, Equal>::run);
  m.compare("ne", Compare<T, Unequal>::run);
  m.compare("lt", Compare<T, Less>::run);
  m.compare("le", Compare<T, LessEqual>::run);
  m.compare("gt", Compare<T, Greater>::run);
  m.compare("ge", Compare<T, GreaterEqual>::run);
  m.choose(select<T>);
  if constexpr (sizeof(T) < 8) {
    const int wider = sizeof(T) * 16;
    all[std::string("mul.wide.") + of] = {{type(of[0] + std::to_string(wider)), type(of), type(of)}, multiply_wide<T>};
  }
}
template <class T> void bits(Opcodes& all, const char* of) {
  Maker m{all, of};
  m.same("mov", 1, Unary<T, Copied>::run);
  m.same("and", 2, Binary<T, And>::run);
  m.same("or", 2, Binary<T, Or>::run);
  m.same("xor", 2, Binary<T, Xor>::run);
  m.same("not", 1, Unary<T, Inverted>::run);
  all[std::string("shl.") + of] = {{type(of), type(of), type("u32")}, shift<T, true>};
  m.compare("eq", Compare<T, Equal>::run);
  m.compare("ne", Compare<T, Unequal>::run);
  m.choose(select<T>);
}
template <class T> void floats(Opcodes& all, const char* of) {
  Maker m{all, of};
  m.same("mov", 1, Unary<Bits<T>, Copied>::run);
  m.same("add.rn", 2, Binary<T, FloatSum>::run);
  m.same("add.rz", 2, rounded<ZERO, Binary<T, FloatSum>::run>);
  m.same("add.rm", 2, rounded<DOWN, Binary<T, FloatSum>::run>);
  m.same("add.rp", 2, rounded<UP, Binary<T, FloatSum>::run>);
  m.same("sub.rn", 2, Binary<T, FloatDifference>::run);
  m.same("mul.rn", 2, Binary<T, FloatProduct>::run);
  m.same("fma.rn", 3, Ternary<T, Fused>::run);
  m.same("fma.rm", 3, rounded<DOWN, Ternary<T, Fused>::run>);
  m.same("fma.rz", 3, rounded<ZERO, Ternary<T, Fused>::run>);
  m.same("div.rn", 2, Binary<T, Quotient>::run);
  m.same("rcp.rn", 1, Unary<T, Inverse>::run);
  m.same("sqrt.rn", 1, Unary<T, Root>::run);
  m.same("neg", 1, Unary<T, SignFlipped>::run);
  m.same("abs", 1, Unary<T, Magnitude>::run);
  m.same("min", 2, Binary<T, FloatSmaller>::run);
  m.same("max", 2, Binary<T, FloatLarger>::run);
  m.choose(select<Bits<T>>);
  m.compare("eq", Compare<T, Equal>::run);
  m.compare("ne", Compare<T, NotEqual>::run);
  m.compare("lt", Compare<T, Less>::run);
  m.compare("le", Compare<T, LessEqual>::run);
  m.compare("gt", Compare<T, Greater>::run);
  m.compare("ge", Compare<T, GreaterEqual>::run);
  m.compare("equ", Compare<T, OrUnordered<Equal>>::run);
  m.compare("neu", Compare<T, Unequal>::run);
  m.compare("ltu", Compare<T, OrUnordered<Less>>::run);
  m.compare("leu", Compare<T, OrUnordered<LessEqual>>::run);
  m.compare("gtu", Compare<T, OrUnordered<Greater>>::run);
  m.compare("geu", Compare<T, OrUnordered<GreaterEqual>>::run);
  m.compare("nan", Compare<T, Unordered>::run);
  m.compare("num", Compare<T, Ordered>::run);
}

inline Opcodes make() {
  Opcodes all;
  integers<int16_t>(all, "s16"), integers<uint16_t>(all, "u16");
  integers<int32_t>(all, "s32"), integers<uint32_t>(all, "u32");
  integers<int64_t>(all, "s64"), integers<uint64_t>(all, "u64");
  bits<uint16_t>(all, "b16"), bits<uint32_t>(all, "b32"), bits<uint64_t>(all, "b64");
  floats<float>(all, "f32"), floats<double>(all, "f64");
  Maker m{all, ""};
  m.with("popc.b32", {"u32", "b32"}, Unary<uint32_t, Ones>::run);
  m.with("brev.b32", {"b32", "b32"}, Unary<uint32_t, Reversed>::run);
  m.with("bfind.shiftamt.u32", {"u32", "u32"}, Unary<uint32_t, Leading>::run);
  m.with("bfi.b32", {"b32", "b32", "b32", "u32", "u32"}, insert_bits<uint32_t>);
  m.with("bfi.b64", {"b64", "b64", "b64", "u32", "u32"}, insert_bits<uint64_t>);
  m.with("and.pred", {"pred", "pred", "pred"}, combine<And>);
  m.with("or.pred", {"pred", "pred", "pred"}, combine<Or>);
  m.with("xor.pred", {"pred", "pred", "pred"}, combine<Xor>);
  m.with("not.pred", {"pred", "pred"}, not_predicate);
  m.with("ex2.approx.ftz.f32", {"f32", "f32"}, exp2_approx);
  m.with("rcp.approx.ftz.f32", {"f32", "f32"}, reciprocal_approx);
  m.with("rcp.approx.ftz.f64", {"f64", "f64"}, reciprocal_approx_double);
  m.with("cvta.to.global.u64", {"u64", "u64"}, Unary<uint64_t, Copied>::run);
  m.with("cvt.u16.u32", {"u16", "u32"}, resize<uint16_t, uint32_t>);
  m.with("cvt.u32.u16", {"u32", "u16"}, resize<uint32_t, uint16_t>);
  m.with("cvt.s32.s16", {"s32", "s16"}, resize<int32_t, int16_t>);
  m.with("cvt.u64.u32", {"u64", "u32"}, resize<uint64_t, uint32_t>);
  m.with("cvt.s64.s32", {"s64", "s32"}, resize<int64_t, int32_t>);
  m.with("cvt.u32.u64", {"u32", "u64"}, resize<uint32_t, uint64_t>);
  m.with("cvt.f32.f16", {"f32", "f16"}, half_to_float);
  m.with("cvt.rn.f16.f32", {"f16", "f32"}, float_to_half);
  m.with("cvt.rn.bf16x2.f32", {"bf16x2", "f32", "f32"}, floats_to_bf16);
  m.with("cvt.sat.f32.f32", {"f32", "f32"}, Unary<float, Saturated>::run);
  m.with("cvt.f64.f32", {"f64", "f32"}, Convert<double, float>::run);
  m.with("cvt.rn.f32.f64", {"f32", "f64"}, Convert<float, double>::run);
  m.with("cvt.rn.f32.s32", {"f32", "s32"}, Convert<float, int32_t>::run);
  m.with("cvt.rn.f32.u32", {"f32", "u32"}, Convert<float, uint32_t>::run);
  m.with("cvt.rn.f32.u16", {"f32", "u16"}, Convert<float, uint16_t>::run);
  m.with("cvt.rn.f64.s32", {"f64", "s32"}, Convert<double, int32_t>::run);
  return all;
}

}  // namespace opcodes
}  // namespace ptx
