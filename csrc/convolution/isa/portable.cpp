// Instruction set: none.
// The convolutions in plain C++, for any processor: slow, and the definition of what the other instruction sets
// compute. They differ from it only in the sigmoid and in which NaN a NaN is.
#include <cfloat>
#include <cmath>

#include "convolution/kernels.h"
#include "simd/bits.h"

namespace mga {
namespace {

constexpr int kVector = 16;  // pixels

// Denormal numbers become zero, with their sign.
float flush(float value) { return std::fabs(value) < FLT_MIN ? std::copysign(0.f, value) : value; }

// float -> bf16 as vcvtne2ps2bf16 does it: to the nearest, of two equally near to the even one, whatever the rounding
// mode; denormal numbers become zero; NaN stays NaN.
uint32_t to_bf16(float value) {
  if (std::isnan(value)) return bits_of<uint32_t>(value) >> 16 | 0x40;
  const uint32_t bits = bits_of<uint32_t>(flush(value));
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint32_t join_halves(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

// sum + the products of two channels, as vdpbf16ps does it: first the odd channel, then the even one, each a
// multiplication and addition with one rounding, to nearest even; denormal numbers are zeros when they come in and when
// they go out.
float add_products(float sum, uint32_t x, uint32_t weight) {
  sum = flush(std::fma(flush(high_half(x)), flush(high_half(weight)), sum));
  return flush(std::fma(flush(low_half(x)), flush(low_half(weight)), sum));
}

// Exponents of bf16 numbers, as they are stored, of all that are not zero; 0 is that of denormal numbers.
struct Exponents {
  uint32_t low = 255, high = 0;

  void add(const uint32_t* pairs, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t even = pairs[i] & 0x7fff, odd = pairs[i] >> 16 & 0x7fff;
      low = std::min({low, even == 0 ? 255 : even >> 7, odd == 0 ? 255 : odd >> 7});
      high = std::max({high, even >> 7, odd >> 7});
    }
  }
};

// Whether a float multiplication and a float addition give what add_products gives. Where no number is denormal, all
// products, and so all sums, are multiples of 2^(a - 127 - 7) * 2^(b - 127 - 7) for the smallest exponents a and b.
// Where that is no less than 2^-126, no sum is denormal; where no product overflows either, all are exact, so that
// there is one rounding either way.
bool is_plain(const Exponents& x, const Exponents& weight) {
  const bool denormal = x.low == 0 || weight.low == 0;
  return !denormal && x.low + weight.low >= 142 && x.high + weight.high <= 379;
}

// 1 / (1 + e^-x); other instruction sets have it within 2e-4 of itself.
float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

float leaky(float x, float slope) { return x < 0 ? x * slope : x; }

bool has(const uint16_t* lanes, int64_t i) { return (lanes[i / kVector] >> i % kVector & 1) != 0; }

// Sums of one block at 16 pixels, [column of the shuffle][channel].
using Sums = float[kLargestBlock][kVector];

// add_products for 16 pixels where is_plain. Inlined, compilers turn the loop around it into vectors, and do it slowly.
__attribute__((noinline)) void add_plain_products(float* __restrict sums, const float* __restrict low,
                                                  const float* __restrict high, float weight_low, float weight_high) {
  for (int i = 0; i < kVector; ++i) sums[i] = sums[i] + high[i] * weight_high + low[i] * weight_low;
}

// One pair at one column of the kernel, for the sums [first, last).
template <bool PLAIN>
void add_column(Sums& sums, int64_t first, int64_t last, const uint32_t* x, const uint32_t* weight) {
  if (PLAIN) {
    float low[kVector], high[kVector];
    for (int i = 0; i < kVector; ++i) low[i] = low_half(x[i]), high[i] = high_half(x[i]);
    for (int64_t o = first; o < last; ++o, ++weight) {
      add_plain_products(sums[o], low, high, low_half(*weight), high_half(*weight));
    }
  } else {
    for (int64_t o = first; o < last; ++o, ++weight) {
      for (int i = 0; i < kVector; ++i) sums[o][i] = add_products(sums[o][i], x[i], *weight);
    }
  }
}

// The convolution of a block of `channels` output channels at 16 pixels from `x` on; weight: [row][pair][column][sum].
template <bool PLAIN>
void add_block(const Layer& layer, const Row& row, const Phases& phases, int64_t channels, int64_t x,
               const uint32_t* weight, Sums& sums) {
  for (auto& sum : sums) std::fill(sum, sum + kVector, 0.f);
  for (int64_t i = phases.first; i < phases.first + phases.rows; ++i) {
    for (int64_t pair = 0; pair < layer.pairs; ++pair) {
      const uint32_t* from = row.taps[i].row + pair * row.taps[i].plane + x - layer.size / 2;
      for (int64_t column = 0; column < layer.size; ++column) {
        const int64_t first = channels * Phases::low(layer.shuffle, column, layer.phased);
        const int64_t last = channels * Phases::high(layer.shuffle, column, layer.phased);
        add_column<PLAIN>(sums, first, last, from + column, weight);
        weight += last - first;
      }
    }
  }
}

// One channel's value at a pixel joins its sums.
void accumulate(float* statistics, int64_t channel, int64_t x, float value) {
  float* sums = statistics + 2 * kVector * channel + x % kVector;
  sums[0] += value;
  sums[kVector] = std::fma(value, value, sums[kVector]);
}

// Two channels from `channel` on at pixel x: the skip is added or gated, then activation, shift, statistics and
// rounding to bf16.
void finish_pair(const Layer& layer, const Row& row, int64_t channel, int64_t x, const float (&sums)[2],
                 const float* slopes, const float* shifts) {
  const int64_t pair = channel / 2;
  float values[2] = {sums[0], sums[1]};
  if (row.skip.row != nullptr) {
    const uint32_t skip = row.skip.row[pair * row.skip.plane + x];
    const float skipped[2] = {low_half(skip), high_half(skip)};
    for (int i = 0; i < 2; ++i) {
      values[i] = layer.finish == Finish::gate ? sigmoid(values[i]) * skipped[i] : values[i] + skipped[i];
    }
  }
  const bool inside = has(layer.lanes, x);
  for (int i = 0; i < 2; ++i) {
    values[i] = leaky(values[i], slopes[channel + i]);
    if (shifts != nullptr) values[i] -= shifts[channel + i];
    if (inside && row.statistics != nullptr) accumulate(row.statistics, channel + i, x, values[i]);
  }
  uint32_t* out = static_cast<uint32_t*>(row.out[0]) + pair * layer.out_plane;
  out[x] = inside ? join_halves(values[0], values[1]) : 0;
}

// The sums of `channels` channels from `first` on at the 16 pixels from `x` on, row `dy` of a pixel shuffle.
void finish_block(const Layer& layer, const Row& row, int64_t dy, int64_t first, int64_t channels, int64_t x,
                  const Sums& sums) {
  const int64_t s = layer.shuffle, each = s * s;
  const float* bias = layer.epilogue;
  const float* slopes = bias + layer.channels * each;
  const float* shifts = slopes + layer.channels * each;
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t channel = first + c;
    if (layer.finish == Finish::planar) {
      float* out = static_cast<float*>(row.out[0]) + channel * layer.out_plane;
      for (int64_t i = 0; i < kVector; ++i) {
        if (!has(layer.lanes, x + i)) continue;
        out[x + i] = leaky(sums[c][i] + bias[channel], slopes[channel]) - shifts[channel];
      }
    } else if (layer.finish == Finish::shuffle && c % 2 == 0) {
      uint32_t* out = static_cast<uint32_t*>(row.out[dy]) + channel / 2 * layer.out_plane;
      for (int64_t i = 0; i < s * kVector && s * x + i < layer.out_vectors * kVector; ++i) {
        const int64_t dx = i % s, low = channel * each + dy * s + dx, high = low + each;
        const float of_low = leaky(sums[dx * channels + c][i / s] + bias[low], slopes[low]);
        const float of_high = leaky(sums[dx * channels + c + 1][i / s] + bias[high], slopes[high]);
        out[s * x + i] = has(layer.lanes, s * x + i) ? join_halves(of_low, of_high) : 0;
      }
    } else if (layer.finish != Finish::shuffle && c % 2 == 0) {
      for (int64_t i = 0; i < kVector; ++i) {
        const float both[2] = {sums[c][i] + bias[channel], sums[c + 1][i] + bias[channel + 1]};
        finish_pair(layer, row, channel, x + i, both, slopes, shifts);
      }
    }
  }
}

template <bool PLAIN>
void convolve(const Layer& layer, const Row& row) {
  const Blocks blocks(layer.channels, layer.shuffle);
  const uint32_t* weight = layer.weight;
  for (int64_t dy = 0; dy < (layer.finish == Finish::shuffle ? layer.shuffle : 1); ++dy) {
    const Phases phases(layer.size, layer.shuffle, dy, layer.phased);
    for (int64_t block = 0, channel = 0; block < blocks.count; channel += blocks.channels(block++)) {
      for (int64_t v = row.first; v < row.last && row.out[dy] != nullptr; ++v) {
        Sums sums;
        add_block<PLAIN>(layer, row, phases, blocks.channels(block), kVector * v, weight, sums);
        finish_block(layer, row, dy, channel, blocks.channels(block), kVector * v, sums);
      }
      weight += phases.rows * layer.pairs * weight_step(layer.size, blocks.sums(block), layer.shuffle, layer.phased);
    }
  }
}

void convolve_row(const Layer& layer, const Row& row) {
  Exponents of_x, of_weight;
  for (int64_t i = 0; i < layer.size; ++i) {
    for (int64_t pair = 0; pair < layer.pairs; ++pair) {
      const uint32_t* from = row.taps[i].row + pair * row.taps[i].plane + kVector * row.first - layer.size / 2;
      of_x.add(from, kVector * (row.last - row.first) + layer.size - 1);
    }
  }
  of_weight.add(layer.weight, layer.pairs * weight_words(layer.channels, layer.size, layer.shuffle, layer.phased));
  is_plain(of_x, of_weight) ? convolve<true>(layer, row) : convolve<false>(layer, row);
}

void scale_row(const Layer& layer, const Row& row) {
  const float* factors = layer.epilogue;
  const float* offsets = factors + layer.channels;
  const float* slopes = offsets + layer.channels;
  for (int64_t channel = 0; channel < layer.channels; channel += 2) {
    const uint32_t* from = row.taps[0].row + channel / 2 * row.taps[0].plane;
    for (int64_t x = kVector * row.first; x < kVector * row.last; ++x) {
      const float both[2] = {std::fma(low_half(from[x]), factors[channel], offsets[channel]),
                             std::fma(high_half(from[x]), factors[channel + 1], offsets[channel + 1])};
      finish_pair(layer, row, channel, x, both, slopes, nullptr);
    }
  }
}

void settle() {}

void enlarge_row(const Enlargement& picture, int64_t y, int64_t first, int64_t last, float*, float* out,
                 int64_t plane) {
  const Position at(y, picture.height, picture.height * picture.factor);
  const uint8_t *above = picture.data + at.first * picture.pitch, *below = picture.data + at.second * picture.pitch;
  for (int64_t c = 0; c < 3; ++c) {
    const auto of_column = [&](int64_t x) {
      const float from = above[3 * x + c], to = below[3 * x + c];
      return from + at.share * (to - from);
    };
    for (int64_t x = kVector * first; x < kVector * last; ++x) {
      const int64_t base = picture.base[x / kVector];
      const float left = of_column(base + picture.left[x]), right = of_column(base + picture.right[x]);
      out[c * plane + x] = std::fma(picture.share[x], right - left, left);
    }
  }
}

// Rounded half to even; NaN is 0.
uint8_t to_byte(float value) {
  if (!(value > 0)) return 0;
  return uint8_t(std::nearbyint(std::min(value, 255.f)));
}

void shuffled_bytes(const FloatRow& row, int64_t s, int64_t dy, uint8_t* bytes) {
  for (int64_t x = kVector * row.first; x < kVector * row.last; ++x) {
    for (int64_t dx = 0; dx < s; ++dx) {
      for (int64_t c = 0; c < 3; ++c) {
        const float added = row.added == nullptr ? 0.f : row.added[c * s * row.plane + s * x + dx];
        const float value = row.planes[(c * s * s + dy * s + dx) * row.plane + x];
        bytes[3 * (s * x + dx) + c] = to_byte(std::fma(value, row.factor, added));
      }
    }
  }
}

void plain_bytes(const FloatRow& row, uint8_t* bytes) { shuffled_bytes(row, 1, 0, bytes); }

void sum_rows(const PairPlanes& x, int64_t pair, int64_t top, int64_t height, int64_t vectors, float* columns) {
  const int64_t length = vectors * kVector;
  std::fill(columns, columns + 4 * length, 0.f);
  for (int64_t row = top; row < top + height; ++row) {
    const uint32_t* from = x.at(pair, row, 0);
    for (int64_t i = 0; i < length; ++i) {
      const float low = low_half(from[i]), high = high_half(from[i]);
      columns[i] += low;
      columns[length + i] = std::fma(low, low, columns[length + i]);
      columns[2 * length + i] += high;
      columns[3 * length + i] = std::fma(high, high, columns[3 * length + i]);
    }
  }
}

void scale_rows(const PairPlanes& x, const PairPlanes* skip, const PairPlanes& out, int64_t pair, int64_t top,
                int64_t height, int64_t vectors, const float* values, const uint16_t* lanes, float slope) {
  const int64_t length = vectors * kVector;
  for (int64_t row = top; row < top + height; ++row) {
    const uint32_t* from = x.at(pair, row, 0);
    const uint32_t* more = skip == nullptr ? nullptr : skip->at(pair, row, 0);
    uint32_t* to = out.at(pair, row, 0);
    for (int64_t i = 0; i < length; ++i) {
      float low = std::fma(low_half(from[i]), values[i], values[length + i]);
      float high = std::fma(high_half(from[i]), values[2 * length + i], values[3 * length + i]);
      if (more != nullptr) low += low_half(more[i]), high += high_half(more[i]);
      to[i] = has(lanes, i) ? join_halves(leaky(low, slope), leaky(high, slope)) : 0;
    }
  }
}

void interpolate_row(const float* low, const float* high, const int32_t* first, const int32_t* second,
                     const float* share, int64_t width, const uint16_t* lanes, uint32_t* out) {
  for (int64_t i = 0; i < (width + kVector - 1) / kVector * kVector; ++i) {
    const float of_low = std::fma(share[i], low[second[i]] - low[first[i]], low[first[i]]);
    const float of_high = std::fma(share[i], high[second[i]] - high[first[i]], high[first[i]]);
    out[i] = has(lanes, i) ? join_halves(of_low, of_high) : 0;
  }
}

}  // namespace

MGA_CONVOLUTION_KERNELS_OF(portable, false)

}  // namespace mga
