// image_to_input on the CPU: what bytes become, and where mirrored pixels come from.
#pragma once
#include <cstdint>
#include <type_traits>

namespace mga {

// Position of `i` >= 0 in an axis of `n` pixels that is mirrored at its first and last pixel, without repeating them.
inline int64_t reflect(int64_t i, int64_t n) {
  if (n == 1) return 0;
  const int64_t place = i % (2 * (n - 1));
  return place < n ? place : 2 * (n - 1) - place;
}

// What each byte becomes, for types whose conversion is dearer than a look-up.
template <typename T>
struct ByteTable {
  T values[256];
  explicit ByteTable(double scale) {
    using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for (int byte = 0; byte < 256; ++byte) values[byte] = T(Wide(byte) * Wide(scale));
  }
  void run(const uint8_t* bytes, int64_t n, T* to) const {
    for (int64_t i = 0; i < n; ++i) to[i] = values[bytes[i]];
  }
};

template <>
struct ByteTable<float> {
  float scale;
  explicit ByteTable(double scale_) : scale(float(scale_)) {}
  void run(const uint8_t* bytes, int64_t n, float* to) const {
    for (int64_t i = 0; i < n; ++i) to[i] = float(bytes[i]) * scale;
  }
};

}  // namespace mga
