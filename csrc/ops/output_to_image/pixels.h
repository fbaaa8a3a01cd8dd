// Network values in [0, 1] -> the bytes of a picture; the compiler makes vectors of these loops.
#pragma once
#include "ops/kernels.h"
#include "simd/vec.h"

namespace mga {
namespace MGA_ISA {

// Readers: item -> the wider type in which the arithmetic is done.
struct ReadFloat {
  typedef float Item;
  static MGA_INLINE float wide(float item) { return item; }
};
struct ReadDouble {
  typedef double Item;
  static MGA_INLINE double wide(double item) { return item; }
};
struct ReadBf16 {
  typedef uint16_t Item;
  static MGA_INLINE float wide(uint16_t item) { return bits_of<float>(uint32_t(item) << 16); }
};
struct ReadF16 {
  typedef uint16_t Item;
  static MGA_INLINE float wide(uint16_t item) { return from_f16(item); }
};

// A number of at most 1, or NaN, which becomes 0 -> a byte, rounded to nearest, ties to even: adding and taking off 1.5 *
// 2^23 (2^52) rounds a number in 0..255 to an integer.
MGA_INLINE uint8_t byte_of(float value) {
  const float scaled = (value > 0 ? value : 0.0f) * 255;  // NaN compares false
  return uint8_t(int32_t((scaled + 12582912.0f) - 12582912.0f));
}
MGA_INLINE uint8_t byte_of(double value) {
  const double scaled = (value > 0 ? value : 0.0) * 255;
  return uint8_t(int32_t((scaled + 6755399441055744.0) - 6755399441055744.0));
}

template <class Read>
void bytes_from(const void* from, int64_t n, double gain, uint8_t* to) {
  const auto* items = static_cast<const typename Read::Item*>(from);
  typedef decltype(Read::wide(items[0])) Wide;
  const Wide factor = Wide(gain);
  for (int64_t i = 0; i < n; ++i) {
    const Wide value = Read::wide(items[i]) * factor;
    to[i] = byte_of(value > 1 ? Wide(1) : value);
  }
}

static void units_to_bytes(const void* from, Real dtype, int64_t n, double gain, uint8_t* to) {
  switch (dtype) {
    case Real::f16:
      return bytes_from<ReadF16>(from, n, gain, to);
    case Real::bf16:
      return bytes_from<ReadBf16>(from, n, gain, to);
    case Real::f32:
      return bytes_from<ReadFloat>(from, n, gain, to);
    case Real::f64:
      return bytes_from<ReadDouble>(from, n, gain, to);
  }
}

static void interleave_bytes(const uint8_t* planes, int64_t plane, int64_t n, uint8_t* to) {
  for (int64_t i = 0; i < n; ++i) {
    to[3 * i] = planes[i];
    to[3 * i + 1] = planes[plane + i];
    to[3 * i + 2] = planes[2 * plane + i];
  }
}

}  // namespace MGA_ISA
}  // namespace mga
