// What a chain of layers reads and writes: planes, float planes, pictures, and rings of rows that a thread keeps for
// itself.
#pragma once
#include <memory>
#include <vector>

#include "pair_bytes.h"

namespace mga {
#ifdef MGA_HAS_PAIR_CONV

enum class Kind { planes, ring, floats, picture };

// Rows and columns are `scale` times those of the chain. Pixels outside of the mask are zeros.
struct Place {
  Kind kind;
  int64_t scale;
  int64_t height, width;
  PairPlanes planes;  // of a ring: row y of the image in slot y % ring_rows
  int64_t ring_rows;
  const uint16_t* lanes;  // one bit a pixel
  const uint8_t* rows;    // one byte a row, or null: all of them
  Picture picture;

  bool has(int64_t y) const {
    return y >= 0 && y < height && (kind == Kind::picture ? picture.row(y) >= 0 : rows == nullptr || rows[y] != 0);
  }
  int64_t vectors() const { return (width + 15) / 16; }
};

struct Span {
  int64_t begin, end;
};

// The rings of one thread, and a row of zeros that stands for rows outside of the image or the mask.
class Rings {
 public:
  explicit Rings(const std::vector<Place>& places) : places_(places), data_(places.size()), origin_(places.size()) {
    int64_t longest = 0;
    for (const Place& place : places) longest = std::max(longest, place.vectors() * 16 + 2 * kMargin);
    zeros_.assign(longest, 0);
  }

  // Empty, for columns from `begin` on, of the chain's.
  void clear(int64_t begin) {
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      if (place.kind != Kind::ring) continue;
      data_[i].assign(place.planes.plane * place.planes.pairs + kMargin, 0);
      origin_[i] = std::max<int64_t>(0, begin * place.scale) / kMargin * kMargin;
    }
  }

  Tap read(int64_t place, int64_t pair, int64_t y) {
    if (!places_[place].has(y)) return {zeros_.data() + kMargin, 0};
    return {row(place, pair, y), places_[place].planes.plane};
  }

  // Where pixel 0 is, or of a ring would be.
  uint32_t* row(int64_t place, int64_t pair, int64_t y) {
    const Place& p = places_[place];
    if (p.kind != Kind::ring) return p.planes.at(pair, y, 0);
    auto* data = data_[place].data();
    data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64 / sizeof(uint32_t);  // a vector to a cache line
    return data + pair * p.planes.plane + y % p.ring_rows * p.planes.pitch + kMargin - origin_[place];
  }

 private:
  const std::vector<Place>& places_;
  std::vector<std::vector<uint32_t>> data_;
  std::vector<int64_t> origin_;  // the first pixel of a row
  std::vector<uint32_t> zeros_;
};

// Sums of values and of squares of a stage's results, kept row by row, so that their total does not depend on who
// computed which rows.
class Statistics {
 public:
  Statistics(int64_t channels, int64_t height, double* total)
      : channels_(channels), height_(height), total_(total), rows_(height * channels * 2) {}

  int64_t channels() const { return channels_; }

  // What `sums` (channels, 2, 16) hold of row y.
  void keep(int64_t y, const std::vector<float>& sums) {
    for (int64_t i = 0; i < channels_ * 2; ++i) {
      double all = 0;
      for (int64_t lane = 0; lane < 16; ++lane) all += sums[16 * i + lane];
      rows_[y * channels_ * 2 + i] = all;
    }
  }

  // (2, channels)
  void write() const {
    std::fill(total_, total_ + 2 * channels_, 0.0);
    for (int64_t y = 0; y < height_; ++y) {
      for (int64_t c = 0; c < channels_; ++c) {
        for (int64_t i = 0; i < 2; ++i) total_[i * channels_ + c] += rows_[(y * channels_ + c) * 2 + i];
      }
    }
  }

 private:
  int64_t channels_, height_;
  double* total_;
  std::vector<double> rows_;
};

#endif
}  // namespace mga
