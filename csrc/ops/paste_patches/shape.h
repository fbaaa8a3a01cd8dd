// The geometry of paste_patches_, for the CPU and for CUDA.
#pragma once
#include <cstdint>

namespace mga {

struct PasteShape {
  int64_t batch, channels, rows, columns;  // rows and columns of cells
  int64_t count;                           // patches per image
  int64_t side;                            // q, of a cell and of a patch
  int64_t image_stride[4];
  int64_t patch_stride[4];
};

}  // namespace mga
