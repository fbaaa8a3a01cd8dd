// What a chain of layers reads and writes: planes, float planes, pictures, and rings of rows that a thread keeps for
// itself.
#pragma once
#include <memory>
#include <vector>

#include "convolution/bytes.h"
#include "convolution/planes.h"

namespace mga {
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
  explicit Rings(const std::vector<Place>& places) : places_(places), data_(std::move(kept())), origin_(places.size()) {
    data_.resize(std::max(data_.size(), places.size()));
    int64_t longest = 0;
    for (const Place& place : places) longest = std::max(longest, place.vectors() * 16 + 2 * kMargin);
    zeros_.assign(longest, 0);
  }
  ~Rings() { kept() = std::move(data_); }
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;

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
  // The memory of this thread's last rings, so that a chain allocates none when it runs again.
  static std::vector<std::vector<uint32_t>>& kept() {
    thread_local std::vector<std::vector<uint32_t>> memory;
    return memory;
  }

  const std::vector<Place>& places_;
  std::vector<std::vector<uint32_t>> data_;
  std::vector<int64_t> origin_;  // the first pixel of a row
  std::vector<uint32_t> zeros_;
};

// All places of a chain for an image of height x width.
class Places {
 public:
  Places(const char* op, int64_t height, int64_t width) : op_(op), height_(height), width_(width) {
    STD_TORCH_CHECK(height >= 1 && width >= 1, op, ": there is no image of ", height, "x", width);
  }

  // numbers: scale, mask (-1: none) of `lanes` and `rows`; without a tensor a ring: pairs and rows.
  void add(const Tensor* tensor, const int64_t* n, const std::vector<Tensor>& lanes, const std::vector<Tensor>& rows) {
    Place place{};
    place.scale = n[0];
    STD_TORCH_CHECK(1 <= place.scale && place.scale <= 4, op_, ": the scale of a place must be 1 to 4");
    place.height = height_ * place.scale;
    place.width = width_ * place.scale;
    if (tensor == nullptr) {
      place.kind = Kind::ring;
      place.ring_rows = n[3];
      place.planes.pairs = n[2];
      place.planes.pitch = place.vectors() * 16 + 2 * kMargin;
      place.planes.plane = n[3] * place.planes.pitch;
      STD_TORCH_CHECK(n[2] >= 1 && n[3] >= 1, op_, ": a ring must have pairs and rows");
    } else if (tensor->scalar_type() == ScalarType::Float) {
      place.kind = Kind::floats;
      STD_TORCH_CHECK(tensor->dim() == 3 && tensor->is_contiguous() && tensor->size(1) == place.height &&
                          tensor->size(2) == place.width,
                      op_, ": float planes must be (C, ", place.height, ", ", place.width, "), contiguous");
      place.planes = {static_cast<uint32_t*>(tensor->mutable_data_ptr()),
                      place.height * place.width,
                      place.width,
                      place.height,
                      place.width,
                      tensor->size(0)};
    } else if (tensor->scalar_type() == ScalarType::Byte) {
      place.kind = Kind::picture;
      STD_TORCH_CHECK(tensor->dim() == 4 && tensor->size(3) == 3 && tensor->stride(3) == 1 && tensor->stride(2) == 3,
                      op_, ": pictures must be uint8 (n, H, W, 3), of contiguous rows");
      place.picture = {static_cast<uint8_t*>(tensor->mutable_data_ptr()),
                       tensor->size(0),
                       tensor->size(1),
                       tensor->size(2),
                       tensor->stride(0),
                       tensor->stride(1),
                       1,
                       0,
                       0,
                       0,
                       1.f};
    } else {
      place.kind = Kind::planes;
      place.planes = pair_planes(op_, *tensor, 0, place.width);
      STD_TORCH_CHECK(place.planes.height >= place.height, op_, ": planes of ", place.planes.height,
                      " rows are too small for ", place.height);
    }
    place.lanes = every(place.scale);
    if (n[1] >= 0) {
      STD_TORCH_CHECK(n[1] < int64_t(lanes.size()) && lanes[n[1]].scalar_type() == ScalarType::Short &&
                          lanes[n[1]].numel() == place.vectors() && rows[n[1]].scalar_type() == ScalarType::Byte &&
                          rows[n[1]].numel() == place.height,
                      op_, ": a mask must be int16 (ceil(width / 16)) and uint8 (height) of its place");
      place.lanes = static_cast<const uint16_t*>(lanes[n[1]].const_data_ptr());
      place.rows = static_cast<const uint8_t*>(rows[n[1]].const_data_ptr());
    }
    places_.push_back(place);
  }

  // Where the pictures lie: how many side by side, rows and columns from one to the next, inset; see Picture.
  void cut(const std::vector<int64_t>& numbers, double gain) {
    if (std::none_of(places_.begin(), places_.end(), [](const Place& p) { return p.kind == Kind::picture; })) return;
    STD_TORCH_CHECK(numbers.size() == 4 && numbers[0] >= 1 && numbers[1] >= 1 && numbers[2] >= 1 && numbers[3] >= 0,
                    op_, ": a cut is 4 numbers: pictures in a row, rows and columns from one to the next, inset");
    for (Place& place : places_) {
      if (place.kind != Kind::picture) continue;
      Picture& picture = place.picture;
      picture.across = numbers[0], picture.step_y = numbers[1], picture.step_x = numbers[2], picture.inset = numbers[3];
      picture.gain = float(gain);
      const int64_t down = (picture.count + picture.across - 1) / picture.across;
      STD_TORCH_CHECK(
          picture.inset + picture.height <= picture.step_y && picture.inset + picture.width <= picture.step_x &&
              (down - 1) * picture.step_y + picture.inset + picture.height <= place.height &&
              (std::min(picture.across, picture.count) - 1) * picture.step_x + picture.inset + picture.width <=
                  place.width,
          op_, ": ", picture.count, " pictures of ", picture.height, "x", picture.width, " do not fit into ",
          place.height, "x", place.width);
    }
  }

  const Place& operator[](int64_t i) const { return places_[i]; }
  std::vector<Place>& all() { return places_; }
  int64_t count() const { return int64_t(places_.size()); }

  bool room(int64_t place, int64_t pair, int64_t pairs) const {
    return 0 <= pair && 1 <= pairs && pair + pairs <= places_[place].planes.pairs;
  }

  // Whether two places have memory in common in these pairs.
  bool overlap(int64_t a, int64_t a_pair, int64_t a_pairs, int64_t b, int64_t b_pair, int64_t b_pairs) const {
    const Place &first = places_[a], &second = places_[b];
    if (first.kind == Kind::ring || second.kind == Kind::ring) {
      return a == b && a_pair < b_pair + b_pairs && b_pair < a_pair + a_pairs;
    }
    if (first.kind != Kind::planes || second.kind != Kind::planes) return false;
    const uint32_t *a_begin = first.planes.at(a_pair, -1, -kMargin), *b_begin = second.planes.at(b_pair, -1, -kMargin);
    return a_begin < b_begin + b_pairs * second.planes.plane && b_begin < a_begin + a_pairs * first.planes.plane;
  }

  // The lanes of whole rows.
  const uint16_t* every(int64_t scale) {
    if (every_[scale].empty()) every_[scale] = lanes_of(width_ * scale);
    return every_[scale].data();
  }

 private:
  const char* op_;
  int64_t height_, width_;
  std::vector<uint16_t> every_[5];
  std::vector<Place> places_;
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

}  // namespace mga
