// The layers of a call, run by several threads: one after the other over whole maps, or in bands of rows, so that maps
// between them need memory for a few rows only. Tasks have an order in which they could run one by one; each thread
// takes the next one, and waits until the rows that it needs are there, and until nobody needs those that it writes
// over. Nothing of a result depends on the number of threads. No torch header.
#pragma once
#include <atomic>
#include <memory>
#include <thread>

#include "maps/schedule.h"

namespace mga {

// Up to which row, exclusive, a layer has been computed when the last one has been up to row `rows` of the image: whole
// tiles, or all.
inline int64_t computed_rows(const MapStage& stage, int64_t rows) {
  const MapLayer& layer = stage.layer;
  const int64_t read = std::max<int64_t>(rows + stage.lead, 0) * stage.scale;
  if (read >= layer.x.height) return layer.height;
  const int64_t side = layer.places.side, tiles = layer.stride == 1 ? layer.places.before(read) : read / 2 / side;
  return tiles == 0 ? 0 : std::min(layer.places.at(tiles), layer.height);  // the first may begin within
}

// Calls run(number, from, to) for what is to be computed, in an order in which it can be; a band of 0 is one layer
// after the other. In bands, each layer begins when its lead has come to the image.
template <typename Run>
void for_each_band(const std::vector<MapStage>& stages, int64_t height, int64_t band, Run&& run) {
  std::vector<int64_t> done(stages.size(), 0);
  int64_t lead = 0;
  for (const MapStage& stage : stages) lead = std::max(lead, stage.lead);
  const int64_t step = band == 0 ? height : band;
  for (int64_t rows = band == 0 ? height : step - lead;; rows += step) {
    for (size_t i = 0; i < stages.size(); ++i) {
      const int64_t to = computed_rows(stages[i], std::min(rows, height));
      if (to > done[i]) run(i, done[i], to);
      done[i] = std::max(done[i], to);
    }
    if (rows >= height) return;
  }
}

// What must have been computed of another layer before rows up to `to` of a layer are: (to * factor + more) / divisor
// rows, rounded up.
struct Need {
  size_t other;
  int64_t factor, more, divisor;
  int64_t most;  // rows of the map, or of the other layer

  int64_t rows(int64_t to) const {
    const int64_t wanted = std::min(to * factor + more, most);
    return wanted <= 0 ? 0 : (wanted + divisor - 1) / divisor;
  }
};

// The needs of layer `number`: a map's rows are written before they are read, are read before they are written over,
// and are written in the order of the layers. The latest layers come first.
inline std::vector<Need> needs_of(const std::vector<MapStage>& stages, size_t number) {
  std::vector<Need> needs;
  for (size_t other = stages.size(); other-- > 0;) {
    if (other == number) continue;
    for (const MapUse& mine : stages[number].uses) {
      for (const MapUse& theirs : stages[other].uses) {
        if ((!mine.writes && !theirs.writes) || !mine.meets(theirs)) continue;
        const int64_t all = stages[other].layer.height;
        if (!mine.same_map(theirs)) {
          // Rows of one say nothing of the other's.
          if (other < number) needs.push_back({other, 0, all, 1, all});
          continue;
        }
        if (other > number) {
          // A row may take the place of one that is no longer needed.
          if (mine.writes && mine.held < mine.height) {
            needs.push_back({other, mine.factor, theirs.above - mine.held, theirs.factor, all * theirs.factor});
          }
        } else if (theirs.writes) {
          needs.push_back({other, mine.factor, mine.below, theirs.factor, mine.height});
        } else {
          needs.push_back({other, mine.factor, theirs.above, theirs.factor, all * theirs.factor});
        }
      }
    }
  }
  return needs;
}

class ChainRun {
 public:
  // Weights that are kept as they are get a place here, and are transformed into it before the first task.
  ChainRun(const MapKernels& kernels, std::vector<MapStage>& stages, int64_t height, int64_t band)
      : kernels_(kernels),
        stages_(stages),
        states_(new State[stages.size()]),
        tasks_(lists_of_thread().tasks),
        sums_(lists_of_thread().sums) {
    tasks_.clear();
    std::vector<int32_t> count(stages.size(), 0);
    for (size_t i = 0; i < stages.size(); ++i) {
      work_.emplace_back(kernels, stages[i]);
      needs_.push_back(needs_of(stages, i));
      room_ = std::max(room_, work_[i].room());
      states_[i].reset(tile_rows(i));
    }
    for_each_band(stages, height, band, [&](size_t i, int64_t from, int64_t to) {
      work_[i].list(from, to, [&](TaskAt task) {
        task.stage = int32_t(i), task.number = count[i]++;
        tasks_.push_back(task);
        const auto [first, last] = work_[i].rows(task);
        for (int64_t row = first; row <= last; ++row) states_[i].left[row].fetch_add(1, std::memory_order_relaxed);
      });
    });
    if (!tasks_.empty()) place_weights(stages);
    int64_t floats = 0;
    for (size_t i = 0; i < stages.size(); ++i) {
      states_[i].first = floats;
      if (stages[i].statistics != nullptr) floats += count[i] * sums_each(i);
      states_[i].end = floats;
    }
    sums_.assign(floats, 0.f);
    for (size_t i = 0; i < stages.size(); ++i) advance(i);
  }

  // The first layer of which something would be missing in this order, and of which other layer; (-1, -1) for none.
  static std::pair<int64_t, int64_t> missing(const std::vector<MapStage>& stages, int64_t height, int64_t band) {
    std::vector<int64_t> done(stages.size(), 0);
    std::vector<std::vector<Need>> needs;
    for (size_t i = 0; i < stages.size(); ++i) needs.push_back(needs_of(stages, i));
    std::pair<int64_t, int64_t> found{-1, -1};
    for_each_band(stages, height, band, [&](size_t i, int64_t, int64_t to) {
      for (const Need& need : needs[i]) {
        if (found.first < 0 && done[need.other] < need.rows(to)) found = {int64_t(i), int64_t(need.other)};
      }
      done[i] = to;
    });
    return found;
  }

  int64_t tasks() const { return int64_t(tasks_.size()); }

  // What each thread does until nothing is left.
  void work() {
    try {
      float* const room = ThreadRoom::of_thread(room_ + 64);
      if (transform_weights()) work_on(room);
    } catch (...) {
      failed_.store(true);  // or others would wait for what this thread has taken
      throw;
    }
  }

  // Sums are added in the order of the tasks, which is the same for any number of threads.
  void finish() {
    for (size_t i = 0; i < stages_.size(); ++i) {
      if (stages_[i].statistics == nullptr) continue;
      const int64_t outputs = stages_[i].layer.outputs, all = channels(i);
      std::fill(stages_[i].statistics, stages_[i].statistics + 2 * outputs, 0.0);
      for (int64_t first = states_[i].first; first < states_[i].end; first += sums_each(i)) {
        for (int64_t c = 0; c < 2 * outputs; ++c) {
          stages_[i].statistics[c] += sums_[first + c / outputs * all + c % outputs];
        }
      }
    }
  }

 private:
  // The calling thread's own, so that the next image needs no memory for them; other threads read the tasks, and write
  // the sums of those that they run.
  struct Lists {
    std::vector<TaskAt> tasks;
    std::vector<float> sums;
  };
  static Lists& lists_of_thread() {
    thread_local Lists lists;
    return lists;
  }

  // How far a layer is. Rows of tiles, of which the first `done` are complete.
  struct State {
    std::unique_ptr<std::atomic<int32_t>[]> left;  // tasks of each row
    int64_t count = 0;
    std::atomic<int64_t> done{0};
    int64_t first = 0, end = 0;  // of its tasks' sums among those of all layers

    void reset(int64_t rows) {
      left.reset(new std::atomic<int32_t>[rows]);
      for (int64_t i = 0; i < rows; ++i) left[i].store(0, std::memory_order_relaxed);
      count = rows;
    }
  };

  // A panel of a weight, and where the whole goes.
  struct Panel {
    UntransformedWeight weight;
    int64_t first, count;
    float* to;
  };

  void place_weights(std::vector<MapStage>& stages) {
    int64_t floats = 0;
    const auto size = [](const MapLayer& layer) {
      return layer.weight != nullptr || layer.tile == 0
                 ? 0
                 : transformed_floats(layer.inputs, layer.vectors, layer.size, layer.tile);
    };
    for (const MapStage& stage : stages) floats += size(stage.layer);
    if (floats == 0) return;
    float* to = ThreadRoom::for_weights(floats);
    for (MapStage& stage : stages) {
      MapLayer& layer = stage.layer;
      const int64_t needed = size(layer);
      if (needed == 0) continue;
      const UntransformedWeight weight{layer.plain, layer.inputs, layer.vectors, layer.size, layer.tile};
      for_each_panel(layer.vectors,
                     [&](int64_t first, int64_t count) { panels_.push_back({weight, first, count, to}); });
      layer.weight = to;
      to += needed;
    }
    panels_left_.store(int64_t(panels_.size()));
  }

  // Returns when all threads together have done all; false where one of them has failed.
  bool transform_weights() {
    const int64_t count = int64_t(panels_.size());
    for (int64_t i = next_panel_.fetch_add(1); i < count; i = next_panel_.fetch_add(1)) {
      const Panel& panel = panels_[i];
      kernels_.transform_weight(panel.weight, panel.first, panel.count, panel.to);
      panels_left_.fetch_sub(1);
    }
    for (int tries = 0; panels_left_.load() > 0; ++tries) {
      if (failed_.load()) return false;
      tries < kTries ? pause() : std::this_thread::yield();
    }
    return true;
  }

  int64_t tile_rows(size_t i) const {
    const MapLayer& layer = stages_[i].layer;
    return layer.places.before(layer.height);
  }
  int64_t channels(size_t i) const { return stages_[i].layer.vectors * kGroup; }
  int64_t sums_each(size_t i) const { return 2 * channels(i); }  // of a task: sums, then those of squares

  // Whether so many rows of pixels have been computed.
  bool has(size_t i, int64_t rows) const {
    const int64_t done = states_[i].done.load();
    return done == states_[i].count || stages_[i].layer.places.at(done) >= rows;
  }

  // All that is complete is counted by the last of those who complete it: each counts its own row before it looks at
  // the others.
  void advance(size_t i) {
    State& state = states_[i];
    int64_t done = state.done.load();
    while (done < state.count && state.left[done].load() == 0) {
      if (state.done.compare_exchange_strong(done, done + 1)) ++done;
    }
    size_t complete = complete_.load();
    while (complete < stages_.size() && states_[complete].done.load() == states_[complete].count) {
      if (complete_.compare_exchange_strong(complete, complete + 1)) ++complete;
    }
  }

  // False where another thread has failed.
  bool wait(const TaskAt& task) const {
    const MapLayer& layer = stages_[task.stage].layer;
    const int64_t last = work_[task.stage].rows(task).second;
    const int64_t to = std::min(layer.places.at(last) + layer.places.side, layer.height);
    for (const Need& need : needs_[task.stage]) {
      if (need.other < complete_.load(std::memory_order_acquire)) return true;  // and so are all behind it
      const int64_t rows = need.rows(to);
      for (int tries = 0; !has(need.other, rows); ++tries) {
        if (failed_.load()) return false;
        tries < kTries ? pause() : std::this_thread::yield();
      }
    }
    return true;
  }

  void work_on(float* room) {
    int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    while (i < tasks()) {
      // The one behind is taken one ahead, so that its rows can be fetched.
      const int64_t after = next_.fetch_add(1, std::memory_order_relaxed);
      const TaskAt& task = tasks_[i];
      if (!wait(task)) return;
      const bool same = after < tasks() && tasks_[after].stage == task.stage;
      const bool sums = stages_[task.stage].statistics != nullptr;
      float* statistics =
          sums ? sums_.data() + states_[task.stage].first + task.number * sums_each(task.stage) : nullptr;
      work_[task.stage].run(task, same ? &tasks_[after] : nullptr, statistics, room);
      const auto [first, last] = work_[task.stage].rows(task);
      for (int64_t row = first; row <= last; ++row) states_[task.stage].left[row].fetch_sub(1);
      advance(task.stage);
      i = after;
    }
  }

  // About the time of a task: who gives up the processor earlier gets it back only after others on a busy machine.
  static constexpr int kTries = 2000;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const MapKernels& kernels_;
  const std::vector<MapStage>& stages_;
  std::unique_ptr<State[]> states_;
  std::vector<StageWork> work_;
  std::vector<std::vector<Need>> needs_;
  std::vector<TaskAt>& tasks_;
  std::vector<float>& sums_;
  int64_t room_ = 0;
  std::vector<Panel> panels_;
  std::atomic<int64_t> next_panel_{0}, panels_left_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<size_t> complete_{0};
  std::atomic<bool> failed_{false};
};

}  // namespace mga
