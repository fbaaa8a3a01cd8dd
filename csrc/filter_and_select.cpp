// filter_and_select: schema and CPU binding.
#include <tuple>

#include "operators_cpu.h"

namespace mga {
namespace {

std::tuple<Tensor, Tensor> filter_and_select_cpu(const Tensor& probability, const Tensor& source, const Tensor& weight,
                                                 const Tensor& bias, int64_t k, std::string order, int64_t seed) {
  const Tensor mask = dynamic_filter_cpu(probability, source, weight, bias);
  return {mask, select_patches_cpu(mask, k, order, seed)};
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "filter_and_select(Tensor probability, Tensor source, Tensor weight, Tensor bias, int k, str order, int seed)"
      " -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("filter_and_select", TORCH_BOX(&mga::filter_and_select_cpu)); }
