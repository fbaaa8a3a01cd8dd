// Where a chain ends in bytes: float rows become rows of a picture, whole or cut into the pictures of patches.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "convolution/kernels.h"

namespace mga {

// `count` pictures of height x width pixels of `pixel` bytes: 3, or 12 of float32 in [0, 1]. Picture i is what starts
// `inset` pixels behind row i / across * step_y and column i % across * step_x of the rows that the layer makes.
struct Picture {
  uint8_t* data;
  int64_t count, height, width;
  int64_t stride, pitch;  // from picture to picture and from row to row, in bytes
  int64_t across, step_y, step_x, inset;
  float gain;
  int64_t pixel;

  // Row of each picture across that row y of the layer's belongs to, or -1.
  int64_t row(int64_t y) const {
    const int64_t at = y % step_y - inset;
    return at >= 0 && at < height && y / step_y * across < count ? at : -1;
  }
  // Columns [from, to) of row y.
  void write(int64_t y, const uint8_t* bytes, int64_t from, int64_t to) const {
    const int64_t first = y / step_y * across, last = std::min(first + across, count);
    for (int64_t i = first; i < last; ++i) {
      const int64_t left = (i - first) * step_x + inset;
      const int64_t begin = std::max(from, left), end = std::min(to, left + width);
      if (begin >= end) continue;
      std::memcpy(data + i * stride + row(y) * pitch + pixel * (begin - left), bytes + pixel * begin,
                  pixel * (end - begin));
    }
  }
};

// A picture, uint8 (height, width, 3), enlarged by a whole factor of 2 at least, with the tables for its rows.
class Enlarged {
 public:
  Enlarged() = default;
  Enlarged(const uint8_t* data, int64_t height, int64_t width, int64_t pitch, int64_t factor) {
    const int64_t vectors = (width * factor + 15) / 16;
    for (int64_t v = 0; v < vectors; ++v) {
      base_.push_back(Position(16 * v, width, width * factor).first);
      for (int64_t i = 16 * v; i < 16 * v + 16; ++i) {
        const Position at(std::min(i, width * factor - 1), width, width * factor);
        left_.push_back(int32_t(at.first - base_.back()));
        right_.push_back(int32_t(at.second - base_.back()));
        share_.push_back(at.share);
      }
    }
    what_ = {data, height, width, pitch, factor, vectors, base_.data(), left_.data(), right_.data(), share_.data()};
  }
  Enlarged(Enlarged&&) = default;  // the tables stay where they are
  Enlarged& operator=(Enlarged&&) = default;

  explicit operator bool() const { return what_.data != nullptr; }

  // Vectors [first, last) of row y, as far as it has them, into planes of `plane` floats, for three channels.
  void row(const ConvolutionKernels& kernels, int64_t y, int64_t first, int64_t last, std::vector<float>& narrow,
           float* out, int64_t plane) const {
    last = std::min(last, what_.vectors);
    if (first >= last) return;
    narrow.resize(3 * (what_.width + 16));
    kernels.enlarge_row(what_, y, first, last, narrow.data(), out, plane);
  }

 private:
  Enlargement what_{};
  std::vector<int64_t> base_;
  std::vector<int32_t> left_, right_;
  std::vector<float> share_;
};

// What a thread needs to write rows: the layer's planes of `plane` floats, rows that are added, one row of bytes.
struct ByteRows {
  int64_t plane;
  std::vector<float> planes, added, narrow;
  std::vector<uint8_t> bytes;

  ByteRows(int64_t channels, int64_t width, int64_t shuffle) : plane((width + 15) / 16 * 16) {
    planes.resize(channels * plane);
    added.resize(3 * shuffle * plane);
    bytes.resize(3 * shuffle * plane);
  }
};

// Vectors [first, last) of planes (3 * s * s, width), row `dy` of their pixel shuffle -> row y of the picture
inline void write_bytes(const ConvolutionKernels& kernels, const Picture& picture, const Enlarged& add, ByteRows& rows,
                        int64_t y, int64_t s, int64_t dy, int64_t first, int64_t last) {
  if (add) add.row(kernels, y, s * first, s * last, rows.narrow, rows.added.data(), s * rows.plane);
  const FloatRow row{
      rows.planes.data(), add ? rows.added.data() : nullptr, rows.plane, 255.f * picture.gain, first, last};
  s == 1 ? kernels.plain_bytes(row, rows.bytes.data()) : kernels.shuffled_bytes(row, s, dy, rows.bytes.data());
  picture.write(y, rows.bytes.data(), 16 * s * first, 16 * s * last);
}

}  // namespace mga
