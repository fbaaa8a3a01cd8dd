// Between pair planes and other forms: pair_pool (ESA's strided convolution and max-pool), pair_interpolate_
// (bilinear), pair_gather_ (patches side by side).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "convolution/kernels.h"
#include "convolution/planes.h"
#include "simd/bits.h"

namespace mga {
namespace {

// Every second pixel from (1, 1) on, which is what a 3x3 convolution of stride 2 without padding leaves of one with
// padding; then the maximum of size x size of these at steps of `step`.
Tensor pair_pool(const Tensor& x, int64_t x_pair, int64_t pairs, int64_t height, int64_t width, int64_t size,
                 int64_t step) {
  constexpr const char* op = "pair_pool";
  const PairPlanes from = pair_planes(op, x, x_pair, width);
  STD_TORCH_CHECK(1 <= pairs && pairs <= from.pairs && height <= from.height, op, ": x is too small");
  const int64_t rows = (height - 3) / 2 + 1, columns = (width - 3) / 2 + 1;
  STD_TORCH_CHECK(height >= 3 && width >= 3 && size >= 1 && step >= 1 && rows >= size && columns >= size, op, ": a ",
                  height, "x", width, " image is too small");
  const int64_t out_rows = (rows - size) / step + 1, out_columns = (columns - size) / step + 1;
  Tensor out = torch::stable::empty({2 * pairs, out_rows, out_columns}, ScalarType::Float);
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, pairs * out_rows, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> low(columns), high(columns);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t pair = i / out_rows, y = i % out_rows;
      std::fill(low.begin(), low.end(), -INFINITY);
      std::fill(high.begin(), high.end(), -INFINITY);
      for (int64_t row = step * y; row < step * y + size; ++row) {
        const uint32_t* source = from.at(pair, 2 * row + 1, 1);
        for (int64_t c = 0; c < columns; ++c) {
          low[c] = std::max(low[c], low_half(source[2 * c]));
          high[c] = std::max(high[c], high_half(source[2 * c]));
        }
      }
      float* of_low = to + (2 * pair * out_rows + y) * out_columns;
      float* of_high = of_low + out_rows * out_columns;
      for (int64_t c = 0; c < out_columns; ++c) {
        of_low[c] = *std::max_element(low.begin() + step * c, low.begin() + step * c + size);
        of_high[c] = *std::max_element(high.begin() + step * c, high.begin() + step * c + size);
      }
    }
  });
  return out;
}

// x float32 (channels, h, w) -> planes of height x width, bilinear with align_corners=False.
void pair_interpolate(const Tensor& out, int64_t out_pair, const Tensor& x, int64_t height, int64_t width) {
  constexpr const char* op = "pair_interpolate_";
  const ConvolutionKernels& kernels = convolution_kernels();
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 3 && x.is_contiguous() && x.size(0) % 2 == 0, op,
                  ": x must be float32 (even channels, h, w), contiguous");
  const PairPlanes to = pair_planes(op, out, out_pair, width);
  const int64_t channels = x.size(0), rows = x.size(1), columns = x.size(2);
  STD_TORCH_CHECK(to.height >= height && to.pairs >= channels / 2, op, ": out is too small");
  const int64_t padded = (width + 15) / 16 * 16;
  std::vector<int32_t> first(padded), second(padded);
  std::vector<float> share(padded);
  for (int64_t i = 0; i < width; ++i) {
    const Position place(i, columns, width);
    first[i] = int32_t(place.first);
    second[i] = int32_t(place.second);
    share[i] = place.share;
  }
  const std::vector<uint16_t> lanes = lanes_of(width);
  const auto* data = static_cast<const float*>(x.const_data_ptr());
  torch::stable::parallel_for(0, height, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> low(columns), high(columns);
    for (int64_t y = begin; y < end; ++y) {
      const Position place(y, rows, height);
      for (int64_t pair = 0; pair < channels / 2; ++pair) {
        const float* plane = data + 2 * pair * rows * columns;
        for (int64_t c = 0; c < columns; ++c) {
          const float *above = plane + place.first * columns + c, *below = plane + place.second * columns + c;
          low[c] = above[0] + place.share * (below[0] - above[0]);
          above += rows * columns;
          below += rows * columns;
          high[c] = above[0] + place.share * (below[0] - above[0]);
        }
        kernels.interpolate_row(low.data(), high.data(), first.data(), second.data(), share.data(), width, lanes.data(),
                                to.at(pair, y, 0));
      }
    }
  });
}

// Patches (p + 2 halo) on a side, `across` in a row of patches, with one pixel of zeros between them: patch i starts at
// row i / across * (p + 2 halo + 1) and column i % across * (p + 2 halo + 1) of out.
void pair_gather(const Tensor& out, const Tensor& x, int64_t pairs, int64_t height, int64_t width,
                 const Tensor& indices, int64_t patch_size, int64_t halo, int64_t across) {
  constexpr const char* op = "pair_gather_";
  const PairPlanes from = pair_planes(op, x, 0, width);
  const int64_t side = patch_size + 2 * halo;
  const PairPlanes to = pair_planes(op, out, 0, across * (side + 1) - 1);
  STD_TORCH_CHECK(halo == 0 || halo == 1, op, ": the border of the planes is enough for a halo of 0 or 1, not ", halo);
  STD_TORCH_CHECK(height <= from.height && height % patch_size == 0 && width % patch_size == 0, op, ": cells of ",
                  patch_size, " do not fill ", height, "x", width);
  check_indices(op, indices, 1);
  const auto* index = static_cast<const int32_t*>(indices.const_data_ptr());
  const int64_t count = indices.numel(), columns = width / patch_size;
  check_inside(op, index, count, height / patch_size, columns);
  STD_TORCH_CHECK(
      pairs <= from.pairs && pairs <= to.pairs && (count + across - 1) / across * (side + 1) - 1 <= to.height, op,
      ": out is too small for ", count, " patches");
  torch::stable::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t top = index[i] / columns * patch_size - halo, left = index[i] % columns * patch_size - halo;
      const int64_t y = i / across * (side + 1), x0 = i % across * (side + 1);
      for (int64_t pair = 0; pair < pairs; ++pair) {
        for (int64_t row = 0; row < side; ++row) {
          std::memcpy(to.at(pair, y + row, x0), from.at(pair, top + row, left), side * sizeof(uint32_t));
        }
      }
    }
  });
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("pair_pool(Tensor x, int x_pair, int pairs, int height, int width, int size, int step) -> Tensor");
  m.def("pair_interpolate_(Tensor(a!) out, int out_pair, Tensor x, int height, int width) -> ()");
  m.def(
      "pair_gather_(Tensor(a!) out, Tensor x, int pairs, int height, int width, Tensor indices, int patch_size, "
      "int halo, int across) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) {
  m.impl("pair_pool", TORCH_BOX(&mga::pair_pool));
  m.impl("pair_interpolate_", TORCH_BOX(&mga::pair_interpolate));
  m.impl("pair_gather_", TORCH_BOX(&mga::pair_gather));
}
