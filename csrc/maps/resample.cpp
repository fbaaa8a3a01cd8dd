// map_interpolate_: a smaller image into groups of a float map, bilinearly.
#include <vector>

#include "convolution/layout.h"
#include "maps/float_map.h"

namespace mga {
namespace {

Half between(const float* first, const float* second, float share) {
  const Half from = load(first);
  return from + (load(second) - from) * share;
}

// One row between two of an image (channels, rows, columns): of each column the 8 channels from `channel` on, zeros
// beyond the last of them.
void line_between(const float* data, int64_t channels, int64_t rows, int64_t columns, int64_t channel,
                  const Position& row, float* line) {
  for (int64_t lane = 0; lane < kGroup; ++lane) {
    const bool there = channel + lane < channels;
    const float* const plane = data + (there ? channel + lane : 0) * rows * columns;
    const float *const above = plane + row.first * columns, *const below = plane + row.second * columns;
    for (int64_t x = 0; x < columns; ++x) {
      line[x * kGroup + lane] = there ? above[x] + row.share * (below[x] - above[x]) : 0.f;
    }
  }
}

// x float32 (channels, h, w) -> height x width pixels of the groups from `group` on, with align_corners=False.
void map_interpolate(const Tensor& out, int64_t group, const Tensor& x, int64_t height, int64_t width) {
  constexpr const char* op = "map_interpolate_";
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 3 && x.is_contiguous() && x.numel() > 0, op,
                  ": x must be float32 (channels, h, w), contiguous");
  const int64_t channels = x.size(0), rows = x.size(1), columns = x.size(2), groups = groups_of(channels);
  STD_TORCH_CHECK(group >= 0, op, ": there is no group ", group);
  const FloatMap to(op, "out", out, group + groups, height, width);
  std::vector<Position> places;
  for (int64_t i = 0; i < width; ++i) places.emplace_back(i, columns, width);
  const auto* const data = static_cast<const float*>(x.const_data_ptr());
  torch::stable::parallel_for(0, height, rows_at_once(width * groups * kGroup), [&](int64_t y, int64_t end) {
    std::vector<float> line(columns * kGroup);
    for (; y < end; ++y) {
      const Position row(y, rows, height);
      for (int64_t g = 0; g < groups; ++g) {
        line_between(data, channels, rows, columns, g * kGroup, row, line.data());
        float* pixel = to.at(group + g, y, 0);
        for (const Position& place : places) {
          const float* const first = line.data() + place.first * kGroup;
          const float* const second = line.data() + place.second * kGroup;
          for (int64_t i = 0; i < kGroup; i += kHalf) store(pixel + i, between(first + i, second + i, place.share));
          pixel += kGroup;
        }
      }
    }
  });
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("map_interpolate_(Tensor(a!) out, int group, Tensor x, int height, int width) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("map_interpolate_", TORCH_BOX(&mga::map_interpolate)); }
