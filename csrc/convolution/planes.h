// Pair planes in a tensor.
#pragma once
#include "convolution/layout.h"
#include "torch/glue.h"

namespace mga {

// planes bf16 (pairs, height + 2, pitch, 2), contiguous, from pair `from` on.
inline PairPlanes pair_planes(const char* op, const Tensor& planes, int64_t from, int64_t width) {
  STD_TORCH_CHECK(planes.scalar_type() == ScalarType::BFloat16 && planes.dim() == 4 && planes.size(3) == 2 &&
                      planes.is_contiguous(),
                  op, ": planes must be bfloat16 (pairs, H + 2, pitch, 2), contiguous");
  const int64_t pitch = planes.size(2);
  STD_TORCH_CHECK(width >= 1 && pitch % kMargin == 0 && pitch >= (width + 15) / 16 * 16 + 2 * kMargin, op,
                  ": a pitch of ", pitch, " is not enough for a width of ", width);
  STD_TORCH_CHECK(0 <= from && from < planes.size(0), op, ": pair ", from, " is outside of ", planes.size(0));
  PairPlanes result{};
  result.pitch = pitch;
  result.height = planes.size(1) - 2;
  result.plane = planes.size(1) * pitch;
  result.width = width;
  result.pairs = planes.size(0) - from;
  auto* data = static_cast<uint32_t*>(const_cast<void*>(planes.const_data_ptr()));
  result.first = data + from * result.plane + pitch + kMargin;
  return result;
}

}  // namespace mga
