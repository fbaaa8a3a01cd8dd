// image_to_input: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "image_to_input(Tensor image, int height, int width, float value_range, ScalarType dtype) -> Tensor");
}
