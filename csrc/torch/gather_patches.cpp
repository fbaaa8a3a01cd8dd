// gather_patches: schema, CPU kernel and CUDA binding.
#include <vector>

#include "ops/gather_patches/patch.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "gather_patches";

template <typename T>
void gather(const void* feature, const int32_t* indices, void* patches, const GatherShape& s) {
  const int64_t patch_items = s.channels * s.side() * s.side();
  const int64_t grain = rows_at_once(patch_items / 2);
  torch::stable::parallel_for(0, s.batch * s.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const T* image = static_cast<const T*>(feature) + m / s.count * s.stride[0];
      T* patch = static_cast<T*>(patches) + m * patch_items;
      const int64_t top = indices[m] / s.columns() * s.patch_size - s.halo;
      const int64_t left = indices[m] % s.columns() * s.patch_size - s.halo;
      (s.channels_last ? gather_pixels<T> : gather_planes<T>)(image, patch, s, top, left);
    }
  });
}

GatherShape check(const Tensor& feature, const Tensor& indices, int64_t patch_size, int64_t halo) {
  STD_TORCH_CHECK(feature.dim() == 4, kOp, ": feature must be (B, C, H, W)");
  STD_TORCH_CHECK(patch_size >= 1 && halo >= 0, kOp, ": patch_size must be at least 1 and halo at least 0");
  STD_TORCH_CHECK(feature.size(2) % patch_size == 0 && feature.size(3) % patch_size == 0, kOp, ": a ", feature.size(2),
                  "x", feature.size(3), " feature does not divide into cells of ", patch_size, "; pad it first");
  check_indices(kOp, indices, feature.size(0));
  GatherShape shape{};
  shape.batch = feature.size(0);
  shape.channels = feature.size(1);
  shape.height = feature.size(2);
  shape.width = feature.size(3);
  shape.count = indices.size(1);
  shape.patch_size = patch_size;
  shape.halo = halo;
  for (int i = 0; i < 4; ++i) shape.stride[i] = feature.stride(i);
  shape.channels_last = shape.channels > 1 && shape.stride[1] == 1;
  return shape;
}

Tensor new_patches(const Tensor& feature, const GatherShape& s) {
  using torch::headeronly::MemoryFormat;
  const std::vector<int64_t> sizes{s.batch * s.count, s.channels, s.side(), s.side()};
  return torch::stable::empty(sizes, feature.scalar_type(), std::nullopt, feature.device(), std::nullopt,
                              s.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor gather_patches_cpu(const Tensor& feature, const Tensor& indices, int64_t patch_size, int64_t halo) {
  const GatherShape shape = check(feature, indices, patch_size, halo);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  check_inside(kOp, index, indices.numel(), shape.rows(), shape.columns());
  Tensor patches = new_patches(feature, shape);
  if (patches.numel() == 0) return patches;
  with_item(kOp, feature, [&](auto item) {
    gather<decltype(item)>(feature.const_data_ptr(), index, patches.mutable_data_ptr(), shape);
  });
  return patches;
}

#ifdef MGA_WITH_CUDA
Tensor gather_patches_gpu(const Tensor& feature, const Tensor& indices, int64_t patch_size, int64_t halo) {
  const torch::stable::accelerator::DeviceGuard guard(feature.get_device_index());
  const GatherShape shape = check(feature, indices, patch_size, halo);
  Tensor patches = new_patches(feature, shape);
  if (patches.numel() == 0) return patches;
  check_launch(kOp, gather_patches_cuda(feature.const_data_ptr(), static_cast<const int32_t*>(indices.const_data_ptr()),
                                        patches.mutable_data_ptr(), shape, item_size(kOp, feature),
                                        current_stream(kOp, feature)));
  return patches;
}
#endif

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("gather_patches(Tensor feature, Tensor indices, int patch_size, int halo) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("gather_patches", TORCH_BOX(&mga::gather_patches_cpu)); }
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("gather_patches", TORCH_BOX(&mga::gather_patches_gpu)); }
#endif
