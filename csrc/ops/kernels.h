// CPU kernels of operators that gain from wide vectors. They are compiled once for every file in ops/isa, from the same
// source, and those of the best instruction set that this processor has are chosen at the first call. Another
// instruction set is another such file. No torch header.
#pragma once
#include <cstdint>

#include "types.h"

namespace mga {

// The whole mask head. Strides are in elements, in the order batch, channel, row, column.
struct MaskHeadTask {
  const void* feature;  // (batch, channels, height, width); f16, bf16 or f32
  Real dtype;           // of the feature
  int64_t batch, channels, height, width;
  int64_t stride[4];
  int64_t patch_size;
  int64_t hidden;        // C'
  const float* weight1;  // (hidden, channels, 3, 3)
  const float* bias1;    // (hidden)
  const float* weight2;  // (hidden, 3, 3): of the second class less the first, or of the only one
  float bias2;
  bool one_channel;    // mean and leaky ReLU, no sigmoid
  bool sigmoid_first;  // before the mean
  float* probability;  // (batch, height / patch_size, width / patch_size)
};

// A filter of size x size coefficients at every position.
struct FilterShape {
  int64_t rows, columns;  // of cells
  int64_t channels;       // of the source
  int64_t size;
};

struct OperatorKernels {
  const char* name;
  // The order and format in which `mask_head_rows` reads the first convolution's weights: 32-bit words.
  int64_t (*mask_head_words)(const MaskHeadTask&);
  void (*mask_head_pack)(const MaskHeadTask&, uint32_t* packed);
  // Rows [begin, end) of cells, counted through the whole batch. False if there is no memory for it.
  bool (*mask_head_rows)(const MaskHeadTask&, const uint32_t* packed, int64_t begin, int64_t end);

  // Row y of the mask of one image: dense probability (rows, columns), source (channels, rows, columns), weight (size *
  // size, channels), bias (size * size); `work` is room for one row.
  void (*filter_row)(const double* probability, const double* source, const double* weight, const double* bias,
                     const FilterShape&, int64_t y, double* work, double* mask);

  // n dense numbers -> bytes: clamp(gain * number, 0, 1) times 255, rounded half to even, NaN as 0.
  void (*units_to_bytes)(const void* from, Real dtype, int64_t n, double gain, uint8_t* to);
  // Three planes of n bytes, `plane` apart -> n pixels.
  void (*interleave_bytes)(const uint8_t* planes, int64_t plane, int64_t n, uint8_t* to);

  // n pixels -> their luma, 0..1020.
  void (*luma_row)(const uint8_t* pixels, int64_t n, int16_t* luma);
  // For each cell of `side` of the n pixels of a row, the sum of the squares of nine times a pixel's distance from the
  // mean over 3 x 3 pixels of the cell, added to `sums`; `above` and `below` are rows of the same cells, or the row
  // itself. `columns` is room for n.
  void (*distance_row)(const int16_t* above, const int16_t* row, const int16_t* below, int64_t n, int64_t side,
                       int16_t* columns, int64_t* sums);
};

// The kernels for this processor, or for the set that the environment variable MGA_CPU_ISA names, if it has that.
const OperatorKernels& operator_kernels();

}  // namespace mga
