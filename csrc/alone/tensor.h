// Tensors without PyTorch: memory of the caller, with those members of torch::stable::Tensor that readers ask for. Of
// torch only headers that need none of its libraries.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "items.h"

namespace mga {

class Tensor {
 public:
  // `strides` in items.
  Tensor(void* data, ScalarType type, std::vector<int64_t> sizes, std::vector<int64_t> strides, bool writable)
      : data_(data), type_(type), sizes_(std::move(sizes)), strides_(std::move(strides)), writable_(writable) {}

  ScalarType scalar_type() const { return type_; }
  int64_t dim() const { return int64_t(sizes_.size()); }
  int64_t size(int64_t i) const { return sizes_[i]; }
  int64_t stride(int64_t i) const { return strides_[i]; }
  int64_t numel() const {
    int64_t count = 1;
    for (int64_t size : sizes_) count *= size;
    return count;
  }
  bool is_contiguous() const {
    int64_t step = 1;
    for (int64_t i = dim(); i-- > 0; step *= sizes_[i]) {
      if (sizes_[i] != 1 && strides_[i] != step) return false;
    }
    return true;
  }
  const void* const_data_ptr() const { return data_; }
  void* mutable_data_ptr() const {
    STD_TORCH_CHECK(writable_, "an array that is written to is read-only");
    return data_;
  }

 private:
  void* data_;
  ScalarType type_;
  std::vector<int64_t> sizes_, strides_;
  bool writable_;
};

inline int item_size(const char* op, const Tensor& tensor) { return item_size(op, tensor.scalar_type()); }

}  // namespace mga
