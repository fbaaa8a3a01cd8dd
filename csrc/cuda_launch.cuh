// What every .cu includes: the CUDA headers and a launch macro. The macro is the one piece of CUDA syntax that g++
// cannot read; with it the kernels also compile for the CPU emulation in tests/cuda_emulation (MGA_CPU_EMU).
#pragma once
#ifdef MGA_CPU_EMU
#include "cuda_emu.h"
#define MGA_LAUNCH(kernel, grid, block, stream, ...)           \
  do {                                                         \
    (void)(stream);                                            \
    emu::launch(grid, block, 0, [&] { kernel(__VA_ARGS__); }); \
  } while (0)
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define MGA_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif
#include <cstdint>

#include "cuda_kernels.h"

namespace mga {

// Blocks for a grid-stride loop over n items: enough to fill any GPU, no more than it needs.
inline dim3 blocks_for(int64_t n, int64_t threads) {
  const int64_t wanted = (n + threads - 1) / threads;
  return dim3(static_cast<unsigned>(wanted < 65536 ? wanted : 65536));
}

}  // namespace mga
