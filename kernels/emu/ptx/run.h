// Runs a launch: blocks one after the other in an order of the seed, or all at once if it is cooperative; the warps of a block in
// turns of some hundred instructions; of a warp always the lanes furthest behind, so that they meet again.
#pragma once
#include <algorithm>

#include "state.h"

namespace ptx {

// Instructions without a store, a barrier or an end of a warp after which a launch counts as hanging.
constexpr uint64_t PATIENCE = 30'000'000;

class Runner {
 public:
  // `number` counts launches, 1.. 4 million.
  Runner(const Kernel& kernel, Memory& memory, Index grid, Index block, size_t shared, const unsigned char* parameters,
         unsigned seed, uint64_t number, bool cooperative)
      : kernel_(kernel), shared_(shared), random_(seed * 0x9E3779B97F4A7C15ull + 1), seed_(seed), number_(number) {
    launch_.kernel = &kernel;
    launch_.memory = &memory;
    launch_.grid = grid;
    launch_.block = block;
    launch_.parameters = parameters;
    threads_ = block.x * block.y * block.z;
    const uint64_t all = (uint64_t)grid.x * grid.y * grid.z;
    together_ = cooperative ? all : 1;
    if (cooperative) {
      if (all > Fences::MOST) throw Fault{"more blocks of a cooperative launch than can be told apart"};
      fences_ = std::make_unique<Fences>(all, number);
    }
    if (kernel.removed != memory.removed()) {
      for (const Instruction& in : kernel.code) in.hint = nullptr;
      kernel.removed = memory.removed();
    }
    if (all >= mark::MANY - 1) throw Fault{"more blocks than can be told apart"};
  }

  void run() {
    const uint64_t all = (uint64_t)launch_.grid.x * launch_.grid.y * launch_.grid.z;
    const unsigned warps = (threads_ + 31) / 32;
    blocks_.resize(together_);
    warps_.resize(together_ * warps);
    std::vector<uint64_t> order(all);
    for (uint64_t i = 0; i < all; i++) order[i] = seed_ == 1 ? all - 1 - i : i;
    if (seed_ > 1) shuffle(order);
    if (together_ > 1) {
      for (uint64_t i = 0; i < all; i++) start(blocks_[i], i, warps_.data() + i * warps);
      finish();
    } else
      for (uint64_t i : order) {
        start(blocks_[0], i, warps_.data());
        finish();
      }
  }

  // What to say of a fault.
  std::string report(const Fault& fault) const {
    std::string out = kernel_.name;
    if (now_) {
      const Instruction& in = kernel_.code[(size_t)now_->pc];
      const Index& b = now_->block->id;
      out += text(", line %d (%s), block (%u,%u,%u), threads %u..: ", in.line, kernel_.source[(size_t)now_->pc].c_str(), b.x, b.y,
                  b.z, now_->first);
    } else out += ": ";
    out += fault.why;
    unsigned shown = 0;
    for (const Warp& w : warps_) {
      if (!w.live || !w.block) continue;
      for (const Group& g : w.groups)
        if ((g.waits || w.at_barrier) && ++shown <= 8) {
          const Index& b = w.block->id;
          out += text("\n  block (%u,%u,%u) threads %u.. lanes %08x wait in line %d (%s)", b.x, b.y, b.z, w.first, g.lanes,
                      kernel_.code[(size_t)g.pc].line, kernel_.source[(size_t)g.pc].c_str());
        }
    }
    return out;
  }

 private:
  const Kernel& kernel_;
  Launch launch_;
  size_t shared_;
  unsigned threads_ = 0;
  uint64_t random_, seed_, number_, together_ = 1;
  std::unique_ptr<Fences> fences_;  // of a cooperative launch
  std::vector<Block> blocks_;
  std::vector<Warp> warps_;
  Warp* now_ = nullptr;
  uint64_t steps_ = 0;

  uint64_t random() {
    random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
    return random_ >> 33;
  }
  template <class T> void shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; i--) std::swap(v[i - 1], v[random() % i]);
  }

  void start(Block& block, uint64_t number, Warp* warps) {
    const Index& grid = launch_.grid;
    block.id = {(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y), (unsigned)(number / grid.x / grid.y)};
    block.number = number;
    if (kernel_.groups) block.shared.fresh.assign((kernel_.static_shared + shared_) / 16 + 1, 0);
    block.shared.start(kernel_.static_shared + shared_);
    block.toucher.start(number_, number, fences_.get());
    for (unsigned i = 0; i * 32 < threads_; i++) {
      Warp& w = warps[i];
      if (!w.launch) {
        w.launch = &launch_;
        w.store.assign(kernel_.register_bytes + 64, 0);
        w.base[0] = (unsigned char*)(((uintptr_t)w.store.data() + 63) / 64 * 64);
        w.base[1] = (unsigned char*)kernel_.constants.data();
        w.predicates.assign((size_t)kernel_.predicates + 1, 0);
        w.first = i * 32;
        for (unsigned l = 0; l < 32; l++) {
          const unsigned t = w.first + l, x = launch_.block.x, y = launch_.block.y;
          w.tid[0][l] = t % x, w.tid[1][l] = t / x % y, w.tid[2][l] = t / (x * y);
        }
      }
      w.block = &block;
      w.live = threads_ - w.first >= 32 ? ~0u : (1u << (threads_ - w.first)) - 1;
      w.groups.assign(1, {0, w.live, false});
      w.at_barrier = false;
      w.order = {};
      w.open.clear();
      w.copies.clear();
      w.asked.clear();
      w.turns.clear();
      w.fenced = false;
      w.unpublished.clear();
    }
  }

  // Gives the warps of all blocks turns until all have ended.
  void finish() {
    const unsigned warps = (threads_ + 31) / 32;
    std::vector<Warp*> order;
    for (Warp& w : warps_) order.push_back(&w);
    if (seed_ == 1) std::reverse(order.begin(), order.end());
    if (seed_ > 1) shuffle(order);
    uint64_t stores = launch_.stores, since = steps_;
    for (;;) {
      bool live = false, ran = false;
      for (Warp* w : order) {
        if (!w->live) continue;
        live = true;
        if (w->at_barrier) continue;
        ran = true;
        now_ = w;
        turn(*w, 64 + (int)(random() % 512));
        now_ = nullptr;
        if (!w->live) since = steps_;
      }
      if (!live) return;
      for (size_t b = 0; b < blocks_.size(); b++)
        if (barrier(warps_.data() + b * warps, warps)) ran = true, since = steps_;
      if (launch_.stores != stores) stores = launch_.stores, since = steps_;
      if (!ran) throw Fault{"a deadlock"};
      if (steps_ - since > PATIENCE) throw Fault{"no progress: nothing but loops that wait"};
    }
  }

  // Lets a block's warps go on if all of them wait.
  bool barrier(Warp* w, unsigned n) {
    unsigned waiting = 0, ended = 0;
    for (unsigned i = 0; i < n; i++) waiting += w[i].live && w[i].at_barrier, ended += !w[i].live;
    if (waiting == 0 || waiting + ended < n) return false;
    if (ended) throw Fault{"some threads of a block ended, others wait at a barrier"};
    for (unsigned i = 1; i < n; i++)
      if (w[i].groups[0].pc != w[0].groups[0].pc) throw Fault{"threads of a block wait at different barriers"};
    for (unsigned i = 0; i < n; i++) {
      w[i].at_barrier = false;
      w[i].groups[0].pc++;
      w[i].order = {};
    }
    w->block->shared.barrier();
    return true;
  }

  static void put(Warp& w, Group g) {
    if (!g.lanes) return;
    size_t i = 0;
    while (i < w.groups.size() && w.groups[i].pc < g.pc) i++;
    if (i < w.groups.size() && w.groups[i].pc == g.pc) w.groups[i].lanes |= g.lanes, w.groups[i].waits = false;
    else w.groups.insert(w.groups.begin() + (long)i, g);
  }

  void turn(Warp& w, int budget) {
    const Instruction* code = kernel_.code.data();
    while (budget > 0) {
      size_t i = 0;
      while (i < w.groups.size() && w.groups[i].waits) i++;
      if (i == w.groups.size()) {
        if (!w.live) return;
        w.pc = w.groups[0].pc;
        throw Fault{"lanes of a warp wait for others that do not come"};
      }
      const Group g = w.groups[i];
      w.groups.erase(w.groups.begin() + (long)i);
      // Up to where the next lanes are.
      const int stop = i < w.groups.size() ? w.groups[i].pc : -1;
      int pc = g.pc;
      const int before = budget;
      for (;;) {
        const Instruction& in = code[pc];
        uint32_t lanes = g.lanes;
        if (in.guard >= 0) lanes &= in.negated ? ~w.predicates[(size_t)in.guard] : w.predicates[(size_t)in.guard];
        budget--;
        w.pc = pc;
        if (in.flow == Flow::NONE) {
          if (lanes) in.run(w, in, lanes);
          pc++;
        } else if (in.flow == Flow::BRANCH && (lanes == g.lanes || lanes == 0)) {
          pc = lanes ? (int)in.number : pc + 1;
          if (!w.groups.empty() && pc != stop) break;
        } else {
          control(w, in, {pc, g.lanes, false}, lanes);
          pc = -1;
          break;
        }
        if (pc == stop || budget <= 0) break;
      }
      steps_ += (uint64_t)(before - budget);
      if (pc >= 0) put(w, {pc, g.lanes, false});
      if (w.at_barrier || !w.live) return;
    }
  }

  void control(Warp& w, const Instruction& in, Group g, uint32_t lanes) {
    const uint32_t others = g.lanes & ~lanes;
    switch (in.flow) {
      case Flow::BRANCH:
        if (in.aligned) throw Fault{"bra.uni of a part of the lanes"};
        put(w, {g.pc + 1, others, false});
        put(w, {(int)in.number, lanes, false});
        return;
      case Flow::END:
        if (!w.asked.empty() || !w.turns.empty()) throw Fault{"an end with products under way"};
        w.live &= ~lanes;
        put(w, {g.pc + 1, others, false});
        return;
      case Flow::BARRIER:
        if (others) throw Fault{"a barrier for a part of the lanes"};
        put(w, {g.pc, lanes, lanes != w.live});
        w.at_barrier = lanes == w.live;
        if (w.at_barrier && lanes != everyone(w)) throw Fault{"some threads of a block ended, others wait at a barrier"};
        return;
      case Flow::COLLECTIVE: return collective(w, in, g, lanes);
      case Flow::NONE: return;
    }
  }
  uint32_t everyone(const Warp& w) const { return threads_ - w.first >= 32 ? ~0u : (1u << (threads_ - w.first)) - 1; }

  // Runs it for the lanes whose masks are there; the others wait.
  void collective(Warp& w, const Instruction& in, Group g, uint32_t lanes) {
    uint32_t left = lanes, ran = 0;
    while (left) {
      const int l = __builtin_ctz(left);
      uint32_t mask = everyone(w);
      if (in.aligned) mask = ~0u;
      else if (in.members >= 0) mask = row<uint32_t>(w, in.members)[l];
      if (!(mask >> l & 1)) throw Fault{text("lane %d is not in its own mask %08x", l, mask)};
      if (mask & ~everyone(w) && in.aligned) throw Fault{"a collective of whole warps in a part of one"};
      if ((mask & everyone(w)) & ~w.live) throw Fault{text("the mask %08x names lanes that have ended", mask)};
      if (mask & ~everyone(w)) throw Fault{text("the mask %08x names lanes that are not there", mask)};
      if ((mask & lanes) == mask) {
        if (!in.aligned && in.members >= 0)
          one_by_one(mask, [&](int k) {
            if (row<uint32_t>(w, in.members)[k] != mask) throw Fault{"lanes of a warp disagree on the mask"};
          });
        in.run(w, in, mask);
        w.order.sync(mask, everyone(w));
        if (w.order.clock > 60000) {
          w.order = {};
          w.block->shared.barrier();  // forgets, rather than finds what is none
        }
        ran |= mask;
        left &= ~mask;
      } else left &= ~(mask & lanes);
    }
    put(w, {g.pc + 1, ran | (g.lanes & ~lanes), false});
    put(w, {g.pc, lanes & ~ran, true});
  }
};

}  // namespace ptx
