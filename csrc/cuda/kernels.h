// The interface between the torch bindings (.cpp) and the CUDA kernels (.cu): raw pointers, int64 sizes, no torch
// header and no CUDA header, so that every .cu compiles in seconds and with any torch. Every launcher takes a
// cudaStream_t as void* and returns a cudaError_t as int, 0 when the launch was accepted.
#pragma once
#include <cstdint>

#include "ops/gather_patches/shape.h"
#include "ops/paste_patches/shape.h"
#include "types.h"

namespace mga {

// D-Conv of a probability (batch, rows, columns), dense, by filters of size x size coefficients made from `source`.
struct FilterTask {
  int64_t batch;
  int rows, columns;
  int channels;  // S
  int size;
  const void* source;  // (batch, S, rows, columns) by stride
  int64_t source_stride[4];
  Real source_type;
  const void *weight, *bias;  // (size^2, S) and (size^2), dense
  Real weight_type;
};
constexpr int kMaxFilterChannels = 128;

// mask (batch, cells) contiguous -> indices (batch, count), ascending; 0 <= count <= cells.
int select_patches_cuda(const void* mask, Real dtype, int32_t* indices, int64_t batch, int64_t cells, int64_t count,
                        Order order, uint32_t seed, void* stream);

// -> mask like the probability and indices (batch, count), ascending, of its cells. Workspace of as many int32 as
// filter_and_select_workspace says, of any content, for this call alone.
int filter_and_select_cuda(const float* probability, float* mask, int32_t* indices, void* workspace,
                           const FilterTask& shape, int64_t count, Order order, uint32_t seed, void* stream);
int64_t filter_and_select_workspace(int64_t batch);

// feature (batch, channels, height, width) by stride, indices (batch, count) -> patches, dense.
int gather_patches_cuda(const void* feature, const int32_t* indices, void* patches, const GatherShape& shape,
                        int item_size, void* stream);

// image (batch, channels, rows * side, columns * side) and patches (batch * count, channels, side, side) by stride.
int paste_patches_cuda(void* image, const void* patches, const int32_t* indices, const PasteShape& shape, int item_size,
                       void* stream);

const char* cuda_error_text(int error);

}  // namespace mga
