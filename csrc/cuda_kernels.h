// The interface between the torch bindings (.cpp) and the CUDA kernels (.cu): raw pointers, int64 sizes, no torch
// header and no CUDA header, so that every .cu compiles in seconds and with any torch. Every launcher takes a
// cudaStream_t as void* and returns a cudaError_t as int, 0 when the launch was accepted.
#pragma once
#include <cstdint>

namespace mga {

enum class Order { largest, smallest, random };
enum class Real { f16, bf16, f32, f64 };

// Strides are in elements, in the order batch, channel, row, column.
struct GatherShape {
  int64_t batch, channels, height, width;
  int64_t count;       // patches per image
  int64_t patch_size;  // p
  int64_t halo;        // h
  int64_t stride[4];   // of the feature
  bool channels_last;  // of the result

  int64_t rows() const { return height / patch_size; }
  int64_t columns() const { return width / patch_size; }
  int64_t side() const { return patch_size + 2 * halo; }
};

struct PasteShape {
  int64_t batch, channels, rows, columns;  // rows and columns of cells
  int64_t count;                           // patches per image
  int64_t side;                            // q, of a cell and of a patch
  int64_t image_stride[4];
  int64_t patch_stride[4];
};

// mask (batch, cells) contiguous -> indices (batch, count), ascending; 0 <= count <= cells.
int select_patches_cuda(const void* mask, Real dtype, int32_t* indices, int64_t batch, int64_t cells, int64_t count,
                        Order order, uint32_t seed, void* stream);

// feature (batch, channels, height, width) by stride, indices (batch, count) -> patches, dense.
int gather_patches_cuda(const void* feature, const int32_t* indices, void* patches, const GatherShape& shape,
                        int item_size, void* stream);

// image (batch, channels, rows * side, columns * side) and patches (batch * count, channels, side, side) by stride.
int paste_patches_cuda(void* image, const void* patches, const int32_t* indices, const PasteShape& shape, int item_size,
                       void* stream);

const char* cuda_error_text(int error);

}  // namespace mga
