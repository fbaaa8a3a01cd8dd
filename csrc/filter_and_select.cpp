// filter_and_select: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "filter_and_select(Tensor probability, Tensor source, Tensor weight, Tensor bias, int k, str order, int seed) -> "
      "(Tensor, Tensor)");
}
