// The order of the packed weights of a convolution, see packed_floats. No torch header.
#pragma once
#include <vector>

#include "maps/layout.h"

namespace mga {

// The transformation of a kernel of three values to m + 2 positions; see transform.h for the points.
inline std::vector<std::vector<double>> positions_of_kernel(int64_t tile) {
  if (tile == 4) {
    const double a = 0.70710678118654752440, b = 2 * a;  // the root of 1/2
    return {{1, 0, 0},
            {-2. / 3, -2. / 3 * a, -1. / 3},
            {-2. / 3, 2. / 3 * a, -1. / 3},
            {1. / 6, b / 6, 1. / 3},
            {1. / 6, -b / 6, 1. / 3},
            {0, 0, 1}};
  }
  return {{1, 0, 0},
          {-2. / 9, -2. / 9, -2. / 9},
          {-2. / 9, 2. / 9, -2. / 9},
          {1. / 90, 1. / 45, 2. / 45},
          {1. / 90, -1. / 45, 2. / 45},
          {1. / 45, 1. / 90, 1. / 180},
          {1. / 45, -1. / 90, 1. / 180},
          {0, 0, 1}};
}

// Position (i, j) of a 3x3 kernel.
inline double at_position(const float* kernel, const std::vector<double>& i, const std::vector<double>& j) {
  double sum = 0;
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 3; ++x) sum += i[y] * j[x] * kernel[3 * y + x];
  }
  return sum;
}

// A weight (outputs, inputs, size, size).
struct PlainWeight {
  const float* data;
  int64_t outputs, inputs, size;

  int64_t taps() const { return size * size; }
  const float* kernel(int64_t o, int64_t c) const { return data + (o * inputs + c) * taps(); }
  float at(int64_t o, int64_t c, int64_t tap) const { return o < outputs && c < inputs ? kernel(o, c)[tap] : 0.f; }
};

inline void pack_few_outputs(const PlainWeight& weight, float* to) {
  for (int64_t t = 0; t < weight.taps(); ++t) {
    for (int64_t g = 0; g < groups_of(weight.inputs); ++g) {
      for (int64_t o = 0; o < weight.outputs; ++o) {
        for (int64_t c = g * kGroup; c < (g + 1) * kGroup; ++c) *to++ = weight.at(o, c, t);
      }
    }
  }
}

// Channels [begin, end) of the taps, and where they then end.
inline float* pack_taps(const PlainWeight& weight, int64_t begin, int64_t end, float* to) {
  for (int64_t t = 0; t < weight.taps(); ++t) {
    for (int64_t c = 0; c < weight.inputs; ++c) {
      for (int64_t o = begin; o < end; ++o) *to++ = weight.at(o, c, t);
    }
  }
  return to;
}

// The same at the positions of tiles.
inline float* pack_positions(const PlainWeight& weight, const std::vector<std::vector<double>>& positions,
                             int64_t begin, int64_t end, float* to) {
  for (const auto& i : positions) {
    for (const auto& j : positions) {
      for (int64_t c = 0; c < weight.inputs; ++c) {
        for (int64_t o = begin; o < end; ++o) {
          *to++ = o < weight.outputs ? float(at_position(weight.kernel(o, c), i, j)) : 0.f;
        }
      }
    }
  }
  return to;
}

// `to`: packed_floats of them.
inline void pack_weight(const PlainWeight& weight, int64_t tile, float* to) {
  if (weight.outputs <= kFewOutputs) return pack_few_outputs(weight, to);
  const int64_t vectors = groups_of(weight.outputs);
  for (int64_t first = 0, nv; first < vectors; first += nv) {
    nv = panel_of(vectors - first);
    const int64_t begin = first * kGroup, end = begin + nv * kGroup;
    to = tile == 0 ? pack_taps(weight, begin, end, to)
                   : pack_positions(weight, positions_of_kernel(tile), begin, end, to);
  }
  if (tile != 0) pack_taps(weight, 0, vectors * kGroup, to);
}

}  // namespace mga
