// From statements to instructions: operands become places, types are checked as ptxas does, control becomes indices. Registers
// that are never alive together share a place; one that may be read before it is written is an error.
#pragma once
#include "groups.h"
#include "opcodes.h"
#include "operands.h"

namespace ptx {

class Decoder : Operands {
 public:
  Decoder(const Text& module, const Entry& entry) : Operands(module, entry) {}

  Kernel kernel() {
    static const Opcodes known = opcodes::make();
    known_ = &known;
    kernel_.name = entry_.name;
    kernel_.sizes = entry_.sizes;
    kernel_.parameter_bytes = entry_.parameter_bytes;
    for (auto& [_, p] : entry_.parameters) kernel_.at.push_back(p.at);
    std::sort(kernel_.at.begin(), kernel_.at.end());
    memcpy(kernel_.maxntid, entry_.maxntid, sizeof kernel_.maxntid);
    memcpy(kernel_.reqntid, entry_.reqntid, sizeof kernel_.reqntid);
    kernel_.minnctapersm = entry_.minnctapersm;
    kernel_.maxnreg = entry_.maxnreg;
    size_t align = 1;
    for (auto& [_, v] : module_.shared)
      if (v.external && v.align > align) align = v.align;
    kernel_.static_shared = (entry_.static_shared + align - 1) / align * align;
    for (const Statement& s : entry_.statements) kernel_.source.push_back(s.text);
    // Once to know what each instruction reads and writes, then with the places that follow from it.
    places_.assign(entry_.registers.size(), 0);
    decode();
    Liveness alive(entry_, flow_);
    places_ = alive.places(kernel_.register_bytes, kernel_.predicates, kernel_.registers);
    kernel_.places.clear();
    decode();
    for (auto [at, i] : more_) kernel_.code[at].more = kernel_.places.data() + i;
    return std::move(kernel_);
  }

 private:
  const Opcodes* known_ = nullptr;

  void decode() {
    kernel_.code.clear();
    flow_.clear();
    more_.clear();
    for (const Statement& s : entry_.statements) {
      s_ = &s;
      in_ = {};
      effect_ = {};
      in_.line = s.line;
      if (s.guard >= 0) {
        in_.guard = (int16_t)places_[(size_t)s.guard];
        in_.negated = s.negated;
        effect_.uses.push_back(s.guard);
        effect_.guarded = true;
      }
      instruction();
      kernel_.code.push_back(in_);
      flow_.push_back(effect_);
    }
    if (flow_.empty() || flow_.back().falls || flow_.back().guarded)
      throw Invalid{entry_.line, "the entry does not end with ret"};
  }

  void instruction() {
    auto at = known_->find(s_->text);
    const bool lists =
        std::any_of(s_->operands.begin(), s_->operands.end(), [](const Operand& o) { return o.form == Operand::LIST; });
    if (at != known_->end() && !lists && !is_special()) {
      const Opcode& op = at->second;
      operands(op.types.size());
      for (size_t i = 1; i < op.types.size(); i++) in_.o[i] = source(s_->operands[i], op.types[i], i > 0 && is("cvt"));
      in_.o[0] = result(s_->operands[0], op.types[0], is("cvt"));
      in_.run = op.run;
      if (is("cvt")) widen(op);
      return;
    }
    if (is("mov")) move();
    else if (is("ld")) load_or_store(true);
    else if (is("st")) load_or_store(false);
    else if (is("atom") || is("red")) atomic();
    else if (is("bra") || is("ret") || is("exit") || is("bar") || is("membar")) control();
    else if (is("shfl") || is("vote")) collective();
    else if (is("cp")) copies();
    else if (is("ldmatrix")) matrices();
    else if (is("mma")) product();
    else if (is("wgmma")) group();
    else if (s_->text == "fence.proxy.async.shared::cta") operands(0), in_.run = publish;
    else fail("unknown instruction");
  }

  bool is_special() const {
    return is("mov") && s_->operands.size() == 2 && s_->operands[1].form == Operand::NAME && s_->operands[1].name[0] == '%';
  }

  // cvt to or from a register that is wider than its type.
  void widen(const Opcode& op) {
    const Operand &to = s_->operands[0], &from = s_->operands[1];
    const bool wide = from.form == Operand::REGISTER && from.reg.type.bits != op.types[1].bits;
    if (wide && s_->text == "cvt.s64.s32") in_.run = resize_low<int64_t, int32_t, int64_t>;
    else if (wide || to.reg.type.bits != op.types[0].bits) fail("a register wider than the type is not known here");
  }

  void move() {
    operands(2);
    const Type of = last();
    const Operand &to = s_->operands[0], &from = s_->operands[1];
    if (s_->op.size() != 2) fail("unknown instruction");
    if (s_->text == "mov.pred") {
      in_.o[0] = result(to, of);
      in_.run = move_predicate;
      in_.o[1] = -1;
      if (from.form == Operand::NUMBER) in_.number = from.bits ? ~0u : 0;
      else in_.o[1] = source(from, of);
    } else if (is_special()) {
      static const std::map<std::string, int> axes = {{"x", 0}, {"y", 1}, {"z", 2}};
      static const std::map<std::string, int> all = {{"%tid", 0}, {"%ntid", 1}, {"%ctaid", 2}, {"%nctaid", 3}};
      if (of.bits != 32) fail("a special register has 32 bits");
      const size_t dot = from.name.find('.');
      auto what = all.find(from.name.substr(0, dot));
      auto axis = axes.find(dot == std::string::npos ? "" : from.name.substr(dot + 1));
      if (from.name == "%laneid") in_.number = 12;
      else if (what == all.end() || axis == axes.end()) fail("unknown register " + from.name);
      else in_.number = what->second * 3 + axis->second;
      in_.o[0] = result(to, of);
      in_.run = special;
    } else if (from.form == Operand::LIST || to.form == Operand::LIST) {
      const std::vector<Operand>& two = from.form == Operand::LIST ? from.of : to.of;
      if (of.kind != 'b' || of.bits < 32 || two.size() != 2) fail("a list of another form");
      const Type half = {'b', of.bits / 2};
      if (from.form == Operand::LIST) {
        in_.o[1] = source(two[0], half), in_.o[2] = source(two[1], half);
        in_.o[0] = result(to, {'b', of.bits});
        in_.run = of.bits == 32 ? join<uint32_t, uint16_t> : join<uint64_t, uint32_t>;
      } else {
        in_.o[2] = source(from, of);
        in_.o[0] = result(two[0], half), in_.o[1] = result(two[1], half);
        in_.run = of.bits == 32 ? part<uint16_t, uint32_t> : part<uint32_t, uint64_t>;
      }
    } else fail("unknown instruction");
  }

  // The register and the offset of an address; a name's address goes into the offset.
  Place address(const Operand& o, bool shared, bool& wide) {
    if (o.form != Operand::ADDRESS) fail("wanted an address");
    const Operand& base = o.of[0];
    in_.number = o.offset;
    wide = true;
    if (base.form == Operand::REGISTER) {
      wide = base.reg.type.bits == 64;
      if (!wide && !shared) fail("an address of 32 bits");
      return source(base, {'b', wide ? 64 : 32});
    }
    if (base.form != Operand::NAME) fail("an address that is a number");
    return constant(symbol(base.name), 64);
  }

  void parameter() {
    operands(2);
    const Operand& from = s_->operands[1];
    auto found = from.form == Operand::ADDRESS ? entry_.parameters.find(from.of[0].name) : entry_.parameters.end();
    const Type of = last();
    if (found == entry_.parameters.end() || s_->op.size() != 3) fail("no such parameter");
    const Parameter& p = found->second;
    if (from.offset < 0 || (size_t)from.offset + (size_t)of.bytes() > p.bytes || from.offset % of.bytes())
      fail("beyond the parameter");
    in_.number = (int64_t)p.at + from.offset;
    in_.o[0] = result(s_->operands[0], of, true);
    const int to = s_->operands[0].reg.type.bits;
    if (of.bits == to && to == 32) in_.run = load_parameter<uint32_t, uint32_t>;
    else if (of.bits == to && to == 64) in_.run = load_parameter<uint64_t, uint64_t>;
    else if (of.bits == 32 && to == 64 && of.kind == 's') in_.run = load_parameter<int32_t, int64_t>;
    else if (of.bits == 32 && to == 64 && of.kind == 'u') in_.run = load_parameter<uint32_t, uint64_t>;
    else fail("unknown widths");
  }

  void load_or_store(bool load) {
    if (has("param")) return load ? parameter() : fail("unknown instruction");
    operands(2);
    const bool shared = has("shared"), nc = has("nc"), is_volatile = has("volatile");
    const int n = has("v4") ? 4 : has("v2") ? 2 : 1;
    const Type of = last();
    if (!rest({"shared", "global", "nc", "volatile", n == 4 ? "v4" : "v2", s_->op.back().c_str()}).empty())
      fail("unknown instruction");
    if (nc && (!load || !has("global") || is_volatile)) fail("unknown instruction");
    if (is_volatile && shared) fail("unknown instruction");
    in_.kind = nc ? Kind::NC : is_volatile ? Kind::VOLATILE : Kind::PLAIN;
    const Operand &value = s_->operands[load ? 0 : 1], &place = s_->operands[load ? 1 : 0];
    if ((n > 1) != (value.form == Operand::LIST) || (n > 1 && (int)value.of.size() != n)) fail("another number of registers");
    bool wide;
    in_.o[n] = address(place, shared, wide);
    int bits = 0;
    for (int i = 0; i < n; i++) {
      const Operand& one = n > 1 ? value.of[(size_t)i] : value;
      in_.o[i] = load ? result(one, of, true) : source(one, of, true);
      const int has = one.form == Operand::REGISTER ? one.reg.type.bits : of.bits;
      if (bits && bits != has) fail("registers of several widths");
      bits = has;
    }
    in_.run = access(load, shared, wide, n, of, bits);
  }

  template <class S, class D, int N> static Action access(bool load, bool shared, bool wide) {
    if (!shared) return load ? ptx::load<S, D, N, false, uint64_t> : ptx::store<S, D, N, false, uint64_t>;
    if (wide) return load ? ptx::load<S, D, N, true, uint64_t> : ptx::store<S, D, N, true, uint64_t>;
    return load ? ptx::load<S, D, N, true, uint32_t> : ptx::store<S, D, N, true, uint32_t>;
  }
  Action access(bool load, bool shared, bool wide, int n, Type of, int bits) const {
    const bool negative = load && of.kind == 's';
    if (n == 4 && of.bits == 32 && bits == 32) return access<uint32_t, uint32_t, 4>(load, shared, wide);
    if (n == 2 && of.bits == 32 && bits == 32) return access<uint32_t, uint32_t, 2>(load, shared, wide);
    if (n == 2 && of.bits == 64 && bits == 64) return access<uint64_t, uint64_t, 2>(load, shared, wide);
    if (n > 1) fail("a vector of unknown widths");
    if (of.bits == 64 && bits == 64) return access<uint64_t, uint64_t, 1>(load, shared, wide);
    if (of.bits == 32 && bits == 32) return access<uint32_t, uint32_t, 1>(load, shared, wide);
    if (of.bits == 32 && bits == 64)
      return negative ? access<int32_t, int64_t, 1>(load, shared, wide) : access<uint32_t, uint64_t, 1>(load, shared, wide);
    if (of.bits == 16 && bits == 16) return access<uint16_t, uint16_t, 1>(load, shared, wide);
    if (of.bits == 16 && bits == 32 && !negative) return access<uint16_t, uint32_t, 1>(load, shared, wide);
    if (of.bits == 8 && bits == 16 && !negative) return access<uint8_t, uint16_t, 1>(load, shared, wide);
    if (of.bits == 8 && bits == 32 && !negative) return access<uint8_t, uint32_t, 1>(load, shared, wide);
    fail("unknown widths");
  }

  void atomic() {
    const bool returns = is("atom");
    operands(2 + returns);
    static const std::map<std::string, Action> all = {
        {"atom.global.add.u32", Atomic<uint32_t, Sum, true>::run},
        {"red.global.add.u32", Atomic<uint32_t, Sum, false>::run},
        {"red.global.max.s32", Atomic<int32_t, Larger, false>::run},
        {"red.global.max.u32", Atomic<uint32_t, Larger, false>::run},
        {"red.global.max.u64", Atomic<uint64_t, Larger, false>::run},
        {"red.global.min.u32", Atomic<uint32_t, Smaller, false>::run},
    };
    auto at = all.find(s_->text);
    if (at == all.end()) fail("unknown instruction");
    in_.run = at->second;
    const Type of = last();
    bool wide;
    in_.o[returns] = address(s_->operands[returns], false, wide);
    in_.o[returns + 1] = source(s_->operands[returns + 1u], of);
    if (returns) in_.o[0] = result(s_->operands[0], of);
  }

  void control() {
    if (s_->text == "ret" || s_->text == "exit") {
      operands(0);
      in_.flow = Flow::END;
      effect_.falls = false;
    } else if (s_->text == "bra" || s_->text == "bra.uni") {
      operands(1);
      auto label = entry_.labels.find(s_->operands[0].name);
      if (label == entry_.labels.end() || label->second >= entry_.statements.size()) fail("no label " + s_->operands[0].name);
      in_.flow = Flow::BRANCH;
      in_.number = (int64_t)label->second;
      in_.aligned = s_->text == "bra.uni";
      effect_.target = (int)label->second;
      effect_.falls = false;
    } else if (s_->text == "bar.sync") {
      operands(1);
      if (s_->operands[0].form != Operand::NUMBER || s_->operands[0].bits != 0) fail("barriers but 0 are not known");
      in_.flow = Flow::BARRIER;
    } else if (s_->text == "bar.warp.sync") {
      operands(1);
      in_.members = source(s_->operands[0], {'b', 32});
      in_.flow = Flow::COLLECTIVE;
      in_.run = nothing;
    } else if (s_->text == "membar.gl") {
      operands(0);
      in_.run = fence;
    } else fail("unknown instruction");
  }

  void collective() {
    in_.flow = Flow::COLLECTIVE;
    if (s_->text == "vote.sync.ballot.b32") {
      operands(3);
      in_.o[1] = source(s_->operands[1], {'p', 1});
      in_.members = source(s_->operands[2], {'b', 32});
      in_.o[0] = result(s_->operands[0], {'b', 32});
      in_.run = ballot;
      return;
    }
    static const std::map<std::string, Action> all = {
        {"shfl.sync.up.b32", shuffle<Shuffle::UP>}, {"shfl.sync.down.b32", shuffle<Shuffle::DOWN>},
        {"shfl.sync.bfly.b32", shuffle<Shuffle::BUTTERFLY>}, {"shfl.sync.idx.b32", shuffle<Shuffle::INDEX>},
    };
    auto at = all.find(s_->text);
    if (at == all.end()) fail("unknown instruction");
    operands(5);
    in_.run = at->second;
    const Type word = {'b', 32};
    in_.o[2] = source(s_->operands[1], word), in_.o[3] = source(s_->operands[2], word), in_.o[4] = source(s_->operands[3], word);
    in_.members = source(s_->operands[4], word);
    const Operand& to = s_->operands[0];
    in_.o[0] = result(to.form == Operand::PAIR ? to.of[0] : to, word);
    in_.o[1] = to.form == Operand::PAIR ? result(to.of[1], {'p', 1}) : -1;
  }

  void copies() {
    if (s_->text == "cp.async.commit_group") {
      operands(0);
      in_.run = copy_commit;
    } else if (s_->text == "cp.async.wait_group") {
      operands(1);
      if (s_->operands[0].form != Operand::NUMBER) fail("a wait for a number that is not written");
      in_.number = (int64_t)s_->operands[0].bits;
      in_.run = copy_wait;
    } else if (s_->text == "cp.async.cg.shared.global" || s_->text == "cp.async.ca.shared.global") {
      operands(4);
      if (s_->operands[2].form != Operand::NUMBER || s_->operands[2].bits != 16) fail("copies but of 16 bytes are not known");
      bool wide;
      in_.o[1] = address(s_->operands[1], false, wide);
      if (in_.number) fail("an offset is not known here");
      in_.o[0] = address(s_->operands[0], true, wide);
      if (wide) fail("an address of 64 bits");
      in_.o[2] = source(s_->operands[3], {'b', 32});
      in_.run = copy_async;
    } else fail("unknown instruction");
    need(80);
  }

  void matrices() {
    const bool turned = s_->text == "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16";
    if (!turned && s_->text != "ldmatrix.sync.aligned.m8n8.x4.shared.b16") fail("unknown instruction");
    operands(2);
    if (s_->operands[0].form != Operand::LIST || s_->operands[0].of.size() != 4) fail("another number of registers");
    bool wide;
    in_.o[4] = address(s_->operands[1], true, wide);
    if (wide) fail("an address of 64 bits");
    for (int i = 0; i < 4; i++) in_.o[i] = result(s_->operands[0].of[(size_t)i], {'b', 32});
    in_.run = turned ? load_matrices<true> : load_matrices<false>;
    in_.flow = Flow::COLLECTIVE;
    in_.aligned = true;
  }

  void product() {
    const bool bf16 = s_->text == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
    if (!bf16 && s_->text != "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32") fail("unknown instruction");
    operands(4);
    const size_t counts[4] = {4, 4, 2, 4};
    Place all[14];
    for (size_t k = 4, at = 14; k-- > 0;) {  // results last
      const Operand& list = s_->operands[k];
      if (list.form != Operand::LIST || list.of.size() != counts[k]) fail("another number of registers");
      at -= counts[k];
      const Type of = {k == 0 || k == 3 ? 'f' : 'b', 32};
      for (size_t i = 0; i < counts[k]; i++) all[at + i] = k == 0 ? result(list.of[i], of) : source(list.of[i], of);
    }
    more_.push_back({kernel_.code.size(), kernel_.places.size()});
    kernel_.places.insert(kernel_.places.end(), all, all + 14);
    in_.run = bf16 ? multiply_matrices<bf16_number> : multiply_matrices<half_number>;
    in_.flow = Flow::COLLECTIVE;
    in_.aligned = true;
    need(80);
  }
  // Products of groups of warps.
  void group() {
    in_.flow = Flow::COLLECTIVE;
    in_.aligned = true;
    if (module_.target != 90 || !module_.alone) fail("needs .target sm_90a");
    if (s_->text == "wgmma.fence.sync.aligned" || s_->text == "wgmma.commit_group.sync.aligned") {
      operands(0);
      in_.run = has("fence") ? group_fence : group_commit;
      return;
    }
    if (s_->text == "wgmma.wait_group.sync.aligned") {
      operands(1);
      if (s_->operands[0].form != Operand::NUMBER) fail("a wait for a number that is not written");
      in_.number = (int64_t)s_->operands[0].bits;
      in_.run = group_wait;
      return;
    }
    if (s_->text != "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16") fail("unknown instruction");
    operands(8);
    const uint64_t wanted[4] = {1, 1, 0, 0};  // not negated, not transposed
    for (size_t i = 0; i < 4; i++)
      if (s_->operands[4 + i].form != Operand::NUMBER || s_->operands[4 + i].bits != wanted[i]) fail("negated or transposed");
    const Operand& list = s_->operands[0];
    if (list.form != Operand::LIST || list.of.size() != WIDE / 2) fail("another number of registers");
    in_.o[0] = source(s_->operands[1], {'b', 64}), in_.o[1] = source(s_->operands[2], {'b', 64});
    in_.o[2] = source(s_->operands[3], {'p', 1});
    more_.push_back({kernel_.code.size(), kernel_.places.size()});
    for (const Operand& o : list.of) source(o, {'f', 32});
    for (const Operand& o : list.of) kernel_.places.push_back(result(o, {'f', 32}));
    in_.run = ask;
    kernel_.groups = true;
  }
  void need(int target) const {
    if (module_.target < target) fail(text("needs .target sm_%d", target));
  }
};

}  // namespace ptx
