// What the convolutions in float maps need of an instruction set: one table. A call computes some tiles of one layer;
// the schedule (run.h) hands them out to threads and has no instruction of any processor. No torch header.
//
// Another instruction set is one more file in isa/, which says what a vector of 8 floats is and how a block of products
// is summed, and includes body.h, where everything else is. isa/portable.cpp has both in plain C++; the others differ
// from it in that a product and a sum are rounded once.
#pragma once
#include "maps/layout.h"

namespace mga {

// What is read: pixel 0 of row 0 of its first group in use, and distances in floats. Rows beyond the image or the mask
// are `zeros`, pixel 0 of a row of zeros. `held`: rows that there is memory for; row y is at y % held.
struct MapSource {
  const float* first;
  int64_t row, group;
  int64_t height, held;
  const uint8_t* rows;  // one byte a row, or null: all of them
  const float* zeros;
};

// Where results go. Vector v of `groups` * shuffle^2 is group v % groups of phase v / groups of the pixel shuffle;
// `pixel`: floats from a pixel of the layer to the next; `held`: as of a source.
struct MapTarget {
  float* first;
  int64_t row, group, pixel, held;
  int64_t groups, shuffle;
  const uint8_t* rows;    // of the output; null: all of them. Others are not written.
  const uint16_t* lanes;  // of the output, one bit a pixel; null: all of them. Others are written as zero.
  bool past_caches;
};

enum class MapGate : int64_t { none, sigmoid, span };
enum class MapActivation : int64_t { leaky, silu };

// Where tiles lie along a row or a column of a map: side by side, or `each` of them in every patch, of which one begins
// every `step` pixels, the first of them `inset` pixels from the border. `each` is then not 0.
struct TilePlaces {
  int64_t side, each, step, inset;

  int64_t at(int64_t tile) const {
    return each == 0 ? tile * side : inset + tile / each * step + tile % each * side;
  }
  // How many begin before this pixel.
  int64_t before(int64_t pixel) const {
    if (each == 0) return (pixel + side - 1) / side;
    const int64_t along = pixel - inset, whole = along / step * each, more = (along % step + side - 1) / side;
    return along <= 0 ? 0 : whole + (more < each ? more : each);
  }
};

// Of a layer over everything, by its `tile`.
inline TilePlaces side_by_side(int64_t tile) { return {tile == 0 ? kSide : tile, 0, 0, 0}; }

// A layer, see mga_kernels/ops/convolution/maps.py. Size 0 has a factor for each channel in the place of a weight.
struct MapLayer {
  int64_t inputs, outputs, vectors;  // channels, channels, groups of output channels in all phases
  int64_t size, stride, tile;
  TilePlaces places;
  const float* weight;    // of a layer in tiles null, if it must be transformed first
  const float* plain;     // of a layer in tiles: the weight itself, for tiles with infinities or NaN, too
  const float* epilogue;  // (4, 8 * vectors): bias, slope, factors of skip and of `also`
  MapSource x, skip, also;
  bool has_skip, has_also, has_parts;
  MapSource parts[kPartGroups];  // each a group
  MapGate gate;
  MapActivation activation;
  int64_t height, width;  // of what it makes, before the shuffle
};

// The weight of a kernel as it is, [tap][input][8 * vectors], of a layer in such tiles.
struct UntransformedWeight {
  const float* data;
  int64_t inputs, vectors, size, tile;
};

// Tiles of tile x tile pixels of a layer's output, 4 x 4 where it has none: `count` of a list of numbers, row *
// `across` + column, or one behind the other in a row.
struct MapTask {
  const int32_t* tiles;  // or null: from row and column on
  int64_t count, row, column, across;
  MapTarget out;
  float* statistics;  // null, or (2, 8 * vectors): sums of the results and of their squares, which are added to
};

constexpr int64_t kSpareValues = 15;  // of two vectors, of which a pixel of one value is made

struct MapKernels {
  const char* name;
  bool fast;
  // Floats of room that a task of so many tiles needs.
  int64_t (*room)(const MapLayer&, int64_t count);
  // `next`: what this thread computes afterwards, so that its rows are fetched in time; may be null.
  void (*compute)(const MapLayer&, const MapTask&, const MapTask* next, float* room);
  // The panel of vectors [first, first + count) of it at the positions of tiles, into its place behind `to`, where the
  // first one begins; see packed_floats.
  void (*transform_weight)(const UntransformedWeight&, int64_t first, int64_t count, float* to);
  // Makes what was written past the caches visible to other threads.
  void (*settle)();
  // `count` pixels of n floats, `pixel` apart -> bytes: factor * value + added (count * n, or null), 0..255, half to
  // even, NaN as 0. Of each pixel's values kSpareValues behind the n are read, and as many bytes written, too.
  void (*bytes)(const float* values, int64_t pixel, int64_t n, int64_t count, float factor, const float* added,
                uint8_t* out);
};

// The best for instruction_set().
const MapKernels& map_kernels();

}  // namespace mga
