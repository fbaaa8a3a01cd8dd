#include "maps/kernels.h"

#include <string>

#include "instruction_sets.h"
#include "simd/instruction_set.h"
#include "torch/glue.h"

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

namespace {

std::string used_map_kernels() { return map_kernels().name; }
bool fast_map_kernels() { return map_kernels().fast; }

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("map_kernels() -> str");
  m.def("map_kernels_are_fast() -> bool");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("map_kernels", TORCH_BOX(&mga::used_map_kernels));
  m.impl("map_kernels_are_fast", TORCH_BOX(&mga::fast_map_kernels));
}
