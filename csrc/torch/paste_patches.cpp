// paste_patches_: schema, CPU kernel and CUDA binding.
#include "ops/paste/cells.h"

namespace mga {
namespace {

constexpr const char* kOp = "paste_patches_";

PasteShape check(const Tensor& image, const Tensor& patches, const Tensor& indices) {
  STD_TORCH_CHECK(image.dim() == 4 && patches.dim() == 4, kOp, ": image must be (B, C, H, W), patches (B*K, C, q, q)");
  STD_TORCH_CHECK(image.scalar_type() == patches.scalar_type(), kOp, ": image and patches must have one dtype");
  const int64_t side = patches.size(3);
  STD_TORCH_CHECK(side >= 1 && patches.size(2) == side, kOp, ": patches must be square");
  PasteShape shape = paste_shape(kOp, image, patches, indices, side);
  STD_TORCH_CHECK(patches.size(0) == indices.numel() && patches.size(1) == image.size(1), kOp, ": ", patches.size(0),
                  " patches of ", patches.size(1), " channels for ", indices.numel(), " indices and ", image.size(1),
                  " channels");
  for (int i = 0; i < 4; ++i) shape.patch_stride[i] = patches.stride(i);
  return shape;
}

void paste_patches_cpu(Tensor image, const Tensor& patches, const Tensor& indices) {
  const PasteShape shape = check(image, patches, indices);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  check_inside(kOp, index, indices.numel(), shape.rows, shape.columns);
  if (patches.numel() == 0) return;
  const Box box = box_of(shape);
  with_item(kOp, image, [&](auto item) {
    auto* to = static_cast<decltype(item)*>(image.mutable_data_ptr());
    const auto* from = static_cast<const decltype(item)*>(patches.const_data_ptr());
    for_each_cell(index, shape, [&] {
      return [&](int64_t m, int64_t offset) { copy_box(to + offset, from + m * shape.patch_stride[0], box); };
    });
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
