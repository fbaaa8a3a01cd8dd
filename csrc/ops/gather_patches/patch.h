// gather_patches on the CPU: one patch.
#pragma once
#include <algorithm>
#include <cstring>

#include "ops/gather_patches/shape.h"

namespace mga {

// `n` elements, `step` apart in memory, into a dense row.
template <typename T>
void copy_run(T* to, const T* from, int64_t n, int64_t step) {
  if (step == 1) {
    std::memcpy(to, from, n * sizeof(T));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
  }
}

// The part of a patch's row or column that lies inside the feature: positions [begin, end) of `side`.
struct Inside {
  int64_t begin, end;
  Inside(int64_t first, int64_t side, int64_t limit)
      : begin(std::clamp<int64_t>(-first, 0, side)), end(std::clamp<int64_t>(limit - first, begin, side)) {}
};

// One patch whose first pixel is (top, left) of the feature; `image` points at pixel (0, 0) of channel 0.
template <typename T>
void gather_planes(const T* image, T* patch, const GatherShape& s, int64_t top, int64_t left) {
  const int64_t side = s.side();
  const Inside rows(top, side, s.height), columns(left, side, s.width);
  for (int64_t c = 0; c < s.channels; ++c, patch += side * side) {
    std::fill_n(patch, rows.begin * side, T(0));
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      T* to = patch + y * side;
      const T* from = image + c * s.stride[1] + (top + y) * s.stride[2] + (left + columns.begin) * s.stride[3];
      std::fill_n(to, columns.begin, T(0));
      copy_run(to + columns.begin, from, columns.end - columns.begin, s.stride[3]);
      std::fill_n(to + columns.end, side - columns.end, T(0));
    }
    std::fill_n(patch + rows.end * side, (side - rows.end) * side, T(0));
  }
}

// The same for a feature and a result whose channels are innermost.
template <typename T>
void gather_pixels(const T* image, T* patch, const GatherShape& s, int64_t top, int64_t left) {
  const int64_t side = s.side(), row = side * s.channels;
  const Inside rows(top, side, s.height), columns(left, side, s.width);
  std::fill_n(patch, rows.begin * row, T(0));
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    T* to = patch + y * row;
    const T* from = image + (top + y) * s.stride[2] + (left + columns.begin) * s.stride[3];
    std::fill_n(to, columns.begin * s.channels, T(0));
    if (s.stride[3] == s.channels) {
      copy_run(to + columns.begin * s.channels, from, (columns.end - columns.begin) * s.channels, 1);
    } else {
      for (int64_t x = columns.begin; x < columns.end; ++x, from += s.stride[3]) {
        copy_run(to + x * s.channels, from, s.channels, 1);
      }
    }
    std::fill_n(to + columns.end * s.channels, (side - columns.end) * s.channels, T(0));
  }
  std::fill_n(patch + rows.end * row, (side - rows.end) * row, T(0));
}

}  // namespace mga
