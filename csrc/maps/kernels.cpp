#include "maps/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

MGA_BEST_TABLE(MapKernels, map_kernels, MGA_MAP_KERNELS)

}  // namespace mga
