// The order of the packed weights of a convolution, see packed_floats. No torch header.
#pragma once
#include "maps/kernels.h"

namespace mga {

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

// `to`: packed_floats of them.
inline void pack_weight(const MapKernels& kernels, const PlainWeight& weight, int64_t tile, float* to) {
  if (weight.outputs <= kFewOutputs) return pack_few_outputs(weight, to);
  const int64_t vectors = groups_of(weight.outputs);
  if (tile == 0) {
    return for_each_panel(vectors, [&](int64_t first, int64_t count) {
      to = pack_taps(weight, first * kGroup, (first + count) * kGroup, to);
    });
  }
  float* const plain = to + transformed_floats(weight.inputs, vectors, weight.size, tile);
  pack_taps(weight, 0, vectors * kGroup, plain);
  for_each_panel(vectors, [&](int64_t first, int64_t count) {
    kernels.transform_weight({plain, weight.inputs, vectors, weight.size, tile}, first, count, to);
  });
}

}  // namespace mga
