// The layout in which the CPU convolves in bf16: planes of channel pairs, so that one 512-bit word holds 16 pixels of
// two channels, which is what vdpbf16ps multiplies and adds. A plane has a zero border of one row above and below and
// of kMargin pixels on both sides; pixels beyond the width are zero up to the pitch. No channel is padded but the last
// odd.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "torch_glue.h"

namespace mga {

constexpr int64_t kMargin = 16;  // pixels, one vector

// pairs x (height + 2) x pitch dwords; `first` is pixel (0, 0) of the first pair in use.
struct PairPlanes {
  uint32_t* first;
  int64_t plane, pitch;
  int64_t height, width;
  int64_t pairs;  // from `first` on

  uint32_t* at(int64_t pair, int64_t y, int64_t x) const { return first + pair * plane + y * pitch + x; }
};

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

// One bit a pixel of a row, one word a vector.
inline std::vector<uint16_t> lanes_of(int64_t width) {
  std::vector<uint16_t> lanes((width + 15) / 16, uint16_t{0xffff});
  if (width % 16 != 0) lanes.back() = uint16_t((1 << width % 16) - 1);
  return lanes;
}

// Where pixel i of `to` pixels lies among `from` pixels: align_corners=False, the edge repeated.
struct Position {
  int64_t first, second;
  float share;  // of the second

  Position(int64_t i, int64_t from, int64_t to) {
    const float scale = float(from) / float(to);
    const float position = std::max(0.f, (float(i) + 0.5f) * scale - 0.5f);
    first = std::min(int64_t(position), from - 1);
    second = std::min(first + 1, from - 1);
    share = position - float(first);
  }
};

bool pair_conv_supported();  // whether this processor has the instructions

}  // namespace mga
