// Included by every file in maps/isa, with MGA_ISA its name: the convolutions in float maps, compiled for that
// instruction set. Nothing here or below may include a header of the C++ library: its inline functions would be
// compiled for this instruction set, and the linker might choose that copy for the whole library.
#pragma once
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(MGA_NEON)
#include <arm_neon.h>
#endif

#include "maps/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL _Pragma("GCC unroll 12")
#else
#define UNROLL _Pragma("unroll")
#endif
#define INLINE inline __attribute__((always_inline))

namespace mga {
namespace MGA_ISA {
namespace {

struct MapTap {
  const float* at;
  int64_t group;
};

// Each needs those before it.
// clang-format off
#include "maps/vector.h"
#include "maps/finish.h"
#include "maps/ahead.h"
#include "maps/transform.h"
#include "maps/winograd.h"
#include "maps/positions.h"
#include "maps/direct.h"
// clang-format on

// The side of a layer's tiles and of its kernel.
template <int M, int R>
struct InTiles {
  static constexpr int side = M, size = R;
};

// Calls run(InTiles<M, R>()) of such a layer.
template <typename Run>
INLINE auto with_tiles(int64_t tile, int64_t size, Run&& run) {
  if (size == 5) return run(InTiles<4, 5>());
  return tile == 4 ? run(InTiles<4, 3>()) : run(InTiles<6, 3>());
}

int64_t room(const MapLayer& layer, int64_t count) {
  if (layer.tile == 0) return room_for_rows(layer, count);
  return with_tiles(layer.tile, layer.size, [&](auto in) { return room_for_tiles<in.side, in.size>(layer, count); });
}

void compute(const MapLayer& layer, const MapTask& task, const MapTask* next, float* where) {
  if (layer.tile == 0) return compute_rows(layer, task, next, where);
  with_tiles(layer.tile, layer.size, [&](auto in) { compute_tiles<in.side, in.size>(layer, task, next, where); });
}

void transform_weight(const UntransformedWeight& weight, int64_t first, int64_t count, float* to) {
  with_tiles(weight.tile, weight.size,
             [&](auto in) { transform_panel<in.side, in.size>(weight, first, count, to); });
}

void settle() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Pixels are written in whole vectors: the bytes behind one are those of the next, or in room that is to spare.
void bytes(const float* values, int64_t pixel, int64_t n, int64_t count, float factor, const float* added,
           uint8_t* out) {
  for (int64_t i = 0; i < count; ++i, values += pixel, out += n) {
    for (int64_t j = 0; j < n; j += 2 * kGroup) {
      V8 low = load(values + j) * all(factor), high = load(values + j + kGroup) * all(factor);
      if (added != nullptr) {
        low = low + load(added + i * n + j);
        high = high + load(added + i * n + j + kGroup);
      }
      store_bytes(out + j, low, high);
    }
  }
}

}  // namespace

#define MGA_TEXT_OF(x) #x
#define MGA_TEXT(x) MGA_TEXT_OF(x)

extern const MapKernels map_kernels;
const MapKernels map_kernels = {MGA_TEXT(MGA_ISA), MGA_MAPS_FAST, room, compute, transform_weight, settle, bytes};

}  // namespace MGA_ISA
}  // namespace mga
