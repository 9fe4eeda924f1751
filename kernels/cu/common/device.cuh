// What every kernel includes: the few instructions that need assembly, with no header of the toolkit, so that one source
// feeds NVRTC, nvcc and (with EMU defined) an ordinary C++ compiler. Kernels are compiled without contraction of a * b + c;
// a fused multiply-add is written fmaf.
#pragma once
#ifdef EMU
#include "cuda_emu.h"
#else
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
typedef unsigned char uint8_t;
typedef unsigned long long uint64_t;

// The block's dynamic shared memory; there is no other.
#define DYN_SMEM(name) extern __shared__ __align__(128) unsigned char name[]

__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ float half_to_float(uint16_t bits) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
  return v;
}
__device__ __forceinline__ uint16_t float_to_half(float v) {  // to nearest, ties to even
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
}

// Waits for all blocks of a cooperative launch. `arrived` starts at 0; `target` is each thread's own, starting at 0.
__device__ __forceinline__ void grid_barrier(unsigned* arrived, unsigned& target) {
  target += gridDim.x;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (*(volatile unsigned*)arrived < target) {}
    __threadfence();
  }
  __syncthreads();
}

#if __CUDA_ARCH__ >= 800
// 16 bytes from global to shared memory, or 16 zeros; through the multiprocessor's own cache if CACHED.
template <bool CACHED = false> __device__ __forceinline__ void cp_async16(void* to, const void* from, bool valid = true) {
  const uint32_t at = shared_address(to), bytes = valid ? 16 : 0;
  if (CACHED) asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
  else asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8 x 8 matrices of 16 bits; lane l supplies row l & 7 of matrix l >> 3.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// d += a b: 16 x 16 by 16 x 8, f16 in, f32 sums.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
#endif

#define FULL_WARP 0xffffffffu
