// Network values in [0, 1] -> the numbers of a picture; the compiler makes vectors of these loops.
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

// Writers: a number in [0, 1], or NaN -> item, rounded to nearest, ties to even.
struct WriteByte {
  typedef uint8_t Item;
  // Adding and taking off 1.5 * 2^23 (2^52) rounds a number in 0..255 to an integer.
  static MGA_INLINE uint8_t item(float value) {
    const float scaled = (value > 0 ? value : 0.0f) * 255;  // NaN compares false: 0
    return uint8_t(int32_t((scaled + 12582912.0f) - 12582912.0f));
  }
  static MGA_INLINE uint8_t item(double value) {
    const double scaled = (value > 0 ? value : 0.0) * 255;
    return uint8_t(int32_t((scaled + 6755399441055744.0) - 6755399441055744.0));
  }
};
struct WriteFloat {
  typedef float Item;
  static MGA_INLINE float item(float value) { return value; }
  static MGA_INLINE float item(double value) { return float(value); }
};
struct WriteDouble {
  typedef double Item;
  static MGA_INLINE double item(double value) { return value; }
};
struct WriteBf16 {
  typedef uint16_t Item;
  static MGA_INLINE uint16_t item(float value) {
    const uint32_t bits = bits_of<uint32_t>(value);
    return value == value ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : uint16_t(0x7fc0);
  }
  static MGA_INLINE uint16_t item(double value) { return item(float(value)); }
};
struct WriteF16 {
  typedef uint16_t Item;
  static MGA_INLINE uint16_t item(float value) {
    const uint32_t bits = bits_of<uint32_t>(value);
    const uint32_t normal = (bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13;
    // Below 2^-14 the steps of half precision are 2^-24, as those of float32 from 0.5 on.
    const uint32_t subnormal = bits_of<uint32_t>(value + 0.5f) - 0x3f000000u;
    const uint32_t number = value < 0x1p-14f ? subnormal : normal;
    return value == value ? uint16_t(number) : uint16_t(0x7e00);
  }
  static MGA_INLINE uint16_t item(double value) { return item(float(value)); }
};

template <class Read, class Write>
void convert_units(const void* from, int64_t n, double gain, void* to) {
  const auto* items = static_cast<const typename Read::Item*>(from);
  auto* out = static_cast<typename Write::Item*>(to);
  typedef decltype(Read::wide(items[0])) Wide;
  const Wide factor = Wide(gain);
  for (int64_t i = 0; i < n; ++i) {
    Wide value = Read::wide(items[i]) * factor;
    value = value < 0 ? Wide(0) : value;
    value = value > 1 ? Wide(1) : value;
    out[i] = Write::item(value);
  }
}

template <class Read>
void units_from(const void* from, int64_t n, double gain, Pixel pixel, void* to) {
  switch (pixel) {
    case Pixel::u8:
      return convert_units<Read, WriteByte>(from, n, gain, to);
    case Pixel::f16:
      return convert_units<Read, WriteF16>(from, n, gain, to);
    case Pixel::bf16:
      return convert_units<Read, WriteBf16>(from, n, gain, to);
    case Pixel::f32:
      return convert_units<Read, WriteFloat>(from, n, gain, to);
    case Pixel::f64:
      return convert_units<Read, WriteDouble>(from, n, gain, to);
  }
}

static void units_to_pixels(const void* from, Real dtype, int64_t n, double gain, Pixel pixel, void* to) {
  switch (dtype) {
    case Real::f16:
      return units_from<ReadF16>(from, n, gain, pixel, to);
    case Real::bf16:
      return units_from<ReadBf16>(from, n, gain, pixel, to);
    case Real::f32:
      return units_from<ReadFloat>(from, n, gain, pixel, to);
    case Real::f64:
      return units_from<ReadDouble>(from, n, gain, pixel, to);
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
