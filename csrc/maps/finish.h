// What becomes of a layer's sums, a vector of 8 channels of one pixel at a time. Part of body.h.

// Where one row of a panel's results goes, null where it is not wanted, and what joins them.
struct RowEnd {
  float* out[kMostTogether];
  const float *skip[kMostTogether], *also[kMostTogether];
  int64_t lane[kMostTogether];  // of pixel 0 in the mask
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

// What becomes of a sum and its bias. Those but `any` have code of their own, and no second addend, sums or mask; gates
// are the last of it, with what they weigh as it is.
enum class Ending { plain, silu, sigmoid_gate, span_gate, any };

// Whether a gate is the last of it: no slope, and what it weighs is added as it is. Beside the outputs all are zeros.
INLINE bool gate_is_last(const MapLayer& layer, const MapTask& task) {
  const int64_t channels = layer.vectors * kGroup;
  const float *const slope = layer.epilogue + channels, *const of_skip = slope + channels;
  for (int64_t c = 0; c < layer.outputs; ++c) {
    if (slope[c] != 1.0f || of_skip[c] != 1.0f) return false;
  }
  return layer.activation != MapActivation::silu && task.out.shuffle == 1;
}

INLINE Ending ending_of(const MapLayer& layer, const MapTask& task) {
  const bool silu = layer.activation == MapActivation::silu, gated = layer.gate != MapGate::none;
  if (layer.has_also || task.statistics != nullptr || task.out.lanes != nullptr) return Ending::any;
  if (gated && !gate_is_last(layer, task)) return Ending::any;
  if (gated) return layer.gate == MapGate::sigmoid ? Ending::sigmoid_gate : Ending::span_gate;
  return silu ? Ending::silu : Ending::plain;
}

template <Ending E>
struct Fixed {
  static constexpr Ending ending = E;
};

// Calls run(Fixed<E>()) of this ending.
template <typename Run>
INLINE void with_ending(Ending ending, Run&& run) {
  if (ending == Ending::plain) return run(Fixed<Ending::plain>());
  if (ending == Ending::silu) return run(Fixed<Ending::silu>());
  if (ending == Ending::sigmoid_gate) return run(Fixed<Ending::sigmoid_gate>());
  if (ending == Ending::span_gate) return run(Fixed<Ending::span_gate>());
  run(Fixed<Ending::any>());
}

// Of a vector of channels, or of two.
template <typename V>
struct Constants {
  V bias, slope, of_skip, of_also;
  decltype(not_zero(V{})) sloping;  // where the slope is not zero
};
template <typename V = V8>
INLINE Constants<V> constants_of(const MapLayer& layer, int64_t vector) {
  const float* epilogue = layer.epilogue + vector * kGroup;
  const int64_t channels = layer.vectors * kGroup;
  const V slope = load<V>(epilogue + channels);
  return {load<V>(epilogue), slope, load<V>(epilogue + 2 * channels), load<V>(epilogue + 3 * channels),
          not_zero(slope)};
}

// value < 0 ? value * slope : value. A slope of 0 makes 0 of minus infinity too.
template <typename V>
INLINE V leaky(V value, const Constants<V>& constants) {
  return choose(less(value, V{}), only(constants.sloping, value * constants.slope), value);
}

// The results of N pixels from sums with their bias.
template <Ending E, int N, typename V>
INLINE void finish_values(const Constants<V>& constants, const float* const* skip, int64_t at, V* value) {
  V gate[N];
  if (E == Ending::sigmoid_gate || E == Ending::span_gate) {
    sigmoids<N>(value, gate);
    UNROLL for (int j = 0; j < N; ++j) {
      const V added = load_groups<V>(skip, at + j * kGroup);
      value[j] = E == Ending::sigmoid_gate ? gate[j] * added : (value[j] + added) * (gate[j] - all<V>(0.5f));
    }
    return;
  }
  if (skip[0] != nullptr) {
    UNROLL for (int j = 0; j < N; ++j) {
      value[j] = fma(load_groups<V>(skip, at + j * kGroup), constants.of_skip, value[j]);
    }
  }
  if (E == Ending::silu) {
    sigmoids<N>(value, gate);
    UNROLL for (int j = 0; j < N; ++j) value[j] = value[j] * gate[j];
  } else {
    UNROLL for (int j = 0; j < N; ++j) value[j] = leaky(value[j], constants);
  }
}

// The sums of pixels [x, x + count) of a row, N of them at most, become results of vector v of a panel. What is added
// to those behind them is read, too: rows have whole columns.
template <Ending E, int N, typename V>
INLINE void finish(const MapTask& task, const RowEnd& end, const Constants<V>& constants, int64_t v, int64_t x,
                   int64_t count, V* value) {
  const int64_t pixel = task.out.pixel;
  const bool past = task.out.past_caches;
  float* const* out = end.out + v;
  UNROLL for (int j = 0; j < N; ++j) value[j] = value[j] + constants.bias;
  finish_values<E, N>(constants, end.skip + v, x * kGroup, value);
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == sizeof(V16) && N % 2 == 0) {
    if (count >= N && pixel == kGroup && reinterpret_cast<uintptr_t>(out[0] + x * kGroup) % 64 == 0) {
      UNROLL for (int j = 0; j < N; j += 2) {
        past ? stream_lines(out, (x + j) * kGroup, value[j], value[j + 1])
             : store_lines(out, (x + j) * kGroup, value[j], value[j + 1]);
      }
      return;
    }
  }
#endif
  UNROLL for (int j = 0; j < N; ++j) {
    if (j >= count) break;
    past ? stream_groups(out, (x + j) * pixel, value[j]) : store_groups(out, (x + j) * pixel, value[j]);
  }
}

constexpr int kAtOnce = 4;  // pixels of any ending

// The results of kAtOnce pixels from x on, of `step` floats apart; of those behind `count` only what is read matters.
template <typename V>
INLINE void join(const MapLayer& layer, const RowEnd& end, const Constants<V>& constants, int64_t v, int64_t x,
                 int64_t count, const float* sums, int64_t step, V* value) {
  V skip[kAtOnce], gate[kAtOnce];
  UNROLL for (int i = 0; i < kAtOnce; ++i) {
    const int64_t at = i < count ? i : count - 1;
    value[i] = load<V>(sums + at * step) + constants.bias;
    skip[i] = layer.has_skip ? load_groups<V>(end.skip + v, (x + at) * kGroup) * constants.of_skip : V{};
  }
  if (layer.gate == MapGate::none) {
    UNROLL for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = i < count ? i : count - 1;
      value[i] = value[i] + skip[i];
      if (!layer.has_also) continue;
      value[i] = fma(load_groups<V>(end.also + v, (x + at) * kGroup), constants.of_also, value[i]);
    }
  } else {
    sigmoids<kAtOnce>(value, gate);
    const bool plain = layer.gate == MapGate::sigmoid;
    UNROLL for (int i = 0; i < kAtOnce; ++i) {
      value[i] = plain ? gate[i] * skip[i] : (value[i] + skip[i]) * (gate[i] - all<V>(0.5f));
    }
  }
  if (layer.activation == MapActivation::silu) {
    sigmoids<kAtOnce>(value, gate);
    UNROLL for (int i = 0; i < kAtOnce; ++i) value[i] = value[i] * gate[i];
  } else {
    UNROLL for (int i = 0; i < kAtOnce; ++i) value[i] = leaky(value[i], constants);
  }
}

// The same with any ending, of sums that are `step` floats apart; `vector` of the layer.
template <typename V>
void finish_any(const MapLayer& layer, const MapTask& task, const RowEnd& end, const Constants<V>& constants,
                int64_t vector, int64_t v, int64_t x, int64_t count, const float* sums, int64_t step) {
  const int64_t channels = layer.vectors * kGroup, pixel = task.out.pixel;
  const uint16_t* lanes = task.out.lanes;
  V total{}, squares{};
  for (int64_t j = 0; j < count; j += kAtOnce) {
    V value[kAtOnce];
    join(layer, end, constants, v, x + j, count - j, sums + j * step, step, value);
    for (int64_t i = 0; i < kAtOnce && j + i < count; ++i) {
      const int64_t at = (x + j + i) * task.out.shuffle + end.lane[v], out = (x + j + i) * pixel;
      if (lanes != nullptr && (lanes[at / 16] >> at % 16 & 1) == 0) value[i] = V{};
      total = total + value[i];
      squares = fma(value[i], value[i], squares);
      task.out.past_caches ? stream_groups(end.out + v, out, value[i]) : store_groups(end.out + v, out, value[i]);
    }
  }
  if (task.statistics == nullptr) return;
  float* statistics = task.statistics + vector * kGroup;
  store(statistics, load<V>(statistics) + total);
  store(statistics + channels, load<V>(statistics + channels) + squares);
}
