// The kernels of float maps that this process has chosen, against the definition in double: layers of all kinds, lists
// of tiles, masks, numbers that are not finite, sums, bytes. No PyTorch, so that it can be built for other processors
// and run in an emulator. Prints which kernels they are, all it does if it is given an argument, and how many layers
// were compared; the first that differs ends it with status 1.
#include <algorithm>
#include <cstdio>
#include <exception>

#include "layers.h"

namespace mga {
namespace {

const double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
int compared = 0;

// Kernels that are computed in tiles, and 3x3 without.
constexpr struct {
  int64_t size, tile;
} kKinds[] = {{3, 0}, {3, 4}, {3, 6}, {5, 4}};

[[noreturn]] void fail(const Case& what, const char* reason, double found = 0, double expected = 0) {
  std::printf("%s: %s: %.9g, not %.9g\n", what.text().c_str(), reason, found, expected);
  std::exit(1);
}

// Of outputs whose rms is about 1.4.
double error_of(const Case& what) {
  const double plain = what.tile == 0 ? 4e-6 : what.tile == 4 && what.size == 3 ? 1.5e-5 : 1.5e-4;
  return plain * std::max(1., what.scale);
}

bool near(double found, double expected, double error) {
  if (std::isnan(expected)) return std::isnan(found);
  if (std::isinf(expected)) return found == expected;
  return std::abs(found - expected) <= error + 1e-5 * std::abs(expected);
}

bool listed(const Case& what, int64_t y, int64_t x) {
  const int64_t side = what.side(), across = (what.made_width() + side - 1) / side;
  const int32_t number = int32_t(y / side * across + x / side);
  return what.tiles.empty() || std::binary_search(what.tiles.begin(), what.tiles.end(), number);
}

// What must be at a pixel of the map, which is pixel (y, x) of what the layer makes.
double wanted_at(const Layer& layer, int64_t o, int64_t y, int64_t x, int64_t row, int64_t column) {
  const Case& what = layer.what;
  if (!listed(what, y, x) || (!what.rows.empty() && what.rows[row] == 0)) return kUntouched;
  const bool open = what.lanes.empty() || (what.lanes[column / 16] >> column % 16 & 1) != 0;
  return open ? layer.expected(o, y, x) : 0;
}

void compare(const Case& what, uint32_t seed = 1) {
  const Layer layer(what, seed);
  const Result found = run(map_kernels(), layer);
  const int64_t s = what.shuffle, channels = what.outputs / (s * s);
  std::vector<double> sums(2 * layer.vectors() * kGroup, 1);
  for (int64_t o = 0; o < what.outputs; ++o) {
    for (int64_t y = 0; y < what.made_height(); ++y) {
      for (int64_t x = 0; x < what.made_width(); ++x) {
        const int64_t phase = o / channels, row = y * s + phase / s, column = x * s + phase % s;
        const double here = found.map.at(o % channels, row, column), wanted = wanted_at(layer, o, y, x, row, column);
        if (!near(here, wanted, error_of(what))) fail(what, "a pixel is wrong", here, wanted);
        if (wanted == kUntouched) continue;
        sums[o] += wanted, sums[layer.vectors() * kGroup + o] += wanted * wanted;
      }
    }
  }
  if (!found.map.border_is_zero()) fail(what, "the border is not zero");
  for (size_t i = 0; i < found.statistics.size(); ++i) {
    if (std::abs(found.statistics[i] - sums[i]) > 1e-4 * (10 + std::abs(sums[i]))) {
      fail(what, "a sum is wrong", found.statistics[i], sums[i]);
    }
  }
  ++compared;
}

void sizes() {
  const int64_t of_tiles[][4] = {{8, 1, 1, 1},    {5, 3, 2, 7},    {25, 25, 7, 13},  {48, 20, 13, 12},
                                 {50, 50, 4, 25}, {64, 40, 9, 5},  {56, 12, 1, 100}, {12, 64, 17, 1},
                                 {72, 9, 6, 24},  {16, 6, 5, 110}, {7, 17, 5, 29}};
  for (const auto& n : of_tiles) {
    for (const auto& [size, tile] : kKinds) compare({n[0], n[1], size, tile, n[2], n[3]});
  }
  const int64_t of_others[][4] = {{1, 8, 5, 5},   {2, 20, 3, 9},  {3, 20, 9, 30}, {4, 1, 1, 1},
                                  {20, 3, 5, 61}, {25, 20, 2, 3}, {8, 16, 4, 30}, {64, 5, 6, 12}};
  for (const auto& n : of_others) {
    for (const int64_t size : {1, 3, 5, 7, 9}) compare({n[0], n[1], size, 0, n[2], n[3]});
  }
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{5, 5}, {10, 13}, {6, 110}}) {
    for (const int64_t size : {1, 3, 5}) {
      for (const int64_t outputs : {3, 16, 24}) {
        Case what{outputs, 12, size, 0, height, width};
        what.stride = 2;
        compare(what);
      }
    }
  }
}

void joined() {
  for (const auto& [size, tile] : kKinds) {
    Case what{24, 10, size, tile, 9, 30};
    what.skip = true;
    compare(what);
    what.of_skip = 0.2f, what.past_caches = true;
    compare(what);
    what.also = true, what.of_also = -1.5f, what.slope = 0;
    compare(what);
    what.also = false, what.gate = MapGate::sigmoid;
    compare(what);
    what.gate = MapGate::span, what.slope = 1;
    compare(what);
    what.skip = false, what.gate = MapGate::none, what.activation = MapActivation::silu, what.statistics = true;
    compare(what);
  }
  Case far{16, 4, 1, 0, 3, 20};  // sigmoids at their ends
  far.scale = 100, far.gate = MapGate::sigmoid, far.skip = true;
  compare(far);
  far.gate = MapGate::none, far.activation = MapActivation::silu;
  compare(far);
  Case factors{24, 24, 0, 0, 9, 30};
  factors.skip = factors.also = true;
  compare(factors);
}

void shuffles() {
  for (const int64_t shuffle : {2, 3, 4}) {
    for (const auto& [size, tile] : kKinds) {
      Case what{16 * shuffle * shuffle, 12, size, tile, 5, 13};
      what.shuffle = shuffle;
      compare(what);
    }
  }
}

// Sums of a 9x9 kernel's blocks, in images of fewer rows and columns than parts are apart, too.
void blocks() {
  for (const int64_t outputs : {1, 2, 3}) {
    for (const auto& [height, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {2, 7}, {3, 3}, {6, 5}, {11, 61}, {9, 100}}) {
      Case what{outputs, 10, 9, 0, height, width};
      what.parts = true;
      compare(what);
    }
  }
  Case what{3, 10, 9, 0, 20, 61};
  what.parts = true, what.slope = 0.2f;
  what.strange = {kInfinity, -kInfinity, kNan};
  compare(what);
  what.strange.clear();
  for (int32_t i = 0; i < 80; i += 1 + i % 3) what.tiles.push_back(i);
  compare(what);
}

void parts() {
  for (const int64_t tile : {0, 4, 6}) {
    for (const int64_t size : {1, 3, 5}) {
      if (tile != 0 && !has_tiles(size, tile)) continue;
      Case what{24, 9, size, tile, 20, 61};
      const int32_t count = int32_t((61 + what.side() - 1) / what.side() * ((20 + what.side() - 1) / what.side()));
      for (int32_t i = 0; i < count; i += 1 + i % 3) what.tiles.push_back(i);
      compare(what);
      what.tiles = {count - 1};
      compare(what);
      what.tiles.clear();
      for (int64_t y = 0; y < 20; ++y) what.rows.push_back(y % 5 != 2), what.x_rows.push_back(y % 7 != 3);
      what.lanes = {0xff0f, 0x0000, 0x8001, 0xfffe};
      compare(what);
    }
  }
}

void not_finite() {
  for (const auto& [size, tile] : kKinds) {
    for (const double value : {kInfinity, -kInfinity, kNan}) {
      for (const float slope : {0.f, 0.3f}) {
        Case what{12, 9, size, tile, 13, 26};
        what.strange = {value, -value, value}, what.slope = slope;
        compare(what);
        what.skip = true, what.lanes = {0xffff, 0xffff};
        compare(what);
      }
    }
  }
}

// Whatever else is computed with it, a tile must be the same to the last bit.
void lists_change_nothing() {
  for (const auto& [size, tile] : kKinds) {
    Case what{24, 12, size, tile, 13, 140};
    const Result whole = run(map_kernels(), Layer(what, 3));
    for (int32_t i = 0; i < 70; i += 7) what.tiles.push_back(i);
    const Result part = run(map_kernels(), Layer(what, 3));
    for (int64_t i = 0; i < part.map.data.size(); ++i) {
      const float value = part.map.data.data()[i], same = whole.map.data.data()[i];
      if (value != kUntouched && value != same) fail(what, "a list changed a pixel", value, same);
    }
    ++compared;
  }
}

// Pixels of `n` values, of every number that one or two vectors hold; behind them are as many as may be read.
void bytes() {
  const Case none{};
  const std::vector<float> values = {0.5f,  1.5f, 2.5f,   -3.f,  254.5f, 255.5f, 1e9f,      float(kNan),
                                     127.f, 0.f,  -1e30f, 77.4f, 126.5f, -0.5f,  HUGE_VALF, -HUGE_VALF};
  const std::vector<int> expected = {0, 2, 2, 0, 254, 255, 255, 0, 127, 0, 0, 77, 126, 0, 255, 0};
  for (int n = 1; n <= 20; ++n) {
    const int pixels = 7, pixel = n + 3;
    std::vector<float> spread(pixels * pixel + kSpareValues, 1.f), added(pixels * n + kSpareValues, 10.f);
    std::vector<uint8_t> out(pixels * n + kSpareValues);
    for (int i = 0; i < pixels * n; ++i) spread[i / n * pixel + i % n] = values[i % 16];
    map_kernels().bytes(spread.data(), pixel, n, pixels, 1.f, nullptr, out.data());
    for (int i = 0; i < pixels * n; ++i) {
      if (out[i] != expected[i % 16]) fail(none, "a byte is wrong", out[i], expected[i % 16]);
    }
    map_kernels().bytes(spread.data(), pixel, n, pixels, 2.f, added.data(), out.data());
    for (int i = 0; i < pixels * n; ++i) {
      const float sum = 2 * values[i % 16] + 10;
      const double wanted = sum > 0 ? std::nearbyint(std::min(255.f, sum)) : 0;
      if (out[i] != wanted) fail(none, "a byte with another added is wrong", out[i], wanted);
    }
  }
  ++compared;
}

}  // namespace
}  // namespace mga

int main(int count, char**) {
  try {
    std::printf("%s kernels, %s\n", mga::map_kernels().name, mga::map_kernels().fast ? "fast" : "slow");
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 2;
  }
  if (count > 1) return 0;
  mga::sizes();
  mga::joined();
  mga::shuffles();
  mga::blocks();
  mga::parts();
  mga::not_finite();
  mga::lists_change_nothing();
  mga::bytes();
  std::printf("%d comparisons\n", mga::compared);
}
