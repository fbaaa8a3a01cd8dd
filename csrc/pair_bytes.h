// Where a chain ends in bytes: float rows become rows of a picture, whole or cut into the pictures of patches.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "pair_conv_rows.h"

namespace mga {
#ifdef MGA_HAS_PAIR_CONV

// `count` pictures of height x width pixels of 3 bytes. Picture i is what starts `inset` pixels behind row
// i / across * step_y and column i % across * step_x of the rows that the layer makes.
struct Picture {
  uint8_t* data;
  int64_t count, height, width;
  int64_t stride, pitch;  // from picture to picture and from row to row, in bytes
  int64_t across, step_y, step_x, inset;
  float gain;

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
      std::memcpy(data + i * stride + row(y) * pitch + 3 * (begin - left), bytes + 3 * begin, 3 * (end - begin));
    }
  }
};

// A picture, uint8 (height, width, 3), enlarged by a whole factor of 2 at least: its rows in floats, interpolated
// bilinearly.
class Enlarged {
 public:
  Enlarged() = default;
  Enlarged(const uint8_t* data, int64_t height, int64_t width, int64_t pitch, int64_t factor)
      : data_(data), height_(height), width_(width), pitch_(pitch), factor_(factor) {
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
  }
  explicit operator bool() const { return data_ != nullptr; }

  // Vectors [first, last) of row y, as far as it has them, into planes of `plane` floats, for three channels.
  MGA_BF16 void row(int64_t y, int64_t first, int64_t last, std::vector<float>& narrow, float* out,
                    int64_t plane) const {
    last = std::min(last, int64_t(base_.size()));
    if (first >= last) return;
    const Position at(y, height_, height_ * factor_);
    const uint8_t *above = data_ + at.first * pitch_, *below = data_ + at.second * pitch_;
    const int64_t length = width_ + 16;
    narrow.resize(3 * length);
    for (int64_t c = 0; c < 3; ++c) {
      const int64_t end = std::min(width_, base_[last - 1] + 16);
      for (int64_t x = base_[first]; x < end; ++x) {
        const float from = above[3 * x + c], to = below[3 * x + c];
        narrow[c * length + x] = from + at.share * (to - from);
      }
      for (int64_t v = first; v < last; ++v) {
        const __m512 pixels = _mm512_loadu_ps(narrow.data() + c * length + base_[v]);
        const __m512 left = _mm512_permutexvar_ps(_mm512_loadu_si512(left_.data() + 16 * v), pixels);
        const __m512 right = _mm512_permutexvar_ps(_mm512_loadu_si512(right_.data() + 16 * v), pixels);
        const __m512 share = _mm512_loadu_ps(share_.data() + 16 * v);
        _mm512_storeu_ps(out + c * plane + 16 * v, _mm512_fmadd_ps(share, _mm512_sub_ps(right, left), left));
      }
    }
  }

 private:
  const uint8_t* data_ = nullptr;
  int64_t height_ = 0, width_ = 0, pitch_ = 0, factor_ = 0;
  std::vector<int64_t> base_;
  std::vector<int32_t> left_, right_;
  std::vector<float> share_;
};

// 16 values to bytes, rounded half to even.
MGA_BF16_INLINE __m128i to_bytes(__m512 value) {
  const __m512 clamped = _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), _mm512_set1_ps(255.f));
  return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(clamped));
}

// Byte i of part `part` of 16 pixels of three bytes: its place in the plane of its channel, -1 in the others.
struct PixelBytes {
  alignas(16) int8_t order[3][3][16] = {};  // [part][channel]

  constexpr PixelBytes() {
    for (int part = 0; part < 3; ++part) {
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 16; ++i) {
          order[part][c][i] = (16 * part + i) % 3 == c ? int8_t((16 * part + i) / 3) : int8_t{-1};
        }
      }
    }
  }
};
constexpr PixelBytes kPixelBytes;

// Three times 16 bytes -> 16 pixels of three bytes.
MGA_BF16_INLINE void interleave_bytes(const __m128i (&planes)[3], uint8_t* out) {
  for (int part = 0; part < 3; ++part) {
    __m128i all = _mm_setzero_si128();
    for (int c = 0; c < 3; ++c) {
      const auto* order = reinterpret_cast<const __m128i*>(kPixelBytes.order[part][c]);
      all = _mm_or_si128(all, _mm_shuffle_epi8(planes[c], _mm_load_si128(order)));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * part), all);
  }
}

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

// Vectors [first, last) of planes (3, width) -> bytes
MGA_BF16 inline void write_plain(const Picture& picture, const Enlarged& add, ByteRows& rows, int64_t y, int64_t first,
                                 int64_t last) {
  const __m512 factor = _mm512_set1_ps(255.f * picture.gain);
  if (add) add.row(y, first, last, rows.narrow, rows.added.data(), rows.plane);
  for (int64_t x = 16 * first; x < 16 * last; x += 16) {
    __m128i planes[3];
    for (int64_t c = 0; c < 3; ++c) {
      const __m512 added = _mm512_loadu_ps(rows.added.data() + c * rows.plane + x);
      planes[c] = to_bytes(_mm512_fmadd_ps(_mm512_loadu_ps(rows.planes.data() + c * rows.plane + x), factor, added));
    }
    interleave_bytes(planes, rows.bytes.data() + 3 * x);
  }
  picture.write(y, rows.bytes.data(), 16 * first, 16 * last);
}

// Vectors [first, last) of planes (3 * s * s, width), row `dy` of their pixel shuffle -> bytes
MGA_BF16 inline void write_shuffled(const Picture& picture, const Enlarged& add, ByteRows& rows, int64_t y, int64_t s,
                                    int64_t dy, int64_t first, int64_t last) {
  const __m512 factor = _mm512_set1_ps(255.f * picture.gain);
  const __m512i every = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                           _mm512_set1_epi32(int(s)));
  if (add) add.row(y, s * first, s * last, rows.narrow, rows.added.data(), s * rows.plane);
  alignas(64) uint8_t bytes[12][16];
  for (int64_t x = 16 * first; x < 16 * last; x += 16) {
    for (int64_t dx = 0; dx < s; ++dx) {
      for (int64_t c = 0; c < 3; ++c) {
        const __m512 value = _mm512_loadu_ps(rows.planes.data() + (c * s * s + dy * s + dx) * rows.plane + x);
        __m512 added = _mm512_setzero_ps();
        if (add)
          added = _mm512_mask_i32gather_ps(added, 0xffff, every, rows.added.data() + s * (c * rows.plane + x) + dx, 4);
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes[3 * dx + c]),
                        to_bytes(_mm512_fmadd_ps(value, factor, added)));
      }
    }
    uint8_t* to = rows.bytes.data() + 3 * s * x;
    if (s == 4) {
      const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(12));
      for (int word = 0; word < 3; ++word) {
        __m512i packed = _mm512_setzero_si512();
        for (int b = 3; b >= 0; --b) {
          const __m128i of_byte = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes[4 * word + b]));
          packed = _mm512_or_si512(_mm512_slli_epi32(packed, 8), _mm512_cvtepu8_epi32(of_byte));
        }
        _mm512_i32scatter_epi32(to + 4 * word, at, packed, 1);
      }
    } else {
      for (int64_t i = 0; i < 16; ++i) {
        for (int64_t b = 0; b < 3 * s; ++b) to[i * 3 * s + b] = bytes[b][i];
      }
    }
  }
  picture.write(y, rows.bytes.data(), 16 * s * first, 16 * s * last);
}

#endif
}  // namespace mga
