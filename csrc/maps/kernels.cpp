#include "maps/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

#define MGA_DECLARE(name, set)         \
  namespace name {                     \
  extern const MapKernels map_kernels; \
  }
MGA_MAP_KERNELS(MGA_DECLARE)

#define MGA_CANDIDATE(name, set) {&name::map_kernels, set},

const MapKernels& map_kernels() {
  static constexpr Candidate<MapKernels> kAll[] = {MGA_MAP_KERNELS(MGA_CANDIDATE)};
  return best_of(kAll);
}

}  // namespace mga
