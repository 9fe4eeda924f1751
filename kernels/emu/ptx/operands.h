// Operands of one statement as places, their types checked as ptxas does.
#pragma once
#include <algorithm>

#include "liveness.h"

namespace ptx {

class Operands {
 protected:
  Operands(const Text& module, const Entry& entry) : module_(module), entry_(entry) {}

  const Text& module_;
  const Entry& entry_;
  Kernel kernel_;
  std::vector<Place> places_;
  std::vector<Effect> flow_;
  std::map<std::pair<uint64_t, int>, Place> constants_;
  std::vector<std::pair<size_t, size_t>> more_;
  const Statement* s_ = nullptr;
  Instruction in_;
  Effect effect_;

  [[noreturn]] void fail(const std::string& why) const { throw Invalid{s_->line, s_->text + ": " + why}; }

  static bool fits(Type reg, Type want) {
    if (reg.bits != want.bits || (reg.kind == 'p') != (want.kind == 'p')) return false;
    auto whole = [](char k) { return k == 'u' || k == 's'; };
    return reg.kind == want.kind || reg.kind == 'b' || want.kind == 'b' || (whole(reg.kind) && whole(want.kind));
  }
  void operands(size_t n) const {
    if (s_->operands.size() != n) fail(text("wanted %zu operands, got %zu", n, s_->operands.size()));
  }
  Place use(const Operand& o) {
    effect_.uses.push_back(o.reg.number);
    return places_[(size_t)o.reg.number];
  }
  Place define(const Operand& o) {
    effect_.defines.push_back(o.reg.number);
    return places_[(size_t)o.reg.number];
  }
  Place constant(uint64_t bits, int width) {
    if (width < 64) bits &= (1ull << width) - 1;
    auto [at, fresh] = constants_.emplace(std::make_pair(bits, width), 0);
    if (fresh) {
      std::vector<unsigned char>& all = kernel_.constants;
      at->second = (Place)all.size() | 1;
      const size_t bytes = (size_t)width / 8;
      for (int l = 0; l < 32; l++) all.insert(all.end(), (unsigned char*)&bits, (unsigned char*)&bits + bytes);
    }
    return at->second;
  }
  // `wider`: the register may have more bits, as for loads and stores.
  Place source(const Operand& o, Type want, bool wider = false) {
    if (o.form == Operand::REGISTER) {
      check(o.reg, want, wider);
      return use(o);
    }
    if (o.form == Operand::NAME && want.bits == 64) return constant(symbol(o.name), 64);
    if (o.form != Operand::NUMBER || want.kind == 'p') fail("an operand of a wrong form");
    if ((want.kind == 'f') != (o.written != 'i') && !(want.kind == 'b' && o.written != 'i')) fail("a number of another kind");
    if ((o.written == 'f' && want.bits != 32) || (o.written == 'd' && want.bits != 64)) fail("a number of another width");
    return constant(o.bits, want.bits);
  }
  Place result(const Operand& o, Type want, bool wider = false) {
    if (o.form != Operand::REGISTER) fail("the result is no register");
    check(o.reg, want, wider);
    return define(o);
  }
  void check(const Register& reg, Type want, bool wider) const {
    Type of = reg.type;
    if (wider && of.bits > want.bits && of.kind != 'f' && want.kind != 'f') of.bits = want.bits;
    if (!fits(of, want))
      fail(text("a register of %d bits (%c) for an operand of %d (%c)", reg.type.bits, reg.type.kind, want.bits, want.kind));
  }
  uint64_t symbol(const std::string& name) const {
    auto own = entry_.shared.find(name);
    if (own != entry_.shared.end()) return SHARED_START + own->second.address;
    auto dynamic = module_.shared.find(name);
    if (dynamic != module_.shared.end() && dynamic->second.external) return SHARED_START + kernel_.static_shared;
    auto global = module_.global.find(name);
    if (global != module_.global.end()) return global->second.address;
    fail("no name " + name);
  }

  bool is(const char* op) const { return s_->op[0] == op; }
  bool has(const char* part) const { return std::find(s_->op.begin() + 1, s_->op.end(), part) != s_->op.end(); }
  // The parts after the first, but for those known; anything left over is refused.
  std::vector<std::string> rest(std::initializer_list<const char*> known) const {
    std::vector<std::string> left(s_->op.begin() + 1, s_->op.end());
    for (const char* part : known) {
      auto at = std::find(left.begin(), left.end(), part);
      if (at != left.end()) left.erase(at);
    }
    return left;
  }
  Type last() const {
    Type t;
    if (!is_type(s_->op.back(), t)) fail("no type");
    return t;
  }
};

}  // namespace ptx
