#include "ops/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

#define MGA_DECLARE(name, set)                   \
  namespace name {                               \
  extern const OperatorKernels operator_kernels; \
  }
MGA_OPERATOR_KERNELS(MGA_DECLARE)

#define MGA_CANDIDATE(name, set) {&name::operator_kernels, set},

const OperatorKernels& operator_kernels() {
  static constexpr Candidate<OperatorKernels> kAll[] = {MGA_OPERATOR_KERNELS(MGA_CANDIDATE)};
  return best_of(kAll);
}

}  // namespace mga
