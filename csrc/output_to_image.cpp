// output_to_image: schema.
#include "torch_glue.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "output_to_image(Tensor output, int height, int width, float gain) -> Tensor");
}
