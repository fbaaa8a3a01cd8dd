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

constexpr int kAtOnce = 4;  // pixels of a layer that needs more

// The results of kAtOnce pixels from x on, of `step` floats apart; of those behind `count` only what is read matters.
INLINE void join(const MapLayer& layer, const RowEnd& end, const Constants& constants, int64_t v, int64_t x,
                 int64_t count, const float* sums, int64_t step, V8* value) {
  V8 skip[kAtOnce], gate[kAtOnce];
  UNROLL for (int i = 0; i < kAtOnce; ++i) {
    const int64_t at = i < count ? i : count - 1;
    value[i] = load(sums + at * step) + constants.bias;
    skip[i] = layer.has_skip ? load(end.skip[v] + (x + at) * kGroup) * constants.of_skip : V8{};
  }
  if (layer.gate == MapGate::none) {
    UNROLL for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = i < count ? i : count - 1;
      value[i] = value[i] + skip[i];
      if (layer.has_also) value[i] = fma(load(end.also[v] + (x + at) * kGroup), constants.of_also, value[i]);
    }
  } else {
    sigmoids<kAtOnce>(value, gate);
    const bool plain = layer.gate == MapGate::sigmoid;
    UNROLL for (int i = 0; i < kAtOnce; ++i) {
      value[i] = plain ? gate[i] * skip[i] : (value[i] + skip[i]) * (gate[i] - all(0.5f));
    }
  }
  if (layer.activation == MapActivation::silu) {
    sigmoids<kAtOnce>(value, gate);
    UNROLL for (int i = 0; i < kAtOnce; ++i) value[i] = value[i] * gate[i];
  } else {
    UNROLL for (int i = 0; i < kAtOnce; ++i) value[i] = leaky(value[i], constants);
  }
}

// The same where a layer needs more; `vector` of the layer.
inline void finish_special(const MapLayer& layer, const MapTask& task, const RowEnd& end, const Constants& constants,
                           int64_t vector, int64_t v, int64_t x, int64_t count, const float* sums, int64_t step) {
  const int64_t channels = layer.vectors * kGroup;
  const uint16_t* lanes = task.out.lanes;
  float* out = end.out[v] + x * task.out.pixel;
  V8 total{}, squares{};
  for (int64_t j = 0; j < count; j += kAtOnce) {
    V8 value[kAtOnce];
    join(layer, end, constants, v, x + j, count - j, sums + j * step, step, value);
    for (int64_t i = 0; i < kAtOnce && j + i < count; ++i, out += task.out.pixel) {
      const int64_t at = (x + j + i) * task.out.shuffle + end.lane[v];
      if (lanes != nullptr && (lanes[at / 16] >> at % 16 & 1) == 0) value[i] = V8{};
      total = total + value[i];
      squares = fma(value[i], value[i], squares);
      task.out.past_caches ? stream(out, value[i]) : store(out, value[i]);
    }
  }
  if (task.statistics == nullptr) return;
  float* statistics = task.statistics + vector * kGroup;
  store(statistics, load(statistics) + total);
  store(statistics + channels, load(statistics + channels) + squares);
}
