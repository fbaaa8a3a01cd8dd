// What the bindings share: checks on tensors and the current CUDA stream. LibTorch stable ABI only.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>

#include "items.h"
#include "types.h"
#ifdef MGA_WITH_CUDA
#include "cuda/kernels.h"
#endif

// Weak, because a torch without CUDA has no such function; it then reads as null and the library still loads.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace mga {

using torch::stable::Tensor;

inline int item_size(const char* op, const Tensor& tensor) { return item_size(op, tensor.scalar_type()); }

// The grain of a parallel loop whose rounds handle `items` numbers each. A thread is worth waking for about 0.1 ms of
// work: where other programs keep the processor busy it may take milliseconds to come.
inline int64_t rows_at_once(int64_t items) { return items < 1 ? 1 << 20 : ((1 << 20) + items - 1) / items; }

// Calls `run` with a zero of an unsigned type of the tensor's item size.
template <typename Run>
void with_item(const char* op, const Tensor& tensor, Run run) {
  switch (item_size(op, tensor)) {
    case 1:
      return run(uint8_t{});
    case 2:
      return run(uint16_t{});
    case 4:
      return run(uint32_t{});
    default:
      return run(uint64_t{});
  }
}

inline Real real_of(const char* op, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half:
      return Real::f16;
    case ScalarType::BFloat16:
      return Real::bf16;
    case ScalarType::Float:
      return Real::f32;
    case ScalarType::Double:
      return Real::f64;
    default:
      STD_TORCH_CHECK(false, op, ": dtype is none of float16, bfloat16, float32 and float64");
  }
}

inline Order parse_order(const char* op, const std::string& order) {
  if (order == "largest") return Order::largest;
  if (order == "smallest") return Order::smallest;
  STD_TORCH_CHECK(order == "random", op, ": order '", order, "' is none of largest, smallest and random");
  return Order::random;
}

inline void check_indices(const char* op, const Tensor& indices, int64_t batch) {
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Int, op,
                  ": indices must be int32, as select_patches returns them");
  STD_TORCH_CHECK(indices.dim() == 2 && indices.size(0) == batch, op, ": indices must be (", batch, ", K)");
  STD_TORCH_CHECK(indices.is_contiguous(), op, ": indices must be contiguous");
}

inline void check_inside(const char* op, const int32_t* indices, int64_t count, int64_t rows, int64_t columns) {
  const int64_t cells = rows * columns;
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(indices[i] >= 0 && indices[i] < cells, op, ": index ", indices[i], " is outside the ", rows, "x",
                    columns, " grid; were the indices made for another size?");
  }
}

#ifdef MGA_WITH_CUDA
inline void* current_stream(const char* op, const Tensor& tensor) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, op, ": this torch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

inline void check_launch(const char* op, int error) {
  STD_TORCH_CHECK(error == 0, op, ": CUDA error ", error, ": ", cuda_error_text(error));
}
#endif

}  // namespace mga
