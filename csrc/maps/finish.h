// What becomes of a layer's sums, a vector of 8 channels of one pixel at a time. Part of body.h.

// Where one row of a panel's results goes, null where it is not wanted, and what joins them.
struct RowEnd {
  float* out[kLargestPanel];
  const float *skip[kLargestPanel], *also[kLargestPanel];
  int64_t lane[kLargestPanel];  // of pixel 0 in the mask
};

INLINE MapTap tap(const MapSource& source, int64_t y) {
  if (y < 0 || y >= source.height || (source.rows != nullptr && source.rows[y] == 0)) return {source.zeros, 0};
  return {source.first + held_row(y, source.held) * source.row, source.group};
}

// Row y of the layer, vectors from `first` on. Divisions are dear.
INLINE RowEnd row_end(const MapLayer& layer, const MapTarget& out, int64_t first, int64_t nv, int64_t y) {
  RowEnd end{};
  if (y >= layer.height) return end;
  const MapTap skip = tap(layer.skip, y), also = tap(layer.also, y);
  for (int64_t v = 0; v < nv; ++v) {
    int64_t group = first + v, row = y, dx = 0;
    if (out.shuffle != 1) {
      const int64_t phase = group / out.groups;
      group %= out.groups;
      row = y * out.shuffle + phase / out.shuffle;
      dx = phase % out.shuffle;
    }
    if (out.rows != nullptr && out.rows[row] == 0) continue;
    end.out[v] = out.first + held_row(row, out.held) * out.row + group * out.group + dx * kGroup;
    end.lane[v] = dx;
    end.skip[v] = layer.has_skip ? skip.at + group * skip.group : nullptr;
    end.also[v] = layer.has_also ? also.at + group * also.group : nullptr;
  }
  return end;
}

// Whether a layer needs more than bias, one skip and a leaky activation.
INLINE bool is_special(const MapLayer& layer, const MapTask& task) {
  return layer.has_also || layer.gate != MapGate::none || layer.activation != MapActivation::leaky ||
         task.statistics != nullptr || task.out.lanes != nullptr;
}

// Of a vector of channels.
struct Constants {
  V8 bias, slope, of_skip, of_also;
  I8 sloping;  // where the slope is not zero
};
INLINE Constants constants_of(const MapLayer& layer, int64_t vector) {
  const float* epilogue = layer.epilogue + vector * kGroup;
  const int64_t channels = layer.vectors * kGroup;
  const V8 slope = load(epilogue + channels);
  return {load(epilogue), slope, load(epilogue + 2 * channels), load(epilogue + 3 * channels), not_zero(slope)};
}

// value < 0 ? value * slope : value. A slope of 0 makes 0 of minus infinity too.
INLINE V8 leaky(V8 value, const Constants& constants) {
  return choose(less(value, V8{}), only(constants.sloping, value * constants.slope), value);
}

// The sums of pixels [x, x + count) of a row, MOST of them at most, become results of vector v of a panel.
template <int MOST>
INLINE void finish(const MapTask& task, const RowEnd& end, const Constants& constants, int64_t v, int64_t x,
                   int64_t count, const V8* sums) {
  const float* skip = end.skip[v] == nullptr ? nullptr : end.skip[v] + x * kGroup;
  const int64_t pixel = task.out.pixel;
  const bool past = task.out.past_caches;
  float* out = end.out[v] + x * pixel;
  UNROLL for (int j = 0; j < MOST; ++j) {
    if (j >= count) break;
    V8 value = sums[j] + constants.bias;
    if (skip != nullptr) value = fma(load(skip + j * kGroup), constants.of_skip, value);
    value = leaky(value, constants);
    past ? stream(out, value) : store(out, value);
    out += pixel;
  }
}

// The same of any number of pixels, whose sums are `step` floats apart.
INLINE void finish_line(const MapTask& task, const RowEnd& end, const Constants& constants, int64_t v, int64_t x,
                        int64_t count, const float* sums, int64_t step) {
  const float* skip = end.skip[v] == nullptr ? nullptr : end.skip[v] + x * kGroup;
  const int64_t pixel = task.out.pixel;
  const bool past = task.out.past_caches;
  float* out = end.out[v] + x * pixel;
  for (int64_t j = 0; j < count; ++j) {
    V8 value = load(sums + j * step) + constants.bias;
    if (skip != nullptr) value = fma(load(skip + j * kGroup), constants.of_skip, value);
    value = leaky(value, constants);
    past ? stream(out, value) : store(out, value);
    out += pixel;
  }
}

// The same where a layer needs more; `vector` of the layer.
inline void finish_special(const MapLayer& layer, const MapTask& task, const RowEnd& end, const Constants& constants,
                           int64_t vector, int64_t v, int64_t x, int64_t count, const float* sums, int64_t step) {
  const int64_t channels = layer.vectors * kGroup;
  float* statistics = task.statistics == nullptr ? nullptr : task.statistics + vector * kGroup;
  float* out = end.out[v] + x * task.out.pixel;
  V8 total{}, squares{};
  for (int64_t j = 0; j < count; ++j, ++x, out += task.out.pixel) {
    V8 value = load(sums + j * step) + constants.bias;
    const V8 skip = layer.has_skip ? load(end.skip[v] + x * kGroup) * constants.of_skip : V8{};
    if (layer.gate == MapGate::none) {
      value = value + skip;
      if (layer.has_also) value = fma(load(end.also[v] + x * kGroup), constants.of_also, value);
    } else {
      const V8 gate = sigmoid(value);
      value = layer.gate == MapGate::sigmoid ? gate * skip : (value + skip) * (gate - all(0.5f));
    }
    value = layer.activation == MapActivation::silu ? value * sigmoid(value) : leaky(value, constants);
    const uint16_t* lanes = task.out.lanes;
    const int64_t at = x * task.out.shuffle + end.lane[v];
    if (lanes != nullptr && (lanes[at / 16] >> at % 16 & 1) == 0) value = V8{};
    total = total + value;
    squares = fma(value, value, squares);
    task.out.past_caches ? stream(out, value) : store(out, value);
  }
  if (statistics == nullptr) return;
  store(statistics, load(statistics) + total);
  store(statistics + channels, load(statistics + channels) + squares);
}
