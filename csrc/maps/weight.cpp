// pack_map_weight: the weight of a convolution in the order in which convolve_maps_ reads it.
#include "maps/pack.h"
#include "torch/glue.h"

namespace mga {
namespace {

// weight float32 (C', C, n, n), contiguous -> see packed_floats.
Tensor pack_map_weight(const Tensor& weight, int64_t tile) {
  constexpr const char* op = "pack_map_weight";
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.dim() == 4 && weight.is_contiguous() &&
                      weight.numel() > 0 && weight.size(2) == weight.size(3),
                  op, ": weight must be float32 (C', C, n, n), contiguous");
  const int64_t outputs = weight.size(0), inputs = weight.size(1), size = weight.size(2);
  STD_TORCH_CHECK(tile == 0 || (has_tiles(size, tile) && outputs > kFewOutputs), op,
                  ": tiles of 4 are for 3x3 and 5x5, of 6 for 3x3 kernels of more than ", kFewOutputs, " channels");
  Tensor packed = torch::stable::empty({packed_floats(inputs, outputs, size, tile)}, ScalarType::Float);
  pack_weight(map_kernels(), {static_cast<const float*>(weight.const_data_ptr()), outputs, inputs, size}, tile,
              static_cast<float*>(packed.mutable_data_ptr()));
  return packed;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) { m.def("pack_map_weight(Tensor weight, int tile) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("pack_map_weight", TORCH_BOX(&mga::pack_map_weight)); }
