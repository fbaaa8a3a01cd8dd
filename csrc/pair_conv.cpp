// pair_conv_: convolution of pair planes in bf16 on the CPU, with bias, activation, skip or gate in the same pass.
// pair_chain_: several of them row by row.
#include <optional>
#include <string>
#include <vector>

#include "pair_conv_rows.h"

namespace mga {
namespace {

constexpr const char* kOp = "pair_conv_";

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
Finish parse_finish(const char* op, const std::string& mode, bool planar, bool skip) {
  STD_TORCH_CHECK(mode == "conv" || mode == "gate", op, ": mode '", mode, "' is neither conv nor gate");
  STD_TORCH_CHECK(mode == "conv" || (skip && !planar), op, ": a gate needs what it multiplies, and pairs to write");
  return planar ? Finish::planar : mode == "gate" ? Finish::gate : Finish::pairs;
}

// Weight, ends and lanes of a layer of `pairs` inputs; the planes are the caller's.
Layer layer_of(const char* op, const Tensor& weight, const Tensor& ends, int64_t pairs, int64_t size, int64_t width,
               const uint16_t* lanes) {
  STD_TORCH_CHECK(size == 1 || size == 3, op, ": the kernel size must be 1 or 3, got ", size);
  STD_TORCH_CHECK(ends.scalar_type() == ScalarType::Float && ends.dim() == 2 && ends.size(0) == 3 &&
                      ends.size(1) % 2 == 0 && ends.is_contiguous(),
                  op, ": ends must be float32 (3, even channels), contiguous: bias, slopes, shifts");
  Layer layer{};
  layer.channels = ends.size(1);
  STD_TORCH_CHECK(weight.numel() == layer.channels * pairs * 2 * size * size, op, ": weight has ", weight.numel(),
                  " values; was it packed for other channels?");
  layer.weight = static_cast<const uint32_t*>(weight.const_data_ptr());
  layer.ends = static_cast<const float*>(ends.const_data_ptr());
  layer.pairs = pairs;
  layer.width = width;
  layer.lanes = lanes;
  return layer;
}

const uint16_t* lanes_or(const char* op, const std::optional<Tensor>& lanes, const std::vector<uint16_t>& every) {
  if (!lanes) return every.data();
  STD_TORCH_CHECK(lanes->scalar_type() == ScalarType::Short && lanes->numel() == int64_t(every.size()), op,
                  ": lanes must be int16 (ceil(width / 16))");
  return static_cast<const uint16_t*>(lanes->const_data_ptr());
}

const uint8_t* rows_or_null(const char* op, const std::optional<Tensor>& rows, int64_t height) {
  STD_TORCH_CHECK(!rows || rows->numel() == height, op, ": rows must be of the height of x");
  return rows ? static_cast<const uint8_t*>(rows->const_data_ptr()) : nullptr;
}

// The planes from pair `from` on, where they hold `pairs` pairs of this height at least.
PairPlanes part_of(const char* op, const char* name, const Tensor& tensor, int64_t from, int64_t pairs, int64_t height,
                   int64_t width) {
  PairPlanes planes = pair_planes(op, tensor, from, width);
  STD_TORCH_CHECK(1 <= pairs && pairs <= planes.pairs && planes.height >= height, op, ": ", name, " has ", planes.pairs,
                  " pairs of ", planes.height, " rows from pair ", from, " on, not ", pairs, " of ", height);
  planes.pairs = pairs;
  return planes;
}
#endif

void pair_conv(const Tensor& out, int64_t out_pair, const Tensor& x, int64_t x_pair, int64_t pairs,
               const Tensor& weight, const Tensor& ends, int64_t size, int64_t width, const std::optional<Tensor>& skip,
               int64_t skip_pair, const std::string& mode, const std::optional<Tensor>& lanes,
               const std::optional<Tensor>& rows) {
#ifdef MGA_HAS_PAIR_CONV
  STD_TORCH_CHECK(supported(), kOp, ": this processor has no AVX-512 bf16");
  const PairPlanes from = part_of(kOp, "x", x, x_pair, pairs, 1, width);
  const int64_t height = from.height;
  const std::vector<uint16_t> every = lanes_of(width);
  Layer layer = layer_of(kOp, weight, ends, pairs, size, width, lanes_or(kOp, lanes, every));
  const uint8_t* present = rows_or_null(kOp, rows, height);
  const bool planar = out.scalar_type() == ScalarType::Float;
  layer.finish = parse_finish(kOp, mode, planar, skip.has_value());
  layer.x_plane = from.plane;
  layer.x_pitch = from.pitch;
  PairPlanes to{}, other{};
  if (planar) {
    STD_TORCH_CHECK(out.dim() == 3 && out.is_contiguous() && out.size(0) == layer.channels && out.size(1) == height &&
                        out.size(2) == width,
                    kOp, ": out must be float32 (channels, height, width), contiguous");
    to.first = static_cast<uint32_t*>(out.mutable_data_ptr());
    to.plane = height * width;
    to.pitch = width;
  } else {
    to = part_of(kOp, "out", out, out_pair, layer.channels / 2, height, width);
    layer.past_caches = goes_past_caches(to);
  }
  layer.out_plane = to.plane;
  if (skip) other = part_of(kOp, "skip", *skip, skip_pair, layer.channels / 2, height, width);
  layer.skip_plane = other.plane;
  layer.skip_pitch = other.pitch;
  const int64_t work = width * pairs * layer.channels * size * size;
  torch::stable::parallel_for(0, height, std::max<int64_t>(1, (1 << 21) / work), [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      if (present != nullptr && present[y] == 0) continue;
      Row row{};
      for (int64_t i = 0; i < size; ++i) row.taps[i] = from.at(0, y - size / 2 + i, 0);
      row.skip = skip ? other.at(0, y, 0) : nullptr;
      row.out = to.at(0, y, 0);
      convolve_row(layer, row, size);
    }
    _mm_sfence();
  });
#else
  STD_TORCH_CHECK(false, kOp, ": this build is for a processor without AVX-512");
#endif
}

#ifdef MGA_HAS_PAIR_CONV

// Planes, or a ring of rows that a thread keeps for itself: row y of the image in slot y % rows.
struct Place {
  PairPlanes planes;
  int64_t ring_rows = 0;  // 0: planes
};

struct Stage {
  Layer layer;
  int64_t x, x_pair, out, out_pair, skip, skip_pair, size, lead;
};

// The rings of one thread, and a row of zeros that stands for rows beyond the image.
class Rings {
 public:
  Rings(const std::vector<Place>& places, int64_t pitch) : places_(places), pitch_(pitch), data_(places.size()) {
    int64_t most = 1;
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i].ring_rows == 0) continue;
      data_[i].assign(places[i].planes.plane * places[i].planes.pairs + kMargin, 0);
      most = std::max(most, places[i].planes.plane * places[i].planes.pairs);
    }
    zeros_.assign(most + pitch, 0);
  }

  uint32_t* row(int64_t place, int64_t pair, int64_t y) {
    const Place& p = places_[place];
    if (p.ring_rows == 0) return p.planes.at(pair, y, 0);
    auto* data = data_[place].data();
    data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64 / sizeof(uint32_t);  // a vector to a cache line
    return data + pair * p.planes.plane + y % p.ring_rows * pitch_ + kMargin;
  }
  bool is_ring(int64_t place) const { return places_[place].ring_rows != 0; }
  const uint32_t* zeros() const { return zeros_.data() + kMargin; }

 private:
  const std::vector<Place>& places_;
  int64_t pitch_;
  std::vector<std::vector<uint32_t>> data_;
  std::vector<uint32_t> zeros_;
};

void run_stage(const Stage& stage, Rings& rings, int64_t y, int64_t height, const uint8_t* present) {
  if (present != nullptr && present[y] == 0) return;
  Row row{};
  for (int64_t i = 0; i < stage.size; ++i) {
    const int64_t from = y - stage.size / 2 + i;
    const bool inside = from >= 0 && from < height && (present == nullptr || present[from] != 0);
    row.taps[i] = inside || !rings.is_ring(stage.x) ? rings.row(stage.x, stage.x_pair, from) : rings.zeros();
  }
  if (stage.skip >= 0) row.skip = rings.row(stage.skip, stage.skip_pair, y);
  row.out = rings.row(stage.out, stage.out_pair, y);
  convolve_row(stage.layer, row, stage.size);
}

#endif

// Layers row by row, one after the other, so that what lies between them stays in the cache. ``planes`` are what is read
// and written as a whole; ``rings`` are pairs and rows of each intermediate, which places beyond the planes name. Each
// stage is 9 numbers: x, first pair of x, out, first pair of out, skip (-1: none), first pair of skip, size, 1 for a gate,
// and lead: by how many rows it is ahead of the last stages, which is also how far beyond a thread's rows it computes.
// Where that reaches into another thread's rows, both write the same values.
void pair_chain(const std::vector<Tensor>& planes, const std::vector<Tensor>& weights, const std::vector<Tensor>& ends,
                const std::vector<int64_t>& rings, const std::vector<int64_t>& stages, int64_t height, int64_t width,
                const std::optional<Tensor>& lanes, const std::optional<Tensor>& rows) {
  constexpr const char* op = "pair_chain_";
#ifdef MGA_HAS_PAIR_CONV
  STD_TORCH_CHECK(supported(), op, ": this processor has no AVX-512 bf16");
  STD_TORCH_CHECK(stages.size() == 9 * weights.size() && ends.size() == weights.size() && rings.size() % 2 == 0, op,
                  ": needs 9 numbers, a weight and ends for each stage, and 2 numbers for each ring");
  const std::vector<uint16_t> every = lanes_of(width);
  const int64_t pitch = int64_t(every.size()) * 16 + 2 * kMargin;
  std::vector<Place> places;
  for (const Tensor& tensor : planes) places.push_back({part_of(op, "planes", tensor, 0, 1, height, width), 0});
  for (size_t i = 0; i < planes.size(); ++i) places[i].planes.pairs = planes[i].size(0);
  for (size_t i = 0; i < rings.size(); i += 2) {
    Place ring{};
    ring.planes.pairs = rings[i];
    ring.planes.plane = rings[i + 1] * pitch;
    ring.ring_rows = rings[i + 1];
    places.push_back(ring);
  }
  const auto room = [&](int64_t place, int64_t pair, int64_t pairs) {
    return 0 <= place && place < int64_t(places.size()) && 0 <= pair && pair + pairs <= places[place].planes.pairs;
  };
  std::vector<Stage> list;
  std::vector<bool> met(places.size(), false);
  int64_t most = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t* n = stages.data() + 9 * i;
    const int64_t outputs = ends[i].size(1), taps = n[6] * n[6];
    const int64_t pairs = weights[i].numel() / std::max<int64_t>(1, 2 * taps * outputs);
    Stage stage{layer_of(op, weights[i], ends[i], pairs, n[6], width, lanes_or(op, lanes, every)),
                n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[8]};
    STD_TORCH_CHECK(room(stage.x, stage.x_pair, pairs) && room(stage.out, stage.out_pair, outputs / 2) &&
                        (stage.skip < 0 || room(stage.skip, stage.skip_pair, outputs / 2)) && stage.lead >= 0,
                    op, ": stage ", i, " reads or writes outside of its places");
    stage.layer.finish = parse_finish(op, n[7] != 0 ? "gate" : "conv", false, stage.skip >= 0);
    stage.layer.x_plane = places[stage.x].planes.plane;
    // What an earlier stage has read or written is in the cache; the first to read planes asks for their next row.
    const auto from_memory = [&](int64_t place) { return place >= 0 && places[place].ring_rows == 0 && !met[place]; };
    if (from_memory(stage.x)) stage.layer.x_pitch = places[stage.x].planes.pitch;
    met[stage.x] = true;
    if (from_memory(stage.skip)) stage.layer.skip_pitch = places[stage.skip].planes.pitch;
    met[stage.out] = true;
    stage.layer.out_plane = places[stage.out].planes.plane;
    stage.layer.skip_plane = stage.skip < 0 ? 0 : places[stage.skip].planes.plane;
    most = std::max(most, stage.lead);
    list.push_back(stage);
  }
  for (Stage& stage : list) {
    bool read = places[stage.out].ring_rows != 0;
    for (const Stage& other : list) read = read || other.x == stage.out || other.skip == stage.out;
    stage.layer.past_caches = !read && goes_past_caches(places[stage.out].planes);
  }
  const uint8_t* present = rows_or_null(op, rows, height);
  const int64_t bands = torch::stable::get_num_threads();
  torch::stable::parallel_for(0, bands, 1, [&](int64_t first, int64_t last) {
    Rings own(places, pitch);
    for (int64_t band = first; band < last; ++band) {
      const int64_t begin = height * band / bands, end = height * (band + 1) / bands;
      for (int64_t t = begin - 2 * most; t < end; ++t) {
        for (const Stage& stage : list) {
          const int64_t y = t + stage.lead;
          const bool needed = y >= std::max<int64_t>(0, begin - stage.lead) && y < std::min(height, end + stage.lead);
          if (needed) run_stage(stage, own, y, height, present);
        }
      }
    }
    _mm_sfence();
  });
#else
  STD_TORCH_CHECK(false, op, ": this build is for a processor without AVX-512");
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
  m.def(
      "pair_chain_(Tensor(a!)[] planes, Tensor[] weights, Tensor[] ends, int[] rings, int[] stages, int height, "
      "int width, Tensor? lanes, Tensor? rows) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("pair_conv_supported", TORCH_BOX(&mga::supported));
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) {
  m.impl("pack_pair_weight", TORCH_BOX(&mga::pack_pair_weight));
  m.impl("pair_conv_", TORCH_BOX(&mga::pair_conv));
  m.impl("pair_chain_", TORCH_BOX(&mga::pair_chain));
}
