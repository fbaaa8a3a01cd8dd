// pack_pair_weight: the weight of a convolution in the order in which pair_chain_ reads it.
#include "convolution/layout.h"
#include "torch/glue.h"

namespace mga {

namespace {

// weight bf16 (C' s^2, C, n, n), contiguous -> the order in which the kernel reads it:
// [row of the shuffle][block][row][pair][column][column of the shuffle][channel of the block][2]. Missing channels are
// zeros. `phased`: 3x3 weights of which only those in Phases are not zero, the others are left out.
Tensor pack_pair_weight(const Tensor& weight, int64_t shuffle, bool phased) {
  constexpr const char* op = "pack_pair_weight";
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::BFloat16 && weight.dim() == 4 && weight.is_contiguous() &&
                      weight.numel() > 0 && weight.size(2) == weight.size(3),
                  op, ": weight must be bfloat16 (C', C, n, n), contiguous");
  const int64_t s = shuffle, channels = weight.size(0) / (s * s), inputs = weight.size(1), size = weight.size(2);
  STD_TORCH_CHECK(1 <= s && s <= 3 && weight.size(0) == channels * s * s && (s == 1 || channels % 2 == 0) &&
                      (channels % 2 == 0 || channels <= 3),
                  op, ": ", weight.size(0), " channels are no even number of channels (or 1 or 3) times ", s, "^2");
  STD_TORCH_CHECK(!phased || (s > 1 && size == 3), op, ": phases are for a 3x3 convolution with a pixel shuffle");
  const int64_t pairs = (inputs + 1) / 2;
  const Blocks blocks(channels, s);
  Tensor packed = torch::stable::empty({2 * pairs * weight_words(channels, size, s, phased)}, ScalarType::BFloat16);
  const auto* from = static_cast<const uint16_t*>(weight.const_data_ptr());
  auto* to = static_cast<uint16_t*>(packed.mutable_data_ptr());
  const auto one = [&](int64_t o, int64_t pair, int64_t row, int64_t column) {
    for (int64_t c = 2 * pair; c < 2 * pair + 2; ++c) {
      *to++ = c < inputs ? from[((o * inputs + c) * size + row) * size + column] : uint16_t{0};
    }
  };
  for (int64_t dy = 0; dy < s; ++dy) {
    const Phases phases(size, s, dy, phased);
    for (int64_t block = 0, first = 0; block < blocks.count; first += blocks.channels(block++)) {
      for (int64_t row = phases.first; row < phases.first + phases.rows; ++row) {
        for (int64_t pair = 0; pair < pairs; ++pair) {
          for (int64_t column = 0; column < size; ++column) {
            for (int64_t dx = Phases::low(s, column, phased); dx < Phases::high(s, column, phased); ++dx) {
              for (int64_t c = first; c < first + blocks.channels(block); ++c) {
                one(c * s * s + dy * s + dx, pair, row, column);
              }
            }
          }
        }
      }
    }
  }
  return packed;
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) { m.def("pack_pair_weight(Tensor weight, int shuffle, bool phased) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("pack_pair_weight", TORCH_BOX(&mga::pack_pair_weight)); }
