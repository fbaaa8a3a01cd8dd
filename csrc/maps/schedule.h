// How one layer is handed out to threads: tasks of some tiles, which each thread takes as it becomes free. A tile's
// result is the same whoever computes it and in which task, so nothing depends on the number of threads. No torch
// header.
#pragma once
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
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
    if (floats > room.floats_) room.grow(floats);
    return room.data_;
  }
  ~ThreadRoom() { std::free(data_); }

 private:
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

// An image, uint8 (height, width, 3), enlarged bilinearly by a whole factor: the part of it that is added to a picture.
struct AddedImage {
  const uint8_t* data;
  int64_t height, width, pitch, factor;

  // Row y of the enlargement, of the image's pixels [x, x + count): floats (count * factor, 3). `line`: room for
  // 3 (count + 2).
  void row(int64_t y, int64_t x, int64_t count, float* line, float* out) const {
    const Position at(y, height, height * factor);
    const uint8_t *above = data + at.first * pitch, *below = data + at.second * pitch;
    for (int64_t i = -1; i <= count; ++i) {
      const int64_t column = std::min(std::max<int64_t>(x + i, 0), width - 1);
      for (int64_t c = 0; c < 3; ++c) {
        const float from = above[3 * column + c], to = below[3 * column + c];
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

// One layer and where it ends. `shuffle` of a picture is that of its bytes: the layer's 3 s^2 channels are row, column,
// colour.
struct MapStage {
  MapLayer layer;
  MapTarget out;  // of a map
  MapEnd end = MapEnd::map;
  float* floats = nullptr;  // (outputs, height, width)
  Picture picture{};
  int64_t shuffle = 1;
  AddedImage added{};             // data null: none
  const uint8_t* rows = nullptr;  // mask of floats
  const uint16_t* lanes = nullptr;
  const int32_t* tiles = nullptr;  // the list of those that are computed, in ascending order, or null: all
  int64_t tile_count = 0;
  double* statistics = nullptr;  // (2, outputs)
};

class StageRun {
 public:
  StageRun(const MapKernels& kernels, const MapStage& stage) : kernels_(kernels), stage_(stage) {
    const MapLayer& layer = stage.layer;
    side_ = layer.tile == 0 ? 4 : layer.tile;
    across_ = (layer.width + side_ - 1) / side_;
    // More tiles of few channels, so that a task's positions still fill only a part of the second level of the cache.
    const int64_t wide = std::min<int64_t>(48, std::max<int64_t>(1, 64 / std::max(layer.inputs, int64_t{1})) * 12);
    const int64_t most = layer.tile == 6 ? std::min<int64_t>(wide, 24) : wide;
    if (stage.tiles != nullptr) {
      list_tasks(most);
    } else {
      const int64_t down = (layer.height + side_ - 1) / side_, blocks = (across_ + most - 1) / most;
      const int64_t each = ((across_ + blocks - 1) / blocks + 1) / 2 * 2;
      for (int64_t row = 0; row < down; ++row) {
        for (int64_t column = 0; column < across_; column += each) {
          add(nullptr, std::min(each, across_ - column), row, column);
        }
      }
    }
    if (stage.statistics != nullptr) sums_.assign(tasks_.size() * 2 * layer.vectors * kGroup, 0.f);
  }

  int64_t tasks() const { return int64_t(tasks_.size()); }

  // What each thread does until nothing is left. The task behind is known one ahead, so that its rows can be fetched.
  void work() {
    int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= tasks()) return;
    const int64_t needed = kernels_.room(stage_.layer, most_);
    float* room = ThreadRoom::of_thread(needed + 64 + room_for_end());
    float* end = room + (needed + 15) / 16 * 16;
    while (i < tasks()) {
      const int64_t after = next_.fetch_add(1, std::memory_order_relaxed);
      run(i, after < tasks() ? &tasks_[after] : nullptr, room, end);
      i = after;
    }
    kernels_.settle();
  }

  // In the order of the tasks, which is the same for any number of threads.
  void finish() {
    if (stage_.statistics == nullptr) return;
    const int64_t channels = stage_.layer.vectors * kGroup, outputs = stage_.layer.outputs;
    std::fill(stage_.statistics, stage_.statistics + 2 * outputs, 0.0);
    for (int64_t i = 0; i < tasks(); ++i) {
      for (int64_t c = 0; c < 2 * outputs; ++c) {
        stage_.statistics[c] += sums_[(2 * i + c / outputs) * channels + c % outputs];
      }
    }
  }

 private:
  void add(const int32_t* tiles, int64_t count, int64_t row, int64_t column) {
    MapTask task{};
    task.tiles = tiles;
    task.count = count, task.row = row, task.column = column, task.across = across_;
    task.out = stage_.out;
    tasks_.push_back(task);
    most_ = std::max(most_, count);
  }

  // A list in pieces; where results go through room of a task, tiles side by side only.
  void list_tasks(int64_t most) {
    for (int64_t i = 0, count; i < stage_.tile_count; i += count) {
      const int64_t left = stage_.tile_count - i, first = stage_.tiles[i];
      if (stage_.end == MapEnd::map) {
        count = std::min(left, most);
        add(stage_.tiles + i, count, 0, 0);
        continue;
      }
      count = 1;
      while (count < std::min(left, most) && stage_.tiles[i + count] == first + count && (first + count) % across_ != 0)
        ++count;
      add(nullptr, count, first / across_, first % across_);
    }
  }

  static constexpr int64_t kSpareFloats = 64;  // for parts of pixels of an added image

  int64_t pixel() const { return stage_.layer.vectors * kGroup; }
  int64_t room_for_end() const {
    if (stage_.end == MapEnd::map) return 0;
    const int64_t pixels = most_ * side_, s = stage_.shuffle;
    return pixels * side_ * pixel() + 3 * (pixels + 2) + 3 * s * pixels * 2 + kSpareFloats;
  }

  void run(int64_t number, const MapTask* next, float* room, float* end) {
    MapTask task = tasks_[number];
    if (!sums_.empty()) task.statistics = sums_.data() + number * 2 * pixel();
    if (stage_.end == MapEnd::map) return kernels_.compute(stage_.layer, task, next, room);
    const int64_t row = task.count * side_ * pixel();
    task.out = MapTarget{};
    task.out.row = row, task.out.group = kGroup, task.out.pixel = pixel();
    task.out.groups = stage_.layer.vectors, task.out.shuffle = 1;
    task.out.first = end - task.row * side_ * row - task.column * side_ * pixel();
    kernels_.compute(stage_.layer, task, next, room);
    const int64_t y = task.row * side_, x = task.column * side_;
    const int64_t count = std::min(stage_.layer.width - x, task.count * side_);
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
      kernels_.bytes(values + dy * each, pixel(), each, count, 255.f * stage_.picture.gain, adds ? added : nullptr,
                     bytes);
      stage_.picture.write(to, bytes - 3 * s * x, s * x, s * (x + count));
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
  int64_t side_ = 4, across_ = 0, most_ = 0;
  std::vector<MapTask> tasks_;
  std::vector<float> sums_;
  std::atomic<int64_t> next_{0};
};

}  // namespace mga
