// How pair_conv walks over a layer: blocks of output channels, stretches of a row. Shared with pair_upsample.
#pragma once
#include <algorithm>
#include <cstdint>

#include "pair_planes.h"

#if defined(__x86_64__)
#include "pair_conv_kernel.h"
#define MGA_HAS_PAIR_CONV 1
#endif

namespace mga {

constexpr int64_t kLargestBlock = 12;

// Output channels are computed in blocks whose sums, at kVectors(block) vectors of pixels, fill the registers. The blocks
// of a layer are as equal as even numbers allow.
struct Blocks {
  int64_t count, small, larger;  // `larger` blocks of small + 2 channels come first

  explicit Blocks(int64_t channels) {
    const int64_t pairs = (channels + 1) / 2;
    count = (2 * pairs + kLargestBlock - 1) / kLargestBlock;
    small = pairs / count * 2;
    larger = pairs % count;
  }
  int64_t size(int64_t block) const { return block < larger ? small + 2 : small; }
};

#ifdef MGA_HAS_PAIR_CONV

// A layer, apart from where its rows lie.
struct Layer {
  const uint32_t* weight;
  const float* ends;  // (3, channels): bias, slopes, shifts
  int64_t pairs;      // of the input
  int64_t channels;   // of the output, even
  int64_t width;
  int64_t x_plane, skip_plane, out_plane;  // in dwords
  int64_t x_pitch, skip_pitch;             // to the rows that will be read next, or 0 where they are in the cache
  const uint16_t* lanes;
  Finish finish;
  bool past_caches;  // see BlockEnd
};

// Planes of more bytes than this do not stay in a cache until they are read.
constexpr int64_t kCached = 8 << 20;

// Whether what is written to these planes should go around the caches.
inline bool goes_past_caches(const PairPlanes& out) {
  return out.plane * out.pairs * 4 > kCached && reinterpret_cast<uintptr_t>(out.first) % 64 == 0 && out.plane % 16 == 0;
}

// One row of it: pointers to pixel 0 of the first pair (or of the first float plane of out).
struct Row {
  const uint32_t* taps[3];  // input rows above, here and below; only the first for a 1x1 convolution
  const uint32_t* skip;     // may be null
  void* out;
};

template <int SIZE, int OB, int NV>
MGA_BF16 void row_of_block(const Layer& layer, const Row& row, int64_t vector, const uint32_t* weight,
                           int64_t channel) {
  const int64_t x = 16 * vector;
  const int64_t pair = channel / 2;
  BlockEnd end{};
  end.finish = layer.finish;
  end.bias = layer.ends + channel;
  end.slopes = end.bias + layer.channels;
  end.shifts = end.slopes + layer.channels;
  end.skip_plane = layer.skip_plane;
  end.out_plane = layer.out_plane;
  end.lanes = layer.lanes + vector;
  end.past_caches = layer.past_caches;
  if (row.skip != nullptr) end.skip = row.skip + pair * layer.skip_plane + x;
  end.out = static_cast<uint32_t*>(row.out) + (layer.finish == Finish::planar ? channel : pair) * layer.out_plane + x;
  conv_block<SIZE, OB, NV>(row.taps, x - SIZE / 2, layer.x_plane, layer.pairs, weight, end);
}

using RowOfBlock = void (*)(const Layer&, const Row&, int64_t, const uint32_t*, int64_t);

template <int SIZE>
struct Kernels {
  // Wide: as many vectors at once as the registers hold; narrow: one vector, for what is left of a row.
  static constexpr int kVectors[7] = {0, 6, 6, 4, 3, 2, 2};
  static constexpr RowOfBlock kWide[7] = {nullptr,
                                          row_of_block<SIZE, 2, 6>,
                                          row_of_block<SIZE, 4, 6>,
                                          row_of_block<SIZE, 6, 4>,
                                          row_of_block<SIZE, 8, 3>,
                                          row_of_block<SIZE, 10, 2>,
                                          row_of_block<SIZE, 12, 2>};
  static constexpr RowOfBlock kNarrow[7] = {nullptr,
                                            row_of_block<SIZE, 2, 1>,
                                            row_of_block<SIZE, 4, 1>,
                                            row_of_block<SIZE, 6, 1>,
                                            row_of_block<SIZE, 8, 1>,
                                            row_of_block<SIZE, 10, 1>,
                                            row_of_block<SIZE, 12, 1>};
};

// Ask for pixels of the row below early: there are too many planes for the processor to see the pattern by itself.
inline void prefetch(const uint32_t* row, int64_t pitch, int64_t plane, int64_t pairs, int64_t from, int64_t to) {
  if (pitch == 0 || row == nullptr) return;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const uint32_t* below = row + pair * plane + pitch;
    for (int64_t v = from; v < to; ++v) __builtin_prefetch(below + 16 * v, 0, 2);
  }
}

template <int SIZE>
void convolve_row(const Layer& layer, const Row& row) {
  const Blocks blocks(layer.channels);
  const int64_t vectors = (layer.width + 15) / 16;
  // Vectors of pixels for which all blocks are computed in turn, so few that the input stays in L1.
  const int64_t length = layer.pairs * SIZE <= 36 ? 12 : 6;
  for (int64_t stretch = 0; stretch < vectors; stretch += length) {
    const int64_t stop = std::min(stretch + length, vectors);
    prefetch(row.taps[SIZE - 1], layer.x_pitch, layer.x_plane, layer.pairs, stretch, stop);
    prefetch(row.skip, layer.skip_pitch, layer.skip_plane, layer.channels / 2, stretch, stop);
    const uint32_t* weight = layer.weight;
    for (int64_t block = 0, channel = 0; block < blocks.count; ++block) {
      const int64_t size = blocks.size(block);
      const int wide = Kernels<SIZE>::kVectors[size / 2];
      int64_t v = stretch;
      for (; v + wide <= stop; v += wide) Kernels<SIZE>::kWide[size / 2](layer, row, v, weight, channel);
      for (; v < stop; ++v) Kernels<SIZE>::kNarrow[size / 2](layer, row, v, weight, channel);
      weight += SIZE * SIZE * layer.pairs * size;
      channel += size;
    }
  }
}

inline void convolve_row(const Layer& layer, const Row& row, int64_t size) {
  size == 3 ? convolve_row<3>(layer, row) : convolve_row<1>(layer, row);
}

#endif

}  // namespace mga
