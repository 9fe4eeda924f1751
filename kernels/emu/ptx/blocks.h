// What the blocks of a launch do to global memory, and what orders them. In a plain launch nothing does: what one block writes no
// other may touch, unless by atomic operations. In a cooperative one a fence, then an atomic operation or a volatile store, read
// by another block that has its fence after that: the accesses before are then ordered before the accesses after. Without them a
// volatile load may also find an older value.
#pragma once
#include "memory.h"

namespace ptx {

// Of the blocks of a cooperative launch: how far each has seen the others, counted by their fences.
class Fences {
 public:
  static constexpr uint64_t MOST = 15;  // blocks that marks can tell apart together with their clocks
  Fences(size_t blocks, uint64_t seed)
      : seen_(blocks, Clock(blocks)), fenced_(seen_), taken_(seen_), chance_(seed * 0x9E3779B97F4A7C15ull + 1) {
    for (size_t b = 0; b < blocks; b++) seen_[b][b] = 1;
  }
  uint32_t now(uint64_t block) const { return seen_[block][block]; }
  bool after(uint64_t block, uint64_t other, uint32_t then) const { return seen_[block][other] >= then; }
  void fence(uint64_t block) {
    join(seen_[block], taken_[block]);
    fenced_[block] = seen_[block];
    seen_[block][block]++;
  }
  void give(uint64_t block, uint64_t address) {
    Clock& at = given_.emplace(address, Clock(seen_.size())).first->second;
    join(at, fenced_[block]);
  }
  void take(uint64_t block, uint64_t address) {
    auto at = given_.find(address);
    if (at != given_.end()) join(taken_[block], at->second);
  }
  // An atomic operation or a volatile store made `before` into `now`.
  void wrote(uint64_t block, uint64_t address, uint64_t before, uint64_t now) {
    Cell& cell = cells_.emplace(address, Cell{{{before, block, 0}}, std::vector<size_t>(seen_.size())}).first->second;
    cell.values.push_back({now, block, this->now(block)});
    cell.seen[block] = cell.values.size() - 1;
  }
  // What a volatile load finds: the last value, or by chance one before, if nothing orders what came after before the load.
  uint64_t look(uint64_t block, uint64_t address, uint64_t now) {
    auto at = cells_.find(address);
    if (at == cells_.end() || at->second.values.back().bits != now) return take(block, address), now;
    Cell& cell = at->second;
    size_t& seen = cell.seen[block];
    const size_t last = cell.values.size() - 1;
    for (size_t i = last; i > seen; i--)
      if (after(block, cell.values[i].block, cell.values[i].then)) seen = i;
    chance_ = chance_ * 6364136223846793005ull + 1442695040888963407ull;
    seen = chance_ >> 63 ? last : seen + (chance_ >> 33) % (last - seen + 1);
    if (seen == last) take(block, address);
    return cell.values[seen].bits;
  }

 private:
  typedef std::vector<uint32_t> Clock;
  struct Value {
    uint64_t bits, block;
    uint32_t then;
  };
  struct Cell {
    std::vector<Value> values;
    std::vector<size_t> seen;  // the last value of each block
  };
  std::map<uint64_t, Cell> cells_;
  std::vector<Clock> seen_, fenced_, taken_;
  uint64_t chance_;
  std::map<uint64_t, Clock> given_;
  static void join(Clock& to, const Clock& from) {
    for (size_t i = 0; i < to.size(); i++) to[i] = std::max(to[i], from[i]);
  }
};

// What one block does, as marks of the buffers. Of a plain launch a mark names blocks, counted from 1; of a cooperative one the
// number in the lower four bits and the time above.
class Toucher {
 public:
  void start(uint64_t launch, uint64_t block, Fences* fences) {
    launch_ = (launch & 0x3fffff) << mark::LAUNCH;
    block_ = block;
    fences_ = fences;
    refresh();
  }
  void fence() {
    if (!fences_) return;
    fences_->fence(block_);
    if (fences_->now(block_) >= 0xffff) throw Fault{"more fences than can be told apart"};
    refresh();
  }
  // Atomic operations and volatile accesses, at this address.
  void give(uint64_t address) const { if (fences_) fences_->give(block_, address); }
  void take(uint64_t address) const { if (fences_) fences_->take(block_, address); }
  void wrote(uint64_t address, uint64_t before, uint64_t now) const { if (fences_) fences_->wrote(block_, address, before, now); }
  uint64_t look(uint64_t address, uint64_t now) const { return fences_ ? fences_->look(block_, address, now) : now; }

  void read(uint64_t& m, bool nc, bool atomic) const {
    if (m == reads_nc_ || m == many_nc_ || (!nc && (m == reads_mine_ || m == reads_many_ || m == all_mine_))) return;
    if (m >> mark::LAUNCH != launch_ >> mark::LAUNCH) m = launch_;
    const uint64_t writer = mark::writer(m), reader = mark::reader(m);
    if (nc && writer) throw Fault{"ld.global.nc of memory that this launch writes"};
    if (apart(writer) && !(atomic && m & mark::ATOMIC)) throw Fault{"a read of what " + name(writer) + " writes"};
    if (atomic) return;
    m |= nc ? mark::NC : 0;
    m = (m & ~mark::MANY) | (reader == 0 || mine(reader) ? me_ : mark::MANY);
  }
  void write(uint64_t& m, bool atomic) const {
    if (!atomic && (m == writes_mine_ || m == all_mine_)) return;
    if (m >> mark::LAUNCH != launch_ >> mark::LAUNCH) m = launch_;
    const uint64_t writer = mark::writer(m), reader = mark::reader(m);
    if (m & mark::NC) throw Fault{"a write to memory that this launch reads by ld.global.nc"};
    if (apart(reader)) throw Fault{"a write to what " + name(reader) + " reads"};
    if (apart(writer) && !(atomic && m & mark::ATOMIC)) throw Fault{"a write to what " + name(writer) + " writes"};
    if (atomic && (writer == 0 || m & mark::ATOMIC)) m |= mark::ATOMIC;
    else m &= ~mark::ATOMIC;
    const bool alone = writer == 0 || mine(writer) || !(m & mark::ATOMIC);
    m = (m & ~(mark::MANY << mark::WRITER)) | (alone ? me_ : mark::MANY) << mark::WRITER;
    if (fences_) m &= ~mark::MANY;  // the readers before are ordered before
  }

 private:
  uint64_t launch_ = 0, block_ = 0, me_ = 0;
  Fences* fences_ = nullptr;
  // Marks after which nothing has to be done.
  uint64_t reads_mine_ = 0, reads_many_ = 0, reads_nc_ = 0, many_nc_ = 0, all_mine_ = 0, writes_mine_ = 0;

  void refresh() {
    me_ = fences_ ? (uint64_t)fences_->now(block_) << 4 | (block_ + 1) : block_ + 1;
    reads_mine_ = launch_ | me_;
    reads_many_ = launch_ | mark::MANY;
    reads_nc_ = reads_mine_ | mark::NC;
    many_nc_ = reads_many_ | mark::NC;
    writes_mine_ = launch_ | me_ << mark::WRITER;
    all_mine_ = writes_mine_ | me_;
  }
  uint64_t block_of(uint64_t who) const { return (fences_ ? who & 15 : who) - 1; }
  bool mine(uint64_t who) const { return who != mark::MANY && block_of(who) == block_; }
  // Whether an access by `who` is of another block and nothing orders it before this one. Several at a time are not told apart in
  // a cooperative launch.
  bool apart(uint64_t who) const {
    if (who == 0 || mine(who)) return false;
    if (!fences_) return true;
    return who != mark::MANY && !fences_->after(block_, block_of(who), (uint32_t)(who >> 4));
  }
  std::string name(uint64_t who) const {
    return who == mark::MANY ? "other blocks" : text("block %llu", (unsigned long long)block_of(who));
  }
};

}  // namespace ptx
