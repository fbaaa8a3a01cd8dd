// The hand-out of layers to threads of the C++ library, for ThreadSanitizer: maps, tiles side by side and in a list,
// others that become zeros, sums, and pictures of one layer; several layers one after the other and in bands, over maps
// of a few rows; weights that threads transform first. Prints how many results were compared; a difference from one
// thread ends it with status 1.
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "maps/run.h"

namespace mga {
namespace portable {
extern const MapKernels map_kernels;
}
namespace {

constexpr int64_t kHeight = 37, kWidth = 91, kChannels = 16;
constexpr int32_t kTiles = 70;  // the first of a layer, in lists

struct Memory {
  std::vector<float> x, out, weight, epilogue, zeros;
  std::vector<uint8_t> picture;
  std::vector<double> sums;
  std::vector<int32_t> others;  // tiles that become zeros
};

void run(std::vector<MapStage> stages, int64_t band, int threads) {
  ChainRun work(portable::map_kernels, stages, kHeight, band);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&] { work.work(); });
  work.work();
  for (std::thread& other : others) other.join();
  work.finish();
}

Memory computed(int64_t tile, bool picture, const std::vector<int32_t>* tiles, int threads) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const int64_t pitch = map_pitch(kWidth), groups = groups_of(kChannels), row = groups * pitch * kGroup;
  const int64_t outputs = picture ? 12 : kChannels, vectors = groups_of(outputs);
  Memory memory;
  memory.x.assign(kHeight * row, 0.f);
  memory.out.assign(kHeight * row, 3.f);
  memory.weight.resize(packed_floats(kChannels, outputs, 3, tile));
  memory.epilogue.assign(4 * vectors * kGroup, 1.f);
  memory.zeros.assign(pitch * kGroup, 0.f);
  memory.picture.assign(12 * kHeight * kWidth, 9);
  memory.sums.assign(2 * kChannels, -1);
  for (int64_t y = 0; y < kHeight; ++y) {
    for (int64_t g = 0; g < groups; ++g) {
      float* pixels = memory.x.data() + y * row + (g * pitch + kBefore) * kGroup;
      for (int64_t i = 0; i < kWidth * kGroup; ++i) pixels[i] = normal(random);
    }
  }
  for (float& value : memory.weight) value = normal(random) / 20;
  MapStage stage;
  stage.layer = MapLayer{};
  MapLayer& layer = stage.layer;
  layer.inputs = kChannels, layer.outputs = outputs, layer.vectors = vectors;
  layer.size = 3, layer.stride = 1, layer.tile = tile, layer.places = side_by_side(tile);
  layer.weight = memory.weight.data(), layer.plain = memory.weight.data(), layer.epilogue = memory.epilogue.data();
  layer.height = kHeight, layer.width = kWidth;
  layer.x = {memory.x.data() + kBefore * kGroup,    row, pitch * kGroup, kHeight, kHeight, nullptr,
             memory.zeros.data() + kBefore * kGroup};
  if (picture) {
    stage.end = MapEnd::picture;
    stage.shuffle = 2;
    stage.picture = {memory.picture.data(), 1,          2 * kHeight, 2 * kWidth, 0, 6 * kWidth, 1,
                     2 * kHeight,           2 * kWidth, 0,           0.3f};
  } else {
    stage.out = {
        memory.out.data() + kBefore * kGroup, row, pitch * kGroup, kGroup, kHeight, groups, 1, nullptr, nullptr, false};
    stage.statistics = memory.sums.data();
  }
  if (tiles != nullptr) {
    stage.tiles = {tiles->data(), int64_t(tiles->size())};
    for (int32_t i = 0; i < kTiles; ++i) {
      if (!std::binary_search(tiles->begin(), tiles->end(), i)) memory.others.push_back(i);
    }
    if (!picture) stage.zeros = {memory.others.data(), int64_t(memory.others.size())};
  }
  run({stage}, 0, threads);
  return memory;
}

// Four layers from map 0 to map 3 by maps 1 and 2, of which the third, a 1x1, writes over what it adds; in bands map 1
// has 24 rows and map 2 has 16. `as_they_are`: weights that are not transformed yet.
std::vector<float> chained(int64_t band, int threads, bool as_they_are) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  const int64_t pitch = map_pitch(kWidth), groups = groups_of(kChannels), row = groups * pitch * kGroup;
  const int64_t held[4] = {kHeight, band == 0 ? kHeight : 24, band == 0 ? kHeight : 16, kHeight};
  std::vector<float> maps[4], zeros(pitch * kGroup, 0.f), epilogue(4 * kChannels, 0.5f);
  std::vector<float> weight(packed_floats(kChannels, kChannels, 3, 4));
  for (int i = 0; i < 4; ++i) maps[i].assign(held[i] * row, 0.f);
  for (int64_t y = 0; y < kHeight * groups; ++y) {
    float* pixels = maps[0].data() + (y * pitch + kBefore) * kGroup;
    for (int64_t i = 0; i < kWidth * kGroup; ++i) pixels[i] = normal(random);
  }
  for (float& value : weight) value = normal(random) / 20;
  const auto source = [&](int i) -> MapSource {
    return {maps[i].data() + kBefore * kGroup, row, pitch * kGroup, kHeight, held[i], nullptr,
            zeros.data() + kBefore * kGroup};
  };
  const auto use = [&](int i, int64_t reach, bool writes) -> MapUse {
    const float* begin = maps[i].data();
    return {begin, begin + maps[i].size(), 0, groups, held[i], kHeight, 1, reach, reach, writes};
  };
  const int from[] = {0, 1, 2, 1}, to[] = {1, 2, 1, 3}, leads[] = {12, 8, 4, 0};
  std::vector<MapStage> stages(4);
  for (int i = 0; i < 4; ++i) {
    MapLayer& layer = stages[i].layer;
    layer = MapLayer{};
    layer.inputs = layer.outputs = kChannels, layer.vectors = groups, layer.stride = 1;
    layer.size = i == 2 ? 1 : 3, layer.tile = i == 2 ? 0 : 4, layer.places = side_by_side(layer.tile);
    layer.plain = weight.data(), layer.epilogue = epilogue.data();
    layer.weight = as_they_are && layer.tile != 0 ? nullptr : weight.data();
    layer.height = kHeight, layer.width = kWidth;
    layer.x = source(from[i]);
    layer.skip = source(to[i]), layer.has_skip = i == 2;
    stages[i].out = {maps[to[i]].data() + kBefore * kGroup,
                     row,
                     pitch * kGroup,
                     kGroup,
                     held[to[i]],
                     groups,
                     1,
                     nullptr,
                     nullptr,
                     false};
    stages[i].lead = leads[i];
    stages[i].uses = {use(from[i], layer.size / 2, false), use(to[i], 0, true)};
    if (i == 2) stages[i].uses.push_back(use(1, 0, false));
  }
  run(stages, band, threads);
  return maps[3];
}

bool same(const Memory& a, const Memory& b) {
  return a.out == b.out && a.picture == b.picture && std::memcmp(a.sums.data(), b.sums.data(), a.sums.size() * 8) == 0;
}

}  // namespace
}  // namespace mga

int main() {
  std::vector<int32_t> some;
  for (int32_t i = 0; i < mga::kTiles; i += 1 + i % 3) some.push_back(i);
  int compared = 0;
  for (const int64_t tile : {0, 4, 6}) {
    for (const bool picture : {false, true}) {
      for (const std::vector<int32_t>* tiles : {static_cast<std::vector<int32_t>*>(nullptr), &some}) {
        const mga::Memory alone = mga::computed(tile, picture, tiles, 1);
        if (!mga::same(alone, mga::computed(tile, picture, tiles, 4))) {
          std::printf("tile %d, picture %d, list %d: threads changed the result\n", int(tile), picture,
                      tiles != nullptr);
          return 1;
        }
        ++compared;
      }
    }
  }
  for (const bool as_they_are : {false, true}) {
    const std::vector<float> alone = mga::chained(0, 1, as_they_are);
    for (const int64_t band : {0, 8}) {
      for (const int threads : {1, 4}) {
        if (mga::chained(band, threads, as_they_are) != alone) {
          std::printf("band %d, %d threads, weights as they are %d: another result\n", int(band), threads, as_they_are);
          return 1;
        }
        ++compared;
      }
    }
  }
  std::printf("%d comparisons\n", compared);
}
