// Float maps, and the order of packed weights. No torch header and none of the C++ library: the kernels of every
// instruction set include this.
//
// A map is float32 (rows, groups, pitch, 8): a row of the image is a run of pixels for each group of 8 channels, so
// that 8 channels of a pixel are one vector and pixels of one group lie side by side. Before the first pixel are
// kBefore pixels of zeros, behind the last one zeros up to the pitch: enough for a kernel of 9 and for whole tiles of 4
// and 6. Rows above and below the image are read from a row of zeros. A map may have fewer rows than the image, of
// which it then holds the last ones (bands.h).
#pragma once
#include <cstdint>

namespace mga {

constexpr int64_t kGroup = 8;     // channels
constexpr int64_t kBefore = 4;    // pixels
constexpr int64_t kColumns = 12;  // whole tiles of 4 and of 6
constexpr int kSide = 4;          // of the tiles of layers that are computed plainly
constexpr int64_t kLargestMapKernel = 9;

inline int64_t whole_columns(int64_t width) { return (width + kColumns - 1) / kColumns * kColumns; }
inline int64_t map_pitch(int64_t width) { return whole_columns(width) + 2 * kBefore; }
inline int64_t held_row(int64_t y, int64_t held) { return y < held ? y : y % held; }
inline int64_t groups_of(int64_t channels) { return (channels + kGroup - 1) / kGroup; }

// Output channels are computed in panels of 1, 2 or 3 vectors, for which 12 sums fill 16 registers: 12 pixels of one
// vector, 6 of two, 4 of three. Two are best, because each weight then serves most pixels; three avoid a lonely one.
constexpr int64_t kLargestPanel = 3;
inline int64_t panel_of(int64_t vectors_left) {
  if (vectors_left <= 3) return vectors_left;
  return vectors_left == 5 || vectors_left == 7 ? 3 : 2;
}

// Calls add(first, count) for the panels of so many vectors.
template <typename Add>
inline void for_each_panel(int64_t vectors, Add&& add) {
  for (int64_t first = 0, count; first < vectors; first += count) {
    count = panel_of(vectors - first);
    add(first, count);
  }
}

// So few channels are computed as dot products, a vector holding input channels: padding them to 8 would waste more.
constexpr int64_t kFewOutputs = 4;

// The parts of a 9x9 kernel of at most 3 outputs are what its nine blocks of 3x3 make, as one layer of 32 outputs:
// block (i, j) of rows 3 i to 3 i + 2 from channel 8 i + 4 j on, but the last column of blocks from 24 and from 28 on,
// and the outputs of block (2, 2) in channels 19, 23 and 27. So the part of a pixel that is read three rows above is
// one group, and so is that three rows below.
constexpr int64_t kPartGroups = 4, kPartOutputs = 3;
constexpr int64_t kLastBlock[kPartOutputs] = {19, 23, 27};

// In which tiles a kernel can be computed: of 4 x 4 or 6 x 6 pixels if it is 3x3, of 4 x 4 if it is 5x5.
inline bool has_tiles(int64_t size, int64_t tile) {
  return tile == 4 ? size == 3 || size == 5 : tile == 6 && size == 3;
}

// Values of a packed weight. In panels (`tile` 0): [panel][tap][input][channel of the panel]; in tiles of m x m, of a
// kernel of n x n: [panel][(m + n - 1)^2 positions][input][channel of the panel], and behind it the weight itself,
// [tap][input][channel]; of few outputs: [tap][group][output][8].
inline int64_t positions_of(int64_t size, int64_t tile) { return (tile + size - 1) * (tile + size - 1); }
inline int64_t transformed_floats(int64_t inputs, int64_t vectors, int64_t size, int64_t tile) {
  return positions_of(size, tile) * inputs * vectors * kGroup;
}
inline int64_t packed_floats(int64_t inputs, int64_t outputs, int64_t size, int64_t tile) {
  const int64_t taps = size * size, vectors = groups_of(outputs);
  if (outputs <= kFewOutputs) return taps * groups_of(inputs) * outputs * kGroup;
  return taps * inputs * vectors * kGroup + (tile == 0 ? 0 : transformed_floats(inputs, vectors, size, tile));
}

}  // namespace mga
