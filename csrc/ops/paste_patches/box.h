// Copies of cells on the CPU, in the order of the memory of the image.
#pragma once
#include <cstdint>
#include <cstring>

#include "ops/paste_patches/shape.h"

namespace mga {

// A box of (outer, middle, inner) elements; strides in elements, outermost first.
struct Box {
  int64_t size[3], to_stride[3], from_stride[3];
};

template <typename T>
void copy_box(T* to, const T* from, const Box& box) {
  const bool dense = box.to_stride[2] == 1 && box.from_stride[2] == 1;
  for (int64_t i = 0; i < box.size[0]; ++i) {
    for (int64_t j = 0; j < box.size[1]; ++j) {
      T* to_row = to + i * box.to_stride[0] + j * box.to_stride[1];
      const T* from_row = from + i * box.from_stride[0] + j * box.from_stride[1];
      if (dense) {
        std::memcpy(to_row, from_row, box.size[2] * sizeof(T));
      } else {
        for (int64_t n = 0; n < box.size[2]; ++n) to_row[n * box.to_stride[2]] = from_row[n * box.from_stride[2]];
      }
    }
  }
}

// The axes of a cell (1 channel, 2 row, 3 column) as the memory of the image has them, outermost first: channels
// innermost where it has them so, else columns.
inline const int* cell_axes(const PasteShape& s) {
  static constexpr int kAxes[2][3] = {{1, 2, 3}, {2, 3, 1}};
  return kAxes[s.channels > 1 && s.image_stride[1] == 1];
}

inline Box box_of(const PasteShape& s) {
  const int64_t sizes[4] = {0, s.channels, s.side, s.side};
  Box box{};
  for (int i = 0; i < 3; ++i) {
    const int axis = cell_axes(s)[i];
    box.size[i] = sizes[axis];
    box.to_stride[i] = s.image_stride[axis];
    box.from_stride[i] = s.patch_stride[axis];
  }
  // Both dense over a row of pixels: one run instead of one a pixel.
  if (cell_axes(s)[2] == 1 && box.from_stride[2] == 1 && box.to_stride[1] == s.channels &&
      box.from_stride[1] == s.channels) {
    box.size[2] *= box.size[1];
    box.size[1] = 1;
  }
  return box;
}

}  // namespace mga
