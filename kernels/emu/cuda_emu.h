// Runs unmodified kernels/cu/*.cu on the CPU: what device.cuh declares for a GPU, this declares for g++ or clang++.
//
// | file | what it emulates |
// |---|---|
// | schedule.h | threads, blocks, barriers, shared memory, launches |
// | warp.h | shuffles, votes |
// | tensor_core.h | cp.async, ldmatrix, mma.sync |
//
// Memory is sequentially consistent here, so a missing fence does not show, and inline assembly is replaced by functions: both
// are tested in the PTX, which the stand-in driver interprets (ptx/). Static `__shared__` is refused, since it would not be
// poisoned: use DYN_SMEM.
#pragma once
#include <algorithm>
#include <cmath>

#include "tensor_core.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static_shared_memory_is_not_emulated
#define DYN_SMEM(name) unsigned char* name = emu::me().block->shared.get()

#define threadIdx (emu::me().id)
#define blockIdx (emu::me().block->id)
#define blockDim (emu::S.block_dim)
#define gridDim (emu::S.grid_dim)

struct alignas(16) float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(8) float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
struct alignas(8) uint2 { unsigned x, y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads() { emu::wait(emu::State::Block, "__syncthreads"); }
inline void __threadfence() {}
inline void grid_barrier(unsigned*, unsigned&) { emu::wait(emu::State::Grid, "grid_barrier"); }

template <class T> T atomicAdd(T* at, T v) { T old = *at; *at = old + v; return old; }
template <class T> T atomicMax(T* at, T v) { T old = *at; *at = std::max(old, v); return old; }
template <class T> T atomicMin(T* at, T v) { T old = *at; *at = std::min(old, v); return old; }

inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
