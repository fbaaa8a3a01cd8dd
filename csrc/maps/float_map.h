// A float map as the operators around the convolutions see it, and what they compute with.
#pragma once
#include <cstring>

#include "maps/layout.h"
#include "torch/glue.h"

namespace mga {
namespace {

// Half of the channels of a group, which every processor has instructions for: memory is what these operators wait for.
typedef float Half __attribute__((vector_size(16)));
constexpr int64_t kHalf = kGroup / 2;

inline Half load(const float* from) {
  Half v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Half v) { std::memcpy(to, &v, sizeof v); }

// A map, of which `groups` groups of an image of this size are used.
struct FloatMap {
  float* first;  // pixel (0, 0)
  int64_t row, group;

  FloatMap(const char* op, const char* name, const Tensor& map, int64_t groups, int64_t height, int64_t width) {
    STD_TORCH_CHECK(map.scalar_type() == ScalarType::Float && map.dim() == 4 && map.size(3) == kGroup &&
                        map.is_contiguous() && groups >= 1 && groups <= map.size(1) && height >= 1 && width >= 1 &&
                        map.size(0) >= height && map.size(2) >= map_pitch(width),
                    op, ": ", name, " must be a map, float32 (rows, groups, pitch, 8), contiguous, with room for ",
                    groups, " groups of ", height, "x", width);
    first = static_cast<float*>(map.mutable_data_ptr()) + kBefore * kGroup;
    group = map.size(2) * kGroup;
    row = map.size(1) * group;
  }
  float* at(int64_t group_number, int64_t y, int64_t x) const {
    return first + y * row + group_number * group + x * kGroup;
  }
};

}  // namespace
}  // namespace mga
