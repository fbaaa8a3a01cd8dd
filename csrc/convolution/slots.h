// Slots: what the stages of a chain read and write. A slot is planes, float planes or pictures in memory, or a ring: a
// few rows that each thread keeps for itself, in which row y overwrites row y - ring_rows.
#pragma once
#include <memory>
#include <vector>

#include "convolution/picture.h"
#include "convolution/planes.h"
#include "convolution/records.h"

namespace mga {
enum class Kind { planes, ring, floats, picture };

// Rows and columns are `scale` times those of the chain. Pixels outside of the mask are zeros.
struct Slot {
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

// The rings of one thread, and a row of zeros, which is read in the place of rows outside of the image or the mask.
class Rings {
 public:
  explicit Rings(const std::vector<Slot>& slots) : slots_(slots), data_(std::move(kept())), origin_(slots.size()) {
    data_.resize(std::max(data_.size(), slots.size()));
    int64_t longest = 0;
    for (const Slot& slot : slots) longest = std::max(longest, slot.vectors() * 16 + 2 * kMargin);
    zeros_.assign(longest, 0);
  }
  ~Rings() { kept() = std::move(data_); }
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;

  // Fills the rings with zeros for the strip that begins at column `begin` of the chain.
  void clear(int64_t begin) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      if (slot.kind != Kind::ring) continue;
      data_[i].assign(slot.planes.plane * slot.planes.pairs + kMargin, 0);
      origin_[i] = std::max<int64_t>(0, begin * slot.scale) / kMargin * kMargin;
    }
  }

  Tap read(int64_t slot, int64_t pair, int64_t y) {
    if (!slots_[slot].has(y)) return {zeros_.data() + kMargin, 0};
    return {row(slot, pair, y), slots_[slot].planes.plane};
  }

  // The address of pixel 0 of a row. A ring begins at the strip's first pixel, so there it may lie before the memory.
  uint32_t* row(int64_t slot, int64_t pair, int64_t y) {
    const Slot& p = slots_[slot];
    if (p.kind != Kind::ring) return p.planes.at(pair, y, 0);
    auto* data = data_[slot].data();
    data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64 / sizeof(uint32_t);  // a vector to a cache line
    return data + pair * p.planes.plane + y % p.ring_rows * p.planes.pitch + kMargin - origin_[slot];
  }

 private:
  // The memory of this thread's last rings, so that a chain allocates none when it runs again.
  static std::vector<std::vector<uint32_t>>& kept() {
    thread_local std::vector<std::vector<uint32_t>> memory;
    return memory;
  }

  const std::vector<Slot>& slots_;
  std::vector<std::vector<uint32_t>> data_;
  std::vector<int64_t> origin_;  // the first pixel of a row
  std::vector<uint32_t> zeros_;
};

// All slots of a chain for an image of height x width.
class Slots {
 public:
  Slots(const char* op, int64_t height, int64_t width) : op_(op), height_(height), width_(width) {
    STD_TORCH_CHECK(height >= 1 && width >= 1, op, ": there is no image of ", height, "x", width);
  }

  // Without a tensor it is a ring.
  void add(const Tensor* tensor, const SlotRecord& n, const std::vector<Tensor>& lanes,
           const std::vector<Tensor>& rows) {
    Slot slot{};
    slot.scale = n.scale;
    STD_TORCH_CHECK(1 <= slot.scale && slot.scale <= 4, op_, ": the scale of a slot must be 1 to 4");
    slot.height = height_ * slot.scale;
    slot.width = width_ * slot.scale;
    if (tensor == nullptr) {
      slot.kind = Kind::ring;
      slot.ring_rows = n.rows;
      slot.planes.pairs = n.pairs;
      slot.planes.pitch = slot.vectors() * 16 + 2 * kMargin;
      slot.planes.plane = n.rows * slot.planes.pitch;
      STD_TORCH_CHECK(n.pairs >= 1 && n.rows >= 1, op_, ": a ring must have pairs and rows");
    } else if (tensor->scalar_type() == ScalarType::Float) {
      slot.kind = Kind::floats;
      STD_TORCH_CHECK(tensor->dim() == 3 && tensor->is_contiguous() && tensor->size(1) == slot.height &&
                          tensor->size(2) == slot.width,
                      op_, ": float planes must be (C, ", slot.height, ", ", slot.width, "), contiguous");
      slot.planes = {static_cast<uint32_t*>(tensor->mutable_data_ptr()),
                     slot.height * slot.width,
                     slot.width,
                     slot.height,
                     slot.width,
                     tensor->size(0)};
    } else if (tensor->scalar_type() == ScalarType::Byte) {
      slot.kind = Kind::picture;
      slot.picture = picture_of(op_, *tensor);
    } else {
      slot.kind = Kind::planes;
      slot.planes = pair_planes(op_, *tensor, 0, slot.width);
      STD_TORCH_CHECK(slot.planes.height >= slot.height, op_, ": planes of ", slot.planes.height,
                      " rows are too small for ", slot.height);
    }
    slot.lanes = every(slot.scale);
    if (n.mask >= 0) {
      STD_TORCH_CHECK(n.mask < int64_t(lanes.size()) && lanes[n.mask].scalar_type() == ScalarType::Short &&
                          lanes[n.mask].numel() == slot.vectors() && rows[n.mask].scalar_type() == ScalarType::Byte &&
                          rows[n.mask].numel() == slot.height,
                      op_, ": a mask must be int16 (ceil(width / 16)) and uint8 (height) of its slot");
      slot.lanes = static_cast<const uint16_t*>(lanes[n.mask].const_data_ptr());
      slot.rows = static_cast<const uint8_t*>(rows[n.mask].const_data_ptr());
    }
    slots_.push_back(slot);
  }

  // Where the pictures lie in the image, see Picture.
  void cut(const FrameRecord& frame, double gain) {
    for (Slot& slot : slots_) {
      if (slot.kind == Kind::picture) cut_picture(op_, slot.picture, frame, gain, slot.height, slot.width);
    }
  }

  const Slot& operator[](int64_t i) const { return slots_[i]; }
  std::vector<Slot>& all() { return slots_; }
  int64_t count() const { return int64_t(slots_.size()); }

  bool room(int64_t slot, int64_t pair, int64_t pairs) const {
    return 0 <= pair && 1 <= pairs && pair + pairs <= slots_[slot].planes.pairs;
  }

  // Whether two slots have memory in common in these pairs.
  bool overlap(int64_t a, int64_t a_pair, int64_t a_pairs, int64_t b, int64_t b_pair, int64_t b_pairs) const {
    const Slot &first = slots_[a], &second = slots_[b];
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
  std::vector<Slot> slots_;
};

// Sums of a stage's results and of their squares. They are kept for each row and added up in the order of the rows, so
// that the total is the same for any number of threads.
class Statistics {
 public:
  Statistics(int64_t channels, int64_t height, double* total)
      : channels_(channels), height_(height), total_(total), rows_(height * channels * 2) {}

  int64_t channels() const { return channels_; }

  // `sums` (channels, 2, 16) are those of row y, lane by lane.
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
