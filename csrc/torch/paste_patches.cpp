// paste_patches_: schema, CPU kernel and CUDA binding.
#include <vector>

#include "ops/paste_patches/box.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "paste_patches_";

PasteShape check(const Tensor& image, const Tensor& patches, const Tensor& indices) {
  STD_TORCH_CHECK(image.dim() == 4 && patches.dim() == 4, kOp, ": image must be (B, C, H, W), patches (B*K, C, q, q)");
  STD_TORCH_CHECK(image.scalar_type() == patches.scalar_type(), kOp, ": image and patches must have one dtype");
  STD_TORCH_CHECK(image.get_device() == patches.get_device() && image.get_device() == indices.get_device(), kOp,
                  ": image, patches and indices must be on one device");
  const int64_t side = patches.size(3);
  STD_TORCH_CHECK(side >= 1 && patches.size(2) == side, kOp, ": patches must be square");
  check_indices(kOp, indices, image.size(0));
  STD_TORCH_CHECK(image.size(2) % side == 0 && image.size(3) % side == 0, kOp, ": a ", image.size(2), "x",
                  image.size(3), " image does not divide into cells of ", side);
  STD_TORCH_CHECK(patches.size(0) == indices.numel() && patches.size(1) == image.size(1), kOp, ": ", patches.size(0),
                  " patches of ", patches.size(1), " channels for ", indices.numel(), " indices and ", image.size(1),
                  " channels");
  PasteShape shape{};
  shape.batch = image.size(0);
  shape.channels = image.size(1);
  shape.rows = image.size(2) / side;
  shape.columns = image.size(3) / side;
  shape.count = indices.size(1);
  shape.side = side;
  for (int i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(image.size(i) < 2 || image.stride(i) != 0, kOp, ": the image is an expanded tensor; clone it first");
    shape.image_stride[i] = image.stride(i);
    shape.patch_stride[i] = patches.stride(i);
  }
  return shape;
}

// For every cell the last patch that names it, so that threads need not keep the order of the list. -1: none.
std::vector<int64_t> last_writers(const int32_t* indices, const PasteShape& s) {
  std::vector<int64_t> writer(s.batch * s.rows * s.columns, -1);
  for (int64_t m = 0; m < s.batch * s.count; ++m) writer[m / s.count * s.rows * s.columns + indices[m]] = m;
  return writer;
}

template <typename T>
void paste(T* image, const T* patches, const int32_t* indices, const PasteShape& s) {
  const std::vector<int64_t> writer = last_writers(indices, s);
  const Box box = box_of(s);
  const int64_t grain = rows_at_once(s.channels * s.side * s.side);
  torch::stable::parallel_for(0, s.batch * s.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const int64_t b = m / s.count;
      if (writer[b * s.rows * s.columns + indices[m]] != m) continue;
      const int64_t top = indices[m] / s.columns * s.side, left = indices[m] % s.columns * s.side;
      T* to = image + b * s.image_stride[0] + top * s.image_stride[2] + left * s.image_stride[3];
      copy_box(to, patches + m * s.patch_stride[0], box);
    }
  });
}

void paste_patches_cpu(Tensor image, const Tensor& patches, const Tensor& indices) {
  const PasteShape shape = check(image, patches, indices);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  check_inside(kOp, index, indices.numel(), shape.rows, shape.columns);
  if (patches.numel() == 0) return;
  with_item(kOp, image, [&](auto item) {
    paste(static_cast<decltype(item)*>(image.mutable_data_ptr()),
          static_cast<const decltype(item)*>(patches.const_data_ptr()), index, shape);
  });
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
