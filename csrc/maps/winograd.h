// R x R convolutions in tiles of M x M pixels (Winograd's F(M x M, R x R)). Part of body.h.
//
// A task is some tiles: their inputs are transformed to (M + R - 1)^2 positions, at each of which the channels are
// multiplied as matrices; a transformation back gives the sums. Positions and sums stay in the second level of the
// cache; the transformed weights are read from one end to the other.

constexpr int64_t kMostTiles = 48;  // of a task
constexpr int kSideBySide = 4;      // tiles whose columns are transformed together
template <int M>
constexpr int kBetween = M - 1;  // pixels between tiles that are worth that, at most
template <int M>
constexpr int kTogetherColumns = (M + kBetween<M>) * kSideBySide + 4;

// Where the positions of a task lie: [position][group][tile][8], and its sums: [tile][position][channel of a panel].
struct Positions {
  int64_t tiles, groups, position;

  Positions(const MapLayer& layer, int64_t count)
      : tiles((count + 11) / 12 * 12), groups(groups_of(layer.inputs)), position(groups * tiles * kGroup + 16) {}
};

struct TileAt {
  int64_t row, column;  // of its first pixel
};
INLINE TileAt tile_at(const MapLayer& layer, const MapTask& task, int64_t i) {
  const int64_t number = task.tiles != nullptr ? task.tiles[i] : task.row * task.across + task.column + i;
  return {layer.places.at(number / task.across), layer.places.at(number % task.across)};
}

// The positions of a tile, `position` floats apart, from its transformed columns, which begin with this one.
template <int M, int R, int kFloats>
INLINE void transform_rows(const float (&columns)[M + R - 1][kFloats], int64_t first, float* to, int64_t position) {
  constexpr int N = M + R - 1;
  for (int i = 0; i < N; ++i) {
    V8 d[N], t[N];
    UNROLL for (int j = 0; j < N; ++j) d[j] = load(&columns[i][(first + j) * kGroup]);
    Transform<M, R>::in(d, t);
    UNROLL for (int j = 0; j < N; ++j) {
      store(to, t[j]);
      to += position;
    }
  }
}

// `count` tiles of a row, `places` pixels from the first: the columns that neighbours share are transformed once. Returns
// whether some input is not finite: it would be spread over the whole tile. All inputs of a column are in its first or
// last value; where only their product is too large, a task is looked at more closely in vain.
#if defined(__AVX512F__)
// Two pixels at a time, and then two tiles. The first pair begins where maps are aligned; what is beside the tiles only
// makes a task look more closely.
template <int M, int R>
INLINE bool transform_inputs(const MapTap* taps, int64_t x, const int64_t* places, int64_t count, const Positions& at,
                             float* to) {
  constexpr int N = M + R - 1;
  alignas(64) float columns[N][kTogetherColumns<M> * kGroup];
  V16 check{};
  // Of the columns that are needed.
  const int64_t first = (x - R / 2) % 2 == 0 ? 0 : 1, end = first + places[count - 1] + N;
  for (int64_t g = 0; g < at.groups; ++g) {
    for (int64_t c = 0; c < end; c += 2) {
      V16 d[N], t[N];
      UNROLL for (int i = 0; i < N; ++i) {
        const float* const from = taps[i].at + g * taps[i].group + (x - R / 2 - first + c) * kGroup;
        d[i] = load<V16>(from);
        __builtin_prefetch(from + taps[i].group);
      }
      Transform<M, R>::in(d, t);
      UNROLL for (int i = 0; i < N; ++i) store(&columns[i][c * kGroup], t[i]);
      check = fma(t[0], t[N - 1], check);
    }
    int64_t tile = 0;
    for (; tile + 1 < count; tile += 2) {
      float* v = to + (g * at.tiles + tile) * kGroup;
      for (int i = 0; i < N; ++i) {
        V16 d[N], t[N];
        const float* const one = &columns[i][(first + places[tile]) * kGroup];
        const float* const other = &columns[i][(first + places[tile + 1]) * kGroup];
        UNROLL for (int j = 0; j < N; ++j) d[j] = both(load(one + j * kGroup), load(other + j * kGroup));
        Transform<M, R>::in(d, t);
        UNROLL for (int j = 0; j < N; ++j) {
          store(v, t[j]);
          v += at.position;
        }
      }
    }
    if (tile < count) {
      transform_rows<M, R>(columns, first + places[tile], to + (g * at.tiles + tile) * kGroup, at.position);
    }
  }
  return !is_zero((low_of(check) + high_of(check)) * V8{});
}
#else
template <int M, int R>
INLINE bool transform_inputs(const MapTap* taps, int64_t x, const int64_t* places, int64_t count, const Positions& at,
                             float* to) {
  constexpr int N = M + R - 1;
  alignas(64) float columns[N][kTogetherColumns<M> * kGroup];
  V8 check{};
  for (int64_t g = 0; g < at.groups; ++g) {
    for (int64_t c = 0; c < places[count - 1] + N; ++c) {
      V8 d[N], t[N];
      UNROLL for (int i = 0; i < N; ++i) {
        const float* const from = taps[i].at + g * taps[i].group + (x - R / 2 + c) * kGroup;
        d[i] = load(from);
        if (c % 2 == 0) __builtin_prefetch(from + taps[i].group);
      }
      Transform<M, R>::in(d, t);
      UNROLL for (int i = 0; i < N; ++i) store(&columns[i][c * kGroup], t[i]);
      check = fma(t[0], t[N - 1], check);
    }
    for (int64_t tile = 0; tile < count; ++tile) {
      transform_rows<M, R>(columns, places[tile], to + (g * at.tiles + tile) * kGroup, at.position);
    }
  }
  return !is_zero(check * V8{});
}
#endif

template <int M, int R>
INLINE void taps_of_tile(const MapLayer& layer, int64_t y, MapTap* taps) {
  for (int i = 0; i < M + R - 1; ++i) taps[i] = tap(layer.x, y - R / 2 + i);
}

template <int M, int R>
bool tile_is_finite(const MapTap* taps, int64_t x, int64_t groups) {
  V8 check{};
  for (int64_t g = 0; g < groups; ++g) {
    for (int i = 0; i < M + R - 1; ++i) {
      for (int64_t c = 0; c < M + R - 1; ++c) {
        check = fma(load(taps[i].at + g * taps[i].group + (x - R / 2 + c) * kGroup), V8{}, check);
      }
    }
  }
  return is_zero(check);
}

// Positions of all tiles of a task; marks those that must be computed without them.
template <int M, int R>
void transform_tiles(const MapLayer& layer, const MapTask& task, const TileAt* tiles, const Positions& at, float* to,
                     bool* direct) {
  MapTap taps[M + R - 1];
  for (int64_t i = 0, side_by_side; i < task.count; i += side_by_side) {
    const TileAt tile = tiles[i];
    int64_t places[kSideBySide] = {};
    side_by_side = 1;
    while (side_by_side < kSideBySide && i + side_by_side < task.count) {
      const TileAt& next = tiles[i + side_by_side];
      const int64_t place = next.column - tile.column;
      if (next.row != tile.row || place - places[side_by_side - 1] > M + kBetween<M>) break;
      places[side_by_side++] = place;
    }
    taps_of_tile<M, R>(layer, tile.row, taps);
    const bool strange = transform_inputs<M, R>(taps, tile.column, places, side_by_side, at, to + i * kGroup);
    for (int64_t j = 0; j < side_by_side; ++j) {
      direct[i + j] = strange && !tile_is_finite<M, R>(taps, tile.column + places[j], at.groups);
    }
  }
}

// Calls add(first tile, pixels) for tiles of a task that are side by side, or in a row without a list.
template <typename Add>
INLINE void for_each_row_of_tiles(const MapLayer& layer, const MapTask& task, Add&& add) {
  for (int64_t i = 0, count; i < task.count; i += count) {
    count = task.tiles == nullptr ? task.count : 1;
    while (i + count < task.count && task.tiles[i + count] == task.tiles[i] + count &&
           task.tiles[i + count] % task.across != 0) {
      ++count;
    }
    const TileAt first = tile_at(layer, task, i), last = tile_at(layer, task, i + count - 1);
    add(first, last.column - first.column + layer.places.side);
  }
}

// What the task adds to its sums, and what the next one reads.
template <int M, int R>
void look_ahead(const MapLayer& layer, const MapTask& task, const MapTask* next, Ahead& ahead) {
  for_each_row_of_tiles(layer, task, [&](const TileAt& tile, int64_t pixels) {
    ahead.add_joined<M>(layer, tile.row, tile.column, pixels);
  });
  if (next != nullptr) {
    for_each_row_of_tiles(layer, *next, [&](const TileAt& tile, int64_t pixels) {
      ahead.add(layer.x, tile.row - R / 2, M + R - 1, tile.column - R / 2, pixels + R - 1, groups_of(layer.inputs));
    });
  }
  ahead.spread((M + R - 1) * (M + R - 1) * steps_of(task.count, layer.vectors));
}

// The sums of a tile with inputs that are not finite, as the definition has them: [row][column] of one vector.
template <int M, int R>
void sum_directly(const MapLayer& layer, const TileAt& tile, int64_t vector, V8 (*sums)[M]) {
  MapTap taps[M + R - 1];
  taps_of_tile<M, R>(layer, tile.row, taps);
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < M; ++j) {
      V8 sum{};
      const float* weight = layer.plain + vector * kGroup;
      for (int t = 0; t < R * R; ++t) {
        const MapTap& row = taps[i + t / R];
        for (int64_t c = 0; c < layer.inputs; ++c, weight += layer.vectors * kGroup) {
          const float x = row.at[c / kGroup * row.group + (tile.column + j + t % R - R / 2) * kGroup + c % kGroup];
          sum = fma(all(x), load(weight), sum);
        }
      }
      sums[i][j] = sum;
    }
  }
}

// The results of such a tile, of vector v of a panel.
template <int M, int R>
void finish_directly(const MapLayer& layer, const MapTask& task, const RowEnd* ends, int64_t vector, int64_t v,
                     const TileAt& tile, int64_t width) {
  V8 y[M][M];
  sum_directly<M, R>(layer, tile, vector, y);
  const Constants<V8> constants = constants_of(layer, vector);
  for (int r = 0; r < M; ++r) {
    if (ends[r].out[v] == nullptr) continue;
    finish_any(layer, task, ends[r], constants, vector, v, tile.column, width, as_floats(y[r]), kGroup);
  }
}

// One vector of a panel's results, or two that lie side by side in its sums.
template <int M, Ending E, typename V>
INLINE void finish_row(const MapLayer& layer, const MapTask& task, const RowEnd& end, const Constants<V>& constants,
                       int64_t first, int64_t v, int64_t x, int64_t width, V* y) {
  constexpr int kVectors = sizeof(V) / sizeof(V8), kStep = kVectors * kGroup;
  bool alike = end.out[v] != nullptr;
  for (int i = 1; i < kVectors; ++i) alike = alike && end.out[v + i] != nullptr && end.lane[v + i] == end.lane[v];
  if (alike) {
    return E == Ending::any ? finish_any(layer, task, end, constants, first + v, v, x, width, as_floats(y), kStep)
                            : finish<E, M>(task, end, constants, v, x, width, y);
  }
  for (int i = 0; i < kVectors; ++i) {
    if (end.out[v + i] == nullptr) continue;
    const Constants<V8> own = constants_of(layer, first + v + i);
    finish_any(layer, task, end, own, first + v + i, v + i, x, width, as_floats(y) + i * kGroup, kStep);
  }
}

template <int M, int R, int NV, Ending E>
void transform_outputs(const MapLayer& layer, const MapTask& task, const TileAt* tiles, int64_t first,
                       const float* sums, const bool* direct) {
  using V = VectorOf<NV>;
  constexpr int N = M + R - 1, kVectors = sizeof(V) / sizeof(V8);
  // Sums of several panels have left the first level of the cache, and are fetched a tile ahead.
  constexpr int kSteps = M * NV / kVectors, kLine = 16;
  constexpr int kFetched = NV > kLargestPanel ? (N * N * NV * kGroup / kLine + kSteps - 1) / kSteps : 0;
  alignas(64) float columns[M][N][NV * kGroup];
  Constants<V> constants[NV / kVectors];
  for (int v = 0; v < NV; v += kVectors) constants[v / kVectors] = constants_of<V>(layer, first + v);
  RowEnd ends[M];
  int64_t of_row = -1;
  for (int64_t i = 0; i < task.count; ++i, sums += N * N * NV * kGroup) {
    const TileAt tile = tiles[i];
    if (tile.row != of_row) {
      for (int r = 0; r < M; ++r) ends[r] = row_end(layer, task.out, first, NV, tile.row + r);
      of_row = tile.row;
    }
    const int64_t width = layer.width - tile.column < M ? layer.width - tile.column : M;
    if (direct[i]) {
      for (int v = 0; v < NV; ++v) finish_directly<M, R>(layer, task, ends, first + v, v, tile, width);
      continue;
    }
    for (int j = 0; j < N; ++j) {
      UNROLL for (int v = 0; v < NV; v += kVectors) {
        V m[N], y[M];
        UNROLL for (int r = 0; r < N; ++r) m[r] = load<V>(sums + ((r * N + j) * NV + v) * kGroup);
        Transform<M, R>::out(m, y);
        UNROLL for (int r = 0; r < M; ++r) store(&columns[r][j][v * kGroup], y[r]);
      }
    }
    const float* fetched = sums + N * N * NV * kGroup;  // of the next tile
    for (int r = 0; r < M; ++r) {
      UNROLL for (int v = 0; v < NV; v += kVectors) {
        V m[N], y[M];
        UNROLL for (int line = 0; line < kFetched; ++line, fetched += kLine) __builtin_prefetch(fetched);
        UNROLL for (int j = 0; j < N; ++j) m[j] = load<V>(&columns[r][j][v * kGroup]);
        Transform<M, R>::out(m, y);
        finish_row<M, E>(layer, task, ends[r], constants[v / kVectors], first, v, tile.column, width, y);
      }
    }
  }
}

// At which positions a panel has weights: kernels of 2x2, as those of an enlargement by repetition are, have none at
// some. `step` floats a position, `panels` of them `apart`; of no panels all.
template <int NP>
INLINE int positions_in_use(const float* weight, int64_t step, int panels, int64_t apart, int* positions) {
  int count = 0;
  for (int p = 0; p < NP; ++p, weight += step) {
    bool zeros = panels > 0;
    for (int i = 0; i < panels && zeros; ++i) {
      for (int64_t at = 0; at < step && zeros; at += kGroup) zeros = is_zero(load(weight + i * apart + at));
    }
    positions[count] = p;
    count += zeros ? 0 : 1;
  }
  return count;
}

template <int M, int R, int NV>
void multiply_panel(const MapLayer& layer, const MapTask& task, const Positions& at, const Run* runs,
                    const float* weight, float* sums, Ahead& ahead) {
  constexpr int NP = (M + R - 1) * (M + R - 1);
  const int64_t step = layer.inputs * kPanel<NV> * kGroup, pitch = NP * NV * kGroup;
  int positions[NP + 1];
  // Only what is shuffled may be an enlargement: weights are looked at in vain elsewhere, and are not in the cache yet.
  const int panels = task.out.shuffle == 1 ? 0 : NV / kPanel<NV>;
  const int count = positions_in_use<NP>(weight, step, panels, NP * step, positions);
  positions[count] = NP;
  for (int i = 0, p = 0; p < NP; ++p) {
    if (p < positions[i]) {
      for (int64_t t = 0; t < task.count; ++t) {
        for (int v = 0; v < NV; ++v) store(sums + t * pitch + (p * NV + v) * kGroup, V8{});
      }
      continue;
    }
    const float* fetched = weight + positions[++i] * step;  // the weights that come next
    int64_t fetch = 0;
    for (int64_t t = 0, tiles; t < task.count; t += tiles) {
      tiles = pixels_together<NV>(task.count - t);
      ahead.step();
      multiply<NV>(tiles, runs, at.groups, p * at.position + t * kGroup, weight + p * step, NP * step,
                   sums + t * pitch + p * NV * kGroup, pitch, fetched + fetch);
      fetch += layer.inputs * fetched_a_value<NV>(tiles);
      if (fetch >= step) fetch = 0;
    }
  }
}

template <int M, int R, int NV>
INLINE void compute_panel(const MapLayer& layer, const MapTask& task, const Positions& at, const Run* runs,
                          const float* weight, float* sums, Ahead& ahead, const TileAt* tiles, int64_t first,
                          const bool* direct) {
  multiply_panel<M, R, NV>(layer, task, at, runs, weight, sums, ahead);
  with_ending(ending_of(layer, task), [&](auto fixed) {
    transform_outputs<M, R, NV, decltype(fixed)::ending>(layer, task, tiles, first, sums, direct);
  });
}

template <int M, int R>
int64_t room_for_tiles(const MapLayer& layer, int64_t count) {
  constexpr int64_t NP = (M + R - 1) * (M + R - 1);
  const Positions at(layer, count);
  return NP * at.position + at.tiles * NP * kMostTogether * kGroup + at.groups * 4;
}

template <int M, int R>
void compute_tiles(const MapLayer& layer, const MapTask& task, const MapTask* next, float* room) {
  constexpr int64_t NP = (M + R - 1) * (M + R - 1);
  const Positions at(layer, task.count);
  float* positions = room;
  float* sums = positions + NP * at.position;
  Run* runs = reinterpret_cast<Run*>(sums + at.tiles * NP * kMostTogether * kGroup);
  for (int64_t g = 0; g < at.groups; ++g) {
    const int64_t left = layer.inputs - g * kGroup;
    runs[g] = {positions + g * at.tiles * kGroup, left < kGroup ? left : kGroup};
  }
  bool direct[kMostTiles];
  TileAt tiles[kMostTiles];
  for (int64_t i = 0; i < task.count; ++i) tiles[i] = tile_at(layer, task, i);
  transform_tiles<M, R>(layer, task, tiles, at, positions, direct);
  Ahead ahead;
  look_ahead<M, R>(layer, task, next, ahead);
  const float* weight = layer.weight;
  for (int64_t first = 0, nv; first < layer.vectors; first += nv) {
    nv = vectors_together(layer.vectors - first);
    if (nv == 1) compute_panel<M, R, 1>(layer, task, at, runs, weight, sums, ahead, tiles, first, direct);
    if (nv == 2) compute_panel<M, R, 2>(layer, task, at, runs, weight, sums, ahead, tiles, first, direct);
    if (nv == 3) compute_panel<M, R, 3>(layer, task, at, runs, weight, sums, ahead, tiles, first, direct);
    if constexpr (kTogether) {
      if (nv == 4) compute_panel<M, R, 4>(layer, task, at, runs, weight, sums, ahead, tiles, first, direct);
      if (nv == 6) compute_panel<M, R, 6>(layer, task, at, runs, weight, sums, ahead, tiles, first, direct);
    }
    weight += NP * layer.inputs * nv * kGroup;
  }
}
