// The scheduler: one fiber for each CUDA thread, one OS thread for all of them.
//
// A fiber runs until it waits: at a block barrier, at a warp collective, at a grid barrier, or at its end. Between those
// points it is alone, so every result is reproducible; the order in which fibers and blocks get their turn is a function
// of a seed, so a result that depends on it is found by trying seeds: with an even one all threads get their turn in a
// round, with an odd one a warp runs on until it waits for another. Shared memory is filled with 0xff (NaN as floats)
// before a block starts. Threads that end while others of their block wait at a barrier are an error, as is a deadlock.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <sys/mman.h>
#include <utility>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned count() const { return x * y * z; }
};

namespace emu {

enum class State : uint8_t { Ready, Block, Warp, Grid, Done };

struct Block {
  dim3 id;
  std::unique_ptr<unsigned char[]> shared;  // exactly as long as asked for, so that ASan sees its ends
  unsigned arrived[32];                     // per warp: lanes parked in a collective
};

struct Copy { void* to; const void* from; size_t bytes; };

struct Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  State state = State::Done;
  unsigned thread = 0, mask = 0;
  const char* where = "";
  dim3 id;
  Block* block = nullptr;
  alignas(16) unsigned char in[64], out[64];
  std::vector<Copy> open;                 // cp.async since the last commit
  std::vector<std::vector<Copy>> groups;  // committed, not yet waited for
};

struct Scheduler {
  std::vector<Fiber> fibers;
  std::vector<Block> blocks;
  std::vector<unsigned> order;
  const std::function<void()>* body = nullptr;
  void* main_sp = nullptr;
  unsigned current = 0, threads = 0, seed = 0;
  dim3 block_dim, grid_dim;
};
inline Scheduler S;

inline Fiber& me() { return S.fibers[S.current]; }

// Saves the registers a callee must keep, and continues where `load` was saved.
extern "C" void emu_switch(void** save, void* load);
#if defined(__x86_64__)
asm(".text\n.weak emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
constexpr int SAVED = 6;
#else
#error "the fiber switch is written for x86-64"
#endif

inline void yield() { emu_switch(&me().sp, S.main_sp); }

inline void trampoline() {
  (*S.body)();
  me().state = State::Done;
  yield();
  abort();
}

constexpr size_t STACK = 256 << 10;

[[noreturn]] inline void die(const char* why) {
  fprintf(stderr, "emulator: %s\n", why);
  unsigned shown = 0;
  for (Fiber& f : S.fibers) {
    if (f.state == State::Done || f.state == State::Ready || ++shown > 8) continue;
    fprintf(stderr, "  block (%u,%u,%u) thread %u waits in %s, mask %08x\n", f.block->id.x, f.block->id.y,
            f.block->id.z, f.thread, f.where, f.mask);
  }
  abort();
}

inline void wait(State state, const char* where) {
  me().state = state;
  me().where = where;
  yield();
}

// A permutation of 0..n: as it is, reversed, or random.
inline std::vector<unsigned> permuted(unsigned n, unsigned salt) {
  std::vector<unsigned> order(n);
  for (unsigned i = 0; i < n; i++) order[i] = S.seed == 1 ? n - 1 - i : i;
  uint64_t r = (S.seed * 0x9E3779B97F4A7C15ull) ^ (salt * 0xBF58476D1CE4E5B9ull);
  for (unsigned i = n; S.seed > 1 && i > 1; i--) {
    r = r * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i - 1], order[(r >> 33) % i]);
  }
  return order;
}

// Runs the given blocks side by side until all their threads have ended.
inline void run(const std::vector<dim3>& ids, size_t shared) {
  const unsigned n = S.threads, all = n * (unsigned)ids.size();
  S.blocks.resize(ids.size());
  if (S.fibers.size() < all) S.fibers.resize(all);
  for (size_t b = 0; b < ids.size(); b++) {
    Block& block = S.blocks[b];
    block.id = ids[b];
    block.shared.reset(new unsigned char[shared]);
    memset(block.shared.get(), 0xff, shared);
    memset(block.arrived, 0, sizeof block.arrived);
  }
  for (unsigned i = 0; i < S.fibers.size(); i++) {
    Fiber& f = S.fibers[i];
    f.state = State::Done;
    if (i >= all) continue;
    if (!f.stack) {
      void* p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (p == MAP_FAILED) die("no memory for another thread");
      f.stack = (char*)p;
    }
    void** top = (void**)(f.stack + STACK) - 3;
    *--top = (void*)trampoline;
    for (int k = 0; k < SAVED; k++) *--top = nullptr;
    f.sp = top;
    f.state = State::Ready;
    f.open.clear();
    f.groups.clear();
    f.block = &S.blocks[i / n];
    f.thread = i % n;
    f.id = dim3(f.thread % S.block_dim.x, f.thread / S.block_dim.x % S.block_dim.y,
                f.thread / (S.block_dim.x * S.block_dim.y));
  }
  const unsigned salt = 7 + ids[0].x + 131 * ids[0].y + 4099 * ids[0].z, warps = (n + 31) / 32;
  const bool eager = S.seed & 1;
  S.order = permuted(eager ? warps * (unsigned)ids.size() : all, salt);
  auto turn = [](unsigned i) {
    if (S.fibers[i].state != State::Ready) return false;
    S.current = i;
    emu_switch(&S.main_sp, S.fibers[i].sp);
    return true;
  };
  for (;;) {
    bool ran = false;
    for (unsigned i : S.order) {
      if (!eager) {
        ran |= turn(i);
        continue;
      }
      const unsigned first = i / warps * n + i % warps * 32, end = std::min(first + 32, i / warps * n + n);
      for (bool any = true; any; ran |= any) {
        any = false;
        for (unsigned k = first; k < end; k++) any |= turn(k);
      }
    }
    unsigned done = 0, at_grid = 0;
    bool released = false;
    for (unsigned b = 0; b < ids.size(); b++) {
      unsigned ended = 0, at_block = 0;
      for (unsigned i = b * n; i < (b + 1) * n; i++) {
        ended += S.fibers[i].state == State::Done;
        at_block += S.fibers[i].state == State::Block;
        at_grid += S.fibers[i].state == State::Grid;
      }
      done += ended;
      if (at_block && at_block + ended == n && ended) die("some threads of a block ended, others wait at a barrier");
      if (at_block == n) {
        for (unsigned i = b * n; i < (b + 1) * n; i++) S.fibers[i].state = State::Ready;
        released = true;
      }
    }
    if (done == all) return;
    if (at_grid == all) {
      for (unsigned i = 0; i < all; i++) S.fibers[i].state = State::Ready;
      released = true;
    }
    if (!ran && !released) die("deadlock");
  }
}

inline void prepare(dim3 grid, dim3 block, const std::function<void()>& body) {
  S.grid_dim = grid;
  S.block_dim = block;
  S.threads = block.count();
  S.body = &body;
  if (S.threads == 0 || S.threads > 1024 || grid.count() == 0) die("a launch of no or too many threads");
}

inline dim3 nth(dim3 grid, unsigned i) { return dim3(i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)); }

// An ordinary launch: blocks one after the other, in the order of the seed.
inline void launch(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  prepare(grid, block, body);
  for (unsigned i : permuted(grid.count(), 3)) run({nth(grid, i)}, shared);
}

// A cooperative launch: all blocks at once, so that grid barriers work.
inline void launch_cooperative(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  prepare(grid, block, body);
  std::vector<dim3> ids;
  for (unsigned i = 0; i < grid.count(); i++) ids.push_back(nth(grid, i));
  run(ids, shared);
}

}  // namespace emu
