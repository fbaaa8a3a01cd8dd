// How a layer is computed row by row: blocks of output channels, stretches of a row.
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
constexpr int64_t kLargestKernel = 9;

// Output channels are computed in blocks whose sums, at kVectors(block) vectors of pixels, fill the registers. The
// blocks of a layer are as equal as pairs of channels allow; one or three channels are a block by themselves. With a
// pixel shuffle of s a block holds the s columns of one of its rows, so a channel is s sums.
struct Blocks {
  int64_t count, small, larger, shuffle, odd;  // `larger` blocks of small + 1 pairs come first

  explicit Blocks(int64_t channels, int64_t s = 1) {
    shuffle = s;
    odd = channels % 2 * channels;
    const int64_t pairs = (channels + 1) / 2, most = kLargestBlock / (2 * s);
    count = (pairs + most - 1) / most;
    small = pairs / count;
    larger = pairs % count;
  }
  int64_t channels(int64_t block) const { return odd != 0 ? odd : 2 * (block < larger ? small + 1 : small); }
  int64_t sums(int64_t block) const { return channels(block) * shuffle; }
};

// Rows of the kernel that count for row `dy` of a pixel shuffle of s. A convolution 3x3 of an image that was enlarged
// by repetition sees in each phase at most two rows and two columns of the small image.
struct Phases {
  int64_t first, rows;

  Phases(int64_t size, int64_t s, int64_t dy, bool phased) : first(0), rows(size) {
    if (!phased) return;
    first = dy == 0 ? 0 : 1;
    rows = dy == 0 || dy == s - 1 ? 2 : 1;
  }
  // Columns of the shuffle that column `column` of the kernel counts for: from `low` to before `high`.
  static int64_t low(int64_t s, int64_t column, bool phased) { return phased && column == 2 ? s - 1 : 0; }
  static int64_t high(int64_t s, int64_t column, bool phased) { return phased && column == 0 ? 1 : s; }
};

// Values of a row of a block's weight for one pair of channels and all columns.
inline int64_t weight_step(int64_t size, int64_t sums, int64_t s, bool phased) {
  return phased ? sums + 2 * (sums / s) : size * sums;
}

#ifdef MGA_HAS_PAIR_CONV

// A layer, apart from where its rows lie. Without a weight it multiplies each channel by a factor.
struct Layer {
  const uint32_t* weight;
  const float* ends;  // (3, channels * s * s): bias, slopes, shifts; without a weight factors, offsets, slopes
  int64_t pairs;      // of the input
  int64_t channels;   // of the output, even unless planar
  int64_t size;       // of the kernel
  int64_t shuffle;    // s
  bool phased;
  int64_t width;                   // of the input
  int64_t out_plane, out_vectors;  // in dwords; of a row
  int64_t x_pitch, skip_pitch;     // to the rows that will be read next, or 0 where they are in the cache
  const uint16_t* lanes;           // of the output
  Finish finish;
  bool past_caches;  // see BlockEnd
};

// Planes of more bytes than this do not stay in a cache until they are read.
constexpr int64_t kCached = 8 << 20;

// Whether what is written to these planes should go around the caches.
inline bool goes_past_caches(const PairPlanes& out) {
  return out.plane * out.pairs * 4 > kCached && reinterpret_cast<uintptr_t>(out.first) % 64 == 0 && out.plane % 16 == 0;
}

// One row of it: where pixel 0 of the first pair (or of the first float plane of out) is.
struct Row {
  Tap taps[kLargestKernel];  // input rows from above to below
  Tap skip;                  // may be null
  void* out[3];              // for each row of the pixel shuffle; null where it is not wanted
  int64_t first, last;       // vectors of the input that are computed
  float* statistics;         // see BlockEnd
};

template <int SIZE, int OB, int NV, int PHASES>
MGA_BF16 void row_of_block(const Layer& layer, const Row& row, int64_t dy, int64_t vector, const uint32_t* weight,
                           int64_t channel) {
  const int64_t x = 16 * vector, s = layer.shuffle, first = channel * s * s + dy * s, pair = channel / 2;
  const Phases phases(layer.size, s, dy, layer.phased);
  BlockEnd end{};
  end.finish = layer.finish;
  end.shuffle = int(s);
  end.bias = layer.ends + first;
  end.slopes = end.bias + layer.channels * s * s;
  end.shifts = end.slopes + layer.channels * s * s;
  end.out_plane = layer.out_plane;
  end.out_vectors = layer.out_vectors - vector * s;
  end.lanes = layer.lanes + vector * s;
  end.past_caches = layer.past_caches;
  end.skip_plane = row.skip.plane;
  if (row.skip.row != nullptr) end.skip = row.skip.row + pair * row.skip.plane + x;
  if (row.statistics != nullptr) end.statistics = row.statistics + 32 * channel;
  end.out =
      static_cast<uint32_t*>(row.out[dy]) + (layer.finish == Finish::planar ? channel : pair) * layer.out_plane + x * s;
  conv_block<SIZE, OB, NV, PHASES>(row.taps + phases.first, phases.rows, int(layer.size), x - layer.size / 2,
                                   layer.pairs, weight, end);
}

using RowOfBlock = void (*)(const Layer&, const Row&, int64_t, int64_t, const uint32_t*, int64_t);

// The kernel for a block of that many sums, `wide` for as many vectors as fill the registers, or for one.
struct Kernel {
  RowOfBlock wide, narrow;
  int vectors;
};

template <int SIZE, int PHASES, int OB, int NV>
constexpr Kernel kernel() {
  return {row_of_block<SIZE, OB, NV, PHASES>, row_of_block<SIZE, OB, 1, PHASES>, NV};
}

template <int SIZE>
Kernel plain_kernel(int64_t sums) {
  switch (sums) {
    case 1:
      return kernel<SIZE, 1, 1, 6>();
    case 2:
      return kernel<SIZE, 1, 2, 6>();
    case 3:
      return kernel<SIZE, 1, 3, 6>();
    case 4:
      return kernel<SIZE, 1, 4, 6>();
    case 6:
      return kernel<SIZE, 1, 6, 4>();
    case 8:
      return kernel<SIZE, 1, 8, 3>();
    case 10:
      return kernel<SIZE, 1, 10, 2>();
    default:
      return kernel<SIZE, 1, 12, 2>();
  }
}

inline Kernel phased_kernel(int64_t sums, int64_t s) {
  if (s == 3) return sums == 6 ? kernel<3, 3, 6, 4>() : kernel<3, 3, 12, 2>();
  return sums == 4 ? kernel<3, 2, 4, 6>() : sums == 8 ? kernel<3, 2, 8, 3>() : kernel<3, 2, 12, 2>();
}

inline Kernel kernel_of(const Layer& layer, int64_t sums) {
  if (layer.phased) return phased_kernel(sums, layer.shuffle);
  return layer.size == 1 ? plain_kernel<1>(sums) : layer.size == 3 ? plain_kernel<3>(sums) : plain_kernel<0>(sums);
}

// Ask for pixels of the row below early: there are too many planes for the processor to see the pattern by itself.
inline void prefetch(const Tap& row, int64_t pitch, int64_t pairs, int64_t from, int64_t to) {
  if (pitch == 0 || row.row == nullptr || row.plane == 0) return;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const uint32_t* below = row.row + pair * row.plane + pitch;
    for (int64_t v = from; v < to; ++v) __builtin_prefetch(below + 16 * v, 0, 2);
  }
}

inline void convolve_row(const Layer& layer, const Row& row) {
  const Blocks blocks(layer.channels, layer.shuffle);
  // Vectors of pixels for which all blocks are computed in turn, so few that the input stays in L1.
  const int64_t length = layer.pairs * layer.size <= 36 ? 12 : 6;
  for (int64_t stretch = row.first; stretch < row.last; stretch += length) {
    const int64_t stop = std::min(stretch + length, row.last);
    prefetch(row.taps[layer.size - 1], layer.x_pitch, layer.pairs, stretch, stop);
    prefetch(row.skip, layer.skip_pitch, layer.channels / 2, stretch, stop);
    const uint32_t* weight = layer.weight;
    for (int64_t dy = 0; dy < (layer.finish == Finish::shuffle ? layer.shuffle : 1); ++dy) {
      const int64_t rows = Phases(layer.size, layer.shuffle, dy, layer.phased).rows;
      for (int64_t block = 0, channel = 0; block < blocks.count; channel += blocks.channels(block++)) {
        const int64_t sums = blocks.sums(block);
        const Kernel run = kernel_of(layer, sums);
        int64_t v = row.out[dy] == nullptr ? stop : stretch;
        for (; v + run.vectors <= stop; v += run.vectors) run.wide(layer, row, dy, v, weight, channel);
        for (; v < stop; ++v) run.narrow(layer, row, dy, v, weight, channel);
        weight += rows * layer.pairs * weight_step(layer.size, sums, layer.shuffle, layer.phased);
      }
    }
  }
}

// The same for a layer without a weight: factor * x + offset, with what is added and the activation after it.
MGA_BF16 inline void scale_row(const Layer& layer, const Row& row) {
  BlockEnd end{};
  end.finish = Finish::pairs;
  end.past_caches = layer.past_caches;
  const float none[2] = {0, 0};
  end.shifts = none;
  prefetch(row.taps[0], layer.x_pitch, layer.pairs, row.first, row.last);
  prefetch(row.skip, layer.skip_pitch, layer.pairs, row.first, row.last);
  for (int64_t pair = 0; pair < layer.pairs; ++pair) {
    const float* factors = layer.ends + 2 * pair;
    const float* offsets = factors + layer.channels;
    end.slopes = offsets + layer.channels;
    if (row.statistics != nullptr) end.statistics = row.statistics + 64 * pair;
    for (int64_t v = row.first; v < row.last; ++v) {
      const __m512i x = _mm512_loadu_si512(row.taps[0].row + pair * row.taps[0].plane + 16 * v);
      if (row.skip.row != nullptr) end.skip = row.skip.row + pair * row.skip.plane + 16 * v;
      end.out = static_cast<uint32_t*>(row.out[0]) + pair * layer.out_plane + 16 * v;
      end.lanes = layer.lanes + v;
      finish_pair(_mm512_fmadd_ps(low_half(x), _mm512_set1_ps(factors[0]), _mm512_set1_ps(offsets[0])),
                  _mm512_fmadd_ps(high_half(x), _mm512_set1_ps(factors[1]), _mm512_set1_ps(offsets[1])), 0, 0, end);
    }
  }
}

#endif

}  // namespace mga
