// paste_shuffled: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "paste_shuffled_(Tensor(a!) image, Tensor patches, Tensor indices, int scale, float gain) -> ()");
}
