// high_pass: schema and CPU binding.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/kernels.h"
#include "torch/glue.h"

namespace mga {
namespace {

constexpr const char* kOp = "high_pass";
constexpr double kWhite = 9 * 1020;  // of distances

struct Picture {
  const uint8_t* data;
  int64_t height, width;
  int64_t image, row;  // bytes from one to the next
};

// The values of one row of cells, in image b from row y on.
void cells(const Picture& p, int64_t b, int64_t y, int64_t side, float* values) {
  const OperatorKernels& kernels = operator_kernels();
  const int64_t rows = std::min(side, p.height - y);
  std::vector<int16_t> luma(3 * p.width), columns(p.width);
  std::vector<int64_t> sums((p.width + side - 1) / side);
  auto line = [&](int64_t i) { return luma.data() + i % 3 * p.width; };
  auto read = [&](int64_t i) { kernels.luma_row(p.data + b * p.image + (y + i) * p.row, p.width, line(i)); };
  read(0);
  for (int64_t i = 0; i < rows; ++i) {
    if (i + 1 < rows) read(i + 1);
    kernels.distance_row(line(std::max<int64_t>(i - 1, 0)), line(i), line(std::min(i + 1, rows - 1)), p.width, side,
                         columns.data(), sums.data());
  }
  for (size_t x = 0; x < sums.size(); ++x) {
    const int64_t count = rows * std::min(side, p.width - int64_t(x) * side);
    values[x] = float(std::sqrt(double(sums[x]) / double(count)) / kWhite);
  }
}

Tensor high_pass_cpu(const Tensor& picture, int64_t side) {
  STD_TORCH_CHECK(picture.dim() == 4 && picture.size(3) == 3 && picture.scalar_type() == ScalarType::Byte, kOp,
                  ": picture must be uint8 (B, H, W, 3)");
  STD_TORCH_CHECK(picture.stride(3) == 1 && picture.stride(2) == 3, kOp, ": pixels of a row must be side by side");
  STD_TORCH_CHECK(side >= 1 && side <= 4096, kOp, ": side must be from 1 to 4096, got ", side);
  const Picture p{static_cast<const uint8_t*>(picture.const_data_ptr()), picture.size(1), picture.size(2),
                  picture.stride(0), picture.stride(1)};
  const int64_t rows = (p.height + side - 1) / side, columns = (p.width + side - 1) / side;
  Tensor result =
      torch::stable::new_empty(picture, std::vector<int64_t>{picture.size(0), rows, columns}, ScalarType::Float);
  auto* values = static_cast<float*>(result.mutable_data_ptr());
  torch::stable::parallel_for(0, picture.size(0) * rows, rows_at_once(side * p.width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) cells(p, i / rows, i % rows * side, side, values + i * columns);
  });
  return result;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) { m.def("high_pass(Tensor picture, int side) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("high_pass", TORCH_BOX(&mga::high_pass_cpu)); }
