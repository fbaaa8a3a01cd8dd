// dynamic_filter: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "dynamic_filter(Tensor probability, Tensor source, Tensor weight, Tensor bias) -> Tensor");
}
