// Collectives of a warp: shuffles, votes, and products on tensor cores. The scheduler runs them when all their lanes are there.
#pragma once
#include "floats.h"

namespace ptx {

// shfl.sync as the PTX ISA writes it: `c` holds the clamp in bits 0..5 and the mask of segments in bits 8..13. A lane outside
// `lanes` must not be read.
enum class Shuffle : uint8_t { UP, DOWN, BUTTERFLY, INDEX };
template <Shuffle MODE> void shuffle(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* d = row<uint32_t>(w, in.o[0]);
  const uint32_t *b = row<uint32_t>(w, in.o[3]), *c = row<uint32_t>(w, in.o[4]);
  uint32_t a[32], result[32], valid = 0;
  memcpy(a, row<uint32_t>(w, in.o[2]), sizeof a);
  one_by_one(lanes, [&](int lane) {
    const int by = (int)(b[lane] & 31), clamp = (int)(c[lane] & 31), segments = (int)(c[lane] >> 8 & 31);
    const int most = (lane & segments) | (clamp & ~segments), least = lane & segments;
    int j;
    bool p;
    if (MODE == Shuffle::UP) j = lane - by, p = j >= most;
    else if (MODE == Shuffle::DOWN) j = lane + by, p = j <= most;
    else if (MODE == Shuffle::BUTTERFLY) j = lane ^ by, p = j <= most;
    else j = least | (by & ~segments), p = j <= most;
    if (!p) j = lane;
    if (!(lanes >> j & 1)) throw Fault{text("lane %d shuffles from lane %d, which does not take part", lane, j)};
    result[lane] = a[j];
    valid |= (uint32_t)p << lane;
  });
  one_by_one(lanes, [&](int l) { d[l] = result[l]; });
  if (in.o[1] >= 0) set(w, in.o[1], lanes, valid);
}

inline void ballot(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* d = row<uint32_t>(w, in.o[0]);
  const uint32_t bits = bits_of(w, in, in.o[1]) & lanes;
  each(d, lanes, [=](int) { return bits; });
}
inline void nothing(Warp&, const Instruction&, uint32_t) {}

// What is reported of tensor cores since the A100: products are exact; eight of them and the sum so far are aligned to the
// largest, cut off (towards zero) two bits below the 24 of a float, added exactly, and the sum is cut off to a float.
constexpr int PIECE = 8, BELOW = 25;

inline double cut(double v) {  // to a float, towards zero
  float f = (float)v;
  if (std::fabs((double)f) > std::fabs(v)) f = as<float>(as<uint32_t>(f) - 1);
  return f;
}
// c + the sum of `p` [PIECE], for 8 columns.
inline void add_piece(const double (&p)[PIECE][8], double (&c)[8]) {
  double most[8], sum[8], strange[8];
  for (int j = 0; j < 8; j++) most[j] = std::fabs(c[j]), strange[j] = c[j] * 0;
  for (int k = 0; k < PIECE; k++)
    for (int j = 0; j < 8; j++) {
      most[j] = std::fabs(p[k][j]) > most[j] ? std::fabs(p[k][j]) : most[j];
      strange[j] += p[k][j] * 0;
    }
  for (int j = 0; j < 8; j++)
    if (strange[j] != strange[j]) {  // infinity or NaN
      for (int k = 0; k < PIECE; k++) c[j] += p[k][j];
      most[j] = 0;
    }
  double scale[8], back[8];
  for (int j = 0; j < 8; j++) {
    const uint64_t exponent = as<uint64_t>(most[j]) >> 52 & 0x7ff;
    const uint64_t e = exponent < 200 ? 200 : exponent;  // far below what products of halves or a float can be
    scale[j] = as<double>((uint64_t)(1023 + BELOW + 1023 - e) << 52);
    back[j] = as<double>((uint64_t)(e - BELOW) << 52);
  }
  int32_t whole[8];
  for (int j = 0; j < 8; j++) whole[j] = (int32_t)(c[j] * scale[j]);
  for (int k = 0; k < PIECE; k++)
    for (int j = 0; j < 8; j++) whole[j] += (int32_t)(p[k][j] * scale[j]);
  for (int j = 0; j < 8; j++) sum[j] = whole[j] * back[j];
  for (int j = 0; j < 8; j++) c[j] = most[j] == 0 ? c[j] : cut(sum[j]);
}

inline double half_number(uint16_t bits) { return (double)as<_Float16>(bits); }
inline double bf16_number(uint16_t bits) { return (double)as<float>((uint32_t)bits << 16); }

// mma.m16n8k16.row.col with sums in f32: operands d 0..4, a 4..8, b 8..10, c 10..14 in `more`.
template <double (*NUMBER)(uint16_t)> void multiply_matrices(Warp& w, const Instruction& in, uint32_t) {
  double left[16][16], right[16][8], sum[16][8];
  for (int i = 0; i < 4; i++) {
    const uint32_t* a = row<uint32_t>(w, in.more[4 + i]);
    const float* c = row<float>(w, in.more[10 + i]);
    for (int l = 0; l < 32; l++) {
      const int g = l >> 2, t = (l & 3) * 2;
      for (int h = 0; h < 2; h++) left[g + (i & 1) * 8][t + h + (i >> 1) * 8] = NUMBER((uint16_t)(a[l] >> 16 * h));
      sum[g + (i >> 1) * 8][t + (i & 1)] = c[l];
    }
  }
  for (int i = 0; i < 2; i++) {
    const uint32_t* b = row<uint32_t>(w, in.more[8 + i]);
    for (int l = 0; l < 32; l++)
      for (int h = 0; h < 2; h++) right[(l & 3) * 2 + h + i * 8][l >> 2] = NUMBER((uint16_t)(b[l] >> 16 * h));
  }
  for (int r = 0; r < 16; r++)
    for (int from = 0; from < 16; from += PIECE) {
      double p[PIECE][8];
      for (int k = 0; k < PIECE; k++)
        for (int j = 0; j < 8; j++) p[k][j] = left[r][from + k] * right[from + k][j];
      add_piece(p, sum[r]);
    }
  for (int i = 0; i < 4; i++) {
    float* d = row<float>(w, in.more[i]);
    for (int l = 0; l < 32; l++) d[l] = canonical((float)sum[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)]);
  }
}

}  // namespace ptx
