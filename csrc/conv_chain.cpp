// conv_chain: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("conv_chain(Tensor patches, Tensor weights, Tensor biases, Tensor slopes, int[] skips, int crop) -> Tensor");
}
