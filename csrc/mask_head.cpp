// mask_head: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "mask_head(Tensor feature, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, int patch_size, str order) -> "
      "Tensor");
}
