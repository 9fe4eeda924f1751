// cp.async, ldmatrix and mma.sync, with the fragment layouts of the PTX ISA.
#pragma once
#include "warp.h"

inline float half_to_float(uint16_t bits) {
  _Float16 h;
  memcpy(&h, &bits, 2);
  return (float)h;
}
inline uint16_t float_to_half(float v) {
  _Float16 h = (_Float16)v;
  uint16_t bits;
  memcpy(&bits, &h, 2);
  return bits;
}

inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float v;
  memcpy(&v, &wide, 4);
  return v;
}
inline uint16_t float_to_bf16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  if (v != v) return 0x7fff;
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline uint32_t bf16_pair(float low, float high) { return float_to_bf16(low) | (uint32_t)float_to_bf16(high) << 16; }

// The copy happens only when a wait makes it visible, so a missing wait is seen.
template <bool CACHED = false> void cp_async16(void* to, const void* from, bool valid = true) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) emu::die("cp.async of 16 bytes is not aligned");
  emu::me().open.push_back({to, from, valid ? 16u : 0u});
}
inline void cp_commit() {
  emu::me().groups.push_back(std::move(emu::me().open));
  emu::me().open.clear();
}
template <int N> void cp_wait() {
  auto& groups = emu::me().groups;
  while (groups.size() > N) {
    for (auto& c : groups[0]) {
      memset(c.to, 0, 16);
      memcpy(c.to, c.from, c.bytes);
    }
    groups.erase(groups.begin());
  }
}

// Lane l supplies row l & 7 of matrix l >> 3, each of which is transposed if `TURNED`.
template <bool TURNED> void matrices(uint32_t (&r)[4], const void* row) {
  struct Out { uint32_t r[4]; };
  if ((uintptr_t)row % 16) emu::die("an ldmatrix row is not aligned");
  Out out = emu::collective<const void*, Out>("ldmatrix", ~0u, row, [](emu::Fiber* warp, unsigned) {
    for (int l = 0; l < 32; l++) {
      Out o;
      for (int m = 0; m < 4; m++) {
        auto at = [&](int i, int j) {
          const uint16_t* row;
          memcpy(&row, warp[m * 8 + i].in, sizeof row);
          return (uint32_t)row[j];
        };
        const int i = l >> 2, j = (l & 3) * 2;
        o.r[m] = TURNED ? at(j, i) | at(j + 1, i) << 16 : at(i, j) | at(i, j + 1) << 16;
      }
      memcpy(warp[l].out, &o, sizeof o);
    }
  });
  memcpy(r, out.r, sizeof out.r);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { matrices<false>(r, row); }

// mma.sync.m16n8k16.row.col.f32.*.*.f32, of numbers that `Number` makes of their 16 bits.
template <float (*Number)(uint16_t)> void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct In { uint32_t a[4], b[2]; float c[4]; };
  struct Out { float d[4]; };
  In in{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
  Out out = emu::collective<In, Out>("mma", ~0u, in, [](emu::Fiber* warp, unsigned) {
    float left[16][16], right[16][8];
    for (int l = 0; l < 32; l++) {
      In p;
      memcpy(&p, warp[l].in, sizeof p);
      const int g = l >> 2, t = l & 3;
      for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 4; i++)
          left[g + (i & 1) * 8][t * 2 + h + (i >> 1) * 8] = Number((uint16_t)(p.a[i] >> (16 * h)));
        for (int i = 0; i < 2; i++) right[t * 2 + h + i * 8][g] = Number((uint16_t)(p.b[i] >> (16 * h)));
      }
    }
    for (int l = 0; l < 32; l++) {
      In p;
      memcpy(&p, warp[l].in, sizeof p);
      Out q;
      for (int i = 0; i < 4; i++) {
        const int row = (l >> 2) + (i >> 1) * 8, column = (l & 3) * 2 + (i & 1);
        float sum = p.c[i];
        for (int k = 0; k < 16; k++) sum += left[row][k] * right[k][column];
        q.d[i] = sum;
      }
      memcpy(warp[l].out, &q, sizeof q);
    }
  });
  memcpy(d, out.d, sizeof out.d);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma<half_to_float>(d, a, b); }
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma<bf16_to_float>(d, a, b); }
