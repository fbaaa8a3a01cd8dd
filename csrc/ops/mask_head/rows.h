// The mask head, row by row, without its hidden map in memory.
//
// A hidden row needs three rows of the feature, which wait in a ring of planes (L2). Each tile of it, all channels of a
// few vectors of pixels, stays in L1: the second convolution multiplies it by its 3x3 taps at once, without shifting,
// and only these nine numbers per pixel are kept. A score is then the sum of nine of them, shifted.
#pragma once
#include <stdlib.h>

#include "ops/kernels.h"
#include "ops/mask_head/planes.h"

namespace mga {
namespace MGA_ISA {

#if defined(__AVX512F__)
constexpr int kOuts = 8, kVectors = 3;  // of a register tile: 24 accumulators of 32 registers
#else
constexpr int kOuts = 6, kVectors = 2;  // 12 of 16
#endif
constexpr int kTile = kVectors * kLanes;  // pixels

struct PlainWeights {
  static constexpr int kChannels = 1;
  static MGA_INLINE Floats accumulate(Floats sum, Words pixels, uint32_t weight) {
    float value;
    memcpy(&value, &weight, 4);
    return multiply_add((Floats)pixels, all(value), sum);
  }
};

#if defined(__AVX512BF16__)
struct PairWeights {
  static constexpr int kChannels = 2;
  static MGA_INLINE Floats accumulate(Floats sum, Words pixels, uint32_t weight) {
    return _mm512_dpbf16_ps(sum, (__m512bh)pixels, (__m512bh)_mm512_set1_epi32(int(weight)));
  }
};
MGA_INLINE bool in_pairs(const MaskHeadTask& task) { return task.dtype == Real::bf16; }
#else
typedef PlainWeights PairWeights;
MGA_INLINE bool in_pairs(const MaskHeadTask&) { return false; }
#endif

MGA_INLINE int64_t units_of(const MaskHeadTask& task) {
  return in_pairs(task) ? (task.channels + 1) / 2 : task.channels;
}

// The hidden channels are cut into groups of nearly equal size, at most kOuts.
struct Groups {
  int64_t count, hidden;
  explicit Groups(int64_t hidden_) : count((hidden_ + kOuts - 1) / kOuts), hidden(hidden_) {}
  int64_t begin(int64_t group) const { return hidden * group / count; }
  int size(int64_t group) const { return int(begin(group + 1) - begin(group)); }
};

static int64_t mask_head_words(const MaskHeadTask& task) { return task.hidden * units_of(task) * 9; }

// [group][unit][tap][channel of the group]
static void mask_head_pack(const MaskHeadTask& task, uint32_t* packed) {
  const Groups groups(task.hidden);
  const int64_t units = units_of(task), per_unit = in_pairs(task) ? 2 : 1;
  for (int64_t group = 0; group < groups.count; ++group) {
    for (int64_t i = 0; i < units * 9 * groups.size(group); ++i) {
      const int64_t out = groups.begin(group) + i % groups.size(group);
      const int64_t tap = i / groups.size(group) % 9, c = i / groups.size(group) / 9 * per_unit;
      uint32_t bits[2] = {0, 0};
      for (int64_t j = 0; j < per_unit && c + j < task.channels; ++j) {
        memcpy(&bits[j], task.weight1 + (out * task.channels + c + j) * 9 + tap, 4);
      }
      *packed++ = per_unit == 1 ? bits[0] : bits[0] >> 16 | bits[1];
    }
  }
}

// Hidden channels of one group at kWide * kLanes pixels: `rows` are the planes of three feature rows, one pixel to the
// left of the first.
template <class Weights, int kOut, int kWide>
void hidden_tile(const uint32_t* const* rows, int64_t units, int64_t plane, const uint32_t* weights, const float* bias,
                 float* hidden) {
  Floats sums[kOut][kWide];
  for (int o = 0; o < kOut; ++o) {
    for (int v = 0; v < kWide; ++v) sums[o][v] = all(bias[o]);
  }
  for (int64_t unit = 0; unit < units; ++unit) {
    for (int ky = 0; ky < 3; ++ky) {
      const uint32_t* row = rows[ky] + unit * plane;
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx, weights += kOut) {
        Words pixels[kWide];
        for (int v = 0; v < kWide; ++v) pixels[v] = load(row + kx + v * kLanes);
#pragma GCC unroll 16
        for (int o = 0; o < kOut; ++o) {
#pragma GCC unroll 4
          for (int v = 0; v < kWide; ++v) sums[o][v] = Weights::accumulate(sums[o][v], pixels[v], weights[o]);
        }
      }
    }
  }
  for (int o = 0; o < kOut; ++o) {
    for (int v = 0; v < kWide; ++v) {
      const Floats sum = sums[o][v];
      store(hidden + o * kTile + v * kLanes, sum < 0.0f ? Floats{} : sum);
    }
  }
}

typedef void (*HiddenTile)(const uint32_t* const*, int64_t, int64_t, const uint32_t*, const float*, float*);

template <class Weights, int kWide>
HiddenTile tile_function(int outs) {
  static_assert(kOuts <= 8, "a case for each");
  switch (outs) {
    case 1:
      return hidden_tile<Weights, 1, kWide>;
    case 2:
      return hidden_tile<Weights, 2, kWide>;
    case 3:
      return hidden_tile<Weights, 3, kWide>;
    case 4:
      return hidden_tile<Weights, 4, kWide>;
    case 5:
      return hidden_tile<Weights, 5, kWide>;
    case 6:
      return hidden_tile<Weights, 6, kWide>;
#if defined(__AVX512F__)
    case 7:
      return hidden_tile<Weights, 7, kWide>;
    default:
      return hidden_tile<Weights, 8, kWide>;
#else
    default:
      return nullptr;
#endif
  }
}

// Nine products a pixel: of the hidden channels there and each tap of the second convolution.
template <int kWide>
void tap_products(const float* hidden, int64_t channels, const float* weight2, float* taps, int64_t taps_step) {
  Floats sums[9][kWide] = {};
  for (int64_t c = 0; c < channels; ++c) {
    Floats values[kWide];
    for (int v = 0; v < kWide; ++v) values[v] = load(hidden + c * kTile + v * kLanes);
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) {
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) {
        sums[tap][v] = multiply_add(values[v], all(weight2[c * 9 + tap]), sums[tap][v]);
      }
    }
  }
  for (int tap = 0; tap < 9; ++tap) {
    for (int v = 0; v < kWide; ++v) store(taps + tap * taps_step + v * kLanes, sums[tap][v]);
  }
}

// Consecutive rows of one image on one thread.
struct MaskHeadStrip {
  const MaskHeadTask& task;
  const uint32_t* packed;
  int64_t units, plane, padded;  // padded: width in whole vectors
  uint32_t* ring;                // [3][units][plane]: row y of the feature at y % 3, its pixel 0 at 1
  float* hidden;                 // [hidden][kTile]
  float* taps;                   // [9][padded + 2], pixel 0 at 1
  float* scores;                 // [3][padded]: row y at y % 3
  float* cells;
  void* memory;

  MaskHeadStrip(const MaskHeadTask& task_, const uint32_t* packed_) : task(task_), packed(packed_) {
    units = units_of(task);
    padded = (task.width + kLanes - 1) / kLanes * kLanes;
    plane = padded + 2 * kLanes;
    // An odd number of vectors, so that the planes of one pixel do not share a set of the cache.
    if (plane / kLanes % 2 == 0) plane += kLanes;
    const int64_t parts[] = {3 * units * plane, task.hidden * kTile, 9 * (padded + kLanes), 3 * padded, padded};
    int64_t words = 0;
    for (int64_t part : parts) words += part;
    memory = aligned_alloc(64, size_t(words * 4 + 63) / 64 * 64);
    if (memory == nullptr) return;
    memset(memory, 0, size_t(words * 4));
    ring = static_cast<uint32_t*>(memory);
    hidden = reinterpret_cast<float*>(ring + parts[0]);
    taps = hidden + parts[1];
    scores = taps + parts[2];
    cells = scores + parts[3];
  }
  MaskHeadStrip(const MaskHeadStrip&) = delete;
  MaskHeadStrip& operator=(const MaskHeadStrip&) = delete;
  ~MaskHeadStrip() { free(memory); }

  int64_t taps_step() const { return padded + kLanes; }
  uint32_t* ring_row(int64_t y) const { return ring + (y + 3) % 3 * units * plane; }

  template <class From>
  void read(int64_t image, int64_t y) const {
    const auto* at =
        static_cast<const typename From::Item*>(task.feature) + image * task.stride[0] + y * task.stride[2];
    RowReader<From>{at, task.channels, task.width, task.stride[1], task.stride[3], ring_row(y) + 1, plane}.read();
  }

  void read_row(int64_t image, int64_t y) const {
    if (y < 0 || y >= task.height) {
      memset(ring_row(y), 0, size_t(units * plane * 4));
    } else if (task.dtype == Real::f32) {
      read<FromFloat>(image, y);
    } else if (task.dtype == Real::f16) {
      read<FromF16>(image, y);
    } else if (in_pairs(task)) {
      read<FromBf16Pairs>(image, y);
    } else {
      read<FromBf16>(image, y);
    }
  }

  template <class Weights, int kWide>
  void tile(const uint32_t* const* rows, int64_t x) const {
    const Groups groups(task.hidden);
    const uint32_t* const at[3] = {rows[0] + x, rows[1] + x, rows[2] + x};
    for (int64_t group = 0; group < groups.count; ++group) {
      const int64_t first = groups.begin(group);
      tile_function<Weights, kWide>(groups.size(group))(at, units, plane, packed + first * units * 9,
                                                        task.bias1 + first, hidden + first * kTile);
    }
    tap_products<kWide>(hidden, task.hidden, task.weight2, taps + 1 + x, taps_step());
  }

  // Fills `taps` for hidden row y.
  template <class Weights>
  void tap_row(int64_t y) const {
    const uint32_t* const rows[3] = {ring_row(y - 1), ring_row(y), ring_row(y + 1)};
    int64_t x = 0;
    for (; x + kTile <= padded; x += kTile) tile<Weights, kVectors>(rows, x);
    for (; x < padded; x += kLanes) tile<Weights, 1>(rows, x);
    for (int tap = 0; tap < 9; ++tap) {  // the second convolution sees zeros, not what the first makes of padding
      memset(taps + tap * taps_step() + 1 + task.width, 0, size_t(padded - task.width + 1) * 4);
    }
  }

  // What hidden row y, in `taps`, gives to the scores of row y + 1 - ky.
  void add_to_scores(int64_t y, int ky) const {
    float* row = scores + (y + 4 - ky) % 3 * padded;
    const float* from = taps + ky * 3 * taps_step();
    for (int64_t x = 0; x < padded; x += kLanes) {
      const Floats before = ky == 0 ? all(task.bias2) : load(row + x);
      const Floats sum = load(from + x) + load(from + taps_step() + x + 1) + load(from + 2 * taps_step() + x + 2);
      store(row + x, before + sum);
    }
  }

  void begin_scores(int64_t y) const {
    float* row = scores + (y + 3) % 3 * padded;
    for (int64_t x = 0; x < padded; x += kLanes) store(row + x, all(task.bias2));
  }

  // Adds finished scores of row y to the cells, and writes those after the last row of theirs.
  void pool(int64_t image, int64_t y) const {
    const int64_t p = task.patch_size, columns = task.width / p;
    float* row = scores + y % 3 * padded;
    const bool at_once = task.sigmoid_first && !task.one_channel;
    for (int64_t x = 0; at_once && x < padded; x += kLanes) store(row + x, sigmoid(load(row + x)));
    if (y % p == 0) memset(cells, 0, size_t(columns) * 4);
    for (int64_t i = 0; i < columns; ++i) {
      for (int64_t j = 0; j < p; ++j) cells[i] += row[i * p + j];
    }
    if (y % p != p - 1) return;
    float* out = task.probability + (image * (task.height / p) + y / p) * columns;
    for (int64_t i = 0; i < columns; ++i) cells[i] /= float(p * p);
    for (int64_t i = 0; !at_once && !task.one_channel && i < columns; i += kLanes) {
      store(cells + i, sigmoid(load(cells + i)));
    }
    for (int64_t i = 0; i < columns; ++i) out[i] = task.one_channel && cells[i] < 0 ? 0.1f * cells[i] : cells[i];
  }

  template <class Weights>
  void run(int64_t image, int64_t first_row, int64_t end_row) const {
    const int64_t first = first_row > 0 ? first_row - 1 : 0;
    const int64_t end = end_row < task.height ? end_row + 1 : task.height;
    read_row(image, first - 1);
    read_row(image, first);
    begin_scores(first);
    for (int64_t y = first; y < end; ++y) {
      read_row(image, y + 1);
      tap_row<Weights>(y);
      for (int ky = 0; ky < 3; ++ky) add_to_scores(y, ky);
      if (y - 1 >= first_row) pool(image, y - 1);
    }
    if (end_row == task.height) pool(image, end_row - 1);
  }
};

static bool mask_head_rows(const MaskHeadTask& task, const uint32_t* packed, int64_t begin, int64_t end) {
  const MaskHeadStrip strip(task, packed);
  const int64_t rows = task.height / task.patch_size;
  if (strip.memory == nullptr) return false;
  while (begin < end) {
    const int64_t image = begin / rows, stop = (image + 1) * rows < end ? (image + 1) * rows : end;
    const int64_t first = (begin - image * rows) * task.patch_size, last = (stop - image * rows) * task.patch_size;
    if (in_pairs(task)) {
      strip.run<PairWeights>(image, first, last);
    } else {
      strip.run<PlainWeights>(image, first, last);
    }
    begin = stop;
  }
  return true;
}

}  // namespace MGA_ISA
}  // namespace mga
