// Loads, stores and atomic operations. Every access is checked: that it lies in one buffer or in the block's shared memory, is
// aligned to its size (vectors to the whole vector), reads only what was written, and races with none.
#pragma once
#include "integers.h"

namespace ptx {

inline Buffer& find(Warp& w, const Instruction& in, uint64_t p, unsigned n, const char* what) {
  Buffer* b = in.hint;
  if (b && b->holds(p, n)) return *b;
  b = w.launch->memory->find(p, n);
  if (!b) throw Fault{text("%s beyond memory: %s", what, w.launch->memory->place(p, n).c_str())};
  in.hint = b;
  return *b;
}
[[noreturn]] inline void misaligned(uint64_t p, unsigned n) {
  throw Fault{text("an access of %u bytes at %#llx is not aligned", n, (unsigned long long)p)};
}

inline void global_read(Warp& w, const Instruction& in, uint64_t p, unsigned n, unsigned element, Kind kind) {
  if (p & (n - 1)) misaligned(p, n);
  Buffer& b = find(w, in, p, n, "a read");
  const uint64_t at = p - b.start;
  uint64_t* marks = b.marks && (element >= 4 || 1u << b.shift <= element) ? b.marks.get() : b.granules(element);
  for (uint64_t g = at >> b.shift; g <= (at + n - 1) >> b.shift; g++)
    w.block->toucher.read(marks[g], kind == Kind::NC, kind == Kind::VOLATILE);
  if (!b.written(at, n)) throw Fault{text("a read of memory that nobody wrote: %s", w.launch->memory->place(p, n).c_str())};
}
inline void global_write(Warp& w, const Instruction& in, uint64_t p, unsigned n, unsigned element, bool atomic) {
  if (p & (n - 1)) misaligned(p, n);
  Buffer& b = find(w, in, p, n, "a write");
  const uint64_t at = p - b.start;
  b.write(at, n);
  uint64_t* marks = b.marks && (element >= 4 || 1u << b.shift <= element) ? b.marks.get() : b.granules(element);
  for (uint64_t g = at >> b.shift; g <= (at + n - 1) >> b.shift; g++) w.block->toucher.write(marks[g], atomic);
  if (atomic) w.block->toucher.give(p);
}

// The offset in the block's shared memory.
inline size_t shared_place(const Warp& w, uint64_t p, unsigned n) {
  if (p & (n - 1)) misaligned(p, n);
  const size_t size = w.block->shared.bytes.size(), at = p - SHARED_START;
  if (p < SHARED_START || at > size || size - at < n)
    throw Fault{text("%u bytes at %lld of a shared memory of %zu", n, (long long)(p - SHARED_START), size)};
  return at;
}
inline void shared_read(Warp& w, const Instruction& in, size_t at, unsigned n, unsigned element, int lane) {
  Shared& s = w.block->shared;
  s.refine(element);
  for (size_t g = at >> s.shift; g <= (at + n - 1) >> s.shift; g++)
    s.read(s.granules[g], w.first + (unsigned)lane, w.order, (uint16_t)in.line);
  if (!s.written(at, n)) throw Fault{text("a read of shared memory that nobody wrote: %u bytes at %zu", n, at)};
}
// What is written is not yet there for products that read shared memory on their own.
inline void hide(Warp& w, size_t at) {
  w.block->shared.fresh[at / 16] = 1;
  w.unpublished.push_back((uint32_t)(at / 16));
}
inline void publish(Warp& w, const Instruction&, uint32_t) {
  for (uint32_t piece : w.unpublished) w.block->shared.fresh[piece] = 0;
  w.unpublished.clear();
}
inline void shared_write(Warp& w, const Instruction& in, size_t at, unsigned n, unsigned element, int lane) {
  Shared& s = w.block->shared;
  s.write(at, n);
  if (!s.fresh.empty()) hide(w, at);
  s.refine(element);
  for (size_t g = at >> s.shift; g <= (at + n - 1) >> s.shift; g++)
    s.write(s.granules[g], w.first + (unsigned)lane, w.order, (uint16_t)in.line);
}

// Loads of N elements S into registers D; addresses are A.
template <class S, class D, int N, bool SHARED, class A> void load(Warp& w, const Instruction& in, uint32_t lanes) {
  const A* address = row<A>(w, in.o[N]);
  constexpr unsigned BYTES = sizeof(S) * N;
  A from[32];
  memcpy(from, address, sizeof from);  // a result may be the address's register
  D* d[N];
  for (int i = 0; i < N; i++) d[i] = row<D>(w, in.o[i]);
  one_by_one(lanes, [&](int l) {
    const uint64_t p = from[l] + (uint64_t)in.number;
    const unsigned char* at;
    if constexpr (SHARED) {
      const size_t place = shared_place(w, p, BYTES);
      shared_read(w, in, place, BYTES, sizeof(S), l);
      at = w.block->shared.bytes.data() + place;
    } else {
      global_read(w, in, p, BYTES, sizeof(S), in.kind);
      at = (const unsigned char*)p;
    }
    for (int i = 0; i < N; i++) {
      S v;
      memcpy(&v, at + i * sizeof(S), sizeof v);
      if (!SHARED && in.kind == Kind::VOLATILE) v = (S)w.block->toucher.look(p + i * sizeof(S), (uint64_t)(Bits<S>)v);
      d[i][l] = (D)v;
    }
  });
}
template <class S, class D, int N, bool SHARED, class A> void store(Warp& w, const Instruction& in, uint32_t lanes) {
  const A* address = row<A>(w, in.o[N]);
  constexpr unsigned BYTES = sizeof(S) * N;
  const D* d[N];
  for (int i = 0; i < N; i++) d[i] = row<D>(w, in.o[i]);
  w.launch->stores++;
  one_by_one(lanes, [&](int l) {
    const uint64_t p = address[l] + (uint64_t)in.number;
    unsigned char* at;
    if constexpr (SHARED) {
      const size_t place = shared_place(w, p, BYTES);
      shared_write(w, in, place, BYTES, sizeof(S), l);
      at = w.block->shared.bytes.data() + place;
    } else {
      global_write(w, in, p, BYTES, sizeof(S), in.kind == Kind::VOLATILE);
      at = (unsigned char*)p;
    }
    for (int i = 0; i < N; i++) {
      const S v = (S)d[i][l];
      if (!SHARED && in.kind == Kind::VOLATILE) {
        S before;
        memcpy(&before, at + i * sizeof(S), sizeof before);
        w.block->toucher.wrote(p + i * sizeof(S), (uint64_t)(Bits<S>)before, (uint64_t)(Bits<S>)v);
      }
      memcpy(at + i * sizeof(S), &v, sizeof v);
    }
  });
}

// atom (RETURNS) and red: one lane after the other.
template <class T, class F, bool RETURNS> struct Atomic {
  static void run(Warp& w, const Instruction& in, uint32_t lanes) {
    const Place* o = in.o + RETURNS;
    const uint64_t* address = row<uint64_t>(w, o[0]);
    const T* b = row<T>(w, o[1]);
    w.launch->stores++;
    one_by_one(lanes, [&](int l) {
      const uint64_t p = address[l] + (uint64_t)in.number;
      global_read(w, in, p, sizeof(T), sizeof(T), Kind::VOLATILE);
      global_write(w, in, p, sizeof(T), sizeof(T), true);
      T old;
      memcpy(&old, (void*)p, sizeof old);
      const T now = F::of(old, b[l]);
      w.block->toucher.take(p);
      w.block->toucher.wrote(p, (uint64_t)(Bits<T>)old, (uint64_t)(Bits<T>)now);
      if (RETURNS) row<T>(w, in.o[0])[l] = old;
      memcpy((void*)p, &now, sizeof now);
    });
  }
};

inline void fence(Warp& w, const Instruction&, uint32_t) { w.block->toucher.fence(); }

// cp.async of 16 bytes, of which the first are read and the others zeros: checked where it is issued; the bytes arrive with the
// wait that makes them visible, and may be touched by nobody until then.
inline void copy_async(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t *to = row<uint32_t>(w, in.o[0]), *bytes = row<uint32_t>(w, in.o[2]);
  const uint64_t* from = row<uint64_t>(w, in.o[1]);
  one_by_one(lanes, [&](int l) {
    const size_t at = shared_place(w, to[l] + (uint64_t)in.number, 16);
    if (bytes[l] != 0 && bytes[l] != 16) throw Fault{text("a cp.async of %u bytes is not known", bytes[l])};
    if (from[l] & 15) misaligned(from[l], 16);
    if (bytes[l]) global_read(w, in, from[l], 16, 4, Kind::PLAIN);
    Shared& s = w.block->shared;
    for (size_t g = at >> s.shift; g <= (at + 15) >> s.shift; g++)
      s.fly(s.granules[g], w.first + (unsigned)l, w.order, (uint16_t)in.line);
    w.open.push_back({(uint32_t)at, (uint16_t)in.line, (uint8_t)l, bytes[l] != 0, from[l]});
  });
}
// commit_group and wait_group count for each thread; here for the warp, so that all of its lanes have to take part.
inline void whole_warp(const Warp& w, uint32_t lanes) {
  if (lanes != w.live) throw Fault{"cp.async groups of a part of a warp are not known"};
}
inline void copy_commit(Warp& w, const Instruction&, uint32_t lanes) {
  whole_warp(w, lanes);
  w.copies.push_back(std::move(w.open));
  w.open.clear();
}
inline void copy_wait(Warp& w, const Instruction& in, uint32_t lanes) {
  whole_warp(w, lanes);
  Shared& s = w.block->shared;
  auto& groups = w.copies;
  size_t done = groups.size() > (size_t)in.number ? groups.size() - (size_t)in.number : 0;
  for (size_t i = 0; i < done; i++)
    for (const Copy& c : groups[i]) {
      if (c.valid) memcpy(s.bytes.data() + c.to, (const void*)c.from, 16);
      else memset(s.bytes.data() + c.to, 0, 16);
      s.write(c.to, 16);
      if (!s.fresh.empty()) hide(w, c.to);
      for (size_t g = c.to >> s.shift; g <= (c.to + 15u) >> s.shift; g++) s.land(s.granules[g], w.first + c.lane, w.order);
    }
  groups.erase(groups.begin(), groups.begin() + (long)done);
}

// ldmatrix.x4 of 8 x 8 numbers of 16 bits: lane l supplies row l & 7 of matrix l >> 3.
template <bool TURNED> void load_matrices(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t* address = row<uint32_t>(w, in.o[4]);
  uint16_t m[4][8][8];
  one_by_one(lanes, [&](int l) {
    const size_t at = shared_place(w, address[l] + (uint64_t)in.number, 16);
    shared_read(w, in, at, 16, 4, l);
    memcpy(m[l >> 3][l & 7], w.block->shared.bytes.data() + at, 16);
  });
  for (int i = 0; i < 4; i++) {
    uint32_t* d = row<uint32_t>(w, in.o[i]);
    for (int l = 0; l < 32; l++) {
      const int r = l >> 2, c = (l & 3) * 2;
      d[l] = TURNED ? m[i][c][r] | (uint32_t)m[i][c + 1][r] << 16 : m[i][r][c] | (uint32_t)m[i][r][c + 1] << 16;
    }
  }
}

}  // namespace ptx
