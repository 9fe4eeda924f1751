// What runs: an instruction as it is decoded, a kernel, a warp with its registers [register][32 lanes], a block.
#pragma once
#include "blocks.h"
#include "parse.h"
#include "races.h"

namespace ptx {

struct Warp;
struct Instruction;
typedef void (*Action)(Warp&, const Instruction&, uint32_t lanes);

// What the scheduler has to do about an instruction: nothing; move lanes; let them end; wait for the warp's lanes, or for the
// block's.
enum class Flow : uint8_t { NONE, BRANCH, END, COLLECTIVE, BARRIER };

// How global memory is read or written.
enum class Kind : uint8_t { PLAIN, NC, VOLATILE };

// A place of 32 numbers: an offset into the warp's registers, or into the constants if odd.
typedef int32_t Place;

struct Instruction {
  Action run = nullptr;
  Place o[6] = {};  // results first
  const Place* more = nullptr;  // of an instruction with more of them
  int64_t number = 0;  // an offset, a count, the target of a branch
  mutable Buffer* hint = nullptr;  // where it found its memory
  int32_t line = 0;
  int16_t guard = -1;
  bool negated = false;
  Flow flow = Flow::NONE;
  Place members = -1;  // a collective's mask; -1 for all lanes
  bool aligned = false;
  Kind kind = Kind::PLAIN;
};

struct Kernel {
  std::string name;
  std::vector<size_t> sizes;  // of the parameters
  std::vector<size_t> at;
  size_t parameter_bytes = 0, static_shared = 0;
  std::vector<Instruction> code;
  std::vector<std::string> source;  // the instructions as written
  std::vector<Place> places;        // of `more`
  std::vector<unsigned char> constants;
  size_t register_bytes = 0;
  bool groups = false;  // multiplies by groups of warps, which read shared memory on their own
  int predicates = 0;
  unsigned maxntid[3] = {}, reqntid[3] = {}, minnctapersm = 0, maxnreg = 0;
  mutable uint64_t removed = 0;  // of the memory that the hints are of
  unsigned registers = 0;  // 32 bits wide, alive at one time: what a chip needs at least
};

struct Group {
  int pc;
  uint32_t lanes;
  bool waits;
};

struct Copy {
  uint32_t to;
  uint16_t line;
  uint8_t lane;
  bool valid;
  uint64_t from;
};

// A product of a group of warps that was asked for: its matrices' descriptors, and whether it adds to the sums.
struct GroupProduct {
  const Instruction* in;
  uint64_t left, right;
  bool adds;
};

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Block {
  Index id;
  uint64_t number = 0;
  Shared shared;
  Toucher toucher;
};

struct Launch;

struct Warp {
  unsigned char* base[2] = {};  // registers, constants
  std::vector<uint32_t> predicates;
  std::vector<unsigned char> store;
  std::vector<Group> groups;  // by their pc
  uint32_t live = 0;
  unsigned first = 0;  // thread of lane 0
  bool at_barrier = false;
  Block* block = nullptr;
  Launch* launch = nullptr;
  Order order;
  std::vector<Copy> open;                 // cp.async since the last commit
  std::vector<std::vector<Copy>> copies;  // committed, not yet waited for
  std::vector<GroupProduct> asked;                // wgmma since the last commit
  std::vector<std::vector<GroupProduct>> turns;   // committed, not yet waited for
  bool fenced = false;                       // since the last commit
  std::vector<uint32_t> unpublished;         // pieces of 16 bytes written since the last fence.proxy.async
  uint32_t tid[3][32] = {};
  int pc = 0;  // that is run
};

struct Launch {
  const Kernel* kernel = nullptr;
  Memory* memory = nullptr;
  Index grid, block;
  const unsigned char* parameters = nullptr;
  uint64_t stores = 0;  // a sign of progress
};

template <class T> inline T* row(const Warp& w, Place p) { return (T*)(w.base[p & 1] + (p & ~1)); }

// d[l] = f(l) for the lanes that take part; `f` must not trap.
template <class T, class F> inline __attribute__((always_inline)) void each(T* d, uint32_t lanes, F f) {
  if (lanes == ~0u) {
#pragma GCC ivdep
    for (int l = 0; l < 32; l++) d[l] = f(l);
  } else {
#pragma GCC ivdep
    for (int l = 0; l < 32; l++) {
      const T v = f(l);
      d[l] = lanes >> l & 1 ? v : d[l];
    }
  }
}
// The same one by one, for what traps or calls.
template <class F> inline void one_by_one(uint32_t lanes, F f) {
  for (; lanes; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

}  // namespace ptx
