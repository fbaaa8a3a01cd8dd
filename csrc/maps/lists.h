// Lists of tiles as convolve_maps_ is given them, checked.
#pragma once
#include <algorithm>

#include "maps/schedule.h"
#include "tensors.h"

namespace mga {

constexpr const char* kOp = "convolve_maps_";

// The tiles of a list must be there, each once.
inline TileList tiles_of(const Tensor& tiles, const MapStage& stage, size_t number) {
  const TilePlaces& places = stage.layer.places;
  const int64_t across = places.before(stage.layer.width), down = places.before(stage.layer.height);
  STD_TORCH_CHECK(tiles.scalar_type() == ScalarType::Int && tiles.dim() == 1 && tiles.is_contiguous(), kOp,
                  ": a list of tiles must be int32 (n), contiguous");
  static constexpr int32_t kNone = 0;  // an empty list may have no memory, and is a list all the same
  const int32_t* const all = tiles.numel() == 0 ? &kNone : static_cast<const int32_t*>(tiles.const_data_ptr());
  for (int64_t i = 0; i < tiles.numel(); ++i) {
    STD_TORCH_CHECK(all[i] >= 0 && all[i] < across * down && (i == 0 || all[i - 1] < all[i]), kOp, ": layer ", number,
                    ": tile ", all[i], " is outside of ", down, "x", across, " tiles, or not behind the one before it");
  }
  return {all, tiles.numel()};
}

// What is written as zeros must not be computed as well, by another thread perhaps.
inline void check_zeros(const MapStage& stage, size_t number) {
  const int32_t *tile = stage.tiles.first, *const end = tile + stage.tiles.count;
  bool apart = stage.end == MapEnd::map && tile != nullptr;
  for (int64_t i = 0; apart && i < stage.zeros.count; ++i) {
    tile = std::lower_bound(tile, end, stage.zeros.first[i]);
    apart = tile == end || *tile != stage.zeros.first[i];
  }
  STD_TORCH_CHECK(apart, kOp, ": layer ", number,
                  ": a list of zeros is for a layer that ends in a map, beside a list of other tiles");
}

}  // namespace mga
