// dynamic_filter: schema and CPU binding.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/kernels.h"
#include "torch/operators_cpu.h"

namespace mga {
namespace {

constexpr const char* kOp = "dynamic_filter";

FilterShape check(const Tensor& probability, const Tensor& source, const Tensor& weight, const Tensor& bias) {
  STD_TORCH_CHECK(probability.dim() == 3, kOp, ": probability must be (B, Hp, Wp)");
  STD_TORCH_CHECK(source.dim() == 4 && source.size(0) == probability.size(0) && source.size(2) == probability.size(1) &&
                      source.size(3) == probability.size(2),
                  kOp, ": source must be (B, S, Hp, Wp) with the sizes of probability");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(1) == source.size(1) && weight.size(2) == 1 && weight.size(3) == 1 &&
                      bias.dim() == 1 && bias.size(0) == weight.size(0),
                  kOp, ": weight must be (n * n, S, 1, 1) and bias (n * n)");
  const int64_t size = std::llround(std::sqrt(double(weight.size(0))));
  STD_TORCH_CHECK(size * size == weight.size(0) && size % 2 == 1, kOp,
                  ": weight must give the square of an odd number of coefficients, got ", weight.size(0));
  for (const Tensor* tensor : {&probability, &source, &weight, &bias}) {
    real_of(kOp, *tensor);
    STD_TORCH_CHECK(tensor->get_device() == probability.get_device(), kOp, ": all tensors must be on one device");
  }
  return {probability.size(1), probability.size(2), source.size(1), size};
}

}  // namespace

// All in float64, rounded once to the dtype of the probability: the maps are small, and neighbours in the order of the
// mask are not exchanged by rounding.
Tensor dynamic_filter_cpu(const Tensor& probability, const Tensor& source, const Tensor& weight, const Tensor& bias) {
  const FilterShape s = check(probability, source, weight, bias);
  const ScalarType wide = ScalarType::Double;
  const auto dense = [&](const Tensor& tensor) { return torch::stable::contiguous(torch::stable::to(tensor, wide)); };
  const Tensor inputs[] = {dense(probability), dense(source), dense(weight), dense(bias)};
  const double* at[4];
  for (int i = 0; i < 4; ++i) at[i] = static_cast<const double*>(inputs[i].const_data_ptr());
  const std::vector<int64_t> sizes{probability.size(0), s.rows, s.columns};
  Tensor mask = torch::stable::new_empty(probability, sizes, wide);
  auto* out = static_cast<double*>(mask.mutable_data_ptr());
  const OperatorKernels& kernels = operator_kernels();
  const int64_t cells = s.rows * s.columns, work_of_row = s.columns * s.size * s.size * (s.channels + 1);
  const int64_t grain = rows_at_once(work_of_row / 4);
  torch::stable::parallel_for(0, sizes[0] * s.rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> work(s.columns);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / s.rows;
      kernels.filter_row(at[0] + image * cells, at[1] + image * cells * s.channels, at[2], at[3], s, i % s.rows,
                         work.data(), out + i * s.columns);
    }
  });
  return torch::stable::to(mask, probability.scalar_type());
}

}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("dynamic_filter(Tensor probability, Tensor source, Tensor weight, Tensor bias) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("dynamic_filter", TORCH_BOX(&mga::dynamic_filter_cpu)); }
