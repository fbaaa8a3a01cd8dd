// What the convolutions need of an instruction set: one table of functions, each of which does a row or more. The
// schedule (chain.cpp, grid.cpp, resample.cpp) has no intrinsics and calls these. isa/portable.cpp has them in plain
// C++ and says with that what the others compute, bit for bit but for the sigmoid. No torch header.
//
// Another instruction set is one more file in isa/. Its first line says what it needs, and it ends with
// MGA_CONVOLUTION_KERNELS_OF(NAME, true), where NAME is that of the file. setup.py finds it there, and so do the tests,
// which compare it with the portable one. Its functions are compiled for their instructions by attributes, not by flags
// for the whole file.
#pragma once
#include "convolution/layout.h"

namespace mga {

// What becomes of a layer's sums. pairs: they are stored in pairs, after a skip was added. gate: their sigmoid is
// multiplied with the skip. shuffle: a pixel shuffle into pairs. planar: float planes.
enum class Finish { pairs, gate, shuffle, planar };

// A layer, apart from where its rows lie. Without a weight it multiplies each channel by a factor.
struct Layer {
  const uint32_t* weight;  // see pack_pair_weight
  const float* epilogue;   // (3, channels * s * s): bias, slopes, shifts; without a weight factors, offsets, slopes
  int64_t pairs;           // of the input
  int64_t channels;        // of the output, even unless planar
  int64_t size;            // of the kernel
  int64_t shuffle;         // s
  bool phased;
  int64_t width;                   // of the input
  int64_t out_plane, out_vectors;  // in words; of a row
  int64_t x_pitch, skip_pitch;     // from a row to the next in memory, to prefetch it; 0 where it is in the cache
  const uint16_t* lanes;           // of the output: one bit a pixel, one word a vector; others are written as zero
  Finish finish;
  bool past_caches;  // what is written may go around the caches; it is aligned to 64 bytes
};

// A row that is read: pixel 0 of the first pair, and the distance to the next pair.
struct Tap {
  const uint32_t* row;
  int64_t plane;
};

// One row of a layer: where pixel 0 of the first pair (or of the first float plane of out) is.
struct Row {
  Tap taps[kLargestKernel];  // input rows from above to below
  Tap skip;                  // may be null
  void* out[3];              // for each row of the pixel shuffle; null where it is not wanted
  int64_t first, last;       // vectors of the input that are computed
  float* statistics;         // null, or (channels, 2, 16): sums of the results and of their squares, lane by lane
};

// A picture, uint8 (height, width, 3), enlarged by a whole factor. Pixel i of a row, in vector v = i / 16, lies between
// the pixels base[v] + left[i] and base[v] + right[i].
struct Enlargement {
  const uint8_t* data;
  int64_t height, width, pitch;  // pitch in bytes
  int64_t factor, vectors;       // of a row of the result
  const int64_t* base;
  const int32_t *left, *right;  // 0 to 16
  const float* share;           // of the right one
};

// A row of a picture in floats: planes (3 s^2, plane); `added` (3, s * plane) or null. Bytes are 255 at most, rounded
// half to even.
struct FloatRow {
  const float *planes, *added;
  int64_t plane;
  float factor;         // result = planes * factor + added
  int64_t first, last;  // vectors of the planes
};

struct ConvolutionKernels {
  const char* name;
  bool fast;  // made for the instructions of a processor, so worth being chosen

  // leaky(convolution + bias [+ skip]) - shift, or sigmoid(convolution + bias) * skip.
  void (*convolve_row)(const Layer&, const Row&);
  // leaky(factor * x + offset [+ skip]).
  void (*scale_row)(const Layer&, const Row&);
  // Makes what was written past the caches visible to other threads.
  void (*settle)();

  // Vectors [first, last) of row y of the enlargement, interpolated bilinearly, as floats (3, plane). `narrow`: room
  // for 3 * (width + 16) floats.
  void (*enlarge_row)(const Enlargement&, int64_t y, int64_t first, int64_t last, float* narrow, float* out,
                      int64_t plane);
  // -> pixels of 3 bytes; `shuffled`: row `dy` of a pixel shuffle of s, s times as many.
  void (*plain_bytes)(const FloatRow&, uint8_t* bytes);
  void (*shuffled_bytes)(const FloatRow&, int64_t s, int64_t dy, uint8_t* bytes);

  // Sums over `height` rows of one pair: columns (4, vectors * 16): low, low squared, high, high squared.
  void (*sum_rows)(const PairPlanes& x, int64_t pair, int64_t top, int64_t height, int64_t vectors, float* columns);
  // out = leaky(factor * x + offset [+ skip]) in `height` rows of one pair: values (4, vectors * 16): factors and
  // offsets of the low channel, then of the high one. skip may be null.
  void (*scale_rows)(const PairPlanes& x, const PairPlanes* skip, const PairPlanes& out, int64_t pair, int64_t top,
                     int64_t height, int64_t vectors, const float* values, const uint16_t* lanes, float slope);
  // A row of a pair: pixel i is low[first[i]] + share[i] * (low[second[i]] - low[first[i]]), and so for high. first,
  // second and share are there for whole vectors.
  void (*interpolate_row)(const float* low, const float* high, const int32_t* first, const int32_t* second,
                          const float* share, int64_t width, const uint16_t* lanes, uint32_t* out);
};

// For the end of a file in isa/: the table of its functions, which have the names of the members.
#define MGA_CONVOLUTION_KERNELS_OF(name, fast)                                                           \
  namespace name {                                                                                       \
  extern const ConvolutionKernels convolution_kernels;                                                   \
  const ConvolutionKernels convolution_kernels = {#name,    fast,        convolve_row,   scale_row,      \
                                                  settle,   enlarge_row, plain_bytes,    shuffled_bytes, \
                                                  sum_rows, scale_rows,  interpolate_row};               \
  }

// The best for instruction_set().
const ConvolutionKernels& convolution_kernels();

}  // namespace mga
