// Layers of convolve_maps_, what they use, and their tasks, which run.h hands out to threads. No torch header.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "convolution/bytes.h"
#include "maps/kernels.h"

namespace mga {

// Memory of one thread, which it keeps for its next layer and the next image.
class ThreadRoom {
 public:
  static float* of_thread(int64_t floats) {
    thread_local ThreadRoom room;
    return room.of(floats);
  }
  // For weights, while layers that read them run.
  static float* for_weights(int64_t floats) {
    thread_local ThreadRoom room;
    return room.of(floats);
  }
  ~ThreadRoom() { std::free(data_); }

 private:
  float* of(int64_t floats) {
    if (floats > floats_) grow(floats);
    return data_;
  }

  void grow(int64_t floats) {
    constexpr size_t kPage = 2 << 20;  // a huge one: fewer misses in the table of pages
    const size_t bytes = (size_t(floats) * sizeof(float) + kPage - 1) / kPage * kPage;
    std::free(data_);
    data_ = static_cast<float*>(std::aligned_alloc(kPage, bytes));
    floats_ = data_ == nullptr ? 0 : int64_t(bytes / sizeof(float));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  float* data_ = nullptr;
  int64_t floats_ = 0;
};

// An image (height, width, 3), uint8 or float32 in [0, 1], enlarged bilinearly by a whole factor: the part of it that
// is added to a picture, in 0..255.
struct AddedImage {
  const void* data;
  bool floats;
  int64_t height, width, pitch, factor;

  float value(int64_t at) const {
    return floats ? 255.f * static_cast<const float*>(data)[at] : static_cast<const uint8_t*>(data)[at];
  }

  // Row y of the enlargement, of the image's pixels [x, x + count): floats (count * factor, 3). `line`: room for
  // 3 (count + 2).
  void row(int64_t y, int64_t x, int64_t count, float* line, float* out) const {
    const Position at(y, height, height * factor);
    for (int64_t i = -1; i <= count; ++i) {
      const int64_t column = std::min(std::max<int64_t>(x + i, 0), width - 1);
      for (int64_t c = 0; c < 3; ++c) {
        const float from = value(at.first * pitch + 3 * column + c), to = value(at.second * pitch + 3 * column + c);
        line[3 * (i + 1) + c] = from + at.share * (to - from);
      }
    }
    for (int64_t dx = 0; dx < factor; ++dx) {
      const float place = (float(dx) + 0.5f) / float(factor) - 0.5f, share = place < 0 ? 1 + place : place;
      const float* left = line + (place < 0 ? 0 : 3);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < 3; ++c) {
          out[3 * (i * factor + dx) + c] = left[3 * i + c] + share * (left[3 * i + 3 + c] - left[3 * i + c]);
        }
      }
    }
  }
};

enum class MapEnd { map, floats, picture };

// A part of a map that a layer reads or writes. Of rows [from, to) of the layer it is rows [from * factor - above,
// to * factor + below) of the map, of which `held` are held at a time. `begin`, `end`: the memory of the whole map.
struct MapUse {
  const float *begin, *end;
  int64_t channel, vectors, held, height;
  int64_t factor, above, below;
  bool writes;

  // Whether they have memory in common, and whether that is of the same map.
  bool meets(const MapUse& other) const {
    if (!same_map(other)) return begin < other.end && other.begin < end;
    return channel < other.channel + other.vectors * kGroup && other.channel < channel + vectors * kGroup;
  }
  bool same_map(const MapUse& other) const { return begin == other.begin && held == other.held; }
};

// Tiles of a layer by their numbers, row * across + column, in ascending order. `first` null: there is no list.
struct TileList {
  const int32_t* first = nullptr;
  int64_t count = 0;
};

// One layer and where it ends. `shuffle` of a picture is that of its bytes: the layer's 3 s^2 channels are row, column,
// colour.
struct MapStage {
  MapLayer layer;
  MapTarget out{};  // of a map
  MapEnd end = MapEnd::map;
  float* floats = nullptr;  // (outputs, height, width)
  Picture picture{};
  int64_t shuffle = 1;
  AddedImage added{};             // data null: none
  const uint8_t* rows = nullptr;  // mask of floats
  const uint16_t* lanes = nullptr;
  TileList tiles;                // those that are computed; without a list all
  TileList zeros;                // of a map, those that are written as zeros
  double* statistics = nullptr;  // (2, outputs)
  int64_t scale = 1;             // of what it reads
  int64_t lead = 0;              // rows of the image by which it runs ahead of a band
  std::vector<MapUse> uses;
};

// Some tiles of a layer, `count` of them: of a list, from the one with this number on, or side by side.
struct TaskAt {
  int32_t stage, number;  // the number of the task among those of its layer
  int32_t listed;         // or -1
  int32_t count, row, column;
  bool zeros;  // of the list of zeros
};

// What becomes of one layer in tasks. A tile's result is the same whoever computes it and in which task.
class StageWork {
 public:
  StageWork(const MapKernels& kernels, const MapStage& stage)
      : kernels_(kernels), stage_(stage), places_(stage.layer.places), side_(places_.side) {
    const MapLayer& layer = stage.layer;
    across_ = places_.before(layer.width);
    // As many tiles as let a task's positions and their sums fill a part of the second level of the cache only: larger
    // tiles have more positions.
    const bool large = layer.tile != 0 && positions_of(layer.size, layer.tile) > 36;
    const int64_t few = large ? 36 : 64;
    const int64_t wide = std::max<int64_t>(1, few / std::max(layer.inputs, int64_t{1})) * 12;
    most_ = layer.tile == 0 ? 48 : std::min<int64_t>(wide, large ? 24 : 48);
  }

  // Calls add(task) for rows [from, to) of what the layer makes; both are whole tiles, or the end.
  template <typename Add>
  void list(int64_t from, int64_t to, Add&& add) const {
    const int64_t first = places_.before(from), last = places_.before(to);
    list_zeros(first * across_, last * across_, add);
    if (stage_.tiles.first != nullptr) return list_tiles(first * across_, last * across_, add);
    // About as many for each task, and as many as are multiplied together.
    const int64_t blocks = (across_ + most_ - 1) / most_, together = most_ % 24 == 0 ? 24 : 12;
    const int64_t each = (((across_ + blocks - 1) / blocks) + together - 1) / together * together;
    for (int64_t row = first; row < last; ++row) {
      for (int64_t column = 0; column < across_; column += each) {
        add(task_at(-1, std::min(each, across_ - column), row, column));
      }
    }
  }

  // First and last row of tiles of a task.
  std::pair<int64_t, int64_t> rows(const TaskAt& at) const {
    if (at.listed < 0) return {at.row, at.row};
    const int32_t* const first = list_of(at).first + at.listed;
    return {first[0] / across_, first[at.count - 1] / across_};
  }

  // Floats that a task needs.
  int64_t room() const { return room_for_sums() + room_for_end(); }

  // `next`: the next one of the same layer on this thread, or null.
  void run(const TaskAt& at, const TaskAt* next, float* statistics, float* room) const {
    if (at.zeros) return clear(at);
    if (next != nullptr && next->zeros) next = nullptr;
    MapTask task = task_of(at), after{};
    if (next != nullptr) after = task_of(*next);
    task.statistics = statistics;
    const MapTask* ahead = next == nullptr ? nullptr : &after;
    stage_.end == MapEnd::map ? kernels_.compute(stage_.layer, task, ahead, room)
                              : through_room(task, ahead, room, room + room_for_sums());
    if (task.out.past_caches) kernels_.settle();
  }

 private:
  static TaskAt task_at(int64_t listed, int64_t count, int64_t row, int64_t column) {
    return {0, 0, int32_t(listed), int32_t(count), int32_t(row), int32_t(column), false};
  }

  const TileList& list_of(const TaskAt& at) const { return at.zeros ? stage_.zeros : stage_.tiles; }

  MapTask task_of(const TaskAt& at) const {
    MapTask task{};
    task.tiles = at.listed < 0 ? nullptr : stage_.tiles.first + at.listed;
    task.count = at.count, task.row = at.row, task.column = at.column, task.across = across_;
    task.out = stage_.out;
    return task;
  }

  // Tiles [first, last) of a list in pieces; where results go through room of a task, tiles side by side only.
  template <typename Add>
  void list_tiles(int64_t first, int64_t last, Add&& add) const {
    const int32_t* const all = stage_.tiles.first;
    const auto [begin, end] = part_of(stage_.tiles, first, last);
    for (int64_t i = begin, count; i < end; i += count) {
      const int64_t left = std::min(end - i, most_), tile = all[i];
      if (stage_.end == MapEnd::map) {
        count = left;
        add(task_at(i, count, 0, 0));
        continue;
      }
      count = 1;
      while (count < left && all[i + count] == tile + count && (tile + count) % across_ != 0) ++count;
      add(task_at(-1, count, tile / across_, tile % across_));
    }
  }

  template <typename Add>
  void list_zeros(int64_t first, int64_t last, Add&& add) const {
    const auto [begin, end] = part_of(stage_.zeros, first, last);
    for (int64_t i = begin; i < end; i += most_) {
      TaskAt task = task_at(i, std::min(end - i, most_), 0, 0);
      task.zeros = true;
      add(task);
    }
  }

  // Where tiles [first, last) stand in a list.
  static std::pair<int64_t, int64_t> part_of(const TileList& list, int64_t first, int64_t last) {
    const int32_t *const all = list.first, *const end = all + list.count;
    return {std::lower_bound(all, end, first) - all, std::lower_bound(all, end, last) - all};
  }

  void clear(const TaskAt& at) const {
    const MapLayer& layer = stage_.layer;
    const MapTarget& out = stage_.out;
    const int64_t s = out.shuffle;
    for (int64_t i = at.listed; i < at.listed + at.count; ++i) {
      const int64_t row = stage_.zeros.first[i] / across_ * side_, column = stage_.zeros.first[i] % across_ * side_;
      const int64_t pixels = std::min(side_, layer.width - column) * s;
      for (int64_t y = row * s; y < std::min(row + side_, layer.height) * s; ++y) {
        if (out.rows != nullptr && out.rows[y] == 0) continue;
        float* const to = out.first + y % out.held * out.row + column * s * kGroup;
        for (int64_t g = 0; g < out.groups; ++g) std::fill_n(to + g * out.group, pixels * kGroup, 0.f);
      }
    }
  }

  static constexpr int64_t kSpareFloats = 64;  // for parts of pixels of an added image
  static_assert(kSpareFloats >= kSpareValues, "bytes are made of an added image, too, in whole vectors");

  int64_t pixel() const { return stage_.layer.vectors * kGroup; }
  int64_t room_for_sums() const { return (kernels_.room(stage_.layer, most_) + 15) / 16 * 16; }
  int64_t room_for_end() const {
    if (stage_.end == MapEnd::map) return 0;
    const int64_t pixels = widest(), s = stage_.shuffle;
    return pixels * side_ * pixel() + 3 * (pixels + 2) + 3 * s * pixels * 2 + kSpareFloats;
  }

  // Pixels from the first of a row's tiles to the last, with what is between patches; and the most for a task.
  int64_t span(int64_t first, int64_t count) const {
    if (places_.each == 0) return count * side_;
    return places_.at(first + count - 1) + side_ - places_.at(first);
  }

  int64_t widest() const {
    if (places_.each == 0) return most_ * side_;
    return most_ * side_ + ((most_ - 1) / places_.each + 1) * (places_.step - places_.each * side_);
  }

  // Results that do not stay in a map.
  void through_room(MapTask task, const MapTask* ahead, float* room, float* end) const {
    const int64_t y = places_.at(task.row), x = places_.at(task.column), wide = span(task.column, task.count);
    const int64_t row = wide * pixel();
    task.out = MapTarget{};
    task.out.row = row, task.out.group = kGroup, task.out.pixel = pixel();
    task.out.groups = stage_.layer.vectors, task.out.shuffle = 1, task.out.held = stage_.layer.height;
    task.out.first = end - y * row - x * pixel();
    kernels_.compute(stage_.layer, task, ahead, room);
    const int64_t count = std::min(stage_.layer.width - x, wide);
    for (int64_t i = 0; i < side_ && y + i < stage_.layer.height; ++i) {
      stage_.end == MapEnd::floats ? keep_floats(end + i * row, y + i, x, count)
                                   : keep_bytes(end + i * row, y + i, x, count, end + side_ * row);
    }
  }

  void keep_floats(const float* values, int64_t y, int64_t x, int64_t count) const {
    if (stage_.rows != nullptr && stage_.rows[y] == 0) return;
    const MapLayer& layer = stage_.layer;
    for (int64_t c = 0; c < layer.outputs; ++c) {
      float* to = stage_.floats + (c * layer.height + y) * layer.width;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = x + i;
        if (stage_.lanes == nullptr || (stage_.lanes[at / 16] >> at % 16 & 1) != 0) to[at] = values[i * pixel() + c];
      }
    }
  }

  void keep_bytes(const float* values, int64_t y, int64_t x, int64_t count, float* work) const {
    const int64_t s = stage_.shuffle, each = 3 * s;
    float *line = work, *added = line + 3 * (count + 2);
    auto* bytes = reinterpret_cast<uint8_t*>(added + each * count + kSpareFloats);
    const bool adds = stage_.added.data != nullptr;
    for (int64_t dy = 0; dy < s; ++dy) {
      const int64_t to = y * s + dy;
      if (stage_.picture.row(to) < 0) continue;
      if (adds) add_image(to, x, count, line, added);
      if (stage_.picture.pixel == 3) {
        kernels_.bytes(values + dy * each, pixel(), each, count, 255.f * stage_.picture.gain, adds ? added : nullptr,
                       bytes);
      } else {
        keep_units(values + dy * each, each, count, adds ? added : nullptr, reinterpret_cast<float*>(bytes));
      }
      stage_.picture.write(to, bytes - stage_.picture.pixel * s * x, s * x, s * (x + count));
    }
  }

  // The same as numbers in [0, 1]; NaN as 0.
  void keep_units(const float* values, int64_t each, int64_t count, const float* added, float* to) const {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < each; ++j) {
        const float value = values[i * pixel() + j] * stage_.picture.gain;
        const float sum = added == nullptr ? value : value + added[i * each + j] / 255.f;
        to[i * each + j] = sum > 0 ? std::min(sum, 1.f) : 0.f;
      }
    }
  }

  // The image may be smaller than what the layer reads: columns of a picture, not of the layer.
  void add_image(int64_t y, int64_t x, int64_t count, float* line, float* added) const {
    const int64_t s = stage_.shuffle, inner = stage_.added.factor / s;
    if (inner == 1) return stage_.added.row(y, x, count, line, added);
    const int64_t first = x / inner, last = (x + count - 1) / inner + 1;
    // Whole pixels of the image; the row is then moved to where it begins.
    stage_.added.row(y, first, last - first, line, added);
    std::memmove(added, added + 3 * (s * x - first * stage_.added.factor), 3 * s * count * sizeof(float));
  }

  const MapKernels& kernels_;
  const MapStage& stage_;
  const TilePlaces places_;
  int64_t side_, across_, most_;
};

}  // namespace mga
