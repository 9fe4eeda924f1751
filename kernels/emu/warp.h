// Warp collectives: every lane of the mask leaves its operand; the last to arrive computes the results of all.
//
// Lanes that name different masks or different operations, and a shuffle from a lane outside the mask, are errors.
#pragma once
#include "schedule.h"

namespace emu {

template <class In, class Out, class Finish>
Out collective(const char* name, unsigned mask, const In& operand, Finish finish) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64);
  Fiber& f = me();
  const unsigned lane = f.thread & 31;
  if (!(mask >> lane & 1)) die("a lane is not in its own mask");
  memcpy(f.in, &operand, sizeof operand);
  f.mask = mask;
  f.where = name;
  f.state = State::Warp;
  unsigned& arrived = f.block->arrived[f.thread >> 5];
  arrived |= 1u << lane;
  Fiber* warp = &f - lane;
  if ((arrived & mask) != mask) {
    yield();
  } else {
    for (unsigned l = 0; l < 32; l++)
      if ((mask >> l & 1) && (warp[l].mask != mask || strcmp(warp[l].where, name)))
        die("lanes of a warp disagree on the collective or its mask");
    finish(warp, mask);
    for (unsigned l = 0; l < 32; l++)
      if (mask >> l & 1) warp[l].state = State::Ready;
    arrived &= ~mask;
  }
  Out out;
  memcpy(&out, me().out, sizeof out);
  return out;
}

// `source(lane, operand)` names the lane read; each lane may choose its own.
template <class T, class Source>
T shuffle(const char* name, unsigned mask, T value, int choice, Source source) {
  struct Operand { T value; int choice; };
  return collective<Operand, T>(name, mask, Operand{value, choice}, [&](Fiber* warp, unsigned mask) {
    for (int l = 0; l < 32; l++) {
      if (!(mask >> l & 1)) continue;
      Operand own, other;
      memcpy(&own, warp[l].in, sizeof own);
      const int from = source(l, own.choice);
      if (!(mask >> from & 1)) die("a shuffle reads a lane outside its mask");
      memcpy(&other, warp[from].in, sizeof other);
      memcpy(warp[l].out, &other.value, sizeof(T));
    }
  });
}

}  // namespace emu

template <class T> T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32) {
  return emu::shuffle("shfl_xor", mask, v, by, [width](int l, int by) {
    return ((l ^ by) & ~(width - 1)) == (l & ~(width - 1)) ? l ^ by : l;
  });
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return emu::shuffle("shfl_down", mask, v, (int)by, [width](int l, int by) {
    return (l & (width - 1)) + by < width ? l + by : l;
  });
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  return emu::shuffle("shfl_up", mask, v, (int)by, [width](int l, int by) {
    return (l & (width - 1)) >= by ? l - by : l;
  });
}
template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  return emu::shuffle("shfl", mask, v, from, [width](int l, int from) {
    return (l & ~(width - 1)) | (from & (width - 1));
  });
}
inline void __syncwarp(unsigned mask = ~0u) {
  emu::collective<int, int>("syncwarp", mask, 0, [](emu::Fiber*, unsigned) {});
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emu::collective<int, unsigned>("ballot", mask, predicate != 0, [](emu::Fiber* warp, unsigned mask) {
    unsigned bits = 0;
    for (int l = 0; l < 32; l++)
      if (mask >> l & 1) bits |= (unsigned)(warp[l].in[0] != 0) << l;
    for (int l = 0; l < 32; l++)
      if (mask >> l & 1) memcpy(warp[l].out, &bits, sizeof bits);
  });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
