// What is asked about kernels: for which instruction set they are, and whether they are worth choosing.
#include "simd/instruction_set.h"

#include <string>

#include "convolution/kernels.h"
#include "maps/kernels.h"
#include "ops/kernels.h"
#include "torch/glue.h"

namespace mga {
namespace {

std::string used_instruction_set() { return name_of(instruction_set()); }
std::string used_operator_kernels() { return operator_kernels().name; }
std::string used_map_kernels() { return map_kernels().name; }
bool fast_map_kernels() { return map_kernels().fast; }
std::string used_convolution_kernels() { return convolution_kernels().name; }
bool fast_convolution_kernels() { return convolution_kernels().fast; }

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("instruction_set() -> str");
  m.def("operator_kernels() -> str");
  m.def("map_kernels() -> str");
  m.def("map_kernels_are_fast() -> bool");
  m.def("convolution_kernels() -> str");
  m.def("convolution_kernels_are_fast() -> bool");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&mga::used_instruction_set));
  m.impl("operator_kernels", TORCH_BOX(&mga::used_operator_kernels));
  m.impl("map_kernels", TORCH_BOX(&mga::used_map_kernels));
  m.impl("map_kernels_are_fast", TORCH_BOX(&mga::fast_map_kernels));
  m.impl("convolution_kernels", TORCH_BOX(&mga::used_convolution_kernels));
  m.impl("convolution_kernels_are_fast", TORCH_BOX(&mga::fast_convolution_kernels));
}
