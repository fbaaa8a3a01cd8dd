#include "convolution/kernels.h"

#include <string>

#include "instruction_sets.h"
#include "simd/instruction_set.h"
#include "torch/glue.h"

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

namespace {

std::string used_convolution_kernels() { return convolution_kernels().name; }
bool fast_convolution_kernels() { return convolution_kernels().fast; }

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("convolution_kernels() -> str");
  m.def("convolution_kernels_are_fast() -> bool");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("convolution_kernels", TORCH_BOX(&mga::used_convolution_kernels));
  m.impl("convolution_kernels_are_fast", TORCH_BOX(&mga::fast_convolution_kernels));
}
