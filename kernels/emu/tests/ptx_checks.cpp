// Programs that are wrong, each of which the stand-in driver has to stop with the right words; and beside them the right ones.
#include "ptx.h"

using namespace ptx;

// Shared memory from %rd10 on, the thread's word of it in %rd11, its neighbour's (another warp's) in %rd12, that of the lane beside in %rd13.
static const std::string WORDS =
    "mov.u64 %rd10, dynamic;\nmul.wide.u32 %rd20, %r2, 4;\nadd.s64 %rd11, %rd10, %rd20;\nxor.b32 %r20, %r2, 32;\nmul.wide.u32 %rd20, %r20, 4;\nadd.s64 %rd12, %rd10, %rd20;\n"
    "xor.b32 %r20, %r2, 1;\nmul.wide.u32 %rd20, %r20, 4;\nadd.s64 %rd13, %rd10, %rd20;\nsetp.eq.s32 %p20, %r2, 0;\nsetp.lt.s32 %p21, %r2, 32;\nsetp.eq.s32 %p22, %r3, 0;\nmov.u32 %r21, 1;\n";
static const Grid TWO = {1, 64, 1024}, ONE = {1, 32, 1024}, BLOCKS = {2, 32, 0};

static void fine(const char* what, const std::string& body, Grid grid) {
  for (int order = 0; order < 5; order++) {
    cases++;
    Memory from(std::vector<uint64_t>(4 * grid.blocks * grid.threads, 1)), to(std::vector<uint64_t>(4 * grid.blocks * grid.threads, 0));
    const std::string why = run(module(WORDS + body), from.p, to.p, 7, grid);
    if (!why.empty()) fail("%s, order %d: %s", what, order, why.c_str());
  }
}
static void bad(const char* what, const std::string& body, const char* words, Grid grid) { wrong(what, WORDS + body, words, grid); }

static void memory() {
  const char* beyond = "beyond memory";
  bad("a read past the end", "ld.global.u32 %r10, [%rd1+1024];", beyond, ONE);
  bad("a read before the start", "ld.global.u32 %r10, [%rd1+-4];", beyond, ONE);
  bad("a read that sticks out", "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd3+16];\nld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd1+1024];", beyond, ONE);
  bad("a write past the end", "st.global.u32 [%rd2+1024], %r21;", beyond, ONE);
  bad("an atomic operation past the end", "red.global.add.u32 [%rd1+1024], 1;", beyond, ONE);
  bad("null", "mov.u64 %rd21, 0;\nld.global.u32 %r10, [%rd21];", beyond, ONE);
  bad("a shared address as a global one", "ld.global.u32 %r10, [%rd10];", beyond, ONE);
  const char* aligned = "not aligned";
  bad("a word at two", "ld.global.u32 %r10, [%rd3+2];", aligned, ONE);
  bad("a vector at eight", "ld.global.nc.v4.u32 {%r10, %r11, %r12, %r13}, [%rd3+8];", aligned, ONE);
  bad("a shared vector at four", "st.shared.v2.u32 [%rd10+4], {%r2, %r2};", aligned, ONE);
  bad("a copy from eight", "cvt.u32.u64 %r10, %rd11;\nand.b32 %r10, %r10, -16;\nadd.s64 %rd21, %rd3, 8;\n@%p20 cp.async.cg.shared.global [%r10], [%rd21], 16, 16;", aligned, ONE);
  bad("a copy from eight that reads nothing", "cvt.u32.u64 %r10, %rd11;\nand.b32 %r10, %r10, -16;\nadd.s64 %rd21, %rd3, 8;\n@%p20 cp.async.cg.shared.global [%r10], [%rd21], 16, 0;", aligned, ONE);
  bad("a copy to eight", "cvt.u32.u64 %r10, %rd10;\nadd.s32 %r10, %r10, 8;\n@%p20 cp.async.cg.shared.global [%r10], [%rd3], 16, 16;", aligned, ONE);
  const char* unwritten = "nobody wrote";
  bad("what nobody wrote", "ld.global.u32 %r10, [%rd4];", unwritten, ONE);
  bad("what was written in part", "st.global.u16 [%rd4], 7;\nld.global.u32 %r10, [%rd4];", unwritten, ONE);
  bad("shared memory that nobody wrote", "ld.shared.u32 %r10, [%rd11];", unwritten, ONE);
  bad("what another block left in shared memory", "@%p22 st.shared.u32 [%rd11], %r2;\n@!%p22 ld.shared.u32 %r10, [%rd11];", unwritten, {2, 32, 1024});
  fine("what the thread wrote", "st.global.u32 [%rd4], %r2;\nld.global.u32 %r10, [%rd4];\nst.shared.u32 [%rd11], %r2;\nld.shared.u32 %r11, [%rd11];", ONE);
  const char* shared = "of a shared memory of";
  bad("shared memory past the end", "st.shared.u32 [%rd11+1024], %r2;", shared, ONE);
  bad("shared null", "mov.u64 %rd21, 0;\nst.shared.u32 [%rd21], %r2;", shared, ONE);
  bad("a global address as a shared one", "st.shared.u32 [%rd4], %r2;", shared, ONE);
  bad("constants that are written", "ld.global.nc.u32 %r10, [%rd3];\nst.global.u32 [%rd3], %r10;", "reads by ld.global.nc", ONE);
  bad("constants that were written", "st.global.u32 [%rd3], %r2;\nld.global.nc.u32 %r10, [%rd3];", "ld.global.nc of memory that this launch writes", ONE);
  bad("constants that another block writes", "@%p22 st.global.u32 [%rd1], %r2;\n@!%p22 ld.global.nc.u32 %r10, [%rd1];", "ld.global.nc", BLOCKS);
}

static void races() {
  const char* race = "no barrier between";
  bad("reads of another warp's word", "st.shared.u32 [%rd11], %r2;\nbar.sync 0;\nst.shared.u32 [%rd11], %r2;\nld.shared.u32 %r10, [%rd12];", race, TWO);
  bad("writes of what another warp reads", "st.shared.u32 [%rd11], %r2;\nbar.sync 0;\nld.shared.u32 %r10, [%rd12];\nst.shared.u32 [%rd11], %r2;", race, TWO);
  bad("two writes", "@%p20 st.shared.u32 [%rd10+128], %r2;\nsetp.eq.s32 %p1, %r2, 32;\n@%p1 st.shared.u32 [%rd10+128], %r2;", race, TWO);
  bad("two lanes write in one instruction", "st.shared.u32 [%rd10], %r2;", race, ONE);
  bad("lanes without a barrier", "st.shared.u32 [%rd11], %r2;\nld.shared.u32 %r10, [%rd13];", race, ONE);
  bad("lanes that overwrite what others read", "st.shared.u32 [%rd11], %r2;\nbar.warp.sync -1;\nld.shared.u32 %r10, [%rd13];\nst.shared.u32 [%rd11], %r10;", race, ONE);
  bad("half a word", "st.shared.u32 [%rd11], %r2;\nbar.sync 0;\nst.shared.u16 [%rd11+2], 3;\nld.shared.u32 %r10, [%rd12];", race, TWO);
  bad("a barrier of the other warp's lanes", "st.shared.u32 [%rd11], %r2;\nbar.warp.sync -1;\nld.shared.u32 %r10, [%rd12];\nbar.sync 0;\nst.shared.u32 [%rd11], %r2;\nbar.warp.sync -1;\nld.shared.u32 %r10, [%rd12];", "shared memory", TWO);
  fine("a barrier", "st.shared.u32 [%rd11], %r2;\nbar.sync 0;\nld.shared.u32 %r10, [%rd12];\nbar.sync 0;\nst.shared.u32 [%rd11], %r10;", TWO);
  fine("a barrier of the warp", "st.shared.u32 [%rd11], %r2;\nbar.warp.sync -1;\nld.shared.u32 %r10, [%rd13];\nbar.warp.sync -1;\nst.shared.u32 [%rd11], %r10;", TWO);
  fine("a collective", "st.shared.u32 [%rd11], %r2;\nshfl.sync.bfly.b32 %r10, %r2, 1, 31, -1;\nld.shared.u32 %r11, [%rd13];", TWO);
  fine("halves of a word", "cvt.u16.u32 %rs10, %r2;\nmul.wide.u32 %rd21, %r2, 2;\nadd.s64 %rd22, %rd10, %rd21;\nst.shared.u16 [%rd22], %rs10;", TWO);
  const char* flight = "may still be writing";
  const std::string copy = "cvt.u32.u64 %r10, %rd10;\nshl.b32 %r11, %r2, 4;\nadd.s32 %r10, %r10, %r11;\ncp.async.cg.shared.global [%r10], [%rd3], 16, 16;\n";
  bad("a copy nobody waits for", copy + "cp.async.commit_group;\nld.shared.u32 %r12, [%r10];", flight, ONE);
  bad("a copy nobody waits for, but for a barrier", copy + "cp.async.commit_group;\nbar.sync 0;\nld.shared.u32 %r12, [%r10];", flight, TWO);
  bad("a wait that leaves it out", copy + "cp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r12, [%r10];", flight, ONE);
  bad("a wait before the commit", copy + "cp.async.wait_group 0;\nld.shared.u32 %r12, [%r10];", flight, ONE);
  bad("a write under a copy", copy + "st.shared.u32 [%r10], %r2;", flight, ONE);
  bad("a wait without a barrier", copy + "cp.async.commit_group;\ncp.async.wait_group 0;\nxor.b32 %r13, %r10, 512;\nld.shared.u32 %r12, [%r13];", "shared memory", {1, 64, 1024});
  bad("a copy onto what others read", "st.shared.v4.u32 [%rd10], {%r2, %r2, %r2, %r2};\n", race, ONE);
  fine("a wait", copy + "cp.async.commit_group;\ncp.async.wait_group 0;\nld.shared.u32 %r12, [%r10];\nbar.sync 0;\nxor.b32 %r13, %r10, 512;\nld.shared.u32 %r12, [%r13];", TWO);
  const char* other = "what block";
  bad("a read of what another block writes", "@%p22 st.global.u32 [%rd3+8], %r2;\n@!%p22 ld.global.u32 %r10, [%rd3+-1016];", other, BLOCKS);
  bad("blocks write one word", "@%p20 st.global.u32 [%rd2], %r2;", other, BLOCKS);
  bad("blocks write one word alike", "@%p20 st.global.u32 [%rd2], 5;", other, BLOCKS);
  bad("an atomic operation on what another block writes", "@%p22 st.global.u32 [%rd3], %r2;\n@!%p22 red.global.add.u32 [%rd3+-1024], 1;", other, BLOCKS);
  bad("a plain read of what is added to", "red.global.add.u32 [%rd1], 1;\nld.global.u32 %r10, [%rd1];", "what", BLOCKS);
  fine("atomic operations alone", "red.global.add.u32 [%rd1], 1;\natom.global.add.u32 %r10, [%rd1], 1;\nld.volatile.global.u32 %r10, [%rd1];", BLOCKS);
  fine("blocks write two halves of a word", "cvt.u16.u32 %rs10, %r3;\nmul.wide.u32 %rd21, %r3, 2;\nadd.s64 %rd22, %rd2, %rd21;\n@%p20 st.global.u16 [%rd22], %rs10;", BLOCKS);
  fine("blocks read one word", "ld.global.u32 %r10, [%rd1];\nst.global.u32 [%rd4], %r10;", BLOCKS);
}

// Blocks 0 and 1 of a cooperative launch: what 0 writes, 1 reads when it has seen the flag.
static void fences() {
  const Grid both = {2, 32, 0, true};
  auto handed = [](const char* before, const char* flag, const char* after) {
    return std::string("@!%p20 bra $END;\n@%p22 bra $GIVE;\n$SPIN:\n") + (*flag == 'p' ? "ld.global.u32" : "ld.volatile.global.u32") + " %r10, [%rd1+64];\nsetp.ne.s32 %p1, %r10, 5;\n@%p1 bra $SPIN;\n" + after +
           "ld.global.u32 %r11, [%rd1];\nst.global.u32 [%rd2], %r11;\nbra $END;\n$GIVE:\nst.global.u32 [%rd1], %r21;\n" + before +
           (*flag == 'a' ? "red.global.add.u32 [%rd1+64], 4;\n" : *flag == 'v' ? "mov.u32 %r12, 5;\nst.volatile.global.u32 [%rd1+64], %r12;\n" : "mov.u32 %r12, 5;\nst.global.u32 [%rd1+64], %r12;\n");
  };
  const char* fence = "membar.gl;\n";
  fine("fences around an atomic operation", handed(fence, "atomic", fence), both);
  fine("fences around a volatile store", handed(fence, "volatile", fence), both);
  bad("no fence before an atomic operation", handed("", "atomic", fence), "what block 0", both);
  bad("no fence after the flag", handed(fence, "atomic", ""), "what block 0", both);
  bad("no fence before a volatile store", handed("", "volatile", fence), "what block 0", both);
  // What is handed over may be volatile itself, and is then no race: but without fences the flag may come before it.
  int old[3] = {};
  for (int fenced = 0; fenced < 3; fenced++)
    for (int i = 0; i < 40; i++) {
      cases++;
      std::string body = handed(fenced == 1 ? "" : fence, "atomic", fenced == 2 ? "" : fence);
      for (const char* plain : {"ld.global.u32 %r11", "st.global.u32 [%rd1], %r21"}) body.insert(body.find(plain) + 2, ".volatile");
      Memory from(std::vector<uint64_t>(256, 0x100000001)), to(std::vector<uint64_t>(256, 0));
      const std::string why = run(module(WORDS + "mov.u32 %r21, 7;\n" + body), from.p, to.p, 7, both);
      if (!why.empty()) fail("volatile words: %s", why.c_str());
      old[fenced] += to.get()[0] != 7;
    }
  if (old[0] || !old[1] || !old[2]) fail("older values: %d with fences, %d and %d with one", old[0], old[1], old[2]);
  bad("a plain flag", handed(fence, "plain", fence), "block", both);
}

static void together() {
  bad("a barrier after some have ended", "@%p21 bra $END;\nbar.sync 0;", "ended, others wait at a barrier", TWO);
  bad("a barrier after lanes have ended", "@%p20 bra $END;\nbar.sync 0;", "wait for others that do not come", ONE);
  bad("a barrier for one branch", "@%p20 bra $ON;\nbar.sync 0;\n$ON:\nadd.s32 %r10, %r2, 1;", "wait for others that do not come", ONE);
  bad("two barriers", "@%p21 bra $LOW;\nbar.sync 0;\nbra $END;\n$LOW:\nbar.sync 0;", "different barriers", TWO);
  bad("a mask with a lane that has ended", "@%p20 bra $END;\nshfl.sync.bfly.b32 %r10, %r2, 2, 31, -1;", "wait for others that do not come", ONE);
  bad("a mask with a lane that is not there", "shfl.sync.bfly.b32 %r10, %r2, 1, 31, -1;", "not there", {1, 16, 1024});
  bad("a lane outside its mask", "shfl.sync.bfly.b32 %r10, %r2, 1, 31, 65535;", "not in its own mask", ONE);
  bad("a source outside the mask", "setp.gt.s32 %p1, %r2, 14;\n@%p1 bra $END;\nshfl.sync.bfly.b32 %r10, %r2, 1, 31, 32767;", "does not take part", ONE);
  bad("masks that differ", "mov.u32 %r11, -1;\n@%p20 mov.u32 %r11, 1;\nbar.warp.sync %r11;", "mask", ONE);
  bad("a vote for one branch", "@!%p20 bra $END;\nvote.sync.ballot.b32 %r10, %p20, -1;", "wait for others that do not come", ONE);
  bad("ldmatrix of a part of a warp", "cvt.u32.u64 %r10, %rd10;\nst.shared.u32 [%rd11], %r2;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r11, %r12, %r13, %r14}, [%r10];", "whole warps", {1, 16, 1024});
  bad("ldmatrix after lanes have ended", "@%p20 bra $END;\ncvt.u32.u64 %r10, %rd10;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r11, %r12, %r13, %r14}, [%r10];", "wait for others that do not come", ONE);
  bad("a copy's wait in one branch", "@%p20 bra $END;\ncp.async.wait_group 0;", "of a part of a warp", ONE);
  bad("a uniform branch that is none", "@%p20 bra.uni $END;\nadd.s32 %r10, %r2, 1;", "bra.uni", ONE);
  bad("a wait for what never comes", "$SPIN:\nld.volatile.global.u32 %r10, [%rd1];\nsetp.ne.s32 %p1, %r10, 77;\n@%p1 bra $SPIN;", "no progress", {1, 1, 0});
  bad("a division by zero", "sub.s32 %r10, %r2, %r2;\ndiv.u32 %r11, %r2, %r10;", "division by zero", ONE);
}

static void launches() {
  wrong("more threads than .maxntid", "", "more threads", {1, 64, 0}, ".maxntid 32, 1, 1");
  wrong("another block than .reqntid", "", "another block", {1, 64, 0}, ".reqntid 32, 1, 1");
  wrong("more registers than there are", "", "registers", {1, 1024, 0}, ".maxnreg 128");
  wrong("too much shared memory", "", "error 1", {1, 32, 49 * 1024});
  wrong("too many blocks at a time", "", "error 720", {4, 32, 0, true});
  wrong("too many threads", "", "error 1", {1, 1056, 0});
}

// Texts that must not be loaded.
static void texts() {
  struct { const char *what, *body, *words; } all[] = {
      {"an unknown instruction", "frob.u32 %r10, %r2;", "unknown instruction"},
      {"an unknown modifier", "ld.global.L9.u32 %r10, [%rd3];", "unknown instruction"},
      {"a register of another width", "add.s64 %rd10, %r2, %rd3;", "a register of 32 bits"},
      {"a float register for a whole number", "add.s32 %r10, %f10, %r2;", "for an operand"},
      {"a whole number's register for a float", "mov.f32 %f10, 0f3F800000;\nadd.rn.f32 %f10, %f10, %rd3;", "for an operand"},
      {"an integer for a float", "mov.f32 %f10, 1;", "a number of another kind"},
      {"a double for a float", "mov.f32 %f10, 0d3FF0000000000000;", "a number of another width"},
      {"a register that was never written", "add.s32 %r10, %r11, %r2;", "may not have been written"},
      {"a register written in one branch", "setp.eq.s32 %p1, %r2, 0;\n@%p1 mov.u32 %r11, 1;\nadd.s32 %r10, %r11, %r2;", "may not have been written"},
      {"a register that is not declared", "add.s32 %r10, %r99, %r2;", "no register"},
      {"a label that is not there", "bra $NOWHERE;", "no label"},
      {"too few operands", "add.s32 %r10, %r2;", "operands"},
      {"a parameter that is not there", "ld.param.u32 %r10, [m];", "no such parameter"},
      {"beyond a parameter", "ld.param.u64 %rd10, [n];", "beyond the parameter"},
      {"an address of 32 bits", "ld.global.u32 %r10, [%r2];", "an address of 32 bits"},
      {"a vector of three", "ld.global.v2.u32 {%r10, %r11, %r12}, [%rd3];", "another number of registers"},
      {"a name that is not there", "mov.u64 %rd10, nothing;", "no name"},
      {"another barrier", "bar.sync 1;", "barriers but 0"},
      {"a directive", ".local .b8 stack[16];", "unknown directive"},
      {"a statement without end", "add.s32 %r10, %r2, %r2", "wanted"},
      {"a predicate as a number", "setp.eq.s32 %p1, %r2, 0;\nadd.s32 %r10, %p1, %r2;", "for an operand"},
  };
  for (auto& c : all) {
    cases++;
    const std::string why = run(module(c.body), 0, 0, 0, {});
    if (why.find(c.words) == std::string::npos || why.find("line") == std::string::npos) fail("%s: wanted '%s', got '%s'", c.what, c.words, why.c_str());
  }
  cases += 4;
  if (run(module("", "", 90), 0, 0, 0, {}).find("the chip is sm_80") == std::string::npos) fail("a later chip's text is loaded");
  if (run(module("cp.async.wait_group 0;", "", 75), 0, 0, 0, {}).find("needs .target sm_80") == std::string::npos) fail("an earlier chip's text has later instructions");
  std::string open = module("");
  open.resize(open.rfind("ret;"));
  if (run(open, 0, 0, 0, {}).find("ends too early") == std::string::npos) fail("half a text is loaded");
  std::string falls = module("");
  falls.replace(falls.rfind("ret;"), 4, "mov.u32 %r10, 0;");
  if (run(falls, 0, 0, 0, {}).find("does not end with ret") == std::string::npos) fail("an entry without end is loaded");
  // What the PTX knows of a kernel.
  void *m, *f;
  int threads = 0, shared = 0;
  std::string text = module(".shared .align 16 .b8 fixed[48];\nmov.u64 %rd10, fixed;\n", ".maxntid 96, 2, 1");
  if (load(&m, text.c_str()) || function(&f, m, "k") || attribute(&threads, 0, f) || attribute(&shared, 1, f) || threads != 192 || shared != 128)
    fail("attributes: %d threads, %d bytes of shared memory", threads, shared);
  unload(m);
}

int main() {
  memory();
  races();
  fences();
  together();
  launches();
  texts();
  return result("ptx_checks");
}
