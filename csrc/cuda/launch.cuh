// What every .cu includes: the CUDA headers, the launch macros and small helpers. The macros are the one piece of CUDA
// syntax that g++ cannot read; with them the kernels also compile for the CPU emulation in tests/cuda_emulation
// (MGA_CPU_EMU).
#pragma once
#ifdef MGA_CPU_EMU
#include "cuda_emu.h"
#define MGA_LAUNCH_SHARED(kernel, grid, block, shared, stream, ...) \
  do {                                                              \
    (void)(stream);                                                 \
    emu::launch(grid, block, shared, [&] { kernel(__VA_ARGS__); }); \
  } while (0)
#define MGA_DYNAMIC_SHARED(name) unsigned char* name = emu::dynamic_shared()
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define MGA_LAUNCH_SHARED(kernel, grid, block, shared, stream, ...) \
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define MGA_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif
#define MGA_LAUNCH(kernel, grid, block, stream, ...) MGA_LAUNCH_SHARED(kernel, grid, block, 0, stream, __VA_ARGS__)
#ifdef __CUDACC__
#define MGA_UNROLL _Pragma("unroll")
#define MGA_UNROLL_BY(n) MGA_PRAGMA(unroll n)
#define MGA_PRAGMA(text) _Pragma(#text)
#else
#define MGA_UNROLL
#define MGA_UNROLL_BY(n)
#endif
#include <cstdint>

#include "cuda/kernels.h"

namespace mga {

// Blocks for a grid-stride loop over n items: enough to fill any GPU, no more than it needs.
inline dim3 blocks_for(int64_t n, int64_t threads) {
  const int64_t wanted = (n + threads - 1) / threads;
  return dim3(static_cast<unsigned>(wanted < 65536 ? wanted : 65536));
}

// Division of n < 2^31 by a number that the host knows: a multiplication, an addition and a shift. Without it the
// index arithmetic of a copy costs more than the copy.
struct FastDivisor {
  uint32_t divisor = 1, magic = 0, shift = 0;

  FastDivisor() = default;
  explicit FastDivisor(int64_t d) : divisor(uint32_t(d)) {
    while ((uint64_t(1) << shift) < divisor) ++shift;
    magic = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - divisor)) / divisor + 1);
  }
  // n / divisor; the remainder goes to `rest`.
  __device__ __forceinline__ uint32_t operator()(uint32_t n, uint32_t& rest) const {
    const uint32_t high = uint32_t((uint64_t(magic) * n) >> 32);
    const uint32_t quotient = (high + n) >> shift;
    rest = n - quotient * divisor;
    return quotient;
  }
};

// The items of a patch in parts for a warp each: one where there are many patches, else enough to fill any GPU.
struct WarpParts {
  uint32_t items = 0, part = 0, parts = 0;  // of a patch, of a part, a patch

  WarpParts() = default;
  WarpParts(int64_t items_of_patch, int64_t patches) : items(uint32_t(items_of_patch)) {
    constexpr int64_t kEnoughWarps = 4096;
    const int64_t wanted = (kEnoughWarps + patches - 1) / patches, turns = (items_of_patch + 31) / 32;
    part = uint32_t((turns + wanted - 1) / wanted * 32);
    parts = (items + part - 1) / part;
  }
};

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// Element i of an array whose type is known at run time; all threads take the same branch.
__device__ __forceinline__ float load_real(const void* array, int64_t i, Real type) {
  if (type == Real::f16) return to_float(static_cast<const __half*>(array)[i]);
  if (type == Real::bf16) return to_float(static_cast<const __nv_bfloat16*>(array)[i]);
  return static_cast<const float*>(array)[i];
}

// Calls `launch` with a zero of an unsigned type of that many bytes.
template <typename Launch>
int launch_by_width(int width, Launch launch) {
  switch (width) {
    case 1:
      return launch(uint8_t{});
    case 2:
      return launch(uint16_t{});
    case 4:
      return launch(uint32_t{});
    case 8:
      return launch(uint2{});
    case 16:
      return launch(uint4{});
    default:
      return int(cudaErrorInvalidValue);
  }
}

// The widest of 16, 8, 4, 2 and 1 bytes that divides every number given: what a thread may move at once.
template <typename... N>
inline int widest_access(N... bytes) {
  uint64_t all = 16;
  for (const uint64_t number : {uint64_t(bytes)...}) all |= number;
  int width = 1;
  while (width < 16 && all % (2 * width) == 0) width *= 2;
  return width;
}

}  // namespace mga
