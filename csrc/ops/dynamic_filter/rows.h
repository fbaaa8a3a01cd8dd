// One row of the D-Conv; the compiler makes vectors along the row.
#pragma once
#include "ops/kernels.h"
#include "simd/vec.h"

namespace mga {
namespace MGA_ISA {

// probability (rows, columns) and source (channels, rows, columns) of one image, weight (size * size, channels), bias
// (size * size) -> row `y` of the mask. `coefficient` holds `columns` numbers of no meaning.
static void filter_row(const double* probability, const double* source, const double* weight, const double* bias,
                       const FilterShape& s, int64_t y, double* coefficient, double* mask) {
  for (int64_t x = 0; x < s.columns; ++x) mask[x] = 0;
  const int64_t reach = s.size / 2;
  for (int64_t tap = 0; tap < s.size * s.size; ++tap) {
    const int64_t row = y + tap / s.size - reach, shift = tap % s.size - reach;
    if (row < 0 || row >= s.rows) continue;
    for (int64_t x = 0; x < s.columns; ++x) coefficient[x] = bias[tap];
    for (int64_t c = 0; c < s.channels; ++c) {
      const double* values = source + (c * s.rows + y) * s.columns;
      const double factor = weight[tap * s.channels + c];
      for (int64_t x = 0; x < s.columns; ++x) coefficient[x] += factor * values[x];
    }
    const int64_t begin = shift < 0 ? -shift : 0, end = shift > 0 ? s.columns - shift : s.columns;
    const double* neighbour = probability + row * s.columns + shift;
    for (int64_t x = begin; x < end; ++x) mask[x] += coefficient[x] * neighbour[x];
  }
}

}  // namespace MGA_ISA
}  // namespace mga
