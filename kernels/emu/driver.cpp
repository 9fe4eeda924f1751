// A stand-in for the driver's libcuda.so: its C interface over host memory, launches run in the emulator. With its folder in
// LD_LIBRARY_PATH the Rust host code runs unchanged, without a GPU, against the committed PTX.
//
// A kernel is found only if the loaded PTX exports it and its parameters have the number and sizes of the source's. Device
// memory is poisoned; writes beyond a buffer, buffers that are never freed, launches beyond a chip's limits and shared memory
// that was not asked for are errors. BLEMISH_DRIVER=old|broken|none makes the driver too old, failing, or without a device.
#define EMU
#include "adam.cu"
#include "blur.cu"
#include "ceiling.cu"
#include "conv.cu"
#include "coupling.cu"
#include "depthwise.cu"
#include "embed.cu"
#include "flow.cu"
#include "kcenter.cu"
#include "mahalanobis.cu"
#include "moments.cu"
#include "nearest.cu"
#include "norm.cu"
#include "pairwise.cu"
#include "pool.cu"
#include "product.cu"
#include "projection.cu"
#include "resize.cu"
#include "window.cu"

#include <map>
#include <mutex>
#include <string>
#include <unistd.h>

namespace {

typedef int Result;
typedef unsigned long long Pointer;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_PTX = 218,
       NOT_FOUND = 500, CAPTURE = 900, LAUNCH_FAILED = 719, COOPERATIVE_TOO_LARGE = 720, UNKNOWN = 999 };
constexpr size_t MEMORY = 1ull << 30, GUARD = 64;
constexpr unsigned MULTIPROCESSORS = 3, SHARED = 48 << 10, SHARED_OPT_IN = 99 << 10;

struct Kernel {
  const char* name;
  std::vector<size_t> sizes;
  void (*call)(void**);
  unsigned shared = SHARED;
};
template <class... A, size_t... I> void unpack(void (*f)(A...), void** p, std::index_sequence<I...>) { f(*(A*)p[I]...); }
template <auto F> struct Wrap;
template <class... A, void (*F)(A...)> struct Wrap<F> {
  static std::vector<size_t> sizes() { return {sizeof(A)...}; }
  static void call(void** p) { unpack(F, p, std::index_sequence_for<A...>{}); }
};
#define KERNEL(f) Kernel{#f, Wrap<f>::sizes(), Wrap<f>::call}
Kernel kernels[] = {
    KERNEL(blur_axis),         KERNEL(embed_mean3),       KERNEL(kcenter_update),   KERNEL(kcenter_histogram),
    KERNEL(kcenter_threshold), KERNEL(kcenter_collect),   KERNEL(kcenter_greedy),   KERNEL(mahalanobis_triangle),
    KERNEL(mahalanobis_low_rank), KERNEL(nearest_quantize), KERNEL(nearest_sieve),  KERNEL(nearest_rerank),
    KERNEL(nearest_select),    KERNEL(pairwise_squared),  KERNEL(resize_down_u8),   KERNEL(resize_down_u16),
    KERNEL(conv_f32_128),      KERNEL(conv_f32_64),       KERNEL(conv_f16_128),     KERNEL(conv_f16_64),
    KERNEL(conv_f16_point_128), KERNEL(conv_f16_point_64), KERNEL(depthwise_f32),   KERNEL(depthwise_f16),
    KERNEL(map_pack_f32),      KERNEL(map_pack_f16),      KERNEL(map_unpack_f32),   KERNEL(map_unpack_f16),
    KERNEL(max_pool_f32),      KERNEL(max_pool_f16),      KERNEL(avg_pool_f32),     KERNEL(avg_pool_f16),
    KERNEL(global_mean_f32),   KERNEL(global_mean_f16),   KERNEL(gate_scale_f32),   KERNEL(gate_scale_f16),
    KERNEL(gate_dense),
    KERNEL(resize_across),     KERNEL(resize_bilinear),   KERNEL(projection_draw),  KERNEL(projection_apply),
    KERNEL(moments_shift),     KERNEL(moments_add_f32),   KERNEL(moments_add_f64),  KERNEL(moments_covariance_f32),
    KERNEL(moments_covariance_f64), KERNEL(moments_factor), KERNEL(moments_pack),
    KERNEL(window_128),        KERNEL(window_64),         KERNEL(window_sum),       KERNEL(window_turn),
    KERNEL(norm_sums),         KERNEL(norm_apply),        KERNEL(norm_gradient),
    KERNEL(adam_step),         KERNEL(coupling_forward),  KERNEL(coupling_backward), KERNEL(flow_gather),
    KERNEL(flow_output),       KERNEL(flow_next),         KERNEL(flow_sums),       KERNEL(flow_vectors),
    KERNEL(flow_scale),        KERNEL(embed_terms),       KERNEL(embed_add),         KERNEL(embed_select),
    KERNEL(product_forward_f32), KERNEL(product_forward_many_f32), KERNEL(product_backward_f32), KERNEL(product_update_f32),
    KERNEL(product_forward_bf16), KERNEL(product_backward_bf16), KERNEL(product_update_bf16),
    KERNEL(ceiling_copy),      KERNEL(ceiling_multiply_add), KERNEL(ceiling_tensor),
};

std::mutex lock;
std::map<Pointer, size_t> live;
size_t used, launches;
bool damaged;

bool mode(const char* name) {
  const char* set = getenv("BLEMISH_DRIVER");
  return set && !strcmp(set, name);
}

bool whole(Pointer p, size_t n) {
  auto* at = (unsigned char*)p;
  for (size_t i = 0; i < GUARD; i++)
    if (at[-1 - (long)i] != 0xa5 || at[n + i] != 0xa5) return false;
  return true;
}

// Whether `n` bytes at `p` lie in one buffer.
bool inside(Pointer p, size_t n) {
  auto next = live.upper_bound(p);
  if (next == live.begin()) return false;
  auto& [start, size] = *--next;
  return p + n <= start + size;
}

// Sizes of the parameters of an entry of a PTX text; false if there is no such entry.
bool parameters(const std::string& ptx, const char* name, std::vector<size_t>& sizes) {
  size_t at = ptx.find(std::string(".entry ") + name + "(");
  if (at == std::string::npos) return false;
  const size_t end = ptx.find(')', at);
  for (at = ptx.find(".param .", at); at < end; at = ptx.find(".param .", at + 1))
    sizes.push_back(strtoul(ptx.c_str() + at + 9, nullptr, 10) / 8);  // .u64, .u32, .f32
  return true;
}

Result launch(void* f, dim3 grid, dim3 block, unsigned shared, void** args, bool cooperative) {
  std::lock_guard<std::mutex> guard(lock);
  Kernel& kernel = *(Kernel*)f;
  if (block.count() == 0 || block.count() > 1024 || grid.count() == 0 || grid.y > 65535 || grid.z > 65535) return INVALID_VALUE;
  if (shared > kernel.shared) return INVALID_VALUE;
  if (cooperative && grid.count() > MULTIPROCESSORS) return COOPERATIVE_TOO_LARGE;
  emu::S.seed = (unsigned)launches++ % 5;
  auto body = [&] { kernel.call(args); };
  if (cooperative) emu::launch_cooperative(grid, block, shared, body);
  else emu::launch(grid, block, shared, body);
  for (auto& [p, n] : live)
    if (!whole(p, n)) {
      fprintf(stderr, "stand-in driver: %s wrote outside a buffer of %zu bytes\n", kernel.name, n);
      damaged = true;
      return LAUNCH_FAILED;
    }
  return SUCCESS;
}

// A launch that a stream records instead of starting it: its arguments by value, and which of them are buffers.
struct Node {
  void* kernel;
  dim3 grid, block;
  unsigned shared;
  bool cooperative;
  std::vector<std::vector<unsigned char>> values;
  std::vector<Pointer> buffers;
};
typedef std::vector<Node> Graph;
std::map<void*, Graph> recording;  // by stream
size_t graphs;

Result begin(void* stream, void* f, dim3 grid, dim3 block, unsigned shared, void** args, bool cooperative) {
  std::unique_lock<std::mutex> guard(lock);
  auto at = recording.find(stream);
  if (at == recording.end()) {
    guard.unlock();
    return launch(f, grid, block, shared, args, cooperative);
  }
  Node node{f, grid, block, shared, cooperative, {}, {}};
  size_t i = 0;
  for (size_t n : ((Kernel*)f)->sizes) {
    auto* value = (unsigned char*)args[i++];
    node.values.emplace_back(value, value + n);
    Pointer p = 0;
    if (n == 8) memcpy(&p, value, 8);
    if (p && inside(p, 1)) node.buffers.push_back(p);
  }
  at->second.push_back(std::move(node));
  return SUCCESS;
}

bool records(void* stream) {
  std::lock_guard<std::mutex> guard(lock);
  return recording.count(stream);
}

struct AtExit {
  ~AtExit() {
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
  *v = attribute == 75 ? 8 : attribute == 16 ? (int)MULTIPROCESSORS : attribute == 97 ? (int)SHARED_OPT_IN : attribute == 10 ? 32 : 0;
  return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void** c, int) { *c = (void*)1; return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void*) { return SUCCESS; }
Result cuCtxGetCurrent(void** c) { *c = (void*)1; return SUCCESS; }
Result cuCtxSynchronize() { return SUCCESS; }
Result cuMemGetInfo_v2(size_t* left, size_t* total) { *total = MEMORY; *left = MEMORY - used; return SUCCESS; }
Result cuMemAlloc_v2(Pointer* p, size_t n) {
  std::lock_guard<std::mutex> guard(lock);
  if (n == 0) return INVALID_VALUE;
  if (used + n > MEMORY) return OUT_OF_MEMORY;
  auto* block = (unsigned char*)aligned_alloc(256, (n + 256 + GUARD + 255) / 256 * 256);
  memset(block + 256 - GUARD, 0xa5, n + 2 * GUARD);
  memset(block + 256, 0xff, n);
  *p = (Pointer)(block + 256);
  live[*p] = n;
  used += n;
  return SUCCESS;
}
Result cuMemAllocAsync(Pointer* p, size_t n, void*) { return cuMemAlloc_v2(p, n); }
Result cuMemFree_v2(Pointer p) {
  std::lock_guard<std::mutex> guard(lock);
  if (p == 0) return SUCCESS;
  auto found = live.find(p);
  if (found == live.end()) return INVALID_VALUE;
  used -= found->second;
  live.erase(found);
  free((void*)(p - 256));
  return SUCCESS;
}
Result cuMemFreeAsync(Pointer p, void*) { return cuMemFree_v2(p); }
Result cuMemHostAlloc(void** p, size_t n, unsigned) { *p = aligned_alloc(256, (n + 255) / 256 * 256); return *p ? SUCCESS : OUT_OF_MEMORY; }
Result cuMemFreeHost(void* p) { free(p); return SUCCESS; }
static Result copy(void* to, const void* from, size_t n, Pointer device) {
  std::lock_guard<std::mutex> guard(lock);
  if (n && !inside(device, n)) return INVALID_VALUE;
  memcpy(to, from, n);
  return SUCCESS;
}
Result cuMemcpyHtoDAsync_v2(Pointer d, const void* s, size_t n, void* stream) { return records(stream) ? CAPTURE : copy((void*)d, s, n, d); }
Result cuMemcpyDtoHAsync_v2(void* d, Pointer s, size_t n, void* stream) { return records(stream) ? CAPTURE : copy(d, (void*)s, n, s); }
Result cuMemcpyDtoDAsync_v2(Pointer d, Pointer s, size_t n, void*) { return inside(s, n) ? copy((void*)d, (void*)s, n, d) : INVALID_VALUE; }
Result cuMemsetD8Async(Pointer d, unsigned char c, size_t n, void*) {
  std::lock_guard<std::mutex> guard(lock);
  if (!inside(d, n)) return INVALID_VALUE;
  memset((void*)d, c, n);
  return SUCCESS;
}
Result cuStreamCreate(void** s, unsigned) { static size_t last; *s = (void*)(last += 16); return SUCCESS; }
Result cuStreamDestroy_v2(void*) { return SUCCESS; }
Result cuStreamSynchronize(void* stream) { return records(stream) ? CAPTURE : SUCCESS; }
Result cuStreamBeginCapture_v2(void* stream, int) {
  std::lock_guard<std::mutex> guard(lock);
  return recording.emplace(stream, Graph()).second ? SUCCESS : INVALID_VALUE;
}
Result cuStreamEndCapture(void* stream, void** graph) {
  std::lock_guard<std::mutex> guard(lock);
  auto at = recording.find(stream);
  if (at == recording.end()) return INVALID_VALUE;
  *graph = new Graph(std::move(at->second));
  recording.erase(at);
  graphs++;
  return SUCCESS;
}
Result cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
  std::lock_guard<std::mutex> guard(lock);
  *ready = new Graph(*(Graph*)graph);
  graphs++;
  return SUCCESS;
}
static Result forget(void* graph) {
  std::lock_guard<std::mutex> guard(lock);
  delete (Graph*)graph;
  graphs--;
  return SUCCESS;
}
Result cuGraphDestroy(void* graph) { return forget(graph); }
Result cuGraphExecDestroy(void* graph) { return forget(graph); }
Result cuGraphLaunch(void* graph, void* stream) {
  if (records(stream)) return CAPTURE;
  for (Node& node : *(Graph*)graph) {
    std::vector<void*> args;
    for (auto& value : node.values) args.push_back(value.data());
    for (Pointer p : node.buffers) {
      std::lock_guard<std::mutex> guard(lock);
      if (inside(p, 1)) continue;
      fprintf(stderr, "stand-in driver: recorded %s uses memory that was freed\n", ((Kernel*)node.kernel)->name);
      damaged = true;
      return LAUNCH_FAILED;
    }
    if (Result r = launch(node.kernel, node.grid, node.block, node.shared, args.data(), node.cooperative)) return r;
  }
  return SUCCESS;
}
Result cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
Result cuEventCreate(void** e, unsigned) { *e = (void*)1; return SUCCESS; }
Result cuEventRecord(void*, void*) { return SUCCESS; }
Result cuEventSynchronize(void*) { return SUCCESS; }
Result cuEventQuery(void*) { return SUCCESS; }
Result cuEventElapsedTime(float* ms, void*, void*) { *ms = 1.f; return SUCCESS; }
Result cuEventDestroy_v2(void*) { return SUCCESS; }
Result cuModuleLoadData(void** m, const void* image) {
  auto* text = new std::string((const char*)image);
  *m = text;
  return text->find(".version ") == std::string::npos ? INVALID_PTX : SUCCESS;
}
Result cuModuleUnload(void* m) { delete (std::string*)m; return SUCCESS; }
Result cuModuleGetFunction(void** f, void* m, const char* name) {
  std::vector<size_t> sizes;
  if (!parameters(*(std::string*)m, name, sizes)) return NOT_FOUND;
  for (Kernel& k : kernels) {
    if (strcmp(k.name, name)) continue;
    if (k.sizes != sizes) {
      fprintf(stderr, "stand-in driver: the PTX of %s has other parameters than its source\n", name);
      return INVALID_PTX;
    }
    *f = &k;
    return SUCCESS;
  }
  return NOT_FOUND;
}
Result cuFuncSetAttribute(void* f, int attribute, int v) {
  if (attribute != 8 || v < 0 || (unsigned)v > SHARED_OPT_IN) return INVALID_VALUE;
  ((Kernel*)f)->shared = std::max((unsigned)v, SHARED);
  return SUCCESS;
}
Result cuFuncGetAttribute(int* v, int, void*) { *v = 0; return SUCCESS; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int, size_t) { *n = 1; return SUCCESS; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, void*, int, size_t, unsigned) { *n = 1; return SUCCESS; }
Result cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      void* stream, void** args, void**) {
  return begin(stream, f, dim3(gx, gy, gz), dim3(bx, by, bz), shared, args, false);
}
Result cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                 unsigned shared, void* stream, void** args) {
  return begin(stream, f, dim3(gx, gy, gz), dim3(bx, by, bz), shared, args, true);
}
Result cuGetErrorName(Result r, const char** s) {
  *s = r == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : r == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_EMULATED";
  return SUCCESS;
}
Result cuGetErrorString(Result, const char** s) { *s = "an error of the stand-in driver"; return SUCCESS; }
}
