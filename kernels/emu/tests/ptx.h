// What the tests of the interpreter share: small PTX texts, run on the stand-in driver as a program would run them.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <string>
#include <vector>

namespace ptx {

inline int failures = 0, cases = 0;
__attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  if (++failures > 20) return;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
}
inline int result(const char* name) {
  printf("%-12s %4d cases, %d failures\n", name, cases, failures);
  return failures != 0;
}

typedef unsigned long long Pointer;
template <class F> F* symbol(const char* name) {
  static void* library = dlopen("libcuda.so", RTLD_NOW);
  void* f = library ? dlsym(library, name) : nullptr;
  if (!f) fprintf(stderr, "no %s in a libcuda.so: %s\n", name, dlerror()), exit(2);
  return (F*)f;
}
inline auto allocate = symbol<int(Pointer*, size_t)>("cuMemAlloc_v2");
inline auto release = symbol<int(Pointer)>("cuMemFree_v2");
inline auto upload = symbol<int(Pointer, const void*, size_t, void*)>("cuMemcpyHtoDAsync_v2");
inline auto download = symbol<int(void*, Pointer, size_t, void*)>("cuMemcpyDtoHAsync_v2");
inline auto copy = symbol<int(Pointer, Pointer, size_t, void*)>("cuMemcpyDtoDAsync_v2");
inline auto load = symbol<int(void**, const void*)>("cuModuleLoadData");
inline auto unload = symbol<int(void*)>("cuModuleUnload");
inline auto function = symbol<int(void**, void*, const char*)>("cuModuleGetFunction");
inline auto attribute = symbol<int(int*, int, void*)>("cuFuncGetAttribute");
inline auto launch =
    symbol<int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**)>(
        "cuLaunchKernel");
inline auto launch_together =
    symbol<int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**)>(
        "cuLaunchCooperativeKernel");
// What the driver said last, which then does not count as damage.
inline auto said = symbol<const char*()>("stand_in_said");

// A module of the kernel `k`: `in`, `out` and `n` are in %rd1, %rd2 and %r1, the thread's number in its block in %r2, the block's
// in %r3, the place of the thread's 32 bytes in `in` in %rd3, and of its 32 bytes in `out` in %rd4 (blocks side by side).
// Registers above 9 are free.
inline std::string module(const std::string& body, const std::string& directives = "", int target = 80) {
  return ".version 8.4\n.target sm_" + std::to_string(target) +
         "\n.address_size 64\n.extern .shared .align 128 .b8 dynamic[];\n"
         ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n)\n" +
         directives +
         "\n{\n"
         ".reg .pred %p<40>;\n.reg .b16 %rs<40>;\n.reg .b32 %r<80>;\n.reg .f32 %f<80>;\n.reg .b64 %rd<40>;\n.reg .f64 %fd<40>;\n"
         "ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nld.param.u32 %r1, [n];\nmov.u32 %r2, %tid.x;\nmov.u32 %r3, "
         "%ctaid.x;\n"
         "mov.u32 %r4, %ntid.x;\nmad.lo.s32 %r5, %r3, %r4, %r2;\nmul.wide.u32 %rd5, %r5, 32;\nadd.s64 %rd3, %rd1, %rd5;\n"
         "add.s64 %rd4, %rd2, %rd5;\n" +
         body + "\n$END:\nret;\n}\n";
}

struct Memory {
  Pointer p = 0;
  size_t n;
  explicit Memory(size_t n) : n(n) { allocate(&p, n); }
  explicit Memory(const std::vector<uint64_t>& v) : Memory(v.size() * 8) { upload(p, v.data(), n, nullptr); }
  Memory(const Memory&) = delete;
  ~Memory() { release(p); }
  std::vector<uint64_t> get() const {
    std::vector<uint64_t> v(n / 8);
    download(v.data(), p, v.size() * 8, nullptr);
    return v;
  }
};

struct Grid {
  unsigned blocks = 1, threads = 32, shared = 0;
  bool together = false;
};

// Loads and runs; what the driver said, or nothing if all went well.
inline std::string run(const std::string& text, Pointer in, Pointer out, uint32_t n, Grid grid) {
  void *m = nullptr, *f = nullptr;
  said();
  if (load(&m, text.c_str())) return said();
  int result = function(&f, m, "k");
  void* args[] = {&in, &out, &n};
  if (result == 0)
    result = grid.together ? launch_together(f, grid.blocks, 1, 1, grid.threads, 1, 1, grid.shared, nullptr, args)
                           : launch(f, grid.blocks, 1, 1, grid.threads, 1, 1, grid.shared, nullptr, args, nullptr);
  std::string why = result ? said() : "";
  if (result && why.empty()) why = "error " + std::to_string(result);
  unload(m);
  return why;
}

// Runs a body that has to be right, on four words for each thread; the four words each thread leaves.
inline std::vector<uint64_t> right(const std::string& body, const std::vector<uint64_t>& in, Grid grid) {
  cases++;
  Memory from(in), to(std::vector<uint64_t>(grid.blocks * grid.threads * 4, 0));
  const std::string why = run(module(body), from.p, to.p, (uint32_t)(grid.blocks * grid.threads), grid);
  if (!why.empty()) fail("refused: %s\n%s", why.c_str(), body.c_str());
  return to.get();
}

// Runs a body that has to be stopped with `words` in what is said, under every order of threads.
inline void wrong(const char* what, const std::string& body, const char* words, Grid grid = {},
                  const std::string& directives = "") {
  for (int order = 0; order < 5; order++) {
    cases++;
    std::vector<uint64_t> numbers(4 * grid.blocks * grid.threads, 1);
    Memory from(numbers), to(numbers.size() * 8);
    const std::string why = run(module(body, directives), from.p, to.p, 7, grid);
    if (why.find(words) == std::string::npos) fail("%s, order %d: wanted '%s', got '%s'", what, order, words, why.c_str());
  }
}

template <class T, class U> T as(U u) {
  T t{};
  memcpy(&t, &u, std::min(sizeof t, sizeof u));
  return t;
}

}  // namespace ptx
