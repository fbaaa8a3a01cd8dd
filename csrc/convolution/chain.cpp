// pair_chain_: several layers over one image, a row of each in turn, so that the rows between two layers stay in the
// cache. docs/architecture.md has a picture of bands, strips, rings and leads, and an example of two layers.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "convolution/slots.h"

namespace mga {
namespace {

constexpr const char* kOp = "pair_chain_";

struct Stage {
  Layer layer;
  StageRecord at;
  Statistics* statistics;  // null where nothing is measured
};

// Planes of more bytes than this do not stay in a cache until they are read.
constexpr int64_t kCached = 8 << 20;

// Whether what is written to these planes should go around the caches.
bool goes_past_caches(const PairPlanes& out) {
  return out.plane * out.pairs * 4 > kCached && reinterpret_cast<uintptr_t>(out.first) % 64 == 0 && out.plane % 16 == 0;
}

// Where the rows that the stages hold and read at a time take more bytes than this, the image is cut into strips.
constexpr int64_t kNear = 1 << 21;
// In vectors. The columns that two strips share are computed twice, so strips should not be narrow.
constexpr int64_t kNarrowest = 8;

// What one thread works with.
struct Worker {
  Rings rings;
  Span columns;                                  // of the strip that is computed now, at the scale of the chain
  std::vector<std::unique_ptr<ByteRows>> bytes;  // for each stage that ends in a picture
  std::vector<float> sums;

  Worker(const std::vector<Slot>& slots, const std::vector<Stage>& stages) : rings(slots) {
    for (const Stage& stage : stages) {
      const bool picture = slots[stage.at.out].kind == Kind::picture;
      bytes.push_back(picture ? std::make_unique<ByteRows>(stage.layer.channels, stage.layer.width, stage.at.shuffle)
                              : nullptr);
    }
  }
};

class Chain {
 public:
  Chain(Slots slots, int64_t height, int64_t width)
      : height_(height), width_(width), slots_(std::move(slots)), met_(slots_.count()) {}

  void add_picture(const Tensor& picture) {
    int64_t factor = 0;
    for (const Slot& slot : slots_.all()) factor = slot.kind == Kind::picture ? slot.scale : factor;
    STD_TORCH_CHECK(picture.scalar_type() == ScalarType::Byte && picture.dim() == 3 && picture.size(2) == 3 &&
                        picture.stride(2) == 1 && picture.stride(1) == 3 && picture.size(0) == height_ &&
                        picture.size(1) == width_ && factor >= 2,
                    kOp, ": what is added must be uint8 (", height_, ", ", width_, ", 3), of contiguous rows");
    added_ =
        Enlarged(static_cast<const uint8_t*>(picture.const_data_ptr()), height_, width_, picture.stride(0), factor);
  }

  void add_stage(const StageRecord& n, const Tensor& weight, const Tensor& epilogue, const Tensor* statistics) {
    const int64_t count = slots_.count();
    STD_TORCH_CHECK(0 <= n.x && n.x < count && 0 <= n.out && n.out < count && n.skip < count && n.lead >= 0, kOp,
                    ": stage ", stages_.size(), " names slots that there are not");
    STD_TORCH_CHECK(n.size == 0 || n.size == 1 || n.size == 3 || n.size == 5 || n.size == 9, kOp,
                    ": the kernel size must be 1, 3, 5 or 9, got ", n.size);
    const Slot &x = slots_[n.x], &out = slots_[n.out];
    Stage stage{layer_of(n, weight, epilogue, x, out), n, nullptr};
    Layer& layer = stage.layer;
    const bool in_pairs = out.kind == Kind::planes || out.kind == Kind::ring;
    const bool plain = n.shuffle == 1 && in_pairs;
    STD_TORCH_CHECK(slots_.room(n.x, n.x_pair, layer.pairs) && (x.kind == Kind::planes || x.kind == Kind::ring) &&
                        (!in_pairs || slots_.room(n.out, n.out_pair, layer.channels / 2)) &&
                        (n.skip < 0 || (plain && slots_.room(n.skip, n.skip_pair, layer.channels / 2) &&
                                        slots_[n.skip].scale == out.scale)),
                    kOp, ": stage ", stages_.size(), " reads or writes outside of its slots");
    STD_TORCH_CHECK((out.kind != Kind::floats || out.planes.pairs == layer.channels) && (in_pairs || n.lead == 0) &&
                        (n.gate == 0 || n.skip >= 0),
                    kOp, ": stage ", stages_.size(), " does not fit what it writes, or gates nothing");
    for (const Stage& other : stages_) check_kept(n, layer, other.at, other.layer);
    check_kept(n, layer, n, layer);
    // Rows that an earlier stage has read or written are in the cache. The first stage that reads planes in memory
    // prefetches their next row.
    const auto from_memory = [&](int64_t i) { return i >= 0 && slots_[i].kind == Kind::planes && !met_[i]; };
    if (from_memory(n.x)) layer.x_pitch = x.planes.pitch;
    met_[n.x] = true;
    if (from_memory(n.skip)) layer.skip_pitch = slots_[n.skip].planes.pitch;
    met_[n.out] = true;
    if (statistics != nullptr) {
      STD_TORCH_CHECK(statistics->scalar_type() == ScalarType::Double && statistics->is_contiguous() && plain &&
                          statistics->numel() == 2 * layer.channels,
                      kOp, ": statistics must be float64 (2, channels) of a stage that ends in pairs");
      kept_.push_back(std::make_unique<Statistics>(layer.channels, out.height,
                                                   static_cast<double*>(statistics->mutable_data_ptr())));
      stage.statistics = kept_.back().get();
    }
    stages_.push_back(stage);
  }

  void run() {
    int64_t most = 0;
    for (const Stage& stage : stages_) most = std::max(most, stage.at.lead);
    const int64_t strips = narrow_rings(most);
    for (Stage& stage : stages_) {
      stage.layer.out_plane = slots_[stage.at.out].planes.plane;
      bool read = slots_[stage.at.out].kind != Kind::planes;
      for (const Stage& other : stages_) read = read || other.at.x == stage.at.out || other.at.skip == stage.at.out;
      stage.layer.past_caches = !read && goes_past_caches(slots_[stage.at.out].planes);
    }
    // Each thread computes a band of rows, and up to `most` rows above and below it, so a band should not be thin.
    const int64_t least = std::max<int64_t>(4 * most, 1);
    const int64_t bands = std::clamp<int64_t>(height_ / least, 1, torch::stable::get_num_threads());
    torch::stable::parallel_for(0, bands, 1, [&](int64_t first, int64_t last) {
      Worker worker(slots_.all(), stages_);
      for (int64_t band = first; band < last; ++band) {
        run_band({height_ * band / bands, height_ * (band + 1) / bands}, strips, most, worker);
      }
      kernels_.settle();
    });
    for (const auto& statistics : kept_) statistics->write();
  }

 private:
  // A stage must not write what it or an earlier stage reads. Bands and strips overlap, so some rows are computed
  // twice, and the second time they would be computed from the overwritten values.
  void check_kept(const StageRecord& n, const Layer& layer, const StageRecord& reader, const Layer& read_by) const {
    const bool x = slots_.overlap(n.out, n.out_pair, layer.channels / 2, reader.x, reader.x_pair, read_by.pairs);
    const bool skip = reader.skip >= 0 && slots_.overlap(n.out, n.out_pair, layer.channels / 2, reader.skip,
                                                         reader.skip_pair, read_by.channels / 2);
    STD_TORCH_CHECK(!x && !skip, kOp, ": stage ", stages_.size(), " writes over what ",
                    &reader == &n ? "it" : "an earlier stage", " reads; let it write to another slot");
  }

  Layer layer_of(const StageRecord& n, const Tensor& weight, const Tensor& epilogue, const Slot& x, const Slot& out) {
    Layer layer{};
    // A picture is shuffled as bytes.
    layer.shuffle = out.kind == Kind::picture ? 1 : n.shuffle;
    layer.phased = n.phased != 0;
    const int64_t each = layer.shuffle * layer.shuffle;
    STD_TORCH_CHECK(epilogue.scalar_type() == ScalarType::Float && epilogue.dim() == 2 && epilogue.size(0) == 3 &&
                        epilogue.is_contiguous() && epilogue.size(1) >= 1 && epilogue.size(1) % each == 0,
                    kOp, ": epilogue must be float32 (3, channels), contiguous: bias, slopes, shifts");
    layer.channels = epilogue.size(1) / each;
    layer.epilogue = static_cast<const float*>(epilogue.const_data_ptr());
    layer.size = std::max<int64_t>(n.size, 1);
    layer.width = width_ * x.scale;
    const bool floats = out.kind == Kind::floats || out.kind == Kind::picture;
    STD_TORCH_CHECK(1 <= n.shuffle && (layer.shuffle <= 3 && n.shuffle <= 4) && x.scale * n.shuffle == out.scale &&
                        (out.kind != Kind::floats || n.shuffle == 1),
                    kOp, ": a shuffle of ", n.shuffle, " does not lead from scale ", x.scale, " to scale ", out.scale);
    STD_TORCH_CHECK(layer.channels % 2 == 0 || (floats && layer.channels <= 3), kOp,
                    ": the channels must be even, or 1 or 3 for floats and pictures");
    STD_TORCH_CHECK(out.kind != Kind::picture || (3 * n.shuffle * n.shuffle + 1) / 2 == (layer.channels + 1) / 2, kOp,
                    ": a picture needs 3 x ", n.shuffle, "^2 channels, not ", layer.channels);
    layer.finish = floats          ? Finish::planar
                   : n.shuffle > 1 ? Finish::shuffle
                   : n.gate != 0   ? Finish::gate
                                   : Finish::pairs;
    layer.out_vectors = out.vectors();
    layer.lanes = out.kind == Kind::picture ? slots_.every(x.scale) : out.lanes;
    if (n.size == 0) {
      STD_TORCH_CHECK(layer.finish == Finish::pairs, kOp, ": factors and offsets end in pairs of the same scale");
      layer.pairs = layer.channels / 2;
      return layer;
    }
    // The pairs of the input follow from the number of values.
    const int64_t step = 2 * weight_words(layer.channels, n.size, layer.shuffle, layer.phased);
    STD_TORCH_CHECK(weight.scalar_type() == ScalarType::BFloat16 && weight.numel() > 0 && weight.numel() % step == 0 &&
                        (!layer.phased || (layer.finish == Finish::shuffle && n.size == 3)),
                    kOp, ": weight has ", weight.numel(), " values; was it packed for other channels?");
    layer.pairs = weight.numel() / step;
    layer.weight = static_cast<const uint32_t*>(weight.const_data_ptr());
    return layer;
  }

  // Returns the number of strips in which the rows fit in the cache, and makes the rings as wide as a strip.
  int64_t narrow_rings(int64_t most) {
    int64_t bytes = 0;
    for (const Slot& slot : slots_.all()) {
      if (slot.kind == Kind::ring) bytes += 4 * slot.planes.plane * slot.planes.pairs;
    }
    for (int64_t i = 0; i < slots_.count(); ++i) bytes += row_bytes(i);
    const int64_t vectors = row_vectors(), most_strips = std::max<int64_t>(1, vectors / kNarrowest);
    const int64_t strips = kept_.empty() ? std::clamp<int64_t>((bytes + kNear - 1) / kNear, 1, most_strips) : 1;
    const int64_t widest = (vectors + strips - 1) / strips * kMargin + 2 * most;
    for (Slot& slot : slots_.all()) {
      if (slot.kind != Kind::ring || strips == 1) continue;
      // One vector more, because a strip may begin in the middle of a vector.
      slot.planes.pitch = (widest * slot.scale + kMargin - 1) / kMargin * kMargin + 3 * kMargin;
      slot.planes.plane = slot.ring_rows * slot.planes.pitch;
    }
    return strips;
  }

  // Bytes of the rows that the stages read at a time of planes in memory.
  int64_t row_bytes(int64_t index) const {
    const Slot& slot = slots_[index];
    int64_t rows = 0;
    for (const Stage& stage : stages_) {
      if (stage.at.x == index) rows = std::max(rows, stage.layer.size * stage.layer.pairs);
      if (stage.at.skip == index) rows = std::max(rows, stage.layer.channels / 2);
    }
    return slot.kind == Kind::planes ? 4 * slot.planes.pitch * rows : 0;
  }

  int64_t row_vectors() const { return (width_ + kMargin - 1) / kMargin; }

  // At step t each stage computes row t + lead, so that the rows that a stage reads were computed in earlier steps, or
  // by earlier stages in this one.
  void run_band(Span band, int64_t strips, int64_t most, Worker& worker) {
    for (int64_t strip = 0; strip < strips; ++strip) {
      worker.columns = {row_vectors() * strip / strips * kMargin, row_vectors() * (strip + 1) / strips * kMargin};
      worker.rings.clear(worker.columns.begin - most);
      for (int64_t t = band.begin - 2 * most; t < band.end; ++t) {
        for (size_t i = 0; i < stages_.size(); ++i) {
          const int64_t lead = stages_[i].at.lead, y = t + lead;
          const bool needed = y >= std::max<int64_t>(0, band.begin - lead) && y < std::min(height_, band.end + lead);
          if (needed) run_stage(i, y, worker);
        }
      }
    }
  }

  // The rows of the stage, `scale` of them, that belong to row y of the chain.
  void run_stage(size_t index, int64_t y, Worker& worker) {
    const int64_t scale = slots_[stages_[index].at.x].scale;
    for (int64_t row = y * scale; row < (y + 1) * scale; ++row)
      run_row(stages_[index], row, worker, worker.bytes[index].get());
  }

  void run_row(const Stage& stage, int64_t y, Worker& worker, ByteRows* bytes) {
    const StageRecord& n = stage.at;
    const Layer& layer = stage.layer;
    const Slot& out = slots_[n.out];
    bool wanted = false;
    Row row{};
    for (int64_t dy = 0; dy < n.shuffle; ++dy) {
      if (!out.has(y * n.shuffle + dy)) continue;
      wanted = true;
      if (bytes == nullptr)
        row.out[dy] = worker.rings.row(n.out, out.kind == Kind::floats ? 0 : n.out_pair, y * n.shuffle + dy);
    }
    if (!wanted) return;
    Layer own = layer;
    if (bytes != nullptr) {
      row.out[0] = bytes->planes.data();
      own.out_plane = bytes->plane;
    }
    const int64_t scale = slots_[n.x].scale, most = (layer.width + 15) / 16;
    row.first = std::max<int64_t>(0, (worker.columns.begin - n.lead) * scale) / 16;
    row.last = std::min(most, ((worker.columns.end + n.lead) * scale + 15) / 16);
    for (int64_t i = 0; i < layer.size; ++i) row.taps[i] = worker.rings.read(n.x, n.x_pair, y - layer.size / 2 + i);
    if (n.skip >= 0) row.skip = worker.rings.read(n.skip, n.skip_pair, y);
    if (stage.statistics != nullptr) {
      worker.sums.assign(stage.statistics->channels() * 32, 0.f);
      row.statistics = worker.sums.data();
    }
    n.size == 0 ? kernels_.scale_row(own, row) : kernels_.convolve_row(own, row);
    if (stage.statistics != nullptr) stage.statistics->keep(y, worker.sums);
    if (bytes == nullptr) return;
    for (int64_t dy = 0; dy < n.shuffle; ++dy) {
      if (!out.has(y * n.shuffle + dy)) continue;
      write_bytes(kernels_, out.picture, added_, *bytes, y * n.shuffle + dy, n.shuffle, dy, row.first, row.last);
    }
  }

  const ConvolutionKernels& kernels_ = convolution_kernels();
  int64_t height_, width_;
  Slots slots_;
  std::vector<bool> met_;  // slots that an earlier stage reads or writes
  std::vector<Stage> stages_;
  std::vector<std::unique_ptr<Statistics>> kept_;
  Enlarged added_;
};

// See mga_kernels/ops/convolution. The first slots are those of `tensors`: planes bf16, float32 (C, H, W) or pictures
// uint8 (n, H, W, 3); the others are rings. lanes, rows: a mask each. weights are empty where a stage has none.
// statistics: float64 (2, C).
void pair_chain(const std::vector<Tensor>& tensors, const std::vector<int64_t>& slots, const std::vector<Tensor>& lanes,
                const std::vector<Tensor>& rows, const std::vector<Tensor>& weights,
                const std::vector<Tensor>& epilogues, const std::vector<int64_t>& stages,
                const std::vector<Tensor>& statistics, const std::vector<int64_t>& frame, double gain,
                const std::optional<Tensor>& added) {
  const std::vector<SlotRecord> of_slots = decode<SlotRecord>(kOp, slots);
  const std::vector<StageRecord> of_stages = decode<StageRecord>(kOp, stages);
  const std::vector<FrameRecord> frames = decode<FrameRecord>(kOp, frame);
  STD_TORCH_CHECK(of_stages.size() == weights.size() && epilogues.size() == weights.size() && frames.size() == 1 &&
                      of_slots.size() >= tensors.size() && lanes.size() == rows.size(),
                  kOp,
                  ": needs a weight and an epilogue for each stage, a slot for each tensor, one frame, and lanes "
                  "and rows for each mask");
  Slots all(kOp, frames[0].height, frames[0].width);
  for (size_t i = 0; i < of_slots.size(); ++i) {
    all.add(i < tensors.size() ? &tensors[i] : nullptr, of_slots[i], lanes, rows);
  }
  all.cut(frames[0], gain);
  Chain chain(std::move(all), frames[0].height, frames[0].width);
  if (added) chain.add_picture(*added);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t kept = of_stages[i].statistics;
    STD_TORCH_CHECK(kept < int64_t(statistics.size()), kOp, ": stage ", i, " names statistics that there are not");
    chain.add_stage(of_stages[i], weights[i], epilogues[i], kept < 0 ? nullptr : &statistics[kept]);
  }
  chain.run();
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "pair_chain_(Tensor(a!)[] tensors, int[] slots, Tensor[] lanes, Tensor[] rows, Tensor[] weights, "
      "Tensor[] epilogues, int[] stages, Tensor(b!)[] statistics, int[] frame, float gain, Tensor? added) -> ()");
  m.def("record_fields(str record) -> str");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("pair_chain_", TORCH_BOX(&mga::pair_chain)); }
STABLE_TORCH_LIBRARY_IMPL(mga, CompositeExplicitAutograd, m) {
  m.impl("record_fields", TORCH_BOX(&mga::record_fields));
}
