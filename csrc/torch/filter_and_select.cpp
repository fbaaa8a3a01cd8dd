// filter_and_select: schema, CPU and CUDA bindings.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "torch/operators_cpu.h"

namespace mga {
namespace {

std::tuple<Tensor, Tensor> filter_and_select_cpu(const Tensor& probability, const Tensor& source, const Tensor& weight,
                                                 const Tensor& bias, int64_t k, std::string order, int64_t seed) {
  const Tensor mask = dynamic_filter_cpu(probability, source, weight, bias);
  return {mask, select_patches_cpu(mask, k, order, seed)};
}

#ifdef MGA_WITH_CUDA
constexpr const char* kOp = "filter_and_select";

FilterTask check(const Tensor& probability, const Tensor& source, const Tensor& weight, const Tensor& bias) {
  STD_TORCH_CHECK(probability.dim() == 3 && real_of(kOp, probability) == Real::f32, kOp,
                  ": probability must be float32 (B, Hp, Wp) on CUDA");
  STD_TORCH_CHECK(source.dim() == 4 && source.size(0) == probability.size(0) && source.size(2) == probability.size(1) &&
                      source.size(3) == probability.size(2),
                  kOp, ": source must be (B, S, Hp, Wp)");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == source.size(1) && weight.size(2) * weight.size(3) == 1 &&
                      bias.numel() == weight.size(0),
                  kOp, ": weight must be (25, S, 1, 1) and bias (25)");
  for (const Tensor& tensor : {source, weight, bias}) {
    STD_TORCH_CHECK(tensor.get_device() == probability.get_device(), kOp, ": all tensors must be on one device");
  }
  FilterTask shape{};
  shape.batch = probability.size(0);
  shape.rows = int(probability.size(1));
  shape.columns = int(probability.size(2));
  shape.channels = int(source.size(1));
  shape.size = int(std::lround(std::sqrt(double(weight.size(0)))));
  shape.source_type = real_of(kOp, source);
  shape.weight_type = real_of(kOp, weight);
  STD_TORCH_CHECK(shape.size * shape.size == weight.size(0) && shape.size % 2 == 1 && shape.size <= 7, kOp,
                  ": weight must give 1, 9, 25 or 49 coefficients on CUDA, got ", weight.size(0));
  STD_TORCH_CHECK(source.size(1) <= kMaxFilterChannels, kOp, ": source has more than ", kMaxFilterChannels,
                  " channels");
  STD_TORCH_CHECK(
      real_of(kOp, bias) == shape.weight_type && shape.weight_type != Real::f64 && shape.source_type != Real::f64, kOp,
      ": weight and bias must have one dtype, and neither they nor source may be float64 on CUDA");
  STD_TORCH_CHECK(probability.size(1) * probability.size(2) <= INT32_MAX, kOp, ": more than 2^31-1 cells");
  for (int i = 0; i < 4; ++i) shape.source_stride[i] = source.stride(i);
  return shape;
}

std::tuple<Tensor, Tensor> filter_and_select_gpu(const Tensor& probability, const Tensor& source, const Tensor& weight,
                                                 const Tensor& bias, int64_t k, std::string order, int64_t seed) {
  const torch::stable::accelerator::DeviceGuard guard(probability.get_device_index());
  FilterTask shape = check(probability, source, weight, bias);
  STD_TORCH_CHECK(k >= 0, kOp, ": k is ", k, " and must not be negative");
  STD_TORCH_CHECK(seed >= 0 && seed <= UINT32_MAX, kOp, ": seed must be in 0..2^32-1");
  const int64_t count = std::min(k, int64_t(shape.rows) * shape.columns);
  const Order wanted = parse_order(kOp, order);
  const std::vector<int64_t> index_sizes{shape.batch, count}, space{filter_and_select_workspace(shape.batch)};
  const std::vector<int64_t> sizes{shape.batch, shape.rows, shape.columns};
  Tensor mask = torch::stable::new_empty(probability, sizes);
  Tensor indices = torch::stable::new_empty(probability, index_sizes, ScalarType::Int);
  if (mask.numel() == 0) return {mask, indices};
  Tensor workspace = torch::stable::new_empty(probability, space, ScalarType::Int);
  const Tensor values = torch::stable::contiguous(probability);
  const Tensor weights = torch::stable::contiguous(weight), biases = torch::stable::contiguous(bias);
  shape.source = source.const_data_ptr();
  shape.weight = weights.const_data_ptr();
  shape.bias = biases.const_data_ptr();
  check_launch(kOp,
               filter_and_select_cuda(static_cast<const float*>(values.const_data_ptr()),
                                      static_cast<float*>(mask.mutable_data_ptr()),
                                      static_cast<int32_t*>(indices.mutable_data_ptr()), workspace.mutable_data_ptr(),
                                      shape, count, wanted, uint32_t(seed), current_stream(kOp, probability)));
  return {mask, indices};
}
#endif

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "filter_and_select(Tensor probability, Tensor source, Tensor weight, Tensor bias, int k, str order, int seed)"
      " -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("filter_and_select", TORCH_BOX(&mga::filter_and_select_cpu)); }
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("filter_and_select", TORCH_BOX(&mga::filter_and_select_gpu)); }
#endif
