// Shared memory as the interpreter checks it: which bytes a block has written, and which threads have touched them since the
// last barrier that orders them. Lanes of a warp are ordered by bar.warp.sync and by the collectives too.
#pragma once
#include "memory.h"

namespace ptx {

// Shared addresses begin here, so that null is none of them.
constexpr uint64_t SHARED_START = 1024;

// A granule: the barrier interval its accesses are of (0: none; FLIGHT: a cp.async that is not waited for), the last writing
// thread and the last readers (a thread, SEVERAL + its warp, or MANY), when by the clock of their warp, and where in the code.
struct Granule {
  static constexpr uint32_t FLIGHT = ~0u;
  static constexpr uint16_t NOBODY = 0xffff, SEVERAL = 0x400, MANY = 0x800;
  uint32_t interval = 0;
  uint16_t writer = NOBODY, wrote = 0, write_line = 0, reader = NOBODY, read = 0, read_line = 0;
};

// How far the lanes of a warp have been ordered.
struct Order {
  uint16_t clock = 0;  // counts collectives of the warp
  uint16_t full = 0;   // of the last one of all lanes
  uint16_t lane[32] = {};  // of the last one of each lane
  void sync(uint32_t lanes, uint32_t all) {
    clock++;
    if (lanes == all) full = clock;
    for (int l = 0; l < 32; l++)
      if (lanes >> l & 1) lane[l] = clock;
  }
  // Whether what happened at `then` is before what this lane does now.
  bool after(uint16_t then, int l) const { return full > then || lane[l] > then; }
};

class Shared {
 public:
  std::vector<unsigned char> bytes;
  std::vector<uint64_t> known;
  std::vector<Granule> granules;
  int shift = 2;
  std::vector<char> fresh;  // pieces of 16 bytes that tensor cores may not see yet; empty if no kernel of the block asks

  void start(size_t n) {
    if (bytes.size() != n) {
      bytes.assign(n, 0xff);
      granules.assign((n >> shift) + 1, {});
      known.assign(n / 64 + 1, 0);
    } else {
      memset(bytes.data(), 0xff, n);
      std::fill(known.begin(), known.end(), 0);
      if (flights_) std::fill(granules.begin(), granules.end(), Granule{});
    }
    flights_ = false;
    std::fill(fresh.begin(), fresh.end(), 0);
    barrier();
  }
  // Everything before is ordered before everything after.
  void barrier() {
    if (++interval_ == Granule::FLIGHT) {
      interval_ = 1;
      std::fill(granules.begin(), granules.end(), Granule{});
    }
  }
  void refine(unsigned n) {
    const int wanted = n >= 4 ? 2 : n == 2 ? 1 : 0;
    if (wanted >= shift) return;
    std::vector<Granule> finer((bytes.size() >> wanted) + 1);
    for (size_t i = 0; i < finer.size(); i++) finer[i] = granules[i >> (shift - wanted)];
    granules = std::move(finer);
    shift = wanted;
  }
  bool written(size_t at, unsigned n) const {
    const uint64_t bits = (1ull << n) - 1;
    return (known[at / 64] >> at % 64 & bits) == bits;
  }
  void write(size_t at, unsigned n) { known[at / 64] |= ((1ull << n) - 1) << at % 64; }

  void read(Granule& g, unsigned thread, const Order& order, uint16_t line) {
    if (g.interval == interval_) {
      if (g.writer != Granule::NOBODY && g.writer != thread && !ordered(g.writer, g.wrote, thread, order))
        throw Fault{
            text("thread %u reads what thread %u wrote in line %u, with no barrier between", thread, g.writer, g.write_line)};
      const bool same = g.reader == thread || g.reader == Granule::NOBODY;
      const bool warp = !same && g.reader < Granule::MANY && warp_of(g.reader) == thread / 32;
      g.reader = (uint16_t)(same ? thread : warp ? Granule::SEVERAL + thread / 32 : (unsigned)Granule::MANY);
    } else {
      if (g.interval == Granule::FLIGHT) flight(g, "reads");
      g.interval = interval_;
      g.writer = Granule::NOBODY;
      g.reader = (uint16_t)thread;
    }
    g.read = order.clock;
    g.read_line = line;
  }
  void write(Granule& g, unsigned thread, const Order& order, uint16_t line) {
    if (g.interval == interval_) {
      if (g.writer != Granule::NOBODY && g.writer != thread && !ordered(g.writer, g.wrote, thread, order))
        throw Fault{
            text("thread %u writes what thread %u wrote in line %u, with no barrier between", thread, g.writer, g.write_line)};
      if (g.reader != Granule::NOBODY && g.reader != thread && !ordered(g.reader, g.read, thread, order))
        throw Fault{text("thread %u writes what %s read in line %u, with no barrier between", thread, who(g.reader).c_str(),
                         g.read_line)};
      g.reader = Granule::NOBODY;
    } else {
      if (g.interval == Granule::FLIGHT) flight(g, "writes");
      g.interval = interval_;
      g.reader = Granule::NOBODY;
    }
    g.writer = (uint16_t)thread;
    g.wrote = order.clock;
    g.write_line = line;
  }
  // A copy is under way from here until `land`.
  void fly(Granule& g, unsigned thread, const Order& order, uint16_t line) {
    write(g, thread, order, line);
    g.interval = Granule::FLIGHT;
    flights_ = true;
  }
  void land(Granule& g, unsigned thread, const Order& order) {
    g.interval = interval_;
    g.reader = Granule::NOBODY;
    g.writer = (uint16_t)thread;
    g.wrote = order.clock;
  }

 private:
  uint32_t interval_ = 0;
  bool flights_ = false;

  static unsigned warp_of(uint16_t who) { return who < Granule::SEVERAL ? who / 32u : who - (unsigned)Granule::SEVERAL; }
  static std::string who(uint16_t who) {
    return who < Granule::SEVERAL ? text("thread %u", who)
           : who < Granule::MANY  ? text("warp %u", who - Granule::SEVERAL)
                                  : "several warps";
  }
  static bool ordered(uint16_t who, uint16_t then, unsigned thread, const Order& order) {
    return who < Granule::MANY && warp_of(who) == thread / 32 && order.after(then, (int)(thread & 31));
  }
  [[noreturn]] static void flight(const Granule& g, const char* what) {
    throw Fault{text("%s what the cp.async of thread %u in line %u may still be writing", what, g.writer, g.write_line)};
  }
};

}  // namespace ptx
