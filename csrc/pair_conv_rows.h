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

struct Job {
  PairPlanes x;
  const uint32_t* weight;
  const float* ends;  // (3, channels): bias, slopes, shifts
  int64_t channels;  // even
  int64_t skip_plane, skip_pitch;
  const uint32_t* skip;
  void* out;
  int64_t out_plane, out_pitch;
  const uint16_t* lanes;
  const uint8_t* rows;  // may be null
  Finish finish;
};

template <int SIZE, int OB, int NV>
MGA_BF16 void row_of_block(const Job& job, int64_t y, int64_t from, const uint32_t* weight,
                           int64_t channel) {
  const int64_t pair = channel / 2;
  const int64_t out_plane = job.finish == Finish::planar ? channel : pair;
  const auto* x = job.x.at(0, y - SIZE / 2, from * 16 - SIZE / 2);
  BlockEnd end{};
  end.finish = job.finish;
  end.bias = job.ends + channel;
  end.slopes = end.bias + job.channels;
  end.shifts = end.slopes + job.channels;
  end.skip_plane = job.skip_plane;
  end.out_plane = job.out_plane;
  end.lanes = job.lanes + from;
  if (job.skip != nullptr) end.skip = job.skip + pair * job.skip_plane + y * job.skip_pitch + from * 16;
  end.out = static_cast<uint32_t*>(job.out) + out_plane * job.out_plane + y * job.out_pitch + from * 16;
  conv_block<SIZE, OB, NV>(x, job.x.plane, job.x.pitch, job.x.pairs, weight, end);
}

using RowOfBlock = void (*)(const Job&, int64_t, int64_t, const uint32_t*, int64_t);

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

template <int SIZE>
void convolve_row(const Job& job, int64_t y) {
  const Blocks blocks(job.channels);
  const int64_t vectors = (job.x.width + 15) / 16;
  // Vectors of pixels for which all blocks are computed in turn, so few that x stays in L1.
  const int64_t length = job.x.pairs * SIZE <= 36 ? 12 : 6;
  for (int64_t stretch = 0; stretch < vectors; stretch += length) {
    const int64_t stop = std::min(stretch + length, vectors);
    const uint32_t* weight = job.weight;
    for (int64_t block = 0, channel = 0; block < blocks.count; ++block) {
      const int64_t size = blocks.size(block);
      const int wide = Kernels<SIZE>::kVectors[size / 2];
      int64_t v = stretch;
      for (; v + wide <= stop; v += wide) Kernels<SIZE>::kWide[size / 2](job, y, v, weight, channel);
      for (; v < stop; ++v) Kernels<SIZE>::kNarrow[size / 2](job, y, v, weight, channel);
      weight += SIZE * SIZE * job.x.pairs * size;
      channel += size;
    }
  }
}

#endif

}  // namespace mga
