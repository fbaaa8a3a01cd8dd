// paste_shuffled_: schema, CPU kernel and CUDA binding.
#include "ops/kernels.h"
#include "ops/paste/cells.h"
#include "ops/paste_shuffled/cell.h"

namespace mga {
namespace {

constexpr const char* kOp = "paste_shuffled_";

PasteShape check(const Tensor& image, const Tensor& patches, const Tensor& indices, int64_t scale) {
  STD_TORCH_CHECK(image.dim() == 4 && patches.dim() == 4, kOp,
                  ": image must be (B, C, H, W), patches (B*K, C*r*r, m, m)");
  STD_TORCH_CHECK(scale >= 1, kOp, ": scale must be at least 1");
  real_of(kOp, patches);
  const int64_t count = indices.numel(), channels = image.size(1) * scale * scale;
  STD_TORCH_CHECK(patches.size(0) == count && patches.size(1) == channels && patches.size(2) == patches.size(3) &&
                      patches.size(2) >= 1,
                  kOp, ": patches must be (", count, ", ", channels, ", m, m)");
  PasteShape shape = paste_shape(kOp, image, patches, indices, patches.size(3) * scale);
  for (int i = 0; i < 4; ++i) shape.patch_stride[i] = patches.stride(i);
  return shape;
}

Pixel pixel_of(const Tensor& image) {
  if (image.scalar_type() == ScalarType::Byte) return Pixel::u8;
  switch (real_of(kOp, image)) {
    case Real::f16:
      return Pixel::f16;
    case Real::bf16:
      return Pixel::bf16;
    case Real::f32:
      return Pixel::f32;
    default:
      return Pixel::f64;
  }
}

void paste_shuffled_cpu(Tensor image, const Tensor& patches, const Tensor& indices, int64_t scale, double gain) {
  const PasteShape shape = check(image, patches, indices, scale);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  check_inside(kOp, index, indices.numel(), shape.rows, shape.columns);
  if (patches.numel() == 0) return;
  const Cell cell(shape, scale);
  const int64_t n = int64_t(cell.order.size());
  const Real dtype = real_of(kOp, patches);
  const Pixel pixel = pixel_of(image);
  const OperatorKernels& kernels = operator_kernels();
  with_item(kOp, image, [&](auto to_item) {
    with_item(kOp, patches, [&](auto from_item) {
      auto* to = static_cast<decltype(to_item)*>(image.mutable_data_ptr());
      const auto* from = static_cast<const decltype(from_item)*>(patches.const_data_ptr());
      for_each_cell(index, shape, [&] {
        return [&, numbers = std::vector<decltype(from_item)>(n), pixels = std::vector<decltype(to_item)>(n)](
                   int64_t m, int64_t offset) mutable {
          const auto* patch = from + m * shape.patch_stride[0];
          for (int64_t i = 0; i < n; ++i) numbers[i] = patch[cell.order[i]];
          kernels.units_to_pixels(numbers.data(), dtype, n, gain, pixel, pixels.data());
          copy_box(to + offset, pixels.data(), cell.box);
        };
      });
    });
  });
}

#ifdef MGA_WITH_CUDA
void paste_shuffled_gpu(Tensor image, const Tensor& patches, const Tensor& indices, int64_t scale, double gain) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const PasteShape paste = check(image, patches, indices, scale);
  const Real dtype = real_of(kOp, patches);
  STD_TORCH_CHECK(dtype != Real::f64 && image.scalar_type() != ScalarType::Double, kOp,
                  ": float64 is left to the reference on CUDA");
  if (patches.numel() == 0 || image.numel() == 0) return;
  ShuffleShape shape{};
  shape.batch = paste.batch;
  shape.channels = paste.channels;
  shape.rows = paste.rows;
  shape.columns = paste.columns;
  shape.count = paste.count;
  shape.scale = scale;
  shape.side = patches.size(3);
  std::copy_n(paste.image_stride, 4, shape.image_stride);
  std::copy_n(paste.patch_stride, 4, shape.patch_stride);
  shape.gain = float(gain);
  check_launch(kOp, paste_shuffled_cuda(image.mutable_data_ptr(), pixel_of(image), patches.const_data_ptr(), dtype,
                                        static_cast<const int32_t*>(indices.const_data_ptr()), shape,
                                        current_stream(kOp, image)));
}
#endif

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("paste_shuffled_(Tensor(a!) image, Tensor patches, Tensor indices, int scale, float gain) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("paste_shuffled_", TORCH_BOX(&mga::paste_shuffled_cpu)); }
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("paste_shuffled_", TORCH_BOX(&mga::paste_shuffled_gpu)); }
#endif
