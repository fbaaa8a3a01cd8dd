// patch_conv: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "patch_conv(Tensor feature, Tensor indices, Tensor weight, Tensor bias, int patch_size, int halo, float slope) "
      "-> "
      "Tensor");
}
