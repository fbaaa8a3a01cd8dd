// pack_map_weight: the weight of a convolution in the order in which convolve_maps_ reads it.
#include <vector>

#include "maps/layout.h"
#include "torch/glue.h"

namespace mga {
namespace {

const double kRoot = 0.70710678118654752440;  // of 1/2

// The transformation of a kernel of three values to m + 2 positions; see Transform in winograd.h for the points.
std::vector<std::vector<double>> positions_of_kernel(int64_t tile) {
  if (tile == 4) {
    const double a = kRoot, b = 2 * kRoot;
    return {{1, 0, 0},
            {-2. / 3, -2. / 3 * a, -1. / 3},
            {-2. / 3, 2. / 3 * a, -1. / 3},
            {1. / 6, b / 6, 1. / 3},
            {1. / 6, -b / 6, 1. / 3},
            {0, 0, 1}};
  }
  return {{1, 0, 0},
          {-2. / 9, -2. / 9, -2. / 9},
          {-2. / 9, 2. / 9, -2. / 9},
          {1. / 90, 1. / 45, 2. / 45},
          {1. / 90, -1. / 45, 2. / 45},
          {1. / 45, 1. / 90, 1. / 180},
          {1. / 45, -1. / 90, 1. / 180},
          {0, 0, 1}};
}

// Position (i, j) of a 3x3 kernel.
double at_position(const float* kernel, const std::vector<double>& i, const std::vector<double>& j) {
  double sum = 0;
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 3; ++x) sum += i[y] * j[x] * kernel[3 * y + x];
  }
  return sum;
}

// weight float32 (C', C, n, n), contiguous -> see packed_floats.
Tensor pack_map_weight(const Tensor& weight, int64_t tile) {
  constexpr const char* op = "pack_map_weight";
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 4 && weight.is_contiguous() &&
                      weight.numel() > 0 && weight.size(2) == weight.size(3),
                  op, ": weight must be float32 (C', C, n, n), contiguous");
  const int64_t outputs = weight.size(0), inputs = weight.size(1), size = weight.size(2), taps = size * size;
  STD_TORCH_CHECK(tile == 0 || ((tile == 4 || tile == 6) && size == 3 && outputs > kFewOutputs), op,
                  ": tiles of 4 or 6 are for 3x3 kernels of more than ", kFewOutputs, " channels");
  Tensor packed = torch::stable::empty({packed_floats(inputs, outputs, size, tile)}, ScalarType::Float);
  const auto* from = static_cast<const float*>(weight.const_data_ptr());
  auto* to = static_cast<float*>(packed.mutable_data_ptr());
  const auto value = [&](int64_t o, int64_t c, int64_t t) {
    return o < outputs && c < inputs ? from[(o * inputs + c) * taps + t] : 0.f;
  };
  if (outputs <= kFewOutputs) {
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t g = 0; g < groups_of(inputs); ++g) {
        for (int64_t o = 0; o < outputs; ++o) {
          for (int64_t c = g * kGroup; c < (g + 1) * kGroup; ++c) *to++ = value(o, c, t);
        }
      }
    }
    return packed;
  }
  const int64_t vectors = groups_of(outputs);
  for (int64_t first = 0, nv; first < vectors; first += nv) {
    nv = panel_of(vectors - first);
    const int64_t begin = first * kGroup, end = begin + nv * kGroup;
    if (tile == 0) {
      for (int64_t t = 0; t < taps; ++t) {
        for (int64_t c = 0; c < inputs; ++c) {
          for (int64_t o = begin; o < end; ++o) *to++ = value(o, c, t);
        }
      }
      continue;
    }
    const auto positions = positions_of_kernel(tile);
    for (const auto& i : positions) {
      for (const auto& j : positions) {
        for (int64_t c = 0; c < inputs; ++c) {
          for (int64_t o = begin; o < end; ++o) {
            *to++ = o < outputs ? float(at_position(from + (o * inputs + c) * taps, i, j)) : 0.f;
          }
        }
      }
    }
  }
  if (tile == 0) return packed;
  for (int64_t t = 0; t < taps; ++t) {
    for (int64_t c = 0; c < inputs; ++c) {
      for (int64_t o = 0; o < vectors * kGroup; ++o) *to++ = value(o, c, t);
    }
  }
  return packed;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) { m.def("pack_map_weight(Tensor weight, int tile) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("pack_map_weight", TORCH_BOX(&mga::pack_map_weight)); }
