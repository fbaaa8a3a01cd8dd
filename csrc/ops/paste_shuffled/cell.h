// paste_shuffled_ on the CPU: a cell as the image holds it.
#pragma once
#include <vector>

#include "ops/paste/box.h"

namespace mga {

// A cell is put together in a buffer, in the order of the image's memory, and then copied. `order` says where in the
// patch each number of the buffer comes from, shuffle and all, in elements.
struct Cell {
  std::vector<int64_t> order;
  Box box;

  Cell(const PasteShape& s, int64_t scale) : order(s.channels * s.side * s.side) {
    PasteShape dense = s;
    const int64_t sizes[4] = {0, s.channels, s.side, s.side};
    const int* axes = cell_axes(s);
    int64_t step = 1;
    for (int i = 2; i >= 0; step *= sizes[axes[i--]]) dense.patch_stride[axes[i]] = step;
    box = box_of(dense);
    for (int64_t c = 0; c < s.channels; ++c) {
      for (int64_t y = 0; y < s.side; ++y) {
        for (int64_t x = 0; x < s.side; ++x) {
          const int64_t channel = (c * scale + y % scale) * scale + x % scale;
          order[c * dense.patch_stride[1] + y * dense.patch_stride[2] + x * dense.patch_stride[3]] =
              channel * s.patch_stride[1] + y / scale * s.patch_stride[2] + x / scale * s.patch_stride[3];
        }
      }
    }
  }
};

}  // namespace mga
