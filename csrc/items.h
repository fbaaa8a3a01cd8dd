// What tensors hold. Of torch only headers that need none of its libraries.
#pragma once
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <stdexcept>

namespace mga {

using torch::headeronly::ScalarType;

// Bytes of an item.
inline int item_size(const char* op, ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return 1;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    case ScalarType::Float:
      return 4;
    case ScalarType::Double:
      return 8;
    default:
      STD_TORCH_CHECK(false, op, ": dtype is none of float16, bfloat16, float32, float64 and uint8");
  }
}

}  // namespace mga
