// Maps of a network (element.cuh) held as the 16 bytes they are read by, so that many are on their way in few registers.
#pragma once
#include "common/element.cuh"

// 16 bytes of a map as N floats.
__device__ __forceinline__ void unpack(const uint4& from, float (&v)[4]) {
  v[0] = __uint_as_float(from.x), v[1] = __uint_as_float(from.y), v[2] = __uint_as_float(from.z), v[3] = __uint_as_float(from.w);
}
__device__ __forceinline__ void unpack(const uint4& from, float (&v)[8]) {
  const uint32_t words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = half_to_float((uint16_t)(words[i] & 0xffffu));
    v[2 * i + 1] = half_to_float((uint16_t)(words[i] >> 16));
  }
}
