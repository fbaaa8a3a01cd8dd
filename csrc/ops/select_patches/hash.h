// The integer hash behind order "random". mga_kernels/ops/select_patches/reference.py computes the same numbers in
// int64, which is why both multipliers stay below 2^31: no product of a 32-bit value reaches 2^63.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define MGA_HOST_DEVICE __host__ __device__
#else
#define MGA_HOST_DEVICE
#endif

namespace mga {

MGA_HOST_DEVICE inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x31848babu;
  return x ^ (x >> 16);
}

// A bijection of the cell index for every seed, so two cells of one image never tie.
MGA_HOST_DEVICE inline uint32_t cell_hash(uint32_t cell, uint32_t seed) {
  return mix(mix(cell + 0x9e3779b9u) ^ mix(seed + 0x9e3779b9u));
}

}  // namespace mga
