// mask_head: schema and CPU binding.
#include <atomic>
#include <string>
#include <vector>

#include "ops/kernels.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "mask_head";

void check(const Tensor& feature, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2,
           const Tensor& bias2, int64_t patch_size, const std::string& order) {
  STD_TORCH_CHECK(
      feature.dim() == 4 && weight1.dim() == 4 && weight2.dim() == 4 && bias1.dim() == 1 && bias2.dim() == 1, kOp,
      ": feature must be (B, C, H, W), weights (O, C, 3, 3) and biases (O)");
  STD_TORCH_CHECK(patch_size >= 1 && feature.size(2) % patch_size == 0 && feature.size(3) % patch_size == 0, kOp,
                  ": a ", feature.size(2), "x", feature.size(3), " feature does not divide into cells of ", patch_size);
  const int64_t hidden = weight1.size(0), classes = weight2.size(0);
  STD_TORCH_CHECK(weight1.size(1) == feature.size(1) && weight1.size(2) == 3 && weight1.size(3) == 3 &&
                      bias1.size(0) == hidden && weight2.size(1) == hidden && weight2.size(2) == 3 &&
                      weight2.size(3) == 3 && bias2.size(0) == classes,
                  kOp, ": the shapes of weights, biases and feature do not fit each other");
  STD_TORCH_CHECK(classes == 1 || classes == 2, kOp, ": weight2 must give 1 or 2 channels, got ", classes);
  STD_TORCH_CHECK(order == "softmax-then-pool" || order == "pool-then-softmax", kOp, ": order '", order,
                  "' is none of softmax-then-pool and pool-then-softmax");
  for (const Tensor* tensor : {&weight1, &bias1, &weight2, &bias2}) {
    STD_TORCH_CHECK(tensor->scalar_type() == feature.scalar_type(), kOp, ": feature and weights must have one dtype");
    STD_TORCH_CHECK(tensor->get_device() == feature.get_device(), kOp, ": all tensors must be on one device");
  }
}

Tensor as_floats(const Tensor& tensor) {
  return torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Float));
}

const float* floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }

// The softmax of two scores is the sigmoid of their difference, so two classes need one score.
std::vector<float> one_score(const Tensor& of_classes) {
  const int64_t n = of_classes.numel() / of_classes.size(0);
  const float* values = floats(of_classes);
  std::vector<float> result(values, values + n);
  for (int64_t i = 0; i < n && of_classes.size(0) == 2; ++i) result[i] = values[n + i] - values[i];
  return result;
}

Tensor mask_head_cpu(const Tensor& feature, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2,
                     const Tensor& bias2, int64_t patch_size, std::string order) {
  check(feature, weight1, bias1, weight2, bias2, patch_size, order);
  const Tensor first = as_floats(weight1), first_bias = as_floats(bias1);
  const std::vector<float> second = one_score(as_floats(weight2)), second_bias = one_score(as_floats(bias2));
  MaskHeadTask task{};
  task.feature = feature.const_data_ptr();
  task.dtype = real_of(kOp, feature);
  STD_TORCH_CHECK(task.dtype != Real::f64, kOp, ": there is no float64 kernel");
  task.batch = feature.size(0);
  task.channels = feature.size(1);
  task.height = feature.size(2);
  task.width = feature.size(3);
  for (int i = 0; i < 4; ++i) task.stride[i] = feature.stride(i);
  task.patch_size = patch_size;
  task.hidden = weight1.size(0);
  task.weight1 = floats(first);
  task.bias1 = floats(first_bias);
  task.weight2 = second.data();
  task.bias2 = second_bias[0];
  task.one_channel = weight2.size(0) == 1;
  task.sigmoid_first = order == "softmax-then-pool";

  const std::vector<int64_t> sizes{task.batch, task.height / patch_size, task.width / patch_size};
  Tensor probability = torch::stable::new_empty(feature, sizes, ScalarType::Float);
  if (probability.numel() == 0) return probability;
  task.probability = static_cast<float*>(probability.mutable_data_ptr());
  const OperatorKernels& kernels = operator_kernels();
  std::vector<uint32_t> packed(kernels.mask_head_words(task));
  kernels.mask_head_pack(task, packed.data());
  std::atomic<bool> enough_memory{true};
  torch::stable::parallel_for(0, sizes[0] * sizes[1], 1, [&](int64_t begin, int64_t end) {
    if (!kernels.mask_head_rows(task, packed.data(), begin, end)) enough_memory = false;
  });
  STD_TORCH_CHECK(enough_memory, kOp, ": not enough memory for a few rows of the feature");
  return probability;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "mask_head(Tensor feature, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, int patch_size, str order)"
      " -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("mask_head", TORCH_BOX(&mga::mask_head_cpu)); }
