// CPU operators that other operators are made of.
#pragma once
#include <string>

#include "torch/glue.h"

namespace mga {

Tensor dynamic_filter_cpu(const Tensor& probability, const Tensor& source, const Tensor& weight, const Tensor& bias);
Tensor select_patches_cpu(const Tensor& mask, int64_t k, std::string order, int64_t seed);

}  // namespace mga
