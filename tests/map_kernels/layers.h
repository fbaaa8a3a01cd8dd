// One layer of random values over a map of random values: run through a table of kernels, and by definition in double.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "maps/kernels.h"
#include "maps/pack.h"

namespace mga {

constexpr float kUntouched = -12345.f;  // what was in a map before

// (channels, height, width)
struct Values {
  int64_t channels, height, width;
  std::vector<double> data;

  Values(int64_t channels, int64_t height, int64_t width)
      : channels(channels), height(height), width(width), data(channels * height * width) {}
  double& at(int64_t c, int64_t y, int64_t x) { return data[(c * height + y) * width + x]; }
  double at(int64_t c, int64_t y, int64_t x) const { return data[(c * height + y) * width + x]; }
};

// Aligned to a cache line.
class Floats {
 public:
  explicit Floats(int64_t count, float value = 0.f)
      : count_(count), data_(static_cast<float*>(std::aligned_alloc(64, (count * 4 + 127) / 64 * 64)), std::free) {
    std::fill_n(data(), count, value);
  }
  float* data() const { return data_.get(); }
  int64_t size() const { return count_; }

 private:
  int64_t count_;
  std::unique_ptr<float, decltype(&std::free)> data_;
};

struct Map {
  int64_t channels, height, width, pitch, group, row;
  Floats data, zeros;

  Map(int64_t channels, int64_t height, int64_t width, float value)
      : channels(channels),
        height(height),
        width(width),
        pitch(map_pitch(width)),
        group(pitch * kGroup),
        row(groups_of(channels) * group),
        data(height * row),
        zeros(group) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t g = 0; g < groups_of(channels); ++g) {
        for (int64_t i = 0; i < width * kGroup; ++i) first()[y * row + g * group + i] = value;
      }
    }
  }
  explicit Map(const Values& values) : Map(values.channels, values.height, values.width, 0.f) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) at(c, y, x) = float(values.at(c, y, x));
      }
    }
  }

  float* first() const { return data.data() + kBefore * kGroup; }
  float& at(int64_t c, int64_t y, int64_t x) const {
    return first()[y * row + c / kGroup * group + x * kGroup + c % kGroup];
  }
  bool border_is_zero() const {
    for (int64_t i = 0; i < data.size(); ++i) {
      const int64_t x = i / kGroup % pitch - kBefore;
      if ((x < 0 || x >= width) && data.data()[i] != 0) return false;
    }
    return true;
  }
  MapSource source(const uint8_t* rows) const {
    MapSource source{};
    source.first = first(), source.row = row, source.group = group, source.height = source.held = height;
    source.rows = rows, source.zeros = zeros.data() + kBefore * kGroup;
    return source;
  }
};

struct Case {
  int64_t outputs, inputs, size, tile, height, width;
  int64_t stride = 1, shuffle = 1;
  MapGate gate = MapGate::none;
  MapActivation activation = MapActivation::leaky;
  float slope = 0.3f;  // of even channels; of odd ones it is half of it
  bool skip = false, also = false;
  float of_skip = 1.f, of_also = 1.f;
  bool past_caches = false;
  double scale = 1;                  // of the input
  std::vector<double> strange = {};  // put into the input, far apart
  std::vector<int32_t> tiles = {};   // empty: all
  std::vector<uint8_t> x_rows = {};  // masks; empty: none
  std::vector<uint8_t> rows = {};    // of the output, in its own pixels
  std::vector<uint16_t> lanes = {};  // likewise
  bool statistics = false;
  bool parts = false;  // of a 9x9 kernel

  int64_t made_height() const { return stride == 1 ? height : (height - size) / 2 + 1; }
  int64_t made_width() const { return stride == 1 ? width : (width - size) / 2 + 1; }
  int64_t side() const { return tile == 0 ? 4 : tile; }
  std::string text() const {
    std::string text = std::to_string(outputs) + " x " + std::to_string(inputs) + ", size " + std::to_string(size);
    text += ", tile " + std::to_string(tile) + ", image " + std::to_string(height) + "x" + std::to_string(width);
    text += ", stride " + std::to_string(stride) + ", shuffle " + std::to_string(shuffle);
    return text + ", gate " + std::to_string(int(gate)) + ", list " + std::to_string(tiles.size());
  }
};

// A case with its numbers.
struct Layer {
  Case what;
  Values x, skip, also;  // the latter two of the pixels and channels that the layer makes
  std::vector<float> weight, epilogue;

  Layer(const Case& what, uint32_t seed)
      : what(what),
        x(what.inputs, what.height, what.width),
        skip(what.outputs, what.made_height(), what.made_width()),
        also(skip),
        weight(what.size == 0 ? what.outputs : what.outputs * what.inputs * what.size * what.size),
        epilogue(4 * vectors() * kGroup) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (Values* values : {&x, &skip, &also}) {
      for (double& value : values->data) value = float(normal(random) * (values == &x ? what.scale : 1));
    }
    for (size_t i = 0; i < what.strange.size(); ++i) {
      x.data[(i * 7919 + 5) % x.data.size()] = what.strange[i];
    }
    const double each = what.size == 0 ? 1 : 1 / std::sqrt(double(what.inputs * what.size * what.size));
    for (float& value : weight) value = float(normal(random) * each);
    const int64_t channels = vectors() * kGroup;
    for (int64_t o = 0; o < channels; ++o) {
      epilogue[o] = o < what.outputs ? normal(random) : 0.f;
      epilogue[channels + o] = slope(o);
      epilogue[2 * channels + o] = what.of_skip, epilogue[3 * channels + o] = what.of_also;
    }
  }

  int64_t vectors() const { return groups_of(what.outputs); }
  float slope(int64_t o) const { return o % 2 == 0 ? what.slope : what.slope / 2; }

  // What block (i, j) of a 9x9 kernel makes of channel o at a pixel.
  double of_block(int64_t o, int64_t y, int64_t column, int64_t i, int64_t j) const {
    double value = 0;
    for (int64_t c = 0; c < what.inputs; ++c) {
      const float* kernel = weight.data() + ((o * what.inputs + c) * 9 + 3 * i) * 9 + 3 * j;
      for (int64_t at = 0; at < 9; ++at)
        value += kernel[at / 3 * 9 + at % 3] * seen(c, y + at / 3 - 1, column + at % 3 - 1);
    }
    return value;
  }

  // The parts of a 9x9 kernel; in channels without one there is no number.
  Values parts() const {
    const int64_t first[3][3] = {{0, 4, 24}, {8, 12, 28}, {16, 20, 19}};
    Values values(kPartGroups * kGroup, what.height, what.width);
    std::fill(values.data.begin(), values.data.end(), std::numeric_limits<double>::quiet_NaN());
    for (int64_t block = 0; block < 9; ++block) {
      for (int64_t o = 0; o < what.outputs; ++o) {
        const int64_t channel = first[block / 3][block % 3] + (block == 8 ? 4 * o : o);
        for (int64_t y = 0; y < what.height; ++y) {
          for (int64_t x = 0; x < what.width; ++x) values.at(channel, y, x) = of_block(o, y, x, block / 3, block % 3);
        }
      }
    }
    return values;
  }

  // Of channel o at pixel (y, x) of what the layer makes.
  double expected(int64_t o, int64_t y, int64_t column) const {
    double value = epilogue[o];
    const int64_t reach = what.stride == 1 ? what.size / 2 : 0;
    if (what.size == 0) value += seen(o, y, column) * weight[o];
    for (int64_t c = 0; what.size != 0 && c < what.inputs; ++c) {
      const float* kernel = weight.data() + (o * what.inputs + c) * what.size * what.size;
      for (int64_t i = 0; i < what.size; ++i) {
        for (int64_t j = 0; j < what.size; ++j) {
          value += kernel[i * what.size + j] * seen(c, y * what.stride + i - reach, column * what.stride + j - reach);
        }
      }
    }
    const double skipped = what.skip ? skip.at(o, y, column) * what.of_skip : 0;
    const double gate = 1 / (1 + std::exp(-value));
    if (what.gate == MapGate::sigmoid) value = gate * skipped;
    if (what.gate == MapGate::span) value = (value + skipped) * (gate - 0.5);
    if (what.gate == MapGate::none) value += skipped + (what.also ? also.at(o, y, column) * what.of_also : 0);
    if (what.activation == MapActivation::silu) return value / (1 + std::exp(-value));
    return value < 0 ? (slope(o) == 0 ? 0 : value * slope(o)) : value;
  }

 private:
  double seen(int64_t c, int64_t y, int64_t column) const {
    const bool inside = 0 <= y && y < x.height && 0 <= column && column < x.width;
    return inside && (what.x_rows.empty() || what.x_rows[y] != 0) ? x.at(c, y, column) : 0;
  }
};

struct Result {
  Map map;
  std::vector<float> statistics;
};

// Of a layer, whose tasks are what a schedule would make of it.
inline Result run(const MapKernels& kernels, const Layer& of) {
  const Case& what = of.what;
  const int64_t s = what.shuffle, vectors = of.vectors();
  Result result{{what.outputs / (s * s), what.made_height() * s, what.made_width() * s, kUntouched}, {}};
  const Map x(of.x), skip(of.skip), also(of.also), parts(what.parts ? of.parts() : Values(1, 1, 1));
  std::vector<float> packed(of.weight);
  packed.resize(what.size == 0 ? vectors * kGroup : packed_floats(what.inputs, what.outputs, what.size, what.tile));
  if (what.size != 0) {
    pack_weight(kernels, {of.weight.data(), what.outputs, what.inputs, what.size}, what.tile, packed.data());
  }

  MapLayer layer{};
  layer.inputs = what.inputs, layer.outputs = what.outputs, layer.vectors = vectors;
  layer.size = what.size, layer.stride = what.stride, layer.tile = what.tile;
  layer.places = side_by_side(what.tile);
  layer.weight = packed.data(), layer.epilogue = of.epilogue.data();
  layer.plain = packed.data() + packed.size() - what.inputs * vectors * kGroup * what.size * what.size;
  layer.x = x.source(what.x_rows.empty() ? nullptr : what.x_rows.data());
  layer.skip = skip.source(nullptr), layer.also = also.source(nullptr);
  layer.has_skip = what.skip, layer.has_also = what.also;
  layer.has_parts = what.parts;
  for (int64_t g = 0; what.parts && g < kPartGroups; ++g) {
    layer.parts[g] = parts.source(nullptr);
    layer.parts[g].first += g * parts.group;
  }
  layer.gate = what.gate, layer.activation = what.activation;
  layer.height = what.made_height(), layer.width = what.made_width();

  const int64_t side = what.side(), across = (layer.width + side - 1) / side;
  const int64_t all = across * ((layer.height + side - 1) / side), most = side == 6 ? 24 : 48;
  const int64_t count = what.tiles.empty() ? all : int64_t(what.tiles.size());
  std::vector<MapTask> tasks;
  for (int64_t i = 0; i < count;) {
    MapTask task{};
    task.across = across, task.row = i / across, task.column = i % across;
    task.tiles = what.tiles.empty() ? nullptr : what.tiles.data() + i;
    task.count = std::min(most, what.tiles.empty() ? across - task.column : count - i);
    task.out.first = result.map.first(), task.out.row = result.map.row, task.out.group = result.map.group;
    task.out.held = result.map.height;
    task.out.pixel = kGroup * s, task.out.groups = vectors / (s * s), task.out.shuffle = s;
    task.out.rows = what.rows.empty() ? nullptr : what.rows.data();
    task.out.lanes = what.lanes.empty() ? nullptr : what.lanes.data();
    task.out.past_caches = what.past_caches;
    i += task.count;
    tasks.push_back(task);
  }
  if (what.statistics) result.statistics.assign(2 * vectors * kGroup, 1.f);
  const Floats room(kernels.room(layer, std::min(most, count)) + 64, std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (what.statistics) tasks[i].statistics = result.statistics.data();
    kernels.compute(layer, tasks[i], i + 1 < tasks.size() ? &tasks[i + 1] : nullptr, room.data());
  }
  kernels.settle();
  return result;
}

}  // namespace mga
