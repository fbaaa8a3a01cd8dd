// CPU kernels that gain from wide vectors. Each is compiled once for every instruction set below, from the same source
// (isa_*.cpp), and the best set that this processor has is chosen at the first call. No torch header.
#pragma once
#include <cstdint>

#include "../cuda_kernels.h"

namespace mga {

// The whole mask head. Strides are in elements, in the order batch, channel, row, column.
struct MaskHeadTask {
  const void* feature;  // (batch, channels, height, width); f16, bf16 or f32
  Real dtype;           // of the feature
  int64_t batch, channels, height, width;
  int64_t stride[4];
  int64_t patch_size;
  int64_t hidden;        // C'
  const float* weight1;  // (hidden, channels, 3, 3)
  const float* bias1;    // (hidden)
  const float* weight2;  // (hidden, 3, 3): of the second class less the first, or of the only one
  float bias2;
  bool one_channel;   // mean and leaky ReLU, no sigmoid
  bool sigmoid_first;  // before the mean
  float* probability;  // (batch, height / patch_size, width / patch_size)
};

struct CpuKernels {
  const char* name;
  // The order and format in which `mask_head_rows` reads the first convolution's weights: 32-bit words.
  int64_t (*mask_head_words)(const MaskHeadTask&);
  void (*mask_head_pack)(const MaskHeadTask&, uint32_t* packed);
  // Rows [begin, end) of cells, counted through the whole batch. False if there is no memory for it.
  bool (*mask_head_rows)(const MaskHeadTask&, const uint32_t* packed, int64_t begin, int64_t end);
};

// The kernels for this processor, or for the set that the environment variable MGA_CPU_ISA names, if it has that.
const CpuKernels& cpu_kernels();

namespace avx512_bf16 {
extern const CpuKernels kernels;
}
namespace avx512 {
extern const CpuKernels kernels;
}
namespace avx2 {
extern const CpuKernels kernels;
}
namespace baseline {
extern const CpuKernels kernels;
}

}  // namespace mga
