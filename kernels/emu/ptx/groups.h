// Products of groups of four warps (wgmma, sm_90a), which read their matrices from shared memory on their own. Each warp of a group
// has its 16 rows of the left matrix here, so warps need not come together. A product is done when it is waited for, with what
// shared memory holds then: who overwrites it or reads the sums too early gets wrong results. What it reads has to be published
// (fence.proxy.async) and behind a barrier.
#pragma once
#include "access.h"
#include "tensor.h"

namespace ptx {

constexpr int WIDE = 256;  // columns of a product; its depth is 16

// The place in shared memory of column `c` of row `r`, by the descriptor of a matrix of halves, 16 bytes to a piece.
inline size_t piece_of(const Warp& w, uint64_t matrix, int r, int c) {
  const uint64_t start = (matrix & 0x3fff) << 4, at = start + (uint64_t)(r >> 3) * ((matrix >> 32 & 0x3fff) << 4) + (uint64_t)(r & 7) * 128 + (uint64_t)c * 2;
  return shared_place(w, at ^ (at >> 3 & 0x70), 16);
}

inline void check_matrix(uint64_t matrix) {
  if (matrix >> 62 != 1 || (matrix >> 49 & 7) != 0) throw Fault{"a matrix but of the 128-byte swizzle, aligned to 1024 bytes, is not known"};
  if ((matrix >> 32 & 0x3fff) != 64) throw Fault{"groups of 8 rows that do not follow each other"};
  if (matrix & 1) throw Fault{"a matrix that begins within 32 bytes"};
}

inline void read_pieces(Warp& w, const Instruction& in, uint64_t matrix, int from, int rows) {
  Shared& s = w.block->shared;
  check_matrix(matrix);
  for (int r = from; r < from + rows; r++)
    for (int c = 0; c < 16; c += 8) {
      const size_t at = piece_of(w, matrix, r, c);
      shared_read(w, in, at, 16, 4, 0);
      if (s.fresh[at / 16]) throw Fault{text("a product reads row %d, which was written without fence.proxy.async since", r)};
    }
}

inline void ask(Warp& w, const Instruction& in, uint32_t) {
  const uint64_t left = row<uint64_t>(w, in.o[0])[0], right = row<uint64_t>(w, in.o[1])[0];
  for (int l = 0; l < 32; l++)
    if (row<uint64_t>(w, in.o[0])[l] != left || row<uint64_t>(w, in.o[1])[l] != right) throw Fault{"lanes of a warp disagree on a matrix"};
  const uint32_t adds = bits_of(w, in, in.o[2]);
  if (adds != 0 && adds != ~0u) throw Fault{"lanes of a warp disagree on adding"};
  if (!w.fenced) throw Fault{"a product without wgmma.fence since the last commit"};
  read_pieces(w, in, left, (int)(w.first / 32 % 4) * 16, 16);
  read_pieces(w, in, right, 0, WIDE);
  w.asked.push_back({&in, left, right, adds != 0});
}

inline void multiply_groups(Warp& w, const GroupProduct& p) {
  static thread_local double left[16][16], right[16][WIDE];
  const unsigned char* bytes = w.block->shared.bytes.data();
  auto read = [&](uint64_t matrix, int r, int c) {
    uint16_t v;
    memcpy(&v, bytes + piece_of(w, matrix, r, c & ~7) + (c & 7) * 2, 2);
    return half_number(v);
  };
  for (int c = 0; c < 16; c++) {
    for (int r = 0; r < 16; r++) left[r][c] = read(p.left, (int)(w.first / 32 % 4) * 16 + r, c);
    for (int r = 0; r < WIDE; r++) right[c][r] = read(p.right, r, c);
  }
  for (int j = 0; j < WIDE; j += 8)
    for (int r = 0; r < 16; r++) {
      double sum[8], part[PIECE][8];
      auto at = [&](int i) -> float& { return row<float>(w, p.in->more[j / 2 + (r >> 3) * 2 + (i & 1)])[(r & 7) * 4 + (i >> 1)]; };
      for (int i = 0; i < 8; i++) sum[i] = p.adds ? (double)at(i) : 0;
      for (int from = 0; from < 16; from += PIECE) {
        for (int k = 0; k < PIECE; k++)
          for (int i = 0; i < 8; i++) part[k][i] = left[r][from + k] * right[from + k][j + i];
        add_piece(part, sum);
      }
      for (int i = 0; i < 8; i++) at(i) = canonical((float)sum[i]);
    }
}

inline void group_fence(Warp& w, const Instruction&, uint32_t) { w.fenced = true; }
inline void group_commit(Warp& w, const Instruction&, uint32_t) {
  w.turns.push_back(std::move(w.asked));
  w.asked.clear();
  w.fenced = false;
}
inline void group_wait(Warp& w, const Instruction& in, uint32_t) {
  while (w.turns.size() > (size_t)in.number) {
    for (const GroupProduct& p : w.turns[0]) multiply_groups(w, p);
    w.turns.erase(w.turns.begin());
  }
}

}  // namespace ptx
