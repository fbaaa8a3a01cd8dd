#include "kernels.h"

#include <string>

#include "../cpu/instruction_set.h"
#include "../torch_glue.h"

namespace mga {

const ConvolutionKernels& convolution_kernels() {
  switch (instruction_set()) {
#if defined(__x86_64__)
    case InstructionSet::avx512_bf16:
      return kAvx512Bf16Convolution;
#endif
    default:
      return kPortableConvolution;
  }
}

namespace {

std::string used_instruction_set() { return name_of(instruction_set()); }
std::string used_convolution_kernels() { return convolution_kernels().name; }
bool fast_convolution_kernels() { return convolution_kernels().fast; }

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("instruction_set() -> str");
  m.def("convolution_kernels() -> str");
  m.def("convolution_kernels_are_fast() -> bool");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&mga::used_instruction_set));
  m.impl("convolution_kernels", TORCH_BOX(&mga::used_convolution_kernels));
  m.impl("convolution_kernels_are_fast", TORCH_BOX(&mga::fast_convolution_kernels));
}
