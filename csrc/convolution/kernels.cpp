#include "convolution/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

#define MGA_DECLARE(name, set)                         \
  namespace name {                                     \
  extern const ConvolutionKernels convolution_kernels; \
  }
MGA_CONVOLUTION_KERNELS(MGA_DECLARE)

#define MGA_CANDIDATE(name, set) {&name::convolution_kernels, set},

const ConvolutionKernels& convolution_kernels() {
  static constexpr Candidate<ConvolutionKernels> kAll[] = {MGA_CONVOLUTION_KERNELS(MGA_CANDIDATE)};
  return best_of(kAll);
}

}  // namespace mga
