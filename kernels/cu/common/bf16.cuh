// bf16 on tensor cores, compute_80 and above: rounding, fragments, products with f32 sums.
#pragma once
#include "common/device.cuh"

#if !defined(EMU) && __CUDA_ARCH__ >= 800
// As ldmatrix_x4; TURNED: each matrix transposed on its way.
template <bool TURNED> __device__ __forceinline__ void matrices(uint32_t (&r)[4], const void* row) {
  if (!TURNED) return ldmatrix_x4(r, row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// Two numbers rounded to bf16, to nearest, ties to even; the first is the lower half.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
// As mma_f16, with bf16 in.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
