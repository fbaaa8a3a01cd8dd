// image_to_input: schema and CPU kernel.
#include <vector>

#include "ops/image_to_input/bytes.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "image_to_input";

struct Shape {
  int64_t batch, height, width;         // of the image
  int64_t padded_height, padded_width;  // of the result
  int64_t stride[4];                    // of the image: batch, row, column, channel
};

template <typename T>
void convert(const uint8_t* image, const Shape& s, double scale, T* to) {
  const ByteTable<T> table(scale);
  const bool dense = s.stride[2] == 3 && s.stride[3] == 1;
  const int64_t grain = rows_at_once(3 * s.padded_width / 4);
  torch::stable::parallel_for(0, s.batch * s.padded_height, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> bytes(dense ? 0 : 3 * s.width);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = reflect(i % s.padded_height, s.height);
      const uint8_t* row = image + i / s.padded_height * s.stride[0] + y * s.stride[1];
      if (!dense) {
        for (int64_t x = 0; x < s.width; ++x) {
          for (int c = 0; c < 3; ++c) bytes[3 * x + c] = row[x * s.stride[2] + c * s.stride[3]];
        }
        row = bytes.data();
      }
      T* out = to + i * s.padded_width * 3;
      table.run(row, 3 * s.width, out);
      for (int64_t x = s.width; x < s.padded_width; ++x) table.run(row + 3 * reflect(x, s.width), 3, out + 3 * x);
    }
  });
}

Tensor image_to_input_cpu(const Tensor& image, int64_t height, int64_t width, double value_range, ScalarType dtype) {
  STD_TORCH_CHECK(image.dim() == 4 && image.size(3) == 3 && image.scalar_type() == ScalarType::Byte, kOp,
                  ": image must be uint8 (B, H, W, 3)");
  Shape s{image.size(0), image.size(1), image.size(2), height, width, {}};
  STD_TORCH_CHECK(s.height >= 1 && s.width >= 1 && height >= s.height && width >= s.width, kOp, ": ", height, "x",
                  width, " does not hold the image of ", s.height, "x", s.width);
  for (int i = 0; i < 4; ++i) s.stride[i] = image.stride(i);
  const std::vector<int64_t> sizes{s.batch, 3, height, width};
  Tensor input = torch::stable::empty(sizes, dtype, std::nullopt, image.device(), std::nullopt,
                                      torch::headeronly::MemoryFormat::ChannelsLast);
  const auto run = [&](auto zero) {
    convert(static_cast<const uint8_t*>(image.const_data_ptr()), s, value_range / 255,
            static_cast<decltype(zero)*>(input.mutable_data_ptr()));
  };
  switch (real_of(kOp, input)) {
    case Real::f16:
      run(torch::headeronly::Half{});
      break;
    case Real::bf16:
      run(torch::headeronly::BFloat16{});
      break;
    case Real::f32:
      run(float{});
      break;
    case Real::f64:
      run(double{});
  }
  return input;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("image_to_input(Tensor image, int height, int width, float value_range, ScalarType dtype) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("image_to_input", TORCH_BOX(&mga::image_to_input_cpu)); }
