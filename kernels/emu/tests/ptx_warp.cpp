// What lanes, warps and blocks do together: shuffles, votes, branches that part and meet, barriers, atomics, asynchronous copies,
// matrices, against plain C++.
#include "ptx.h"

using namespace ptx;
typedef uint64_t U;

static std::vector<U> numbered(size_t threads) {
  std::vector<U> v;
  for (size_t i = 0; i < threads; i++) v.insert(v.end(), {i * 0x10001 + 7, i, i * i, 0});
  return v;
}

// The rule of the PTX ISA: a lane's segment, where it ends, whether the source lies in it.
static void shuffles() {
  for (const char* mode : {"up", "down", "bfly", "idx"})
    for (int c : {0x1f, 0, 0x181f, 0x1800, 0x101f, 0x1c1f, 0x1e1f, 0x180f, 0x0f})
      for (int b : {0, 1, 2, 5, 16, 31, 33}) {
        auto out = right("ld.global.u32 %r10, [%rd3];\nshfl.sync." + std::string(mode) + ".b32 %r11|%p1, %r10, " + std::to_string(b) + ", " + std::to_string(c) +
                             ", -1;\nselp.b32 %r12, 1, 0, %p1;\nst.global.u32 [%rd4], %r11;\nst.global.u32 [%rd4+8], %r12;", numbered(32), {});
        for (int lane = 0; lane < 32; lane++) {
          const int by = b % 32, mask = c >> 8 & 31, clamp = c & 31, low = lane & mask, high = low | (clamp & ~mask);
          const std::string m = mode;
          int j = m == "up" ? lane - by : m == "down" ? lane + by : m == "bfly" ? lane ^ by : low | (by & ~mask);
          const bool inside = m == "up" ? j >= high : j <= high;
          if (!inside) j = lane;
          if (out[4 * (size_t)lane] != (U)j * 0x10001 + 7 || out[4 * (size_t)lane + 1] != inside)
            fail("shfl.%s by %d, c %x: lane %d got %llx (%d), wanted lane %d (%d)", mode, b, c, lane, (long long)out[4 * (size_t)lane], (int)out[4 * (size_t)lane + 1], j, inside);
        }
      }
  // Two halves of a warp with masks of their own, one of them in a branch.
  auto out = right("ld.global.u32 %r10, [%rd3];\nsetp.lt.s32 %p1, %r2, 16;\n@%p1 bra $LOW;\nshfl.sync.bfly.b32 %r11, %r10, 1, 31, -65536;\nbra $MEET;\n$LOW:\n"
                   "shfl.sync.bfly.b32 %r11, %r10, 3, 31, 65535;\n$MEET:\nsetp.gt.u32 %p2, %r11, 1000000;\nvote.sync.ballot.b32 %r12, %p2, -1;\nst.global.u32 [%rd4], %r11;\n"
                   "st.global.u32 [%rd4+8], %r12;", numbered(32), {});
  U votes = 0;
  for (size_t l = 0; l < 32; l++) votes |= (U)((l < 16 ? l ^ 3 : l ^ 1) * 0x10001 + 7 > 1000000) << l;
  for (size_t l = 0; l < 32; l++)
    if (out[4 * l] != (l < 16 ? l ^ 3 : l ^ 1) * 0x10001 + 7 || out[4 * l + 1] != votes) fail("halves: lane %zu got %llx, votes %llx", l, (long long)out[4 * l], (long long)out[4 * l + 1]);
}

// Loops whose lanes leave one by one, a nested branch in them, and a shuffle when all have met again.
static void branches() {
  auto out = right("mov.u32 %r10, 0;\nmov.u32 %r11, 0;\n$LOOP:\nsetp.ge.s32 %p1, %r10, %r2;\n@%p1 bra $DONE;\nand.b32 %r12, %r10, 1;\nsetp.eq.s32 %p2, %r12, 0;\n@%p2 bra $EVEN;\n"
                   "add.s32 %r11, %r11, 100;\nbra.uni $NEXT;\n$EVEN:\nadd.s32 %r11, %r11, 1;\n$NEXT:\nadd.s32 %r10, %r10, 1;\nbra.uni $LOOP;\n$DONE:\n"
                   "shfl.sync.down.b32 %r13, %r11, 1, 31, -1;\nst.global.u32 [%rd4], %r11;\nst.global.u32 [%rd4+8], %r13;", numbered(96), {1, 96});
  auto sum = [](U t) { return t / 2 * 100 + (t + 1) / 2; };
  for (U t = 0; t < 96; t++)
    if (out[4 * t] != sum(t) || out[4 * t + 1] != sum(t % 32 == 31 ? t : t + 1)) fail("branches: thread %d got %d, %d", (int)t, (int)out[4 * t], (int)out[4 * t + 1]);
}

// Sums over a block through shared memory, and to all blocks by atomics; the same through a barrier of the grid.
static const char* const BLOCK_SUM =
    "mov.u64 %rd10, dynamic;\nmul.wide.u32 %rd11, %r2, 4;\nadd.s64 %rd12, %rd10, %rd11;\nld.global.u32 %r10, [%rd3+8];\nst.shared.u32 [%rd12], %r10;\nshr.u32 %r11, %r4, 1;\n"
    "$HALF:\nbar.sync 0;\nsetp.ge.s32 %p1, %r2, %r11;\n@%p1 bra $SKIP;\nmul.wide.u32 %rd13, %r11, 4;\nadd.s64 %rd14, %rd12, %rd13;\nld.shared.u32 %r12, [%rd14];\n"
    "ld.shared.u32 %r13, [%rd12];\nadd.s32 %r13, %r12, %r13;\nst.shared.u32 [%rd12], %r13;\n$SKIP:\nshr.u32 %r11, %r11, 1;\nsetp.ne.s32 %p2, %r11, 0;\n@%p2 bra $HALF;\n";
static void blocks() {
  for (int order = 0; order < 5; order++) {
    auto out = right(std::string(BLOCK_SUM) + "bar.sync 0;\nld.shared.u32 %r14, [dynamic];\nst.global.u32 [%rd4], %r14;\nsetp.ne.s32 %p3, %r2, 0;\n@%p3 bra $END;\n"
                     "red.global.add.u32 [%rd2+8], %r14;\natom.global.add.u32 %r15, [%rd2+16], 1;\n", numbered(1024), {8, 128, 512});
    for (U t = 0; t < 1024; t++)
      if (out[4 * t] != t / 128 * 128 * 128 + 127 * 64) fail("order %d: block %d has the sum %d", order, (int)t / 128, (int)out[4 * t]);
    if (out[1] != 1023 * 512 || out[2] != 8) fail("order %d: in all %d of %d blocks", order, (int)out[1], (int)out[2]);
    out = right("setp.ne.s32 %p4, %r2, 0;\n@%p4 bra $WAIT;\ncvt.u64.u32 %rd20, %r3;\nshl.b64 %rd21, %rd20, 3;\nadd.s64 %rd22, %rd2, %rd21;\nmul.lo.s32 %r20, %r3, 5;\nadd.s32 %r20, %r20, 1;\n"
                "st.global.u32 [%rd22+1024], %r20;\nmembar.gl;\nred.global.add.u32 [%rd2+2040], 1;\n$SPIN:\nld.volatile.global.u32 %r21, [%rd2+2040];\nsetp.lt.u32 %p5, %r21, 3;\n@%p5 bra $SPIN;\n"
                "membar.gl;\n$WAIT:\nbar.sync 0;\nld.global.u32 %r22, [%rd2+1024];\nld.global.u32 %r23, [%rd2+1032];\nld.global.u32 %r24, [%rd2+1040];\nadd.s32 %r22, %r22, %r23;\nadd.s32 %r22, %r22, %r24;\n"
                "setp.gt.s32 %p6, %r2, 9;\n@%p6 bra $END;\nst.global.u32 [%rd4], %r22;", numbered(192), {3, 64, 0, true});
    for (U b = 0; b < 3; b++)
      if (out[b * 256] != 1 + 6 + 11) fail("order %d: after the grid barrier block %d sees %d", order, (int)b, (int)out[b * 256]);
  }
}

// Copies in two groups: what the first wait brings, zeros where nothing is read, what the last wait brings.
static void copies() {
  auto out = right("mov.u64 %rd10, dynamic;\ncvt.u32.u64 %r10, %rd10;\nshl.b32 %r11, %r2, 4;\nadd.s32 %r12, %r10, %r11;\nadd.s32 %r13, %r12, 512;\nand.b32 %r14, %r2, 1;\n"
                   "shl.b32 %r15, %r14, 4;\ncp.async.cg.shared.global [%r12], [%rd3], 16, %r15;\ncp.async.commit_group;\nadd.s64 %rd11, %rd3, 16;\n"
                   "cp.async.cg.shared.global [%r13], [%rd11], 16, 16;\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.v2.u64 {%rd12, %rd13}, [%r12];\ncp.async.wait_group 0;\n"
                   "bar.warp.sync -1;\nxor.b32 %r16, %r13, 16;\nld.shared.v2.u64 {%rd14, %rd15}, [%r16];\nst.global.u64 [%rd4], %rd12;\nst.global.u64 [%rd4+8], %rd13;\nst.global.u64 [%rd4+16], %rd14;",
                   numbered(32), {1, 32, 1024});
  for (U t = 0; t < 32; t++)
    if (out[4 * t] != (t & 1 ? t * 0x10001 + 7 : 0) || out[4 * t + 1] != (t & 1 ? t : 0) || out[4 * t + 2] != (t ^ 1) * (t ^ 1)) fail("copies: thread %d got %llx", (int)t, (long long)out[4 * t]);
}

// ldmatrix with and without .trans, of four matrices whose numbers are their place.
static void matrices() {
  std::vector<U> in;
  for (U lane = 0; lane < 32; lane++)
    for (U w = 0; w < 4; w++) in.push_back(w < 2 ? (lane * 8 + w * 4) * 0x1000100010001ull + 0x3000200010000ull : 0);
  for (bool turned : {false, true}) {
    auto out = right("mov.u64 %rd10, dynamic;\nmul.wide.u32 %rd11, %r2, 16;\nadd.s64 %rd12, %rd10, %rd11;\nld.global.u64 %rd13, [%rd3];\nld.global.u64 %rd14, [%rd3+8];\nst.shared.v2.u64 [%rd12], {%rd13, %rd14};\n"
                     "bar.warp.sync -1;\ncvt.u32.u64 %r10, %rd12;\nldmatrix.sync.aligned.m8n8.x4" + std::string(turned ? ".trans" : "") +
                         ".shared.b16 {%r11, %r12, %r13, %r14}, [%r10];\nst.global.u32 [%rd4], %r11;\nst.global.u32 [%rd4+8], %r12;\nst.global.u32 [%rd4+16], %r13;\nst.global.u32 [%rd4+24], %r14;", in, {1, 32, 512});
    for (U lane = 0; lane < 32; lane++)
      for (U m = 0; m < 4; m++) {
        const U row = lane / 4, column = lane % 4 * 2;
        auto number = [&](U i, U j) { return (turned ? (m * 8 + j) * 8 + i : (m * 8 + i) * 8 + j); };
        const U wanted = number(row, column) | number(row, column + 1) << 16;
        if (out[4 * lane + m] != wanted) fail("ldmatrix%s: lane %d, matrix %d got %llx, wanted %llx", turned ? ".trans" : "", (int)lane, (int)m, (long long)out[4 * lane + m], (long long)wanted);
      }
  }
}

static double half(uint32_t h) {
  const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
  return (h >> 15 ? -1 : 1) * std::ldexp(e ? 1024. + m : m, (e ? e : 1) - 25);
}
// mma: the place of every number by whole ones, whose sums are exact; then sums that are cut off rather than rounded.
static void products() {
  const std::string body =
      "ld.global.u32 %r10, [%rd3];\nld.global.u32 %r11, [%rd3+4];\nld.global.u32 %r12, [%rd3+8];\nld.global.u32 %r13, [%rd3+12];\nld.global.u32 %r14, [%rd3+16];\nld.global.u32 %r15, [%rd3+20];\n"
      "ld.global.f32 %f10, [%rd3+24];\nmov.f32 %f11, 0f00000000;\nmov.f32 %f12, 0f3F800000;\nmov.f32 %f13, 0f40000000;\n"
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f20,%f21,%f22,%f23},{%r10,%r11,%r12,%r13},{%r14,%r15},{%f10,%f11,%f12,%f13};\n"
      "st.global.f32 [%rd4], %f20;\nst.global.f32 [%rd4+8], %f21;\nst.global.f32 [%rd4+16], %f22;\nst.global.f32 [%rd4+24], %f23;";
  uint32_t state = 1;
  auto next = [&] { return state = state * 1664525u + 1013904223u, state >> 16; };
  for (bool bf16 : {false, true}) {
    auto whole = [&](int v) -> uint32_t { return bf16 ? as<uint32_t>((float)v) >> 16 : v == 0 ? 0u : (uint32_t)((v < 0) << 15 | (15 + std::ilogb(v)) << 10 | ((int)std::ldexp(std::abs(v), 10 - std::ilogb(v)) & 1023)); };
    double a[16][16], b[16][8];
    std::vector<U> in;
    std::vector<uint32_t> words(32 * 8);
    for (uint32_t l = 0; l < 32; l++) {
      for (uint32_t i = 0; i < 6; i++)
        for (uint32_t h = 0; h < 2; h++) {
          const int v = (int)(next() % 15) - 7;
          words[l * 8 + i] |= whole(v) << 16 * h;
          if (i < 4) a[l / 4 + (i % 2) * 8][l % 4 * 2 + h + i / 2 * 8] = v;  // registers 1 and 3: rows below; 2 and 3: columns to the right
          else b[l % 4 * 2 + h + (i - 4) * 8][l / 4] = v;
        }
      words[l * 8 + 6] = as<uint32_t>((float)l);
    }
    for (size_t i = 0; i < words.size(); i += 2) in.push_back(words[i] | (U)words[i + 1] << 32);
    std::string text = body;
    if (bf16) text.replace(text.find("f16.f16.f32 {"), 11, "bf16.bf16.f32");
    auto out = right(text, in, {});
    for (int l = 0; l < 32; l++)
      for (int i = 0; i < 4; i++) {
        double sum = i == 0 ? l : i == 1 ? 0 : i - 1;
        for (int k = 0; k < 16; k++) sum += a[l / 4 + i / 2 * 8][k] * b[k][l % 4 * 2 + i % 2];
        if (as<float>(out[4 * (size_t)l + (size_t)i]) != sum) fail("mma %s: lane %d, %d got %g, wanted %g", bf16 ? "bf16" : "f16", l, i, as<float>(out[4 * (size_t)l + (size_t)i]), sum);
      }
  }
  // One product and a sum: c + a b, cut off at 24 bits towards zero, however far a b reaches below.
  for (float c : {1.f, -1.f, 8388609.f, 3.f})
    for (uint32_t h : {0x3c00u, 0x0001u, 0x1000u, 0x9234u, 0x3555u}) {
      std::vector<U> in(128, 0);
      for (size_t l = 0; l < 32; l++) in[4 * l] = l < 4 ? h : 0, in[4 * l] = l == 0 ? h : 0, in[4 * l + 2] = l == 0 ? 0x3c00 : 0, in[4 * l + 3] = as<uint32_t>(c);
      auto out = right(body, in, {});
      const double exact = (double)c + half(h);
      const double quantum = std::ldexp(1., std::ilogb(std::max(std::fabs((double)c), std::fabs(half(h)))) - 25);
      const double kept = std::trunc(c / quantum) * quantum + std::trunc(half(h) / quantum) * quantum;
      float wanted = (float)kept;
      if (std::fabs((double)wanted) > std::fabs(kept)) wanted = std::nextafter(wanted, 0.f);
      if (as<float>(out[0]) != wanted) fail("mma: %.9g + %.9g gave %.9g, wanted %.9g (exactly %.17g)", c, half(h), as<float>(out[0]), wanted, exact);
    }
  // Infinity and NaN go through.
  std::vector<U> in(128, 0);
  in[0] = 0x7c00, in[2] = 0x3c00;
  if (as<float>(right(body, in, {})[0]) != INFINITY) fail("mma loses an infinity");
  in[2] = 0;
  if ((uint32_t)right(body, in, {})[0] != 0x7fffffffu) fail("mma: infinity times zero is a number");
}

int main() {
  shuffles();
  branches();
  blocks();
  copies();
  matrices();
  products();
  return result("ptx_warp");
}
