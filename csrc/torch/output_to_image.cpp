// output_to_image: schema and CPU binding.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/kernels.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "output_to_image";

struct Shape {
  int64_t batch, height, width;  // of the picture
  int64_t stride[4];             // of the output, in bytes
  int64_t item;                  // bytes of one number
};

// `n` numbers, `step` bytes apart.
void pick(const char* from, int64_t n, int64_t step, int64_t item, char* to) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * item, from + i * step, item);
}

void convert(const char* output, Real dtype, const Shape& s, double gain, uint8_t* picture) {
  const OperatorKernels& kernels = operator_kernels();
  const bool interleaved = s.stride[1] == s.item && s.stride[3] == 3 * s.item;
  const int64_t grain = rows_at_once(3 * s.width);
  torch::stable::parallel_for(0, s.batch * s.height, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> planes(3 * s.width);
    std::vector<char> numbers(s.stride[3] == s.item || interleaved ? 0 : s.width * s.item);
    for (int64_t i = begin; i < end; ++i) {
      const char* row = output + i / s.height * s.stride[0] + i % s.height * s.stride[2];
      uint8_t* to = picture + i * s.width * 3;
      if (interleaved) {
        kernels.units_to_bytes(row, dtype, 3 * s.width, gain, to);
        continue;
      }
      for (int64_t c = 0; c < 3; ++c) {
        const char* from = row + c * s.stride[1];
        if (!numbers.empty()) {
          pick(from, s.width, s.stride[3], s.item, numbers.data());
          from = numbers.data();
        }
        kernels.units_to_bytes(from, dtype, s.width, gain, planes.data() + c * s.width);
      }
      kernels.interleave_bytes(planes.data(), s.width, s.width, to);
    }
  });
}

Tensor output_to_image_cpu(const Tensor& output, int64_t height, int64_t width, double gain) {
  STD_TORCH_CHECK(output.dim() == 4 && output.size(1) == 3, kOp, ": output must be (B, 3, H, W)");
  STD_TORCH_CHECK(height >= 1 && height <= output.size(2) && width >= 1 && width <= output.size(3), kOp, ": a ", height,
                  "x", width, " image does not fit in an output of ", output.size(2), "x", output.size(3));
  const Real dtype = real_of(kOp, output);
  Shape s{output.size(0), height, width, {}, item_size(kOp, output)};
  for (int i = 0; i < 4; ++i) s.stride[i] = output.stride(i) * s.item;
  const std::vector<int64_t> sizes{s.batch, height, width, 3};
  Tensor picture = torch::stable::new_empty(output, sizes, ScalarType::Byte);
  convert(static_cast<const char*>(output.const_data_ptr()), dtype, s, gain,
          static_cast<uint8_t*>(picture.mutable_data_ptr()));
  return picture;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("output_to_image(Tensor output, int height, int width, float gain) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("output_to_image", TORCH_BOX(&mga::output_to_image_cpu)); }
