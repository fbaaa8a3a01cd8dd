// uint8 interleaved images <-> float planes, with reflection padding and rounding. No Python here.
#pragma once
#include <cstdint>
#include <vector>

namespace mga {

// An array of three axes; strides are in bytes and may be anything.
template <typename T>
struct Planes {
  char* data;
  int64_t size0, size1, size2;
  int64_t stride0, stride1, stride2;
  T& at(int64_t i, int64_t j, int64_t k) const {
    return *reinterpret_cast<T*>(data + i * stride0 + j * stride1 + k * stride2);
  }
};

// Position of `i` >= 0 in an axis of `n` pixels that is mirrored at its first and last pixel, without repeating them.
inline int64_t reflect(int64_t i, int64_t n) {
  if (n == 1) return 0;
  const int64_t place = i % (2 * (n - 1));
  return place < n ? place : 2 * (n - 1) - place;
}

// (H, W, 3) -> (3, H', W') with H' >= H, W' >= W.
inline void pack(const Planes<uint8_t>& image, const Planes<float>& out, double scale) {
  float scaled[256];
  for (int v = 0; v < 256; ++v) scaled[v] = static_cast<float>(v * scale);
  std::vector<int64_t> column(out.size2);
  for (int64_t x = 0; x < out.size2; ++x) column[x] = reflect(x, image.size1);
  for (int64_t y = 0; y < out.size1; ++y) {
    const int64_t row = reflect(y, image.size0);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t x = 0; x < out.size2; ++x) out.at(c, y, x) = scaled[image.at(row, column[x], c)];
    }
  }
}

// Adding and taking off 1.5 * 2^23 leaves a float in 0..255 rounded to the nearest integer, ties to even; unlike a call
// to nearbyint it vectorises on every x86-64.
inline uint8_t to_byte(float value) {
  constexpr float kRound = 12582912.0f;
  const float clamped = value > 0.0f ? (value < 255.0f ? value : 255.0f) : 0.0f;  // NaN compares false: 0
  return static_cast<uint8_t>(static_cast<int32_t>((clamped + kRound) - kRound));
}

// (3, H', W') -> (H, W, 3) with H' >= H, W' >= W.
inline void unpack(const Planes<float>& planes, const Planes<uint8_t>& out, float scale) {
  std::vector<uint8_t> row(out.size1);
  for (int64_t y = 0; y < out.size0; ++y) {
    for (int64_t c = 0; c < 3; ++c) {
      if (planes.stride2 == int64_t(sizeof(float))) {
        const float* from = &planes.at(c, y, 0);
        for (int64_t x = 0; x < out.size1; ++x) row[x] = to_byte(from[x] * scale);
      } else {
        for (int64_t x = 0; x < out.size1; ++x) row[x] = to_byte(planes.at(c, y, x) * scale);
      }
      for (int64_t x = 0; x < out.size1; ++x) out.at(y, x, c) = row[x];
    }
  }
}

}  // namespace mga
