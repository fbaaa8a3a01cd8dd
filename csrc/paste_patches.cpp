// paste_patches_: schema, CPU kernel and CUDA binding.
#include <algorithm>
#include <cstring>
#include <vector>

#include "torch_glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "paste_patches_";

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

// Loops follow the memory of the image: channels innermost where it has them so, else columns.
Box box_of(const PasteShape& s) {
  const bool channels_last = s.channels > 1 && s.image_stride[1] == 1;
  const int axes[2][3] = {{1, 2, 3}, {2, 3, 1}};
  const int64_t sizes[4] = {0, s.channels, s.side, s.side};
  Box box{};
  for (int i = 0; i < 3; ++i) {
    const int axis = axes[channels_last][i];
    box.size[i] = sizes[axis];
    box.to_stride[i] = s.image_stride[axis];
    box.from_stride[i] = s.patch_stride[axis];
  }
  // Both dense over a row of pixels: one run instead of one a pixel.
  if (channels_last && box.from_stride[2] == 1 && box.to_stride[1] == s.channels && box.from_stride[1] == s.channels) {
    box.size[2] *= box.size[1];
    box.size[1] = 1;
  }
  return box;
}

// For every cell the last patch that names it, so that threads need not keep the order of the list. -1: none.
std::vector<int64_t> last_writers(const int32_t* indices, const PasteShape& s) {
  std::vector<int64_t> writer(s.batch * s.rows * s.columns, -1);
  for (int64_t m = 0; m < s.batch * s.count; ++m) writer[m / s.count * s.rows * s.columns + indices[m]] = m;
  return writer;
}

template <typename T>
void paste(void* image, const void* patches, const int32_t* indices, const PasteShape& s) {
  const Box box = box_of(s);
  const std::vector<int64_t> writer = last_writers(indices, s);
  const int64_t grain = std::max<int64_t>(1, 32768 / (s.channels * s.side * s.side));
  torch::stable::parallel_for(0, s.batch * s.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const int64_t b = m / s.count;
      if (writer[b * s.rows * s.columns + indices[m]] != m) continue;
      const int64_t top = indices[m] / s.columns * s.side, left = indices[m] % s.columns * s.side;
      T* to = static_cast<T*>(image) + b * s.image_stride[0] + top * s.image_stride[2] + left * s.image_stride[3];
      copy_box(to, static_cast<const T*>(patches) + m * s.patch_stride[0], box);
    }
  });
}

PasteShape check(const Tensor& image, const Tensor& patches, const Tensor& indices) {
  STD_TORCH_CHECK(image.dim() == 4 && patches.dim() == 4, kOp, ": image must be (B, C, H, W), patches (B*K, C, q, q)");
  STD_TORCH_CHECK(image.scalar_type() == patches.scalar_type(), kOp, ": image and patches must have one dtype");
  STD_TORCH_CHECK(image.get_device() == patches.get_device() && image.get_device() == indices.get_device(), kOp,
                  ": image, patches and indices must be on one device");
  check_indices(kOp, indices, image.size(0));
  const int64_t side = patches.size(3);
  STD_TORCH_CHECK(side >= 1 && patches.size(2) == side, kOp, ": patches must be square");
  STD_TORCH_CHECK(patches.size(0) == indices.numel() && patches.size(1) == image.size(1), kOp, ": ", patches.size(0),
                  " patches of ", patches.size(1), " channels for ", indices.numel(), " indices and ", image.size(1),
                  " channels");
  STD_TORCH_CHECK(image.size(2) % side == 0 && image.size(3) % side == 0, kOp, ": a ", image.size(2), "x",
                  image.size(3), " image does not divide into cells of ", side);
  PasteShape shape{};
  shape.batch = image.size(0);
  shape.channels = image.size(1);
  shape.rows = image.size(2) / side;
  shape.columns = image.size(3) / side;
  shape.count = indices.size(1);
  shape.side = side;
  for (int i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(image.size(i) < 2 || image.stride(i) != 0, kOp,
                    ": the image is an expanded tensor; clone it first");
    shape.image_stride[i] = image.stride(i);
    shape.patch_stride[i] = patches.stride(i);
  }
  return shape;
}

void paste_patches_cpu(Tensor image, const Tensor& patches, const Tensor& indices) {
  const PasteShape shape = check(image, patches, indices);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  check_inside(kOp, index, indices.numel(), shape.rows, shape.columns);
  if (patches.numel() == 0) return;
  const auto run = [&](auto item) {
    paste<decltype(item)>(image.mutable_data_ptr(), patches.const_data_ptr(), index, shape);
  };
  switch (item_size(kOp, image)) {
    case 1:
      run(uint8_t{});
      break;
    case 2:
      run(uint16_t{});
      break;
    case 4:
      run(uint32_t{});
      break;
    default:
      run(uint64_t{});
  }
}

#ifdef MGA_WITH_CUDA
void paste_patches_gpu(Tensor image, const Tensor& patches, const Tensor& indices) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const PasteShape shape = check(image, patches, indices);
  if (patches.numel() == 0 || image.numel() == 0) return;
  check_launch(kOp, paste_patches_cuda(image.mutable_data_ptr(), patches.const_data_ptr(),
                                       static_cast<const int32_t*>(indices.const_data_ptr()), shape,
                                       item_size(kOp, image), current_stream(kOp, image)));
}
#endif

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("paste_patches_(Tensor(a!) image, Tensor patches, Tensor indices) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("paste_patches_", TORCH_BOX(&mga::paste_patches_cpu)); }
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("paste_patches_", TORCH_BOX(&mga::paste_patches_gpu)); }
#endif
