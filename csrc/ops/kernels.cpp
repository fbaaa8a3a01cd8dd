#include "ops/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

MGA_BEST_TABLE(OperatorKernels, operator_kernels, MGA_OPERATOR_KERNELS)

}  // namespace mga
