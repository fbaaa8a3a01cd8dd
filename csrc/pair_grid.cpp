// Patches side by side in pair planes, each with values of its own: pair_grid_statistics (sums over each patch) and
// pair_grid_scale_ (factors and offsets for each patch and channel).
#include <optional>
#include <vector>

#include "pair_conv_rows.h"

namespace mga {
namespace {

// Patches of height x width, `across` in a row, one pixel between them.
struct Patches {
  int64_t count, height, width, across;

  int64_t down() const { return (count + across - 1) / across; }
  int64_t columns() const { return across * (width + 1) - 1; }
  int64_t top(int64_t row) const { return row * (height + 1); }
};

PairPlanes planes_of(const char* op, const char* name, const Tensor& tensor, const Patches& patches, int64_t pairs) {
  STD_TORCH_CHECK(patches.count >= 1 && patches.height >= 1 && patches.width >= 1 && patches.across >= 1, op,
                  ": there are no patches");
  const PairPlanes planes = pair_planes(op, tensor, 0, patches.columns());
  STD_TORCH_CHECK(1 <= pairs && pairs <= planes.pairs && patches.top(patches.down()) - 1 <= planes.height, op, ": ",
                  name, " has ", planes.pairs, " pairs of ", planes.height, " rows, not ", pairs, " of ",
                  patches.top(patches.down()) - 1);
  return planes;
}

#ifdef MGA_HAS_PAIR_CONV
// Sums over the rows of a row of patches, of one pair: columns (4, vectors * 16): low, low squared, high, high squared.
MGA_BF16 void sum_rows(const PairPlanes& x, int64_t pair, int64_t top, int64_t height, int64_t vectors,
                       float* columns) {
  for (int64_t v = 0; v < vectors; ++v) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t row = 0; row < height; ++row) {
      const __m512i both = _mm512_loadu_si512(x.at(pair, top + row, 16 * v));
      const __m512 low = low_half(both), high = high_half(both);
      sums[0] = _mm512_add_ps(sums[0], low);
      sums[1] = _mm512_fmadd_ps(low, low, sums[1]);
      sums[2] = _mm512_add_ps(sums[2], high);
      sums[3] = _mm512_fmadd_ps(high, high, sums[3]);
    }
    for (int i = 0; i < 4; ++i) _mm512_storeu_ps(columns + (i * vectors + v) * 16, sums[i]);
  }
}

// A row of patches of one pair: values (4, vectors * 16): factors and offsets of low, then of high.
MGA_BF16 void scale_rows(const PairPlanes& x, const PairPlanes* skip, const PairPlanes& out, int64_t pair, int64_t top,
                         int64_t height, int64_t vectors, const float* values, const uint16_t* lanes, float slope) {
  for (int64_t v = 0; v < vectors; ++v) {
    __m512 of[4];
    for (int i = 0; i < 4; ++i) of[i] = _mm512_loadu_ps(values + (i * vectors + v) * 16);
    for (int64_t row = top; row < top + height; ++row) {
      const __m512i both = _mm512_loadu_si512(x.at(pair, row, 16 * v));
      __m512 low = _mm512_fmadd_ps(low_half(both), of[0], of[1]);
      __m512 high = _mm512_fmadd_ps(high_half(both), of[2], of[3]);
      if (skip != nullptr) {
        const __m512i more = _mm512_loadu_si512(skip->at(pair, row, 16 * v));
        low = _mm512_add_ps(low, low_half(more));
        high = _mm512_add_ps(high, high_half(more));
      }
      const __m512i value = join_halves(leaky(low, slope), leaky(high, slope));
      _mm512_storeu_si512(out.at(pair, row, 16 * v), _mm512_maskz_mov_epi32(lanes[v], value));
    }
  }
}
#endif

// x planes -> float32 (2, count, 2 * pairs): sums of the values of each patch and channel, and of their squares.
Tensor grid_statistics(const Tensor& x, int64_t pairs, int64_t count, int64_t height, int64_t width, int64_t across) {
  constexpr const char* op = "pair_grid_statistics";
#ifdef MGA_HAS_PAIR_CONV
  STD_TORCH_CHECK(pair_conv_supported(), op, ": this processor has no AVX-512 bf16");
  const Patches patches{count, height, width, across};
  const PairPlanes from = planes_of(op, "x", x, patches, pairs);
  Tensor out = torch::stable::empty({2, count, 2 * pairs}, ScalarType::Float);
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t vectors = (patches.columns() + 15) / 16;
  torch::stable::parallel_for(0, patches.down() * pairs, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> columns(4 * vectors * 16);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pairs, pair = i % pairs;
      sum_rows(from, pair, patches.top(row), height, vectors, columns.data());
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
#else
  STD_TORCH_CHECK(false, op, ": this build is for a processor without AVX-512");
#endif
}

// out = activation(factor * x + offset [+ skip]), with factors and offsets float32 (count, 2 * pairs) of each patch;
// the activation multiplies negative values by `slope`. out may be x or skip.
void grid_scale(const Tensor& out, const Tensor& x, const std::optional<Tensor>& skip, const Tensor& factors,
                const Tensor& offsets, int64_t height, int64_t width, int64_t across, double slope) {
  constexpr const char* op = "pair_grid_scale_";
#ifdef MGA_HAS_PAIR_CONV
  STD_TORCH_CHECK(pair_conv_supported(), op, ": this processor has no AVX-512 bf16");
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
      scale_rows(from, skip ? &other : nullptr, to, pair, patches.top(row), height, vectors, values.data(),
                 lanes.data(), float(slope));
    }
  });
#else
  STD_TORCH_CHECK(false, op, ": this build is for a processor without AVX-512");
#endif
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
