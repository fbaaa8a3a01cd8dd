// Patches side by side in float maps: map_gather_ (cells of an image), map_grid_statistics (sums over each patch) and
// map_grid_scale_ (factors and offsets for each patch and channel).
#include <algorithm>
#include <cstring>
#include <optional>

#include "convolution/patches.h"
#include "maps/float_map.h"

namespace mga {
namespace {

// Calls run(group, y, patch) for every row of pixels of every patch, in the order in which they lie in a map: patch
// by patch, none of it would be fetched ahead.
template <typename Run>
void for_each_row(const Patches& p, int64_t groups, Run&& run) {
  const int64_t grain = rows_at_once(p.across * p.height * p.width * groups * kGroup);
  torch::stable::parallel_for(0, p.down(), grain, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const int64_t first = row * p.across, last = std::min(first + p.across, p.count), top = p.top_of_row(row);
      for (int64_t y = top; y < top + p.height; ++y) {
        for (int64_t g = 0; g < groups; ++g) {
          for (int64_t patch = first; patch < last; ++patch) run(g, y, patch);
        }
      }
    }
  });
}

Patches patches_of(const char* op, int64_t count, int64_t height, int64_t width, int64_t across) {
  const Patches patches{count, height, width, across};
  STD_TORCH_CHECK(patches.exist(), op, ": there are no patches");
  return patches;
}

// Pixels [left, left + side) of row y of an image; beyond it zeros, or the nearest pixel.
void gather_row(const FloatMap& from, int64_t group, int64_t height, int64_t width, int64_t y, int64_t left,
                int64_t side, bool repeated, float* to) {
  const int64_t begin = std::clamp<int64_t>(-left, 0, side), end = std::clamp<int64_t>(width - left, 0, side);
  if (!repeated && (y < 0 || y >= height)) return (void)std::fill_n(to, side * kGroup, 0.f);
  const float* const row = from.at(group, std::clamp<int64_t>(y, 0, height - 1), 0);
  std::memcpy(to + begin * kGroup, row + (left + begin) * kGroup, (end - begin) * kGroup * sizeof(float));
  for (int64_t x = 0; x < side; ++x) {
    if (x >= begin && x < end) continue;
    const float* const nearest = row + (x < begin ? 0 : width - 1) * kGroup;
    for (int64_t lane = 0; lane < kGroup; ++lane) to[x * kGroup + lane] = repeated ? nearest[lane] : 0.f;
  }
}

void clear(const FloatMap& map, int64_t groups, const Patches& patches, int64_t patch) {
  for (int64_t y = patches.top(patch); y < patches.top(patch) + patches.height; ++y) {
    for (int64_t g = 0; g < groups; ++g) std::fill_n(map.at(g, y, patches.left(patch)), patches.width * kGroup, 0.f);
  }
}

void map_gather(const Tensor& out, const Tensor& x, int64_t groups, int64_t height, int64_t width,
                const Tensor& indices, int64_t patch_size, int64_t halo, int64_t across, int64_t repeated) {
  constexpr const char* op = "map_gather_";
  STD_TORCH_CHECK(patch_size >= 1 && halo >= 0 && height % patch_size == 0 && width % patch_size == 0, op,
                  ": cells of ", patch_size, " do not fill ", height, "x", width);
  check_indices(op, indices, 1);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  const int64_t side = patch_size + 2 * halo, columns = width / patch_size;
  const Patches patches = patches_of(op, indices.numel(), side, side, across);
  check_inside(op, index, patches.count, height / patch_size, columns);
  const FloatMap from(op, "x", x, groups, height, width);
  const FloatMap to(op, "out", out, groups, patches.rows(), patches.columns());
  const int64_t grain = rows_at_once(side * side * groups * kGroup);
  torch::stable::parallel_for(0, patches.down() * across, grain, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      if (i >= patches.count) {
        clear(to, groups, patches, i);
        continue;
      }
      const int64_t top = index[i] / columns * patch_size - halo, left = index[i] % columns * patch_size - halo;
      for (int64_t y = 0; y < side; ++y) {
        for (int64_t g = 0; g < groups; ++g) {
          gather_row(from, g, height, width, top + y, left, side, repeated >= 0 && g >= repeated,
                     to.at(g, patches.top(i) + y, patches.left(i)));
        }
      }
    }
  });
}

// -> float32 (2, count, 8 * groups): sums of the values of each patch and channel, and of their squares.
Tensor map_grid_statistics(const Tensor& x, int64_t groups, int64_t count, int64_t height, int64_t width,
                           int64_t across) {
  constexpr const char* op = "map_grid_statistics";
  const Patches patches = patches_of(op, count, height, width, across);
  const FloatMap from(op, "x", x, groups, patches.rows(), patches.columns());
  Tensor out = torch::stable::empty({2, count, groups * kGroup}, ScalarType::Float);
  auto* const to = static_cast<float*>(out.mutable_data_ptr());
  std::fill_n(to, 2 * count * groups * kGroup, 0.f);
  for_each_row(patches, groups, [&](int64_t g, int64_t y, int64_t patch) {
    const float* const row = from.at(g, y, patches.left(patch));
    float* const sums = to + (patch * groups + g) * kGroup;
    float* const squares = sums + count * groups * kGroup;
    for (int64_t half = 0; half < kGroup; half += kHalf) {
      Half sum = load(sums + half), square = load(squares + half);
      for (int64_t at = half; at < width * kGroup; at += kGroup) {
        const Half value = load(row + at);
        sum += value;
        square += value * value;
      }
      store(sums + half, sum);
      store(squares + half, square);
    }
  });
  return out;
}

// What becomes of `pixels` pixels of a patch: leaky(factor * x + offset [+ skip]), with 8 factors and offsets.
template <bool kSkip>
void scale_row(const float* x, const float* skip, const float* factors, const float* offsets, float slope,
               int64_t pixels, float* to) {
  const Half negative = slope - Half{}, factor[2] = {load(factors), load(factors + kHalf)};
  const Half offset[2] = {load(offsets), load(offsets + kHalf)};
  for (int64_t at = 0; at < pixels * kGroup; at += kGroup) {
    for (int64_t i = 0; i < 2; ++i) {
      Half value = load(x + at + i * kHalf) * factor[i] + offset[i];
      if (kSkip) value += load(skip + at + i * kHalf);
      store(to + at + i * kHalf, value < 0.f ? value * negative : value);
    }
  }
}

// out may be x or skip: a pixel is read before it is written.
void map_grid_scale(const Tensor& out, const Tensor& x, const std::optional<Tensor>& skip, const Tensor& factors,
                    const Tensor& offsets, int64_t height, int64_t width, int64_t across, double slope) {
  constexpr const char* op = "map_grid_scale_";
  for (const Tensor* values : {&factors, &offsets}) {
    STD_TORCH_CHECK(values->scalar_type() == ScalarType::Float && values->dim() == 2 && values->is_contiguous() &&
                        values->size(0) == factors.size(0) && values->size(1) == factors.size(1) &&
                        values->size(1) % kGroup == 0,
                    op, ": factors and offsets must be float32 (n, a multiple of 8 channels), contiguous");
  }
  const int64_t groups = factors.size(1) / kGroup;
  const Patches patches = patches_of(op, factors.size(0), height, width, across);
  const auto map_of = [&](const char* name, const Tensor& map) {
    return FloatMap(op, name, map, groups, patches.rows(), patches.columns());
  };
  const FloatMap from = map_of("x", x), to = map_of("out", out), other = skip ? map_of("skip", *skip) : from;
  const auto* const factor = static_cast<const float*>(factors.const_data_ptr());
  const auto* const offset = static_cast<const float*>(offsets.const_data_ptr());
  const auto run = skip ? scale_row<true> : scale_row<false>;
  for_each_row(patches, groups, [&](int64_t g, int64_t y, int64_t patch) {
    const int64_t left = patches.left(patch), channel = (patch * groups + g) * kGroup;
    run(from.at(g, y, left), other.at(g, y, left), factor + channel, offset + channel, float(slope), width,
        to.at(g, y, left));
  });
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "map_gather_(Tensor(a!) out, Tensor x, int groups, int height, int width, Tensor indices, int patch_size, "
      "int halo, int across, int repeated) -> ()");
  m.def("map_grid_statistics(Tensor x, int groups, int count, int height, int width, int across) -> Tensor");
  m.def(
      "map_grid_scale_(Tensor(a!) out, Tensor x, Tensor? skip, Tensor factors, Tensor offsets, int height, int width, "
      "int across, float slope) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) {
  m.impl("map_gather_", TORCH_BOX(&mga::map_gather));
  m.impl("map_grid_statistics", TORCH_BOX(&mga::map_grid_statistics));
  m.impl("map_grid_scale_", TORCH_BOX(&mga::map_grid_scale));
}
