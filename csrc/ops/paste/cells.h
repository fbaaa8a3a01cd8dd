// What paste_patches_ and paste_shuffled_ share: the geometry, and the walk over the patches on the CPU.
#pragma once
#include <vector>

#include "ops/paste/box.h"
#include "torch/glue.h"

namespace mga {

// The image side of a paste of (batch * count) patches that fill cells of side x side; patch strides are left to fill
// in.
inline PasteShape paste_shape(const char* op, const Tensor& image, const Tensor& patches, const Tensor& indices,
                              int64_t side) {
  STD_TORCH_CHECK(image.get_device() == patches.get_device() && image.get_device() == indices.get_device(), op,
                  ": image, patches and indices must be on one device");
  check_indices(op, indices, image.size(0));
  STD_TORCH_CHECK(side >= 1 && image.size(2) % side == 0 && image.size(3) % side == 0, op, ": a ", image.size(2), "x",
                  image.size(3), " image does not divide into cells of ", side);
  PasteShape shape{};
  shape.batch = image.size(0);
  shape.channels = image.size(1);
  shape.rows = image.size(2) / side;
  shape.columns = image.size(3) / side;
  shape.count = indices.size(1);
  shape.side = side;
  for (int i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(image.size(i) < 2 || image.stride(i) != 0, op, ": the image is an expanded tensor; clone it first");
    shape.image_stride[i] = image.stride(i);
  }
  return shape;
}

// For every cell the last patch that names it, so that threads need not keep the order of the list. -1: none.
inline std::vector<int64_t> last_writers(const int32_t* indices, const PasteShape& s) {
  std::vector<int64_t> writer(s.batch * s.rows * s.columns, -1);
  for (int64_t m = 0; m < s.batch * s.count; ++m) writer[m / s.count * s.rows * s.columns + indices[m]] = m;
  return writer;
}

// Calls `paste(m, offset)` on several threads for every patch m that stays, with the offset of its first pixel in the
// image, in elements; `worker()` makes one `paste` a thread.
template <typename Worker>
void for_each_cell(const int32_t* indices, const PasteShape& s, Worker worker) {
  const std::vector<int64_t> writer = last_writers(indices, s);
  const int64_t grain = rows_at_once(s.channels * s.side * s.side);
  torch::stable::parallel_for(0, s.batch * s.count, grain, [&](int64_t begin, int64_t end) {
    auto paste = worker();
    for (int64_t m = begin; m < end; ++m) {
      const int64_t b = m / s.count;
      if (writer[b * s.rows * s.columns + indices[m]] != m) continue;
      const int64_t top = indices[m] / s.columns * s.side, left = indices[m] % s.columns * s.side;
      paste(m, b * s.image_stride[0] + top * s.image_stride[2] + left * s.image_stride[3]);
    }
  });
}

}  // namespace mga
