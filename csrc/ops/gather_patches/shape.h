// The geometry of gather_patches, for the CPU and for CUDA.
#pragma once
#include <cstdint>

namespace mga {

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

}  // namespace mga
