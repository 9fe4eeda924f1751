// Which registers are alive where: one that may be read before it is written is refused, and registers that are never alive
// together get one place, so that a warp's registers stay in the cache of the processor.
#pragma once
#include <algorithm>

#include "state.h"

namespace ptx {

// What an instruction does to registers (by number) and to control.
struct Effect {
  std::vector<int> uses, defines;
  bool guarded = false, falls = true;
  int target = -1;
};

class Liveness {
 public:
  Liveness(const Entry& entry, const std::vector<Effect>& code)
      : entry_(entry), code_(code), n_(entry.registers.size()), words_(n_ / 64 + 1) {
    blocks();
    solve();
    undefined();
  }

  // The place of each register; for predicates an index.
  std::vector<Place> places(size_t& bytes, int& predicates, unsigned& alive) const {
    std::vector<Set> meets(n_, Set(words_));
    alive = 0;
    auto width = [&](size_t r) { return (unsigned)entry_.registers[r].bits; };
    for (const Span& b : blocks_) {
      Set live = b.out;
      for (int i = b.end; i-- > b.start;) {
        const Effect& e = code_[(size_t)i];
        for (int d : e.defines) insert(live, d);
        for (int d : e.defines)
          visit(live, [&](int r) {
            if (r != d && width((size_t)r) == width((size_t)d)) insert(meets[(size_t)d], r), insert(meets[(size_t)r], d);
          });
        step(live, e);
        unsigned now = 0;
        visit(live, [&](int r) { now += width((size_t)r) == 1 ? 0 : (width((size_t)r) + 31) / 32; });
        alive = std::max(alive, now);
      }
    }
    std::vector<int> colour(n_, -1);
    std::map<unsigned, int> most;
    std::vector<char> taken;
    for (size_t r = 0; r < n_; r++) {
      taken.assign(n_ + 1, 0);
      visit(meets[r], [&](int other) {
        if (colour[(size_t)other] >= 0) taken[(size_t)colour[(size_t)other]] = 1;
      });
      int c = 0;
      while (taken[(size_t)c]) c++;
      colour[r] = c;
      most[width(r)] = std::max(most[width(r)], c + 1);
    }
    std::map<unsigned, size_t> base;
    bytes = 0;
    for (unsigned w : {64u, 32u, 16u, 8u}) base[w] = bytes, bytes += (size_t)most[w] * w * 4;
    predicates = most[1];
    std::vector<Place> out(n_);
    for (size_t r = 0; r < n_; r++)
      out[r] = width(r) == 1 ? (Place)colour[r] : (Place)(base[width(r)] + (size_t)colour[r] * width(r) * 4);
    return out;
  }

 private:
  typedef std::vector<uint64_t> Set;
  struct Span {
    int start, end;
    std::vector<int> next;
    Set in, out;
  };
  const Entry& entry_;
  const std::vector<Effect>& code_;
  size_t n_, words_;
  std::vector<Span> blocks_;

  static void insert(Set& s, int r) { s[(size_t)r / 64] |= 1ull << r % 64; }
  static void remove(Set& s, int r) { s[(size_t)r / 64] &= ~(1ull << r % 64); }
  template <class F> static void visit(const Set& s, F f) {
    for (size_t w = 0; w < s.size(); w++)
      for (uint64_t left = s[w]; left; left &= left - 1) f((int)(w * 64) + __builtin_ctzll(left));
  }
  // From alive after the instruction to alive before.
  static void step(Set& live, const Effect& e) {
    if (!e.guarded)
      for (int d : e.defines) remove(live, d);
    for (int u : e.uses) insert(live, u);
  }

  void blocks() {
    const int n = (int)code_.size();
    std::vector<char> starts((size_t)n + 1, 0);
    starts[0] = 1;
    for (int i = 0; i < n; i++) {
      const Effect& e = code_[(size_t)i];
      if (e.target >= 0) starts[(size_t)e.target] = 1;
      if (e.target >= 0 || !e.falls) starts[(size_t)i + 1] = 1;
    }
    std::vector<int> of((size_t)n + 1, -1);
    for (int i = 0; i < n; i++) {
      if (starts[(size_t)i]) blocks_.push_back({i, i, {}, Set(words_), Set(words_)});
      of[(size_t)i] = (int)blocks_.size() - 1;
      blocks_.back().end = i + 1;
    }
    for (Span& b : blocks_) {
      const Effect& e = code_[(size_t)b.end - 1];
      if (e.target >= 0) b.next.push_back(of[(size_t)e.target]);
      if ((e.falls || e.guarded) && b.end < n) b.next.push_back(of[(size_t)b.end]);
    }
  }
  void solve() {
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t i = blocks_.size(); i-- > 0;) {
        Span& b = blocks_[i];
        for (int s : b.next)
          for (size_t w = 0; w < words_; w++) b.out[w] |= blocks_[(size_t)s].in[w];
        Set live = b.out;
        for (int k = b.end; k-- > b.start;) step(live, code_[(size_t)k]);
        if (live != b.in) b.in = live, changed = true;
      }
    }
  }
  void undefined() const {
    visit(blocks_[0].in, [&](int r) {
      for (size_t i = 0; i < code_.size(); i++)
        if (std::count(code_[i].uses.begin(), code_[i].uses.end(), r))
          throw Invalid{entry_.statements[i].line,
                        entry_.statements[i].text + ": reads a register that may not have been written"};
    });
  }
};

}  // namespace ptx
