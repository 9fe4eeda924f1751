// A stand-in for the driver's libcuda.so: its C interface over host memory, launches run by an interpreter of PTX. With its
// folder in LD_LIBRARY_PATH the Rust host code runs unchanged, without a GPU, and what runs is the PTX that ships.
//
// A module is loaded only if the interpreter knows all of it (ptx/decode.h). Device memory is poisoned. A kernel that reads or
// writes beyond a buffer, reads what nobody wrote, races with itself or waits for what does not come is an error that names the
// line of the PTX (ptx/access.h, ptx/races.h, ptx/run.h). So are buffers that are never freed, launches beyond a chip's limits or
// the kernel's own, and shared memory that was not asked for. BLEMISH_DRIVER=old|broken|none makes the driver too old, failing,
// or without a device, fails:N lets all launches and copies fail after N launches, hopper makes the chip an sm_90 (an sm_80
// otherwise). Work is done late (streams.h).
#include <fstream>
#include <mutex>
#include <unistd.h>
#include <utility>

#include "ptx/module.h"
#include "streams.h"

namespace {

typedef int Result;
typedef unsigned long long Pointer;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_PTX = 218,
       NOT_FOUND = 500, NOT_READY = 600, OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, COOPERATIVE_TOO_LARGE = 720,
       CAPTURE = 900, UNKNOWN = 999 };
constexpr size_t MEMORY = 1ull << 30, GUARD = 64;
constexpr unsigned MULTIPROCESSORS = 3, SHARED = 48 << 10, THREADS = 1024;

// A kernel of a loaded module; `shared`: how much dynamic memory it may be launched with.
struct Function {
  const ptx::Kernel* kernel;
  size_t shared;
  unsigned threads;
};
struct Loaded {
  ptx::Module module;
  std::map<std::string, Function> functions;
};
struct Size {
  unsigned x, y, z;
  unsigned long long count() const { return 1ull * x * y * z; }
};

std::recursive_mutex lock;
std::map<Pointer, size_t> live;
std::map<uintptr_t, size_t> pinned;  // page-locked memory of the host
ptx::Memory memory;
streams::Streams work;
size_t used, launches;
bool damaged, quiet;
std::string said;

typedef std::lock_guard<std::recursive_mutex> Guard;

bool mode(const char* name) {
  const char* set = getenv("BLEMISH_DRIVER");
  return set && !strcmp(set, name);
}

// The chip, and the most shared memory a block may ask for.
bool hopper() {
  static const bool is = mode("hopper");
  return is;
}
int chip() { return hopper() ? 90 : 80; }
size_t shared_opt_in() { return (hopper() ? 227u : 99u) << 10; }

// Whether the device has failed for good.
bool dead() {
  static const char* set = getenv("BLEMISH_DRIVER");
  static const size_t most = set && !strncmp(set, "fails:", 6) ? strtoull(set + 6, nullptr, 10) : ~0ull;
  return launches >= most;
}

// Prints why something is refused that a test should not get away with.
Result wrong(Result result, const std::string& why) {
  if (!quiet) fprintf(stderr, "stand-in driver: %s\n", why.c_str());
  damaged = true;
  said = why;
  return result;
}

bool whole(Pointer p, size_t n) {
  auto* at = (unsigned char*)p;
  for (size_t i = 0; i < GUARD; i++)
    if (at[-1 - (long)i] != 0xa5 || at[n + i] != 0xa5) return false;
  return true;
}

bool is_pinned(const void* p, size_t n) {
  auto next = pinned.upper_bound((uintptr_t)p);
  if (next == pinned.begin()) return false;
  auto& [start, size] = *--next;
  return (uintptr_t)p + n <= start + size;
}

// A launch: its arguments by value, and which of them are buffers.
struct Node {
  const ptx::Kernel* kernel;
  Size grid, block;
  unsigned shared;
  bool cooperative;
  std::vector<unsigned char> parameters;
  std::vector<Pointer> buffers;
};
typedef std::vector<Node> Graph;
std::map<void*, Graph> recording;  // by stream
size_t graphs;

// Whether a launch may be asked for.
Result legal(const Function& function, Size grid, Size block, unsigned shared, bool cooperative) {
  const ptx::Kernel& kernel = *function.kernel;
  if (block.count() == 0 || block.count() > THREADS || block.z > 64) return INVALID_VALUE;
  if (grid.count() == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return INVALID_VALUE;
  if (block.count() > function.threads) return wrong(INVALID_VALUE, kernel.name + " has more threads than its .maxntid");
  for (int i = 0; i < 3; i++)
    if (kernel.reqntid[0] && kernel.reqntid[i] != (&block.x)[i])
      return wrong(INVALID_VALUE, kernel.name + " has another block than its .reqntid");
  if (shared > function.shared) return INVALID_VALUE;
  if (kernel.maxnreg && kernel.maxnreg * block.count() > 65536)
    return wrong(OUT_OF_RESOURCES, kernel.name + " needs too many registers");
  if (cooperative && grid.count() > MULTIPROCESSORS) return COOPERATIVE_TOO_LARGE;
  return SUCCESS;
}

Result execute(const Node& node) {
  if (dead()) return LAUNCH_FAILED;
  const ptx::Kernel& kernel = *node.kernel;
  for (Pointer p : node.buffers)
    if (!memory.find(p, 1)) return wrong(LAUNCH_FAILED, kernel.name + " was asked for with memory that is freed when it runs");
  const unsigned seed = (unsigned)launches++ % 5;
  try {
    ptx::Runner runner(kernel, memory, {node.grid.x, node.grid.y, node.grid.z}, {node.block.x, node.block.y, node.block.z},
                       node.shared, node.parameters.data(), seed, launches, node.cooperative);
    try {
      runner.run();
    } catch (const ptx::Fault& fault) {
      return wrong(LAUNCH_FAILED, runner.report(fault));
    }
  } catch (const ptx::Fault& fault) {
    return wrong(LAUNCH_FAILED, kernel.name + ": " + fault.why);
  }
  for (auto& [p, n] : live)
    if (!whole(p, n)) return wrong(LAUNCH_FAILED, kernel.name + ptx::text(" wrote outside a buffer of %zu bytes", n));
  return SUCCESS;
}

// A launch is recorded if its stream records, else asked for.
Result begin(void* stream, void* f, Size grid, Size block, unsigned shared, void** args, bool cooperative) {
  Guard guard(lock);
  const Function& function = *(Function*)f;
  if (Result r = legal(function, grid, block, shared, cooperative)) return r;
  const ptx::Kernel& kernel = *function.kernel;
  Node node{&kernel, grid, block, shared, cooperative, std::vector<unsigned char>(kernel.parameter_bytes), {}};
  for (size_t i = 0; i < kernel.sizes.size(); i++) {
    memcpy(node.parameters.data() + kernel.at[i], args[i], kernel.sizes[i]);
    Pointer p = 0;
    if (kernel.sizes[i] == 8) memcpy(&p, args[i], 8);
    if (p && memory.find(p, 1)) node.buffers.push_back(p);
  }
  auto at = recording.find(stream);
  if (at == recording.end()) return work.ask(stream, [node = std::move(node)] { return execute(node); });
  at->second.push_back(std::move(node));
  return SUCCESS;
}

bool records(void* stream) { return recording.count(stream); }

void release(Pointer p) {
  auto found = live.find(p);
  used -= found->second;
  memory.remove(p);
  live.erase(found);
  free((void*)(p - 256));
}

struct AtExit {
  ~AtExit() {
    work.drain();
    fprintf(stderr, "stand-in driver: %zu launches, %zu buffers left\n", launches, live.size());
    if (damaged || !live.empty() || graphs || !recording.empty()) _exit(97);
  }
} at_exit;

}  // namespace

extern "C" {
Result cuInit(unsigned) { return mode("broken") ? UNKNOWN : SUCCESS; }
Result cuDriverGetVersion(int* v) { *v = mode("old") ? 11080 : 12040; return SUCCESS; }
Result cuDeviceGetCount(int* n) { *n = mode("none") ? 0 : 1; return SUCCESS; }
Result cuDeviceGet(int* d, int ordinal) { *d = ordinal; return ordinal ? INVALID_DEVICE : SUCCESS; }
Result cuDeviceGetName(char* s, int n, int) { snprintf(s, (size_t)n, "emulated"); return SUCCESS; }
Result cuDeviceTotalMem_v2(size_t* n, int) { *n = MEMORY; return SUCCESS; }
Result cuDeviceGetAttribute(int* v, int attribute, int) {
  *v = attribute == 75   ? chip() / 10
       : attribute == 16 ? (int)MULTIPROCESSORS
       : attribute == 97 ? (int)shared_opt_in()
       : attribute == 10 ? 32
                         : 0;
  return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void** c, int) { *c = (void*)1; return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void*) { return SUCCESS; }
Result cuCtxGetCurrent(void** c) { *c = (void*)1; return SUCCESS; }
Result cuCtxSynchronize() {
  Guard guard(lock);
  work.drain();
  return work.failed();
}
Result cuMemGetInfo_v2(size_t* left, size_t* total) {
  Guard guard(lock);
  work.drain();
  *total = MEMORY;
  *left = MEMORY - used;
  return SUCCESS;
}
Result cuMemAlloc_v2(Pointer* p, size_t n) {
  Guard guard(lock);
  if (n == 0) return INVALID_VALUE;
  if (used + n > MEMORY) work.drain();
  if (used + n > MEMORY) return OUT_OF_MEMORY;
  auto* block = (unsigned char*)aligned_alloc(256, (n + 256 + GUARD + 255) / 256 * 256);
  memset(block + 256 - GUARD, 0xa5, n + 2 * GUARD);
  memset(block + 256, 0xff, n);
  *p = (Pointer)(block + 256);
  live[*p] = n;
  memory.add(*p, n, false);
  used += n;
  return SUCCESS;
}
Result cuMemAllocAsync(Pointer* p, size_t n, void* stream) {
  Guard guard(lock);
  return records(stream) ? CAPTURE : cuMemAlloc_v2(p, n);
}
Result cuMemFree_v2(Pointer p) {
  Guard guard(lock);
  if (p == 0) return SUCCESS;
  work.drain();
  if (!live.count(p)) return INVALID_VALUE;
  release(p);
  return SUCCESS;
}
Result cuMemFreeAsync(Pointer p, void* stream) {
  Guard guard(lock);
  if (records(stream)) return CAPTURE;
  if (p == 0) return SUCCESS;
  return work.ask(stream, [p] {
    if (!live.count(p)) return wrong(INVALID_VALUE, "memory is freed twice");
    release(p);
    return (Result)SUCCESS;
  });
}
Result cuMemHostAlloc(void** p, size_t n, unsigned) {
  Guard guard(lock);
  *p = aligned_alloc(256, (n + 255) / 256 * 256);
  if (!*p) return OUT_OF_MEMORY;
  pinned[(uintptr_t)*p] = n;
  return SUCCESS;
}
Result cuMemFreeHost(void* p) {
  Guard guard(lock);
  if (!pinned.erase((uintptr_t)p)) return INVALID_VALUE;
  free(p);
  return SUCCESS;
}
// Copies and fills `n` bytes at `d`, or from there, when the time has come.
static Result later(void* stream, Pointer d, size_t n, std::function<Result(ptx::Buffer&, size_t)> act) {
  if (records(stream)) return CAPTURE;
  if (n == 0) return SUCCESS;
  if (!memory.find(d, n)) return INVALID_VALUE;
  return work.ask(stream, [=] {
    if (dead()) return (Result)LAUNCH_FAILED;
    ptx::Buffer* buffer = memory.find(d, n);
    return buffer ? act(*buffer, d - buffer->start)
                  : wrong(LAUNCH_FAILED, "a copy was asked for with memory that is freed when it runs");
  });
}
Result cuMemcpyHtoDAsync_v2(Pointer d, const void* s, size_t n, void* stream) {
  Guard guard(lock);
  if (is_pinned(s, n))
    return later(stream, d, n, [=](ptx::Buffer& to, size_t at) {
      if (!is_pinned(s, n)) return wrong(LAUNCH_FAILED, "a copy reads page-locked memory that is freed when it runs");
      memcpy((void*)d, s, n);
      to.write_all(at, n);
      return (Result)SUCCESS;
    });
  // Other memory may change as soon as this returns.
  std::vector<unsigned char> values((const unsigned char*)s, (const unsigned char*)s + n);
  return later(stream, d, n, [=](ptx::Buffer& to, size_t at) {
    memcpy((void*)d, values.data(), n);
    to.write_all(at, n);
    return (Result)SUCCESS;
  });
}
Result cuMemcpyDtoHAsync_v2(void* d, Pointer s, size_t n, void* stream) {
  Guard guard(lock);
  const bool late = is_pinned(d, n);
  const Result r = later(stream, s, n, [=](ptx::Buffer&, size_t) {
    if (late && !is_pinned(d, n)) return wrong(LAUNCH_FAILED, "a copy writes page-locked memory that is freed when it runs");
    memcpy(d, (const void*)s, n);
    return (Result)SUCCESS;
  });
  if (r || late) return r;
  work.until(stream, ~0ull);
  return work.failed();
}
Result cuMemcpyDtoDAsync_v2(Pointer d, Pointer s, size_t n, void* stream) {
  Guard guard(lock);
  if (n && (!memory.find(s, n) || (d < s + n && s < d + n))) return INVALID_VALUE;
  return later(stream, d, n, [=](ptx::Buffer& to, size_t at) {
    ptx::Buffer* from = memory.find(s, n);
    if (!from) return wrong(LAUNCH_FAILED, "a copy was asked for from memory that is freed when it runs");
    memcpy((void*)d, (void*)s, n);
    to.copy(at, *from, s - from->start, n);
    return (Result)SUCCESS;
  });
}
Result cuMemsetD8Async(Pointer d, unsigned char c, size_t n, void* stream) {
  Guard guard(lock);
  return later(stream, d, n, [=](ptx::Buffer& to, size_t at) {
    memset((void*)d, c, n);
    to.write_all(at, n);
    return (Result)SUCCESS;
  });
}
Result cuStreamCreate(void** s, unsigned) {
  Guard guard(lock);
  static size_t last;
  *s = (void*)(last += 16);
  work.open(*s);
  return SUCCESS;
}
Result cuStreamDestroy_v2(void* stream) {
  Guard guard(lock);
  work.close(stream);
  return SUCCESS;
}
Result cuStreamSynchronize(void* stream) {
  Guard guard(lock);
  if (records(stream)) return CAPTURE;
  work.until(stream, ~0ull);
  return work.failed();
}
Result cuStreamBeginCapture_v2(void* stream, int) {
  Guard guard(lock);
  return recording.emplace(stream, Graph()).second ? SUCCESS : INVALID_VALUE;
}
typedef std::shared_ptr<Graph> Held;
Result cuStreamEndCapture(void* stream, void** graph) {
  Guard guard(lock);
  auto at = recording.find(stream);
  if (at == recording.end()) return INVALID_VALUE;
  *graph = new Held(new Graph(std::move(at->second)));
  recording.erase(at);
  graphs++;
  return SUCCESS;
}
Result cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
  Guard guard(lock);
  *ready = new Held(*(Held*)graph);
  graphs++;
  return SUCCESS;
}
static Result forget(void* graph) {
  Guard guard(lock);
  delete (Held*)graph;
  graphs--;
  return SUCCESS;
}
Result cuGraphDestroy(void* graph) { return forget(graph); }
Result cuGraphExecDestroy(void* graph) { return forget(graph); }
Result cuGraphLaunch(void* graph, void* stream) {
  Guard guard(lock);
  if (records(stream)) return CAPTURE;
  return work.ask(stream, [held = *(Held*)graph] {
    for (const Node& node : *held)
      if (Result r = execute(node)) return r;
    return (Result)SUCCESS;
  });
}
Result cuStreamWaitEvent(void* stream, void* event, unsigned) {
  Guard guard(lock);
  if (records(stream)) return CAPTURE;
  return work.ask(stream, [on = *(streams::Event*)event] {
    work.until(on);
    return (Result)SUCCESS;
  });
}
Result cuEventCreate(void** e, unsigned) { *e = new streams::Event; return SUCCESS; }
Result cuEventRecord(void* e, void* stream) {
  Guard guard(lock);
  if (records(stream)) return CAPTURE;
  *(streams::Event*)e = work.record(stream);
  return SUCCESS;
}
Result cuEventSynchronize(void* e) {
  Guard guard(lock);
  work.until(*(streams::Event*)e);
  return work.failed();
}
Result cuEventQuery(void* e) {
  Guard guard(lock);
  if (work.happened(*(streams::Event*)e)) return SUCCESS;
  work.until(*(streams::Event*)e);  // next time it has
  return NOT_READY;
}
Result cuEventElapsedTime(float* ms, void* from, void* to) {
  Guard guard(lock);
  *ms = 1.f;
  return work.happened(*(streams::Event*)from) && work.happened(*(streams::Event*)to) ? SUCCESS : NOT_READY;
}
Result cuEventDestroy_v2(void* e) { delete (streams::Event*)e; return SUCCESS; }
// The text of the file in BLEMISH_PLANTED, which a fault was planted in, if it has the first line of `image`; else `image`.
static std::string planted(const char* image) {
  const char* name = getenv("BLEMISH_PLANTED");
  std::ifstream file(name ? name : "");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t line = text.find('\n');
  return line != std::string::npos && !strncmp(text.c_str(), image, line + 1) ? text : image;
}
Result cuModuleLoadData(void** m, const void* image) {
  Guard guard(lock);
  try {
    *m = new Loaded{ptx::Module(planted((const char*)image).c_str(), memory, chip()), {}};
    return SUCCESS;
  } catch (const ptx::Invalid& invalid) {
    return wrong(INVALID_PTX, ptx::text("PTX, line %d: %s", invalid.line, invalid.why.c_str()));
  }
}
Result cuModuleUnload(void* m) {
  Guard guard(lock);
  work.drain();
  ((Loaded*)m)->module.unload(memory);
  delete (Loaded*)m;
  return SUCCESS;
}
Result cuModuleGetFunction(void** f, void* m, const char* name) {
  Guard guard(lock);
  Loaded& loaded = *(Loaded*)m;
  auto at = loaded.module.kernels.find(name);
  if (at == loaded.module.kernels.end()) return NOT_FOUND;
  const ptx::Kernel& k = at->second;
  if (k.static_shared > SHARED) return wrong(INVALID_PTX, k.name + " has too much static shared memory");
  const unsigned most = k.maxntid[0] ? k.maxntid[0] * k.maxntid[1] * k.maxntid[2] : THREADS;
  *f = &loaded.functions.emplace(name, Function{&k, SHARED - k.static_shared, std::min(most, THREADS)}).first->second;
  return SUCCESS;
}
Result cuFuncSetAttribute(void* f, int attribute, int v) {
  Guard guard(lock);
  Function& function = *(Function*)f;
  const size_t fixed = function.kernel->static_shared;
  if (attribute != 8 || v < 0 || (size_t)v + fixed > shared_opt_in()) return INVALID_VALUE;
  function.shared = std::max((size_t)v, SHARED - fixed);
  return SUCCESS;
}
// What the PTX says; registers and local memory are ptxas' business, of which a kernel needs at least those alive at a time.
Result cuFuncGetAttribute(int* v, int attribute, void* f) {
  const Function& function = *(Function*)f;
  switch (attribute) {
    case 0: *v = (int)function.threads; return SUCCESS;
    case 1: *v = (int)function.kernel->static_shared; return SUCCESS;
    case 2: case 3: *v = 0; return SUCCESS;
    case 4: *v = (int)function.kernel->registers; return SUCCESS;
    case 5: case 6: *v = chip(); return SUCCESS;
    case 8: *v = (int)function.shared; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
static Result occupancy(int* n, void* f, int threads, size_t shared) {
  const Function& function = *(Function*)f;
  if (threads <= 0) return INVALID_VALUE;
  *n = (unsigned)threads <= function.threads && shared <= function.shared;
  return SUCCESS;
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void* f, int t, size_t s) { return occupancy(n, f, t, s); }
Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, void* f, int t, size_t s, unsigned) {
  return occupancy(n, f, t, s);
}
Result cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      void* stream, void** args, void**) {
  return begin(stream, f, Size{gx, gy, gz}, Size{bx, by, bz}, shared, args, false);
}
Result cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                 unsigned shared, void* stream, void** args) {
  return begin(stream, f, Size{gx, gy, gz}, Size{bx, by, bz}, shared, args, true);
}
Result cuGetErrorName(Result r, const char** s) {
  *s = r == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : r == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_EMULATED";
  return SUCCESS;
}
Result cuGetErrorString(Result, const char** s) { *s = "an error of the stand-in driver"; return SUCCESS; }
// What was said last of something wrong, which the tests of the interpreter provoke: it then does not count as damage.
const char* stand_in_said() {
  static std::string last;
  Guard guard(lock);
  last = std::exchange(said, "");
  damaged = false;
  quiet = true;
  return last.c_str();
}
}
