// gather_patches: schema, CPU kernel and CUDA binding.
#include <algorithm>
#include <cstring>
#include <vector>

#include "torch_glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "gather_patches";

// `n` elements, `step` apart in memory, into a dense row.
template <typename T>
void copy_run(T* to, const T* from, int64_t n, int64_t step) {
  if (step == 1) {
    std::memcpy(to, from, n * sizeof(T));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
  }
}

// The part of a patch's row or column that lies inside the feature: positions [begin, end) of `side`.
struct Span {
  int64_t begin, end;
  Span(int64_t first, int64_t side, int64_t limit)
      : begin(std::clamp<int64_t>(-first, 0, side)), end(std::clamp<int64_t>(limit - first, begin, side)) {}
};

// One patch whose first pixel is (top, left) of the feature; `image` points at pixel (0, 0) of channel 0.
template <typename T>
void gather_planes(const T* image, T* patch, const GatherShape& s, int64_t top, int64_t left) {
  const int64_t side = s.side();
  const Span rows(top, side, s.height), columns(left, side, s.width);
  for (int64_t c = 0; c < s.channels; ++c, patch += side * side) {
    std::fill_n(patch, rows.begin * side, T(0));
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      T* to = patch + y * side;
      const T* from = image + c * s.stride[1] + (top + y) * s.stride[2] + (left + columns.begin) * s.stride[3];
      std::fill_n(to, columns.begin, T(0));
      copy_run(to + columns.begin, from, columns.end - columns.begin, s.stride[3]);
      std::fill_n(to + columns.end, side - columns.end, T(0));
    }
    std::fill_n(patch + rows.end * side, (side - rows.end) * side, T(0));
  }
}

// The same for a feature and a result whose channels are innermost.
template <typename T>
void gather_pixels(const T* image, T* patch, const GatherShape& s, int64_t top, int64_t left) {
  const int64_t side = s.side(), row = side * s.channels;
  const Span rows(top, side, s.height), columns(left, side, s.width);
  std::fill_n(patch, rows.begin * row, T(0));
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    T* to = patch + y * row;
    const T* from = image + (top + y) * s.stride[2] + (left + columns.begin) * s.stride[3];
    std::fill_n(to, columns.begin * s.channels, T(0));
    if (s.stride[3] == s.channels) {
      copy_run(to + columns.begin * s.channels, from, (columns.end - columns.begin) * s.channels, 1);
    } else {
      for (int64_t x = columns.begin; x < columns.end; ++x, from += s.stride[3]) {
        copy_run(to + x * s.channels, from, s.channels, 1);
      }
    }
    std::fill_n(to + columns.end * s.channels, (side - columns.end) * s.channels, T(0));
  }
  std::fill_n(patch + rows.end * row, (side - rows.end) * row, T(0));
}

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
