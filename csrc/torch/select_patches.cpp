// select_patches: schema, CPU kernel and CUDA binding.
#include <algorithm>
#include <string>
#include <vector>

#include "ops/select_patches/choose.h"
#include "torch/operators_cpu.h"

namespace mga {
namespace {

constexpr const char* kOp = "select_patches";

void fill_keys(const void* values, ScalarType dtype, std::vector<uint64_t>& keys, Order order, uint32_t seed) {
  switch (dtype) {
    case ScalarType::Double:
      return fill_keys(static_cast<const double*>(values), keys, order, seed);
    case ScalarType::Float:
      return fill_keys(static_cast<const float*>(values), keys, order, seed);
    case ScalarType::Half:
      return fill_keys(static_cast<const torch::headeronly::Half*>(values), keys, order, seed);
    default:
      return fill_keys(static_cast<const torch::headeronly::BFloat16*>(values), keys, order, seed);
  }
}

struct Request {
  int64_t batch, cells, count;
  Order order;
  Tensor indices;
};

Request prepare(const Tensor& mask, int64_t k, const std::string& order, int64_t seed) {
  STD_TORCH_CHECK(mask.dim() == 3, kOp, ": mask must be (B, Hp, Wp)");
  STD_TORCH_CHECK(mask.scalar_type() != ScalarType::Byte && item_size(kOp, mask) > 1, kOp, ": mask must be floating");
  STD_TORCH_CHECK(k >= 0, kOp, ": k is ", k, " and must not be negative");
  STD_TORCH_CHECK(seed >= 0 && seed <= UINT32_MAX, kOp, ": seed must be in 0..2^32-1");
  const int64_t cells = mask.size(1) * mask.size(2);
  STD_TORCH_CHECK(cells <= INT32_MAX, kOp, ": more than 2^31-1 cells");
  const int64_t count = std::min(k, cells);
  const std::vector<int64_t> sizes{mask.size(0), count};
  return {mask.size(0), cells, count, parse_order(kOp, order), torch::stable::new_empty(mask, sizes, ScalarType::Int)};
}

}  // namespace

Tensor select_patches_cpu(const Tensor& mask, int64_t k, std::string order, int64_t seed) {
  Request request = prepare(mask, k, order, seed);
  if (request.batch == 0 || request.count == 0) return request.indices;
  const Tensor dense = torch::stable::contiguous(mask);
  const auto* values = static_cast<const char*>(dense.const_data_ptr());
  auto* indices = static_cast<int32_t*>(request.indices.mutable_data_ptr());
  const int64_t image_bytes = request.cells * item_size(kOp, mask);
  const ScalarType dtype = mask.scalar_type();
  torch::stable::parallel_for(0, request.batch, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys(request.cells);
    for (int64_t b = begin; b < end; ++b) {
      fill_keys(values + b * image_bytes, dtype, keys, request.order, uint32_t(seed));
      choose(keys, request.count, indices + b * request.count);
    }
  });
  return request.indices;
}

namespace {

#ifdef MGA_WITH_CUDA
Tensor select_patches_gpu(const Tensor& mask, int64_t k, std::string order, int64_t seed) {
  const torch::stable::accelerator::DeviceGuard guard(mask.get_device_index());
  Request request = prepare(mask, k, order, seed);
  if (request.batch == 0 || request.count == 0) return request.indices;
  const Tensor dense = torch::stable::contiguous(mask);
  auto* indices = static_cast<int32_t*>(request.indices.mutable_data_ptr());
  check_launch(kOp,
               select_patches_cuda(dense.const_data_ptr(), real_of(kOp, mask), indices, request.batch, request.cells,
                                   request.count, request.order, uint32_t(seed), current_stream(kOp, mask)));
  return request.indices;
}
#endif

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) { m.def("select_patches(Tensor mask, int k, str order, int seed) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("select_patches", TORCH_BOX(&mga::select_patches_cpu)); }
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("select_patches", TORCH_BOX(&mga::select_patches_gpu)); }
#endif
