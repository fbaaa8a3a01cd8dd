// pair_conv_: convolution of pair planes in bf16 on the CPU, with bias, activation, skip or gate in the same pass.
#include <optional>
#include <string>
#include <vector>

#include "pair_conv_rows.h"

namespace mga {
namespace {

constexpr const char* kOp = "pair_conv_";
#ifdef MGA_HAS_PAIR_CONV
void convolve(const Job& job, int64_t size) {
  const int64_t work = job.x.width * job.x.pairs * job.channels * size * size;
  const int64_t grain = std::max<int64_t>(1, (1 << 21) / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, job.x.height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      if (job.rows != nullptr && job.rows[y] == 0) continue;
      size == 3 ? convolve_row<3>(job, y) : convolve_row<1>(job, y);
    }
  });
}
#endif

}  // namespace

bool pair_conv_supported() {
#ifdef MGA_HAS_PAIR_CONV
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

namespace {

bool supported() { return pair_conv_supported(); }

// weight bf16 (C', C, n, n), contiguous -> the order in which the kernel reads it: [block][row][pair][column][channel of
// the block][2]. Missing channels are zeros.
Tensor pack_pair_weight(const Tensor& weight) {
  constexpr const char* op = "pack_pair_weight";
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::BFloat16 && weight.dim() == 4 && weight.is_contiguous(), op,
                  ": weight must be bfloat16 (C', C, n, n), contiguous");
  const int64_t channels = weight.size(0), inputs = weight.size(1), size = weight.size(2);
  const int64_t pairs = (inputs + 1) / 2;
  const Blocks blocks(channels);
  const int64_t items = (channels + 1) / 2 * 2 * pairs * 2 * size * size;
  Tensor packed = torch::stable::empty({items}, ScalarType::BFloat16);
  const auto* from = static_cast<const uint16_t*>(weight.const_data_ptr());
  auto* to = static_cast<uint16_t*>(packed.mutable_data_ptr());
  for (int64_t block = 0, first = 0; block < blocks.count; first += blocks.size(block++)) {
    for (int64_t row = 0; row < size; ++row) {
      for (int64_t pair = 0; pair < pairs; ++pair) {
        for (int64_t column = 0; column < size; ++column) {
          for (int64_t o = first; o < first + blocks.size(block); ++o) {
            for (int64_t c = 2 * pair; c < 2 * pair + 2; ++c) {
              const bool real = o < channels && c < inputs;
              *to++ = real ? from[((o * inputs + c) * size + row) * size + column] : uint16_t{0};
            }
          }
        }
      }
    }
  }
  return packed;
}

#ifdef MGA_HAS_PAIR_CONV
Finish parse_finish(const std::string& mode, bool planar, bool skip) {
  STD_TORCH_CHECK(mode == "conv" || mode == "gate", kOp, ": mode '", mode, "' is neither conv nor gate");
  STD_TORCH_CHECK(mode == "conv" || (skip && !planar), kOp, ": a gate needs what it multiplies, and pairs to write");
  return planar ? Finish::planar : mode == "gate" ? Finish::gate : Finish::pairs;
}
#endif

void pair_conv(const Tensor& out, int64_t out_pair, const Tensor& x, int64_t x_pair, int64_t pairs,
               const Tensor& weight, const Tensor& ends, int64_t size, int64_t width,
               const std::optional<Tensor>& skip, int64_t skip_pair, const std::string& mode,
               const std::optional<Tensor>& lanes, const std::optional<Tensor>& rows) {
#ifdef MGA_HAS_PAIR_CONV
  STD_TORCH_CHECK(supported(), kOp, ": this processor has no AVX-512 bf16");
  STD_TORCH_CHECK(size == 1 || size == 3, kOp, ": the kernel size must be 1 or 3, got ", size);
  Job job{};
  job.x = pair_planes(kOp, x, x_pair, width);
  STD_TORCH_CHECK(1 <= pairs && pairs <= job.x.pairs, kOp, ": x has ", job.x.pairs, " pairs, not ", pairs);
  job.x.pairs = pairs;
  STD_TORCH_CHECK(ends.scalar_type() == ScalarType::Float && ends.dim() == 2 && ends.size(0) == 3 &&
                      ends.size(1) % 2 == 0 && ends.is_contiguous(),
                  kOp, ": ends must be float32 (3, even channels), contiguous: bias, slopes, shifts");
  job.channels = ends.size(1);
  STD_TORCH_CHECK(weight.numel() == job.channels * pairs * 2 * size * size, kOp, ": weight has ", weight.numel(),
                  " values; was it packed for other channels?");
  STD_TORCH_CHECK(!lanes || (lanes->scalar_type() == ScalarType::Short && lanes->numel() == (width + 15) / 16), kOp,
                  ": lanes must be int16 (ceil(width / 16))");
  const std::vector<uint16_t> every = lanes_of(width);
  STD_TORCH_CHECK(!rows || rows->numel() == job.x.height, kOp, ": rows must be of the height of x");
  job.weight = static_cast<const uint32_t*>(weight.const_data_ptr());
  job.ends = static_cast<const float*>(ends.const_data_ptr());
  job.lanes = lanes ? static_cast<const uint16_t*>(lanes->const_data_ptr()) : every.data();
  job.rows = rows ? static_cast<const uint8_t*>(rows->const_data_ptr()) : nullptr;
  const bool planar = out.scalar_type() == ScalarType::Float;
  job.finish = parse_finish(mode, planar, skip.has_value());
  if (planar) {
    STD_TORCH_CHECK(out.dim() == 3 && out.is_contiguous() && out.size(0) == job.channels &&
                        out.size(1) == job.x.height && out.size(2) == width,
                    kOp, ": out must be float32 (channels, height, width), contiguous");
    job.out = out.mutable_data_ptr();
    job.out_plane = job.x.height * width;
    job.out_pitch = width;
  } else {
    const PairPlanes target = pair_planes(kOp, out, out_pair, width);
    STD_TORCH_CHECK(target.height >= job.x.height && target.pairs >= job.channels / 2, kOp,
                    ": out is too small");
    job.out = target.first;
    job.out_plane = target.plane;
    job.out_pitch = target.pitch;
  }
  if (skip) {
    const PairPlanes other = pair_planes(kOp, *skip, skip_pair, width);
    STD_TORCH_CHECK(other.height >= job.x.height && other.pairs >= job.channels / 2, kOp,
                    ": skip is too small");
    job.skip = other.first;
    job.skip_plane = other.plane;
    job.skip_pitch = other.pitch;
  }
  convolve(job, size);
#else
  STD_TORCH_CHECK(false, kOp, ": this build is for a processor without AVX-512");
#endif
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("pair_conv_supported() -> bool");
  m.def("pack_pair_weight(Tensor weight) -> Tensor");
  m.def(
      "pair_conv_(Tensor(a!) out, int out_pair, Tensor x, int x_pair, int pairs, Tensor weight, Tensor ends, "
      "int size, int width, Tensor? skip, int skip_pair, str mode, Tensor? lanes, Tensor? rows) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("pair_conv_supported", TORCH_BOX(&mga::supported));
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) {
  m.impl("pack_pair_weight", TORCH_BOX(&mga::pack_pair_weight));
  m.impl("pair_conv_", TORCH_BOX(&mga::pair_conv));
}
