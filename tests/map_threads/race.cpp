// The hand-out of one layer to threads of the C++ library, for ThreadSanitizer: maps, tiles side by side and in a list,
// sums, and pictures. Prints how many results were compared; a difference from one thread ends it with status 1.
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "maps/schedule.h"

namespace mga {
namespace portable {
extern const MapKernels map_kernels;
}
namespace {

constexpr int64_t kHeight = 37, kWidth = 91, kChannels = 16;

struct Memory {
  std::vector<float> x, out, weight, epilogue, zeros;
  std::vector<uint8_t> picture;
  std::vector<double> sums;
};

void run(const MapStage& stage, int threads) {
  StageRun work(portable::map_kernels, stage);
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
  memory.out.assign(kHeight * row, 0.f);
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
  layer.size = 3, layer.stride = 1, layer.tile = tile;
  layer.weight = memory.weight.data(), layer.plain = memory.weight.data(), layer.epilogue = memory.epilogue.data();
  layer.height = kHeight, layer.width = kWidth;
  layer.x = {memory.x.data() + kBefore * kGroup,    row, pitch * kGroup, kHeight, nullptr,
             memory.zeros.data() + kBefore * kGroup};
  if (picture) {
    stage.end = MapEnd::picture;
    stage.shuffle = 2;
    stage.picture = {memory.picture.data(), 1,          2 * kHeight, 2 * kWidth, 0, 6 * kWidth, 1,
                     2 * kHeight,           2 * kWidth, 0,           0.3f};
  } else {
    stage.out = {memory.out.data() + kBefore * kGroup, row, pitch * kGroup, kGroup, groups, 1, nullptr, nullptr, false};
    stage.statistics = memory.sums.data();
  }
  if (tiles != nullptr) stage.tiles = tiles->data(), stage.tile_count = int64_t(tiles->size());
  run(stage, threads);
  return memory;
}

bool same(const Memory& a, const Memory& b) {
  return a.out == b.out && a.picture == b.picture && std::memcmp(a.sums.data(), b.sums.data(), a.sums.size() * 8) == 0;
}

}  // namespace
}  // namespace mga

int main() {
  std::vector<int32_t> some;
  for (int32_t i = 0; i < 70; i += 1 + i % 3) some.push_back(i);
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
  std::printf("%d comparisons\n", compared);
}
