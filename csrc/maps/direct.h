// Layers that are computed product by product: 1x1, few input channels, 5x5 and 9x9, stride 2, few outputs, and
// factors. Part of body.h.

constexpr int64_t kBlock = 48;   // pixels of a row at a time
constexpr int64_t kLeadIn = 12;  // pixels before a block that are computed with it near the right border
constexpr int64_t kSpare = 24;   // pixels of room behind a block of a strided layer
constexpr int64_t kPart = 3;     // pixels from the centre of a part of a 9x9 kernel to the next

INLINE int64_t strided_row(const MapLayer& layer) { return (kBlock + kSpare) * groups_of(layer.inputs) * 2 * kGroup; }

constexpr int64_t kFewGroups = 32;  // of inputs that are looked at for such as have no weights

// What inputs are multiplied with. Where parts of what a 1x1 kernel reads end within a group, the rest of the group has
// no weights and is left out: `lengths` of the groups, which are whole where there are none.
struct Multiplied {
  const float* weight;
  int64_t inputs, lengths[kFewGroups];
};

INLINE bool can_leave_out(const MapLayer& layer) {
  return layer.size == 1 && layer.stride == 1 && layer.outputs > kFewOutputs && groups_of(layer.inputs) <= kFewGroups;
}

inline int64_t room_for_rows(const MapLayer& layer, int64_t) {
  const int64_t runs = layer.size * layer.size * groups_of(layer.inputs) * 4;
  const int64_t sums = (kLeadIn + kBlock + kColumns) * kMostTogether * kGroup;
  const int64_t weights = can_leave_out(layer) ? layer.inputs * layer.vectors * kGroup : 0;
  return runs + sums + weights + (layer.stride == 2 ? layer.size * strided_row(layer) : 0);
}

// Calls run(weights of the panel, floats of an input) for each panel.
template <typename Run>
INLINE void for_each_panel(const MapLayer& layer, Run&& run) {
  const float* weight = layer.weight;
  for (int64_t first = 0, nv; first < layer.vectors; first += nv, weight += layer.inputs * nv * kGroup) {
    nv = panel_of(layer.vectors - first);
    run(weight, nv * kGroup);
  }
}

INLINE bool has_weights(const MapLayer& layer, int64_t input) {
  bool found = false;
  for_each_panel(layer, [&](const float* weight, int64_t wide) {
    for (int64_t o = 0; o < wide && !found; o += kGroup) found = !is_zero(load(weight + input * wide + o));
  });
  return found;
}

// `room`: for the weights of those that have any.
inline Multiplied multiplied(const MapLayer& layer, float* room) {
  Multiplied all{layer.weight, layer.inputs, {}};
  if (!can_leave_out(layer)) return all;
  int64_t inputs = 0;
  for (int64_t g = 0; g < groups_of(layer.inputs); ++g) {
    const int64_t left = layer.inputs - g * kGroup;
    int64_t length = left < kGroup ? left : kGroup;
    while (length > 1 && !has_weights(layer, g * kGroup + length - 1)) --length;
    all.lengths[g] = length;
    inputs += length;
  }
  if (inputs == layer.inputs) return all;
  all.weight = room, all.inputs = inputs;
  for_each_panel(layer, [&](const float* weight, int64_t wide) {
    for (int64_t g = 0; g < groups_of(layer.inputs); ++g, weight += kGroup * wide) {
      for (int64_t i = 0; i < all.lengths[g] * wide; i += kGroup, room += kGroup) store(room, load(weight + i));
    }
  });
  return all;
}

// Rows of a layer, of which pixels [x, x + count) of row y are computed now.
struct Stretch {
  const MapLayer& layer;
  const MapTask& task;
  int64_t y, x, count;
};

// What the next stretch adds, and what it reads and this one does not: `rows` of those that its kernel meets.
INLINE void look_ahead(const Stretch& next, int64_t rows, Ahead& ahead) {
  const MapLayer& layer = next.layer;
  const int64_t size = layer.size == 0 ? 1 : layer.size, reach = layer.stride == 1 ? size / 2 : 0;
  const int64_t pixels = next.count * layer.stride + size - layer.stride;
  if (layer.has_parts) {
    for (int64_t g = 0; g < 3; ++g) ahead.add(layer.parts[g], next.y + kPart * (g - 1), 1, next.x - kPart, pixels, 1);
    ahead.add(layer.parts[3], next.y + kPart, 1, next.x, pixels, 1);
  } else {
    ahead.add(layer.x, next.y * layer.stride - reach + size - rows, rows, next.x * layer.stride - reach, pixels,
              groups_of(layer.inputs));
  }
  if (layer.has_skip) ahead.add(layer.skip, next.y, 1, next.x, next.count, layer.vectors);
  if (layer.has_also) ahead.add(layer.also, next.y, 1, next.x, next.count, layer.vectors);
  ahead.spread(steps_of(kBlock, layer.vectors));
}

// Even and odd pixels of the rows that a block of a strided layer reads, apart: [row][group][odd][pixel][8].
inline void separate(const Stretch& now, const MapTap* taps, float* to) {
  const int64_t pixels = kBlock + kSpare, needed = 2 * (now.count - 1) + now.layer.size;
  for (int64_t i = 0; i < now.layer.size; ++i) {
    for (int64_t g = 0; g < groups_of(now.layer.inputs); ++g) {
      const float* from = taps[i].at + g * taps[i].group + 2 * now.x * kGroup;
      float* row = to + i * strided_row(now.layer) + g * 2 * pixels * kGroup;
      for (int64_t c = 0; c < needed; ++c) store(row + (c % 2 * pixels + c / 2) * kGroup, load(from + c * kGroup));
    }
  }
}

// The runs of channels that are multiplied with a panel of weights, in their order: taps, then groups.
INLINE int64_t runs_of(const Stretch& now, const Multiplied& all, const MapTap* taps, const float* separated,
                       Run* runs) {
  const MapLayer& layer = now.layer;
  const int64_t groups = groups_of(layer.inputs), reach = layer.stride == 1 ? layer.size / 2 : 0;
  int64_t count = 0;
  for (int64_t i = 0; i < layer.size; ++i) {
    for (int64_t j = 0; j < layer.size; ++j) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t left = layer.inputs - g * kGroup;
        const float* at = taps[i].at + g * taps[i].group + (j - reach) * kGroup;
        if (layer.stride == 2) {
          at = separated + i * strided_row(layer) + ((2 * g + j % 2) * (kBlock + kSpare) + j / 2) * kGroup;
        }
        runs[count++] = {at, can_leave_out(layer) ? all.lengths[g] : left < kGroup ? left : kGroup};
      }
    }
  }
  return count;
}

// Vector v of a panel, of whose sums pixels are `step` floats apart.
template <Ending E>
INLINE void finish_vector(const Stretch& now, const RowEnd& end, int64_t vector, int64_t v, const float* sums,
                          int64_t step) {
  const Constants<V8> constants = constants_of(now.layer, vector);
  if (E == Ending::any) {
    return finish_any(now.layer, now.task, end, constants, vector, v, now.x, now.count, sums, step);
  }
  for (int64_t i = 0; i < now.count; i += kSide, sums += kSide * step) {
    V8 value[kSide];
    UNROLL for (int j = 0; j < kSide; ++j) value[j] = load(sums + j * step);
    finish<E, kSide>(now.task, end, constants, v, now.x + i, now.count - i, value);
  }
}

// Sums [pixel][vector] of a panel's vectors from `first` on.
template <int NV>
void finish_stretch(const Stretch& now, int64_t first, const float* sums) {
  const RowEnd end = row_end(now.layer, now.task.out, first, NV, now.y);
  with_ending(ending_of(now.layer, now.task), [&](auto fixed) {
    for (int64_t v = 0; v < NV; ++v) {
      if (end.out[v] == nullptr) continue;
      finish_vector<decltype(fixed)::ending>(now, end, first + v, v, sums + v * kGroup, NV * kGroup);
    }
  });
}

template <int NV>
void panel_of_stretch(const Stretch& now, const Run* runs, int64_t count, int64_t first, int64_t inputs,
                      const float* weight, float* sums, Ahead& ahead) {
  const MapLayer& layer = now.layer;
  const int64_t panel = layer.size * layer.size * inputs * kPanel<NV> * kGroup;
  for (int64_t i = 0, pixels; i < now.count; i += pixels) {
    pixels = pixels_together<NV>(now.count - i);
    int64_t x = now.x + i;
    // A row has whole columns only, so at its end the same sums are computed from further left on.
    if (layer.stride == 1 && x + pixels > whole_columns(layer.width)) x = whole_columns(layer.width) - pixels;
    const int64_t shift = layer.stride == 1 ? x * kGroup : i * kGroup;
    ahead.step();
    multiply<NV>(pixels, runs, count, shift, weight, panel, sums + (x - now.x + kLeadIn) * NV * kGroup, NV * kGroup,
                 weight + NV / kPanel<NV> * panel);
  }
  finish_stretch<NV>(now, first, sums + kLeadIn * NV * kGroup);
}

INLINE void panels_of_stretch(const Stretch& now, const Multiplied& all, const MapTap* taps, float* room,
                              Ahead& ahead) {
  const MapLayer& layer = now.layer;
  Run* runs = reinterpret_cast<Run*>(room);
  float* sums = room + layer.size * layer.size * groups_of(layer.inputs) * 4;
  float* separated = sums + (kLeadIn + kBlock + kColumns) * kMostTogether * kGroup;
  if (layer.stride == 2) separate(now, taps, separated);
  const int64_t count = runs_of(now, all, taps, separated, runs);
  const float* weight = all.weight;
  for (int64_t first = 0, nv; first < layer.vectors; first += nv) {
    nv = vectors_together(layer.vectors - first);
    if (nv == 1) panel_of_stretch<1>(now, runs, count, first, all.inputs, weight, sums, ahead);
    if (nv == 2) panel_of_stretch<2>(now, runs, count, first, all.inputs, weight, sums, ahead);
    if (nv == 3) panel_of_stretch<3>(now, runs, count, first, all.inputs, weight, sums, ahead);
    if constexpr (kTogether) {
      if (nv == 4) panel_of_stretch<4>(now, runs, count, first, all.inputs, weight, sums, ahead);
      if (nv == 6) panel_of_stretch<6>(now, runs, count, first, all.inputs, weight, sums, ahead);
    }
    weight += layer.size * layer.size * all.inputs * nv * kGroup;
  }
}

// Few outputs: lanes are input channels, and are added up at the end. A vector is a pixel, or two side by side.
#if defined(__AVX512F__)
typedef V16 Widest;
INLINE V16 repeated(const float* from, V16) { return both(load(from), load(from)); }
INLINE void add_lanes(const V16* v, float* to) {
  const V8 pixels[8] = {low_of(v[0]), high_of(v[0]), low_of(v[1]), high_of(v[1]),
                        low_of(v[2]), high_of(v[2]), low_of(v[3]), high_of(v[3])};
  add_lanes(pixels, to);
  add_lanes(pixels + 4, to + 4);
}
#else
typedef V8 Widest;
#endif
INLINE V8 repeated(const float* from, V8) { return load(from); }

constexpr int64_t kDots = 4 * sizeof(Widest) / sizeof(V8);  // pixels at a time at most

// Sums of whole kDots of pixels.
template <int OUTPUTS, typename V>
void sum_dots(const Stretch& now, const MapTap* taps, float* sums, Ahead& ahead) {
  constexpr int64_t kEach = sizeof(V) / sizeof(V8);  // pixels of a vector
  const MapLayer& layer = now.layer;
  const int64_t groups = groups_of(layer.inputs), reach = layer.stride == 1 ? layer.size / 2 : 0;
  for (int64_t i = 0; i < now.count; i += 4 * kEach) {
    ahead.step();
    int64_t pixel[4];
    for (int64_t p = 0; p < 4; ++p) {
      // What is left over sees the last whole vector once more: a map may end behind its last pixels.
      const int64_t wanted = i + p * kEach, last = now.count > kEach ? now.count - kEach : 0;
      const int64_t at = wanted < now.count ? wanted : last;
      pixel[p] = ((now.x + at) * layer.stride - reach) * kGroup;
    }
    V dots[OUTPUTS][4]{};
    const float* weight = layer.weight;
    for (int64_t row = 0; row < layer.size; ++row) {
      for (int64_t column = 0; column < layer.size; ++column) {
        const float* at = taps[row].at + column * kGroup;
        for (int64_t g = 0; g < groups; ++g, at += taps[row].group, weight += OUTPUTS * kGroup) {
          // Of three outputs 12 sums, 3 weights and a pixel fill 16 registers: all pixels at a time would be one more.
          V w[OUTPUTS];
          UNROLL for (int o = 0; o < OUTPUTS; ++o) {
            w[o] = repeated(weight + o * kGroup, V{});
            keep(w[o]);
          }
          UNROLL for (int p = 0; p < 4; ++p) {
            V x = load<V>(at + pixel[p]);
            keep(x);
            UNROLL for (int o = 0; o < OUTPUTS; ++o) dots[o][p] = fma(x, w[o], dots[o][p]);
          }
        }
      }
    }
    for (int o = 0; o < OUTPUTS; ++o) {
      float totals[4 * kEach];
      add_lanes(dots[o], totals);
      for (int64_t p = 0; p < 4 * kEach; ++p) sums[(i + p) * kGroup + o] = totals[p];
    }
  }
}

template <int OUTPUTS>
INLINE void sum_dots(const Stretch& now, const MapTap* taps, float* sums, Ahead& ahead) {
  now.layer.stride == 1 ? sum_dots<OUTPUTS, Widest>(now, taps, sums, ahead)
                        : sum_dots<OUTPUTS, V8>(now, taps, sums, ahead);
}

INLINE void sum_dots(const Stretch& now, const MapTap* taps, float* sums, Ahead& ahead) {
  for (int64_t i = 0; i < (now.count + kDots - 1) * kGroup; i += kGroup) store(sums + i, V8{});
  if (now.layer.outputs == 1) sum_dots<1>(now, taps, sums, ahead);
  if (now.layer.outputs == 2) sum_dots<2>(now, taps, sums, ahead);
  if (now.layer.outputs == 3) sum_dots<3>(now, taps, sums, ahead);
  if (now.layer.outputs == 4) sum_dots<4>(now, taps, sums, ahead);
}

INLINE void dots_of_stretch(const Stretch& now, const MapTap* taps, float* sums, Ahead& ahead) {
  sum_dots(now, taps, sums, ahead);
  finish_stretch<1>(now, 0, sums);
}

// The sums of a 9x9 kernel from those of its blocks, see layout.h.
INLINE void sum_parts(const Stretch& now, float* sums, Ahead& ahead) {
  const MapLayer& layer = now.layer;
  const float *middle[3], *right[3];  // of each row of blocks, the first of its own group
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t y = now.y + kPart * (i - 1);
    middle[i] = tap(layer.parts[i], y).at + now.x * kGroup;
    right[i] = tap(layer.parts[3], y).at + (now.x + kPart) * kGroup;
  }
  constexpr float kLanes[kGroup] = {0, 1, 2, 3, 4, 5, 6, 7};
  const I8 outputs = less(load(kLanes), all(float(layer.outputs)));
  for (int64_t x = 0; x < now.count * kGroup; x += kGroup) {
    if (x % (4 * kGroup) == 0) ahead.step();
    const auto left_and_middle = [&](int i) { return load(middle[i] + x - kPart * kGroup) + load(middle[i] + x + 4); };
    const V8 above = left_and_middle(0) + load(right[0] + x), here = left_and_middle(1) + load(right[1] + x + 4);
    store(sums + x, only(outputs, above + here + left_and_middle(2)));
  }
  // The last block lies in single lanes. In a loop of its own, which does not load what was stored just before.
  for (int64_t c = 0; c < layer.outputs; ++c) {
    const int64_t lane = kLastBlock[c] % kGroup;
    const float* last = (kLastBlock[c] / kGroup == 3 ? right[2] : middle[2] + kPart * kGroup) + lane;
    for (int64_t x = 0; x < now.count * kGroup; x += kGroup) sums[x + c] += last[x];
  }
}

// Whether a part of this row or column has its centre just beside the image, where parts are not zero, but not kept.
INLINE bool part_is_beside(int64_t at, int64_t length) { return at == kPart - 1 || at == length - kPart; }

INLINE void parts_of_stretch(const Stretch& now, const MapTap* taps, float* sums, Ahead& ahead) {
  const MapLayer& layer = now.layer;
  if (part_is_beside(now.y, layer.height)) return dots_of_stretch(now, taps, sums, ahead);
  sum_parts(now, sums, ahead);
  for (int64_t j = 0; j < now.count; ++j) {
    if (!part_is_beside(now.x + j, layer.width)) continue;
    float plain[kDots * kGroup];
    sum_dots({layer, now.task, now.y, now.x + j, 1}, taps, plain, ahead);
    store(sums + j * kGroup, load(plain));
  }
  finish_stretch<1>(now, 0, sums);
}

INLINE void factors_of_stretch(const Stretch& now, const MapTap& row, float* sums, Ahead& ahead) {
  for (int64_t v = 0; v < now.layer.vectors; ++v) {
    const float* x = row.at + v * row.group + now.x * kGroup;
    const V8 factor = load(now.layer.weight + v * kGroup);
    for (int64_t j = 0; j < now.count; ++j) {
      if (j % 12 == 0) ahead.step();
      store(sums + j * kGroup, load(x + j * kGroup) * factor);
    }
    finish_stretch<1>(now, v, sums);
  }
}

inline void compute_stretch(const Stretch& now, const Multiplied& all, Ahead& ahead, float* room) {
  const MapLayer& layer = now.layer;
  const int64_t size = layer.size == 0 ? 1 : layer.size;
  MapTap taps[kLargestMapKernel];
  for (int64_t i = 0; i < size; ++i) {
    taps[i] = tap(layer.x, now.y * layer.stride + i - (layer.stride == 1 ? size / 2 : 0));
  }
  if (layer.size == 0) return factors_of_stretch(now, taps[0], room, ahead);
  if (layer.has_parts) return parts_of_stretch(now, taps, room, ahead);
  if (layer.outputs <= kFewOutputs) return dots_of_stretch(now, taps, room, ahead);
  panels_of_stretch(now, all, taps, room, ahead);
}

// Tiles side by side of a task, from the one with this number on: a block of the image.
struct Block {
  int64_t row, column, count;  // of its first pixel, and pixels of a row
  int64_t tiles;

  Block(const MapLayer& layer, const MapTask& task, int64_t number) : tiles(1) {
    const TileAt tile = tile_at(layer, task, number);
    row = tile.row, column = tile.column;
    while (tiles < kBlock / kSide && number + tiles < task.count) {
      const TileAt next = tile_at(layer, task, number + tiles);
      if (next.row != row || next.column != column + tiles * kSide) break;
      ++tiles;
    }
    const int64_t left = layer.width - column;
    count = left < tiles * kSide ? left : tiles * kSide;
  }
};

inline void compute_rows(const MapLayer& layer, const MapTask& task, const MapTask* next, float* room) {
  const Multiplied all = multiplied(layer, room);
  if (all.weight == room) room += all.inputs * layer.vectors * kGroup;
  const int64_t size = layer.size == 0 ? 1 : layer.size;
  for (int64_t i = 0; i < task.count;) {
    const Block block(layer, task, i);
    i += block.tiles;
    const int64_t end = block.row + kSide < layer.height ? block.row + kSide : layer.height;
    for (int64_t y = block.row; y < end; ++y) {
      Ahead ahead;
      if (y + 1 < end) {
        look_ahead({layer, task, y + 1, block.column, block.count}, size < layer.stride ? size : layer.stride, ahead);
      } else if (i < task.count || next != nullptr) {
        const Block following(layer, i < task.count ? task : *next, i < task.count ? i : 0);
        look_ahead({layer, task, following.row, following.column, following.count}, size, ahead);
      }
      compute_stretch({layer, task, y, block.column, block.count}, all, ahead, room);
    }
  }
}
