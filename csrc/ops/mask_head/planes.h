// Rows of a feature in any layout and precision -> planes of 32-bit words with one column of zeros at each side, the
// form in which the convolution reads pixels as vectors.
#pragma once
#include "simd/vec.h"

namespace mga {
namespace MGA_ISA {

// How channels become words. `at` points at a channel of a pixel, `step` is from channel to channel, in elements;
// `left` is the number of channels from there on. `words` takes kLanes words of neighbouring channels.
struct FromFloat {
  typedef float Item;
  static constexpr int kChannels = 1;  // in a word
  static MGA_INLINE uint32_t word(const Item* at, int64_t, int64_t) {
    uint32_t bits;
    memcpy(&bits, at, 4);
    return bits;
  }
  static MGA_INLINE Words words(const Item* at) { return (Words)load(at); }
};

struct FromBf16 {
  typedef uint16_t Item;
  static constexpr int kChannels = 1;
  static MGA_INLINE uint32_t word(const Item* at, int64_t, int64_t) { return uint32_t(*at) << 16; }
  static MGA_INLINE Words words(const Item* at) { return (Words)from_bf16(at); }
};

struct FromF16 {
  typedef uint16_t Item;
  static constexpr int kChannels = 1;
  static MGA_INLINE uint32_t word(const Item* at, int64_t, int64_t) {
    const float value = from_f16(*at);
    return FromFloat::word(&value, 1, 1);
  }
  static MGA_INLINE Words words(const Item* at) { return (Words)from_f16(at); }
};

// Two channels a word, for the dot products of AVX512_BF16; after an odd last channel a zero.
struct FromBf16Pairs {
  typedef uint16_t Item;
  static constexpr int kChannels = 2;
  static MGA_INLINE uint32_t word(const Item* at, int64_t step, int64_t left) {
    return at[0] | (left > 1 ? uint32_t(at[step]) << 16 : 0);
  }
  static MGA_INLINE Words words(const Item* at) {
    Words v;
    memcpy(&v, at, sizeof v);
    return v;
  }
};

// Row `from` of a feature (stride of channels and columns in elements) -> words at [unit * plane + x], x in 0..width-1.
template <class From>
struct RowReader {
  const typename From::Item* from;
  int64_t channels, width, channel_step, column_step;
  uint32_t* to;
  int64_t plane;

  void one_by_one(int64_t first_unit, int64_t first_column) const {
    for (int64_t c = first_unit * From::kChannels; c < channels; c += From::kChannels) {
      uint32_t* row = to + c / From::kChannels * plane;
      const typename From::Item* at = from + c * channel_step;
      if (column_step == 1) {
        for (int64_t x = first_column; x < width; ++x) row[x] = From::word(at + x, channel_step, channels - c);
      } else {
        for (int64_t x = first_column; x < width; ++x)
          row[x] = From::word(at + x * column_step, channel_step, channels - c);
      }
    }
  }

  MGA_INLINE void block(int64_t unit, int64_t x) const {
    Words rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = From::words(from + (x + i) * column_step + unit * From::kChannels);
    transpose(rows);
    for (int i = 0; i < kLanes; ++i) store(to + (unit + i) * plane + x, rows[i]);
  }

  void read() const {
    const int64_t whole = channels / From::kChannels;  // words without padding
    if (channel_step != 1 || whole < kLanes || width < kLanes) return one_by_one(0, 0);
    // The last block of a row or of the channels overlaps the one before it.
    for (int64_t x = 0; x < width; x += kLanes) {
      const int64_t column = x + kLanes <= width ? x : width - kLanes;
      for (int64_t unit = 0; unit < whole; unit += kLanes) {
        block(unit + kLanes <= whole ? unit : whole - kLanes, column);
      }
    }
    one_by_one(whole, 0);
  }
};

}  // namespace MGA_ISA
}  // namespace mga
