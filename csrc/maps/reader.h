// convolve_maps_: layers over float maps, one after the other or together in bands of rows. Reads and checks what it is
// told, in tensors of torch or without it (tensors.h); run.h runs it.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "convolution/picture.h"
#include "maps/lists.h"
#include "maps/run.h"

namespace mga {

// Maps of more bytes than this do not stay in the second level of a cache until they are read: written past it, they
// need not be read before. In bands of rows that is 13 % of the time.
constexpr int64_t kCachedMap = 1 << 20;

constexpr int64_t kLargestScale = 64;  // a network may enlarge 16 times what is 4 times smaller than its image

// A tensor that layers read or write, for an image of height x width.
struct Place {
  MapEnd kind;
  int64_t scale, height, width;
  int64_t held;                // rows of a map that there is memory for
  float* first;                // of a map: pixel (0, 0) of its first channel
  int64_t row, group, groups;  // in floats
  const uint16_t* lanes;       // of its mask, or null
  const uint8_t* rows;
  Picture picture;
  const Tensor* tensor;

  bool room(int64_t channel, int64_t vectors) const {
    return kind == MapEnd::map && channel >= 0 && channel % kGroup == 0 && vectors >= 1 &&
           channel / kGroup + vectors <= groups;
  }
  float* at(int64_t channel) const { return first + channel / kGroup * group; }
};

struct Part {
  int64_t place, channel, vectors;
};

class Maps {
 public:
  Maps(const std::vector<Tensor>& tensors, const std::vector<MapRecord>& records, const std::vector<Tensor>& lanes,
       const std::vector<Tensor>& rows, const FrameRecord& frame, double gain)
      : height_(frame.height), width_(frame.width) {
    STD_TORCH_CHECK(height_ >= 1 && width_ >= 1, kOp, ": there is no image of ", height_, "x", width_);
    for (size_t i = 0; i < tensors.size(); ++i) add(tensors[i], records[i], lanes, rows, frame, gain);
    int64_t longest = 0;
    for (const Place& place : places_) longest = std::max(longest, map_pitch(place.width) * kGroup);
    // The calling thread's own, so that the next image needs no memory; other threads only read it.
    thread_local std::vector<float> zeros;
    if (int64_t(zeros.size()) < longest) zeros.assign(longest, 0.f);
    zeros_ = zeros.data() + kBefore * kGroup;
  }

  const Place& operator[](int64_t i) const { return places_[i]; }
  bool has(int64_t i) const { return 0 <= i && i < int64_t(places_.size()); }

  MapSource source(int64_t map, int64_t channel) const {
    const Place& place = places_[map];
    return {place.at(channel), place.row, place.group, place.height, place.held, place.rows, zeros_};
  }

  MapUse use(const Part& part, int64_t factor, int64_t above, int64_t below, bool writes) const {
    const Place& place = places_[part.place];
    const float* const begin = place.first - kBefore * kGroup;
    return {begin,        begin + place.tensor->numel(),
            part.channel, part.vectors,
            place.held,   place.height,
            factor,       above,
            below,        writes};
  }

 private:
  void add(const Tensor& tensor, const MapRecord& n, const std::vector<Tensor>& lanes, const std::vector<Tensor>& rows,
           const FrameRecord& frame, double gain) {
    Place place{};
    place.tensor = &tensor;
    place.scale = n.scale;
    STD_TORCH_CHECK(1 <= n.scale && n.scale <= kLargestScale, kOp, ": the scale of a map must be 1 to ", kLargestScale);
    place.height = height_ * n.scale, place.width = width_ * n.scale;
    const bool floats = tensor.scalar_type() == ScalarType::Float;
    if (tensor.scalar_type() == ScalarType::Byte || (floats && tensor.dim() == 4 && tensor.size(3) == 3)) {
      place.kind = MapEnd::picture;
      place.picture = picture_of(kOp, tensor);
      cut_picture(kOp, place.picture, frame, gain, place.height, place.width);
    } else if (tensor.dim() == 3) {
      place.kind = MapEnd::floats;
      STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float && tensor.is_contiguous(), kOp,
                      ": float planes must be float32 (C, H, W), contiguous");
    } else {
      place.kind = MapEnd::map;
      const int64_t needed = frame.band == 0 ? place.height : 1;
      STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float && tensor.dim() == 4 && tensor.size(3) == kGroup &&
                          tensor.is_contiguous() && tensor.size(0) >= needed &&
                          tensor.size(2) >= map_pitch(place.width),
                      kOp, ": a map must be float32 (rows, groups, pitch, 8), contiguous, with at least ", needed,
                      " rows and a pitch of ", map_pitch(place.width));
      place.held = std::min(tensor.size(0), place.height);
      place.groups = tensor.size(1);
      place.group = tensor.size(2) * kGroup;
      place.row = place.groups * place.group;
      place.first = static_cast<float*>(tensor.mutable_data_ptr()) + kBefore * kGroup;
    }
    if (n.mask >= 0) {
      STD_TORCH_CHECK(n.mask < int64_t(lanes.size()) && lanes[n.mask].scalar_type() == ScalarType::Short &&
                          lanes[n.mask].numel() == (place.width + 15) / 16 &&
                          rows[n.mask].scalar_type() == ScalarType::Byte && rows[n.mask].numel() == place.height,
                      kOp, ": a mask must be int16 (ceil(width / 16)) and uint8 (height) of its map");
      place.lanes = static_cast<const uint16_t*>(lanes[n.mask].const_data_ptr());
      place.rows = static_cast<const uint8_t*>(rows[n.mask].const_data_ptr());
    }
    places_.push_back(place);
  }

  int64_t height_, width_;
  std::vector<Place> places_;
  const float* zeros_;
};

// Everything about one layer, checked.
class LayerReader {
 public:
  LayerReader(const Maps& maps, const LayerRecord& n, size_t number) : maps_(maps), n_(n), number_(number) {}

  MapStage read(const Tensor& weight, const Tensor& epilogue) {
    STD_TORCH_CHECK(maps_.has(n_.x) && maps_.has(n_.out) && (n_.skip < 0 || maps_.has(n_.skip)) &&
                        (n_.also < 0 || maps_.has(n_.also)),
                    kOp, ": layer ", number_, " names maps that there are not");
    check_kind();
    const Place &x = maps_[n_.x], &out = maps_[n_.out];
    MapStage stage;
    MapLayer& layer = stage.layer;
    layer = MapLayer{};
    layer.inputs = n_.inputs, layer.outputs = n_.outputs, layer.vectors = groups_of(n_.outputs);
    layer.size = n_.size, layer.stride = n_.stride, layer.tile = n_.tile;
    layer.gate = MapGate(n_.gate), layer.activation = MapActivation(n_.activation);
    layer.height = n_.stride == 1 ? x.height : (x.height - n_.size) / 2 + 1;
    layer.width = n_.stride == 1 ? x.width : (x.width - n_.size) / 2 + 1;
    stage.scale = x.scale, stage.lead = n_.lead;
    place_tiles(layer);
    check_weight(weight, epilogue, stage);
    stage.end = out.kind;
    stage.shuffle = n_.shuffle;
    STD_TORCH_CHECK(x.room(n_.x_channel, groups_of(n_.inputs)), kOp, ": layer ", number_,
                    " reads outside of its map, or not from a multiple of 8 channels on");
    layer.x = maps_.source(n_.x, n_.x_channel);
    end(out, x, stage);
    join(stage);
    find_parts(stage);
    use(stage);
    return stage;
  }

 private:
  void check_kind() const {
    const bool factors = n_.size == 0, odd = n_.size >= 1 && n_.size <= kLargestMapKernel && n_.size % 2 == 1;
    STD_TORCH_CHECK((factors || odd) && n_.inputs >= 1 && n_.outputs >= 1 && (!factors || n_.inputs == n_.outputs), kOp,
                    ": layer ", number_, ": the kernel size must be 1, 3, 5, 7 or 9, or 0 for factors, with channels");
    STD_TORCH_CHECK(
        n_.tile == 0 || (has_tiles(n_.size, n_.tile) && n_.stride == 1 && n_.outputs > kFewOutputs), kOp, ": layer ",
        number_, ": tiles of 4 are for 3x3 and 5x5, of 6 for 3x3 kernels, of stride 1 and more than ", kFewOutputs,
        " outputs");
    STD_TORCH_CHECK(n_.stride == 1 || (n_.stride == 2 && !factors), kOp, ": layer ", number_,
                    ": the stride must be 1, or 2 for a convolution");
    STD_TORCH_CHECK(n_.lead >= 0, kOp, ": layer ", number_, ": a layer may not lag behind its band");
    STD_TORCH_CHECK(0 <= n_.gate && n_.gate <= 2 && (n_.activation == 0 || n_.activation == 1) && n_.shuffle >= 1 &&
                        n_.shuffle <= 4,
                    kOp, ": layer ", number_, ": there is no such gate, activation or shuffle");
  }

  // Only tiles of kernels that are transformed can fill patches.
  void place_tiles(MapLayer& layer) const {
    layer.places = side_by_side(n_.tile);
    if (n_.patch == 0) return;
    STD_TORCH_CHECK(n_.tile > 0 && n_.patch > 0 && n_.patch % n_.tile == 0 && n_.patch < n_.step && n_.inset >= 0 &&
                        n_.tiles < 0 && n_.zeros < 0,
                    kOp, ": layer ", number_, ": patches of ", n_.patch, " pixels every ", n_.step,
                    " are for layers in tiles that fill them, without a list, with room between them");
    layer.places = {n_.tile, n_.patch / n_.tile, n_.step, n_.inset};
    for (const int64_t length : {layer.height, layer.width}) {
      const int64_t tiles = layer.places.before(length);
      STD_TORCH_CHECK(tiles > 0 && tiles % layer.places.each == 0 && layer.places.at(tiles - 1) + n_.tile <= length, kOp,
                      ": layer ", number_, ": no whole patches of ", n_.patch, " pixels fill ", length);
    }
  }

  void check_weight(const Tensor& weight, const Tensor& epilogue, MapStage& stage) const {
    MapLayer& layer = stage.layer;
    const int64_t channels = layer.vectors * kGroup, wide = n_.inputs * channels * n_.size * n_.size;
    const int64_t wanted = n_.size == 0 ? channels : packed_floats(n_.inputs, n_.outputs, n_.size, n_.tile);
    const bool as_it_is = n_.tile != 0 && weight.numel() == wide;
    STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.is_contiguous() &&
                        (as_it_is || weight.numel() == wanted),
                    kOp, ": layer ", number_, ": weight has ", weight.numel(), " values, not ", wanted,
                    "; was it packed for other channels or tiles?");
    STD_TORCH_CHECK(epilogue.scalar_type() == ScalarType::Float && epilogue.is_contiguous() && epilogue.dim() == 2 &&
                        epilogue.size(0) == 4 && epilogue.size(1) == channels,
                    kOp, ": layer ", number_, ": epilogue must be float32 (4, ", channels,
                    "), contiguous: bias, slopes, factors of skip and also");
    const float* const values = static_cast<const float*>(weight.const_data_ptr());
    layer.weight = as_it_is ? nullptr : values;
    layer.plain = n_.tile == 0 ? nullptr : values + weight.numel() - wide;
    layer.epilogue = static_cast<const float*>(epilogue.const_data_ptr());
  }

  // Where the results go.
  void end(const Place& out, const Place& x, MapStage& stage) const {
    const MapLayer& layer = stage.layer;
    const int64_t s = n_.shuffle;
    STD_TORCH_CHECK(n_.stride == 2 || x.scale * s == out.scale, kOp, ": layer ", number_, ": a shuffle of ", s,
                    " does not lead from scale ", x.scale, " to scale ", out.scale);
    if (out.kind == MapEnd::map) {
      STD_TORCH_CHECK(n_.stride == 1 && layer.vectors % (s * s) == 0 && (s == 1 || n_.outputs % kGroup == 0) &&
                          out.room(n_.out_channel, layer.vectors / (s * s)),
                      kOp, ": layer ", number_, " writes outside of its map, or not from a multiple of 8 channels on");
      const int64_t row_floats = out.row, bytes = out.tensor->numel() * int64_t(sizeof(float));
      const bool aligned = reinterpret_cast<uintptr_t>(out.first) % 32 == 0;
      stage.out = {out.at(n_.out_channel),  row_floats, out.group, kGroup * s, out.held,
                   layer.vectors / (s * s), s,          out.rows,  out.lanes,  bytes > kCachedMap && aligned};
      if (keeps_all(layer, out)) stage.out.lanes = nullptr;
      return;
    }
    stage.rows = out.rows, stage.lanes = out.lanes;
    if (out.kind == MapEnd::floats) {
      STD_TORCH_CHECK(s == 1 && out.tensor->size(0) == n_.outputs && out.tensor->size(1) == layer.height &&
                          out.tensor->size(2) == layer.width,
                      kOp, ": layer ", number_, ": float planes must be (", n_.outputs, ", ", layer.height, ", ",
                      layer.width, "), without a shuffle");
      STD_TORCH_CHECK(n_.stride == 1 || out.rows == nullptr, kOp, ": layer ", number_, ": a stride has no mask");
      stage.floats = static_cast<float*>(out.tensor->mutable_data_ptr());
      return;
    }
    STD_TORCH_CHECK(n_.outputs == 3 * s * s && n_.stride == 1, kOp, ": layer ", number_, ": a picture needs 3 x ", s,
                    "^2 channels, not ", n_.outputs);
    stage.picture = out.picture;
  }

  // Whether a mask has all that the tiles of patches make: then it need not be looked at.
  bool keeps_all(const MapLayer& layer, const Place& out) const {
    if (out.lanes == nullptr || layer.places.each == 0) return false;
    const int64_t s = n_.shuffle;
    for (int64_t tile = 0; tile < layer.places.before(layer.width); ++tile) {
      const int64_t first = layer.places.at(tile) * s;
      for (int64_t x = first; x < first + n_.tile * s; ++x) {
        if ((out.lanes[x / 16] >> x % 16 & 1) == 0) return false;
      }
    }
    return true;
  }

  void join(MapStage& stage) const {
    MapLayer& layer = stage.layer;
    const bool plain = stage.end == MapEnd::map && n_.shuffle == 1;
    const auto joined = [&](int64_t map, int64_t channel, MapSource& source) {
      if (map < 0) return false;
      STD_TORCH_CHECK(plain && maps_[map].room(channel, layer.vectors) && maps_[map].scale == maps_[n_.out].scale, kOp,
                      ": layer ", number_, " adds what is outside of its map, or to no map of the same scale");
      source = maps_.source(map, channel);
      stage.uses.push_back(maps_.use({map, channel, layer.vectors}, 1, 0, 0, false));
      return true;
    };
    layer.has_skip = joined(n_.skip, n_.skip_channel, layer.skip);
    layer.has_also = joined(n_.also, n_.also_channel, layer.also);
    STD_TORCH_CHECK(layer.gate == MapGate::none || (layer.has_skip && !layer.has_also), kOp, ": layer ", number_,
                    ": a gate needs a skip, and nothing beside it");
  }

  void find_parts(MapStage& stage) const {
    stage.layer.has_parts = n_.parts >= 0;
    if (n_.parts < 0) return;
    STD_TORCH_CHECK(n_.size == 9 && n_.stride == 1 && n_.outputs <= kPartOutputs && stage.end != MapEnd::map &&
                        maps_.has(n_.parts) && maps_[n_.parts].room(0, kPartGroups) &&
                        maps_[n_.parts].scale == maps_[n_.x].scale,
                    kOp, ": layer ", number_, ": parts are a map of ", kPartGroups * kGroup,
                    " channels, of the scale of the input, for a 9x9 kernel of stride 1 with at most ", kPartOutputs,
                    " outputs, which does not end in a map");
    for (int64_t g = 0; g < kPartGroups; ++g) stage.layer.parts[g] = maps_.source(n_.parts, g * kGroup);
    stage.uses.push_back(maps_.use({n_.parts, 0, kPartGroups}, 1, 3, 3, false));
  }

  // What the layer uses; what one tile writes, another may still have to read.
  void use(MapStage& stage) const {
    const MapLayer& layer = stage.layer;
    const int64_t s = n_.shuffle, reach = n_.size / 2;
    const Part x{n_.x, n_.x_channel, groups_of(n_.inputs)}, out{n_.out, n_.out_channel, layer.vectors / (s * s)};
    const MapUse read = n_.stride == 1 ? maps_.use(x, 1, reach, reach, false) : maps_.use(x, 2, 0, n_.size - 2, false);
    if (stage.end == MapEnd::map) {
      const MapUse written = maps_.use(out, s, 0, 0, true);
      const bool same = n_.size == 0 && n_.x == n_.out && n_.x_channel == n_.out_channel;
      STD_TORCH_CHECK(same || !written.meets(read), kOp, ": layer ", number_,
                      " writes over what it reads; let it write to another map");
      // Each pixel reads its own skip before it is written.
      for (const MapUse& added : stage.uses) {
        const bool own = added.same_map(written) && added.channel == written.channel;
        STD_TORCH_CHECK(own || !written.meets(added), kOp, ": layer ", number_,
                        " writes over what it adds; let it write to another map, or exactly there");
      }
      stage.uses.push_back(written);
    }
    stage.uses.push_back(read);
  }

  const Maps& maps_;
  const LayerRecord& n_;
  size_t number_;
};

inline void add_image(const Tensor& image, const FrameRecord& frame, int64_t scale, MapStage& stage) {
  const bool floats = image.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK((floats || image.scalar_type() == ScalarType::Byte) && image.dim() == 3 && image.size(2) == 3 &&
                      image.stride(2) == 1 && image.stride(1) == 3 && image.size(0) == frame.height &&
                      image.size(1) == frame.width && scale >= 2,
                  kOp, ": what is added must be uint8 or float32 (", frame.height, ", ", frame.width,
                  ", 3), of contiguous rows, and is enlarged");
  stage.added = {image.const_data_ptr(), floats, frame.height, frame.width, image.stride(0), scale};
}

// Everything that a layer reads must be there when layers run in bands.
inline void check_bands(const std::vector<MapStage>& stages, int64_t height, int64_t band) {
  const auto written_before = [&](size_t number, const MapUse& use) {
    for (size_t i = 0; i < number; ++i) {
      for (const MapUse& other : stages[i].uses) {
        if (other.writes && other.meets(use)) return true;
      }
    }
    return false;
  };
  for (size_t i = 0; i < stages.size(); ++i) {
    for (const MapUse& use : stages[i].uses) {
      STD_TORCH_CHECK(use.writes || use.held == use.height || written_before(i, use), kOp, ": layer ", i,
                      " reads a map of a few rows, which no layer before it writes");
    }
  }
  const auto [layer, other] = ChainRun::missing(stages, height, band);
  STD_TORCH_CHECK(layer < 0, kOp, ": in bands of ", band, " rows, layer ", layer,
                  " would not find what it needs of layer ", other, "; change leads, or the rows of maps");
}

// See mga_kernels/ops/convolution/maps.py. `on_threads` calls a ChainRun's work() on up to tasks() threads at once.
template <typename OnThreads>
void convolve_maps(const std::vector<Tensor>& tensors, const std::vector<int64_t>& maps,
                   const std::vector<Tensor>& lanes, const std::vector<Tensor>& rows,
                   const std::vector<Tensor>& weights, const std::vector<Tensor>& epilogues,
                   const std::vector<int64_t>& layers, const std::vector<Tensor>& tiles,
                   const std::vector<Tensor>& statistics, const std::vector<int64_t>& frame, double gain,
                   const std::optional<Tensor>& added, OnThreads&& on_threads) {
  const auto of_maps = decode<MapRecord>(kOp, maps);
  const auto of_layers = decode<LayerRecord>(kOp, layers);
  const auto frames = decode<FrameRecord>(kOp, frame);
  STD_TORCH_CHECK(of_layers.size() == weights.size() && epilogues.size() == weights.size() && frames.size() == 1 &&
                      of_maps.size() == tensors.size() && lanes.size() == rows.size(),
                  kOp,
                  ": needs a weight and an epilogue for each layer, a record for each tensor, one frame, and lanes "
                  "and rows for each mask");
  const Maps all(tensors, of_maps, lanes, rows, frames[0], gain);
  // All are checked before the first one changes a map.
  std::vector<MapStage> stages;
  for (size_t i = 0; i < of_layers.size(); ++i) {
    const LayerRecord& n = of_layers[i];
    stages.push_back(LayerReader(all, n, i).read(weights[i], epilogues[i]));
    MapStage& stage = stages.back();
    STD_TORCH_CHECK(
        n.tiles < int64_t(tiles.size()) && n.zeros < int64_t(tiles.size()) && n.statistics < int64_t(statistics.size()),
        kOp, ": layer ", i, " names tiles or statistics that there are not");
    if (n.tiles >= 0) stage.tiles = tiles_of(tiles[n.tiles], stage, i);
    if (n.zeros >= 0) {
      stage.zeros = tiles_of(tiles[n.zeros], stage, i);
      check_zeros(stage, i);
    }
    if (n.statistics >= 0) {
      const Tensor& sums = statistics[n.statistics];
      STD_TORCH_CHECK(sums.scalar_type() == ScalarType::Double && sums.is_contiguous() && stage.end == MapEnd::map &&
                          n.shuffle == 1 && sums.numel() == 2 * n.outputs,
                      kOp, ": statistics must be float64 (2, channels) of a layer that ends in a map");
      stage.statistics = static_cast<double*>(sums.mutable_data_ptr());
    }
    if (added && stage.end == MapEnd::picture) add_image(*added, frames[0], all[n.out].scale, stage);
  }
  const int64_t height = frames[0].height, band = frames[0].band;
  STD_TORCH_CHECK(band >= 0, kOp, ": a band has ", band, " rows; 0 is for one layer after the other");
  if (band > 0) check_bands(stages, height, band);
  ChainRun work(map_kernels(), stages, height, band);
  on_threads(work);
  work.finish();
}

}  // namespace mga
