// Luma of a row of pixels, and how far it is from its mean over 3 x 3 pixels of its cell; the compiler makes vectors of
// these loops.
#pragma once
#include "ops/kernels.h"
#include "simd/vec.h"

namespace mga {
namespace MGA_ISA {

// n pixels -> 0..1020.
static void luma_row(const uint8_t* pixels, int64_t n, int16_t* luma) {
  for (int64_t i = 0; i < n; ++i)
    luma[i] = int16_t((77 * pixels[3 * i] + 150 * pixels[3 * i + 1] + 29 * pixels[3 * i + 2] + 32) >> 6);
}

MGA_INLINE int64_t squared(int32_t distance) { return int64_t(distance) * distance; }

// Adds to `sums`, one for each cell of `side` of the n pixels of `row`, the squares of nine times the distance. The
// rows are three of one cell: above, the row, below. `columns` is room for n.
static void distance_row(const int16_t* above, const int16_t* row, const int16_t* below, int64_t n, int64_t side,
                         int16_t* columns, int64_t* sums) {
  constexpr int64_t kPiece = 32;  // squares below 8160 * 8160, of which so many go into 31 bits
  for (int64_t i = 0; i < n; ++i) columns[i] = int16_t(above[i] + row[i] + below[i]);
  for (int64_t first = 0; first < n; first += side, ++sums) {
    const int64_t last = (first + side < n ? first + side : n) - 1;
    if (first == last) {
      *sums += squared(9 * row[first] - 3 * columns[first]);
      continue;
    }
    int64_t sum = squared(9 * row[first] - 2 * columns[first] - columns[first + 1]) +
                  squared(9 * row[last] - 2 * columns[last] - columns[last - 1]);
    for (int64_t begin = first + 1; begin < last; begin += kPiece) {
      const int64_t end = begin + kPiece < last ? begin + kPiece : last;
      int32_t piece = 0;
      for (int64_t i = begin; i < end; ++i) {
        const int16_t distance = int16_t(9 * row[i] - columns[i - 1] - columns[i] - columns[i + 1]);
        piece += int32_t(distance) * distance;
      }
      sum += piece;
    }
    *sums += sum;
  }
}

}  // namespace MGA_ISA
}  // namespace mga
