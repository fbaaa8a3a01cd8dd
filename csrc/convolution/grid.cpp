// Patches side by side in pair planes, each with values of its own: pair_grid_statistics (sums over each patch) and
// pair_grid_scale_ (factors and offsets for each patch and channel).
#include <optional>
#include <vector>

#include "convolution/kernels.h"
#include "convolution/patches.h"
#include "convolution/planes.h"

namespace mga {
namespace {

PairPlanes planes_of(const char* op, const char* name, const Tensor& tensor, const Patches& patches, int64_t pairs) {
  STD_TORCH_CHECK(patches.exist(), op, ": there are no patches");
  const PairPlanes planes = pair_planes(op, tensor, 0, patches.columns());
  STD_TORCH_CHECK(1 <= pairs && pairs <= planes.pairs && patches.rows() <= planes.height, op, ": ",
                  name, " has ", planes.pairs, " pairs of ", planes.height, " rows, not ", pairs, " of ",
                  patches.rows());
  return planes;
}

// x planes -> float32 (2, count, 2 * pairs): sums of the values of each patch and channel, and of their squares.
Tensor grid_statistics(const Tensor& x, int64_t pairs, int64_t count, int64_t height, int64_t width, int64_t across) {
  constexpr const char* op = "pair_grid_statistics";
  const ConvolutionKernels& kernels = convolution_kernels();
  const Patches patches{count, height, width, across};
  const PairPlanes from = planes_of(op, "x", x, patches, pairs);
  Tensor out = torch::stable::empty({2, count, 2 * pairs}, ScalarType::Float);
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t vectors = (patches.columns() + 15) / 16;
  torch::stable::parallel_for(0, patches.down() * pairs, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> columns(4 * vectors * 16);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pairs, pair = i % pairs;
      kernels.sum_rows(from, pair, patches.top_of_row(row), height, vectors, columns.data());
      for (int64_t patch = row * across; patch < std::min((row + 1) * across, count); ++patch) {
        const float* first = columns.data() + patch % across * (width + 1);
        for (int64_t what = 0; what < 4; ++what) {
          float sum = 0;
          for (int64_t c = 0; c < width; ++c) sum += first[what * vectors * 16 + c];
          to[(what % 2 * count + patch) * 2 * pairs + 2 * pair + what / 2] = sum;
        }
      }
    }
  });
  return out;
}

// out = activation(factor * x + offset [+ skip]), with factors and offsets float32 (count, 2 * pairs) of each patch;
// the activation multiplies negative values by `slope`. out may be x or skip.
void grid_scale(const Tensor& out, const Tensor& x, const std::optional<Tensor>& skip, const Tensor& factors,
                const Tensor& offsets, int64_t height, int64_t width, int64_t across, double slope) {
  constexpr const char* op = "pair_grid_scale_";
  const ConvolutionKernels& kernels = convolution_kernels();
  for (const Tensor* values : {&factors, &offsets}) {
    STD_TORCH_CHECK(values->scalar_type() == ScalarType::Float && values->dim() == 2 && values->is_contiguous() &&
                        values->size(0) == factors.size(0) && values->size(1) == factors.size(1) &&
                        values->size(1) % 2 == 0,
                    op, ": factors and offsets must be float32 (n, even channels), contiguous");
  }
  const int64_t count = factors.size(0), pairs = factors.size(1) / 2;
  const Patches patches{count, height, width, across};
  const PairPlanes from = planes_of(op, "x", x, patches, pairs), to = planes_of(op, "out", out, patches, pairs);
  PairPlanes other{};
  if (skip) other = planes_of(op, "skip", *skip, patches, pairs);
  const float* given[2] = {static_cast<const float*>(factors.const_data_ptr()),
                           static_cast<const float*>(offsets.const_data_ptr())};
  const int64_t vectors = (patches.columns() + 15) / 16;
  std::vector<uint16_t> lanes(vectors, 0);
  for (int64_t c = 0; c < patches.columns(); ++c) {
    if (c % (width + 1) < width) lanes[c / 16] |= uint16_t(1 << c % 16);
  }
  torch::stable::parallel_for(0, patches.down() * pairs, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> values(4 * vectors * 16, 0.f);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pairs, pair = i % pairs;
      for (int64_t patch = row * across; patch < std::min((row + 1) * across, count); ++patch) {
        for (int64_t what = 0; what < 4; ++what) {
          float* first = values.data() + what * vectors * 16 + patch % across * (width + 1);
          std::fill(first, first + width, given[what % 2][patch * 2 * pairs + 2 * pair + what / 2]);
        }
      }
      kernels.scale_rows(from, skip ? &other : nullptr, to, pair, patches.top_of_row(row), height, vectors,
                         values.data(), lanes.data(), float(slope));
    }
  });
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("pair_grid_statistics(Tensor x, int pairs, int count, int height, int width, int across) -> Tensor");
  m.def(
      "pair_grid_scale_(Tensor(a!) out, Tensor x, Tensor? skip, Tensor factors, Tensor offsets, int height, int width, "
      "int across, float slope) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) {
  m.impl("pair_grid_statistics", TORCH_BOX(&mga::grid_statistics));
  m.impl("pair_grid_scale_", TORCH_BOX(&mga::grid_scale));
}
