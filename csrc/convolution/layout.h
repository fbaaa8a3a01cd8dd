// The layout in which the CPU convolves in bf16, and the order of packed weights. No torch header: the kernels of every
// instruction set include this.
//
// A plane holds pairs of channels: a 32-bit word is one pixel of two channels, the even channel in its low half. So 16
// words are 16 pixels of two channels, which is what vdpbf16ps multiplies and adds. A plane has a zero border of one
// row above and below and of kMargin pixels on both sides; pixels beyond the width are zero up to the pitch. No channel
// is padded but the last odd.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace mga {

constexpr int64_t kMargin = 16;  // pixels, one vector

// pairs x (height + 2) x pitch words; `first` is pixel (0, 0) of the first pair in use.
struct PairPlanes {
  uint32_t* first;
  int64_t plane, pitch;
  int64_t height, width;
  int64_t pairs;  // from `first` on

  uint32_t* at(int64_t pair, int64_t y, int64_t x) const { return first + pair * plane + y * pitch + x; }
};

// One bit a pixel of a row, one word a vector.
inline std::vector<uint16_t> lanes_of(int64_t width) {
  std::vector<uint16_t> lanes((width + 15) / 16, uint16_t{0xffff});
  if (width % 16 != 0) lanes.back() = uint16_t((1 << width % 16) - 1);
  return lanes;
}

// Where pixel i of `to` pixels lies among `from` pixels: align_corners=False, the edge repeated.
struct Position {
  int64_t first, second;
  float share;  // of the second

  Position(int64_t i, int64_t from, int64_t to) {
    const float scale = float(from) / float(to);
    const float position = std::max(0.f, (float(i) + 0.5f) * scale - 0.5f);
    first = std::min(int64_t(position), from - 1);
    second = std::min(first + 1, from - 1);
    share = position - float(first);
  }
};

constexpr int64_t kLargestBlock = 12;
constexpr int64_t kLargestKernel = 9;

// Output channels are computed in blocks of at most kLargestBlock sums, which with as many vectors of pixels as fit
// fill 32 registers. The blocks of a layer are as equal as pairs of channels allow; one or three channels are a block
// by themselves. With a pixel shuffle of s a block computes one row of the shuffled pixels: s sums for each channel.
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

// Which rows and columns of the kernel have weights for which phase of a pixel shuffle of s. A 3x3 convolution of an
// image whose pixels were each repeated s times a side sees in each phase, one of the s * s pixels made of one, at most
// two rows and two columns of the small image; the other weights are zero and are left out.
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

// Words of a whole packed weight for each pair of input channels.
inline int64_t weight_words(int64_t channels, int64_t size, int64_t s, bool phased) {
  const Blocks blocks(channels, s);
  int64_t words = 0;
  for (int64_t dy = 0; dy < s; ++dy) {
    for (int64_t block = 0; block < blocks.count; ++block) {
      words += Phases(size, s, dy, phased).rows * weight_step(size, blocks.sums(block), s, phased);
    }
  }
  return words;
}

}  // namespace mga
