// Instruction set of x86_64: avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512bf16.
// The convolutions with AVX-512 and its bf16 dot products: a row is cut into blocks for the innermost loops, which are
// in avx512_bf16.h; the other functions of the table work on whole rows.
#include "convolution/isa/avx512_bf16.h"

namespace mga {
namespace {

template <int SIZE, int OB, int NV, int PHASES>
MGA_BF16 void row_of_block(const Layer& layer, const Row& row, int64_t dy, int64_t vector, const uint32_t* weight,
                           int64_t channel) {
  const int64_t x = 16 * vector, s = layer.shuffle, first = channel * s * s + dy * s, pair = channel / 2;
  const Phases phases(layer.size, s, dy, layer.phased);
  BlockEnd end{};
  end.finish = layer.finish;
  end.shuffle = int(s);
  end.bias = layer.epilogue + first;
  end.slopes = end.bias + layer.channels * s * s;
  end.shifts = end.slopes + layer.channels * s * s;
  end.out_plane = layer.out_plane;
  end.out_vectors = layer.out_vectors - vector * s;
  end.lanes = layer.lanes + vector * s;
  end.past_caches = layer.past_caches;
  end.skip_plane = row.skip.plane;
  if (row.skip.row != nullptr) end.skip = row.skip.row + pair * row.skip.plane + x;
  if (row.statistics != nullptr) end.statistics = row.statistics + 32 * channel;
  end.out =
      static_cast<uint32_t*>(row.out[dy]) + (layer.finish == Finish::planar ? channel : pair) * layer.out_plane + x * s;
  conv_block<SIZE, OB, NV, PHASES>(row.taps + phases.first, phases.rows, int(layer.size), x - layer.size / 2,
                                   layer.pairs, weight, end);
}

using RowOfBlock = void (*)(const Layer&, const Row&, int64_t, int64_t, const uint32_t*, int64_t);

// The kernel for a block of that many sums, `wide` for as many vectors as fill the registers, or for one.
struct Kernel {
  RowOfBlock wide, narrow;
  int vectors;
};

template <int SIZE, int PHASES, int OB, int NV>
constexpr Kernel kernel() {
  return {row_of_block<SIZE, OB, NV, PHASES>, row_of_block<SIZE, OB, 1, PHASES>, NV};
}

template <int SIZE>
Kernel plain_kernel(int64_t sums) {
  switch (sums) {
    case 1:
      return kernel<SIZE, 1, 1, 6>();
    case 2:
      return kernel<SIZE, 1, 2, 6>();
    case 3:
      return kernel<SIZE, 1, 3, 6>();
    case 4:
      return kernel<SIZE, 1, 4, 6>();
    case 6:
      return kernel<SIZE, 1, 6, 4>();
    case 8:
      return kernel<SIZE, 1, 8, 3>();
    case 10:
      return kernel<SIZE, 1, 10, 2>();
    default:
      return kernel<SIZE, 1, 12, 2>();
  }
}

Kernel phased_kernel(int64_t sums, int64_t s) {
  if (s == 3) return sums == 6 ? kernel<3, 3, 6, 4>() : kernel<3, 3, 12, 2>();
  return sums == 4 ? kernel<3, 2, 4, 6>() : sums == 8 ? kernel<3, 2, 8, 3>() : kernel<3, 2, 12, 2>();
}

Kernel kernel_of(const Layer& layer, int64_t sums) {
  if (layer.phased) return phased_kernel(sums, layer.shuffle);
  return layer.size == 1 ? plain_kernel<1>(sums) : layer.size == 3 ? plain_kernel<3>(sums) : plain_kernel<0>(sums);
}

// Ask for pixels of the row below early: there are too many planes for the processor to see the pattern by itself.
void prefetch(const Tap& row, int64_t pitch, int64_t pairs, int64_t from, int64_t to) {
  if (pitch == 0 || row.row == nullptr || row.plane == 0) return;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const uint32_t* below = row.row + pair * row.plane + pitch;
    for (int64_t v = from; v < to; ++v) __builtin_prefetch(below + 16 * v, 0, 2);
  }
}

void convolve_row(const Layer& layer, const Row& row) {
  const Blocks blocks(layer.channels, layer.shuffle);
  // Vectors of pixels for which all blocks are computed in turn, so few that the input stays in L1.
  const int64_t length = layer.pairs * layer.size <= 36 ? 12 : 6;
  for (int64_t stretch = row.first; stretch < row.last; stretch += length) {
    const int64_t stop = std::min(stretch + length, row.last);
    prefetch(row.taps[layer.size - 1], layer.x_pitch, layer.pairs, stretch, stop);
    prefetch(row.skip, layer.skip_pitch, layer.channels / 2, stretch, stop);
    const uint32_t* weight = layer.weight;
    for (int64_t dy = 0; dy < (layer.finish == Finish::shuffle ? layer.shuffle : 1); ++dy) {
      const int64_t rows = Phases(layer.size, layer.shuffle, dy, layer.phased).rows;
      for (int64_t block = 0, channel = 0; block < blocks.count; channel += blocks.channels(block++)) {
        const int64_t sums = blocks.sums(block);
        const Kernel run = kernel_of(layer, sums);
        int64_t v = row.out[dy] == nullptr ? stop : stretch;
        for (; v + run.vectors <= stop; v += run.vectors) run.wide(layer, row, dy, v, weight, channel);
        for (; v < stop; ++v) run.narrow(layer, row, dy, v, weight, channel);
        weight += rows * layer.pairs * weight_step(layer.size, sums, layer.shuffle, layer.phased);
      }
    }
  }
}

// The same for a layer without a weight: factor * x + offset, with what is added and the activation after it.
MGA_BF16 void scale_row(const Layer& layer, const Row& row) {
  BlockEnd end{};
  end.finish = Finish::pairs;
  end.past_caches = layer.past_caches;
  const float none[2] = {0, 0};
  end.shifts = none;
  prefetch(row.taps[0], layer.x_pitch, layer.pairs, row.first, row.last);
  prefetch(row.skip, layer.skip_pitch, layer.pairs, row.first, row.last);
  for (int64_t pair = 0; pair < layer.pairs; ++pair) {
    const float* factors = layer.epilogue + 2 * pair;
    const float* offsets = factors + layer.channels;
    end.slopes = offsets + layer.channels;
    if (row.statistics != nullptr) end.statistics = row.statistics + 64 * pair;
    for (int64_t v = row.first; v < row.last; ++v) {
      const __m512i x = _mm512_loadu_si512(row.taps[0].row + pair * row.taps[0].plane + 16 * v);
      if (row.skip.row != nullptr) end.skip = row.skip.row + pair * row.skip.plane + 16 * v;
      end.out = static_cast<uint32_t*>(row.out[0]) + pair * layer.out_plane + 16 * v;
      end.lanes = layer.lanes + v;
      finish_pair(_mm512_fmadd_ps(low_half(x), _mm512_set1_ps(factors[0]), _mm512_set1_ps(offsets[0])),
                  _mm512_fmadd_ps(high_half(x), _mm512_set1_ps(factors[1]), _mm512_set1_ps(offsets[1])), 0, 0, end);
    }
  }
}

void settle() { _mm_sfence(); }

MGA_BF16 void enlarge_row(const Enlargement& picture, int64_t y, int64_t first, int64_t last, float* narrow, float* out,
                          int64_t plane) {
  const Position at(y, picture.height, picture.height * picture.factor);
  const uint8_t *above = picture.data + at.first * picture.pitch, *below = picture.data + at.second * picture.pitch;
  const int64_t length = picture.width + 16;
  for (int64_t c = 0; c < 3; ++c) {
    const int64_t end = std::min(picture.width, picture.base[last - 1] + 16);
    for (int64_t x = picture.base[first]; x < end; ++x) {
      const float from = above[3 * x + c], to = below[3 * x + c];
      narrow[c * length + x] = from + at.share * (to - from);
    }
    for (int64_t v = first; v < last; ++v) {
      const __m512 pixels = _mm512_loadu_ps(narrow + c * length + picture.base[v]);
      const __m512 left = _mm512_permutexvar_ps(_mm512_loadu_si512(picture.left + 16 * v), pixels);
      const __m512 right = _mm512_permutexvar_ps(_mm512_loadu_si512(picture.right + 16 * v), pixels);
      const __m512 share = _mm512_loadu_ps(picture.share + 16 * v);
      _mm512_storeu_ps(out + c * plane + 16 * v, _mm512_fmadd_ps(share, _mm512_sub_ps(right, left), left));
    }
  }
}

// 16 values to bytes, rounded half to even.
MGA_BF16_INLINE __m128i to_bytes(__m512 value) {
  const __m512 clamped = _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), _mm512_set1_ps(255.f));
  return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(clamped));
}

// Byte i of part `part` of 16 pixels of three bytes: its place in the plane of its channel, -1 in the others.
struct PixelBytes {
  alignas(16) int8_t order[3][3][16] = {};  // [part][channel]

  constexpr PixelBytes() {
    for (int part = 0; part < 3; ++part) {
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 16; ++i) {
          order[part][c][i] = (16 * part + i) % 3 == c ? int8_t((16 * part + i) / 3) : int8_t{-1};
        }
      }
    }
  }
};
constexpr PixelBytes kPixelBytes;

// Three times 16 bytes -> 16 pixels of three bytes.
MGA_BF16_INLINE void interleave_bytes(const __m128i (&planes)[3], uint8_t* out) {
  for (int part = 0; part < 3; ++part) {
    __m128i all = _mm_setzero_si128();
    for (int c = 0; c < 3; ++c) {
      const auto* order = reinterpret_cast<const __m128i*>(kPixelBytes.order[part][c]);
      all = _mm_or_si128(all, _mm_shuffle_epi8(planes[c], _mm_load_si128(order)));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * part), all);
  }
}

MGA_BF16 void plain_bytes(const FloatRow& row, uint8_t* out) {
  const __m512 factor = _mm512_set1_ps(row.factor);
  for (int64_t x = 16 * row.first; x < 16 * row.last; x += 16) {
    __m128i planes[3];
    for (int64_t c = 0; c < 3; ++c) {
      __m512 added = _mm512_setzero_ps();
      if (row.added != nullptr) added = _mm512_loadu_ps(row.added + c * row.plane + x);
      planes[c] = to_bytes(_mm512_fmadd_ps(_mm512_loadu_ps(row.planes + c * row.plane + x), factor, added));
    }
    interleave_bytes(planes, out + 3 * x);
  }
}

MGA_BF16 void shuffled_bytes(const FloatRow& row, int64_t s, int64_t dy, uint8_t* out) {
  const __m512 factor = _mm512_set1_ps(row.factor);
  const __m512i every = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                           _mm512_set1_epi32(int(s)));
  alignas(64) uint8_t bytes[12][16];
  for (int64_t x = 16 * row.first; x < 16 * row.last; x += 16) {
    for (int64_t dx = 0; dx < s; ++dx) {
      for (int64_t c = 0; c < 3; ++c) {
        const __m512 value = _mm512_loadu_ps(row.planes + (c * s * s + dy * s + dx) * row.plane + x);
        __m512 added = _mm512_setzero_ps();
        if (row.added != nullptr)
          added = _mm512_mask_i32gather_ps(added, 0xffff, every, row.added + s * (c * row.plane + x) + dx, 4);
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes[3 * dx + c]), to_bytes(_mm512_fmadd_ps(value, factor, added)));
      }
    }
    uint8_t* to = out + 3 * s * x;
    if (s == 4) {
      const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(12));
      for (int word = 0; word < 3; ++word) {
        __m512i packed = _mm512_setzero_si512();
        for (int b = 3; b >= 0; --b) {
          const __m128i of_byte = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes[4 * word + b]));
          packed = _mm512_or_si512(_mm512_slli_epi32(packed, 8), _mm512_cvtepu8_epi32(of_byte));
        }
        _mm512_i32scatter_epi32(to + 4 * word, at, packed, 1);
      }
    } else {
      for (int64_t i = 0; i < 16; ++i) {
        for (int64_t b = 0; b < 3 * s; ++b) to[i * 3 * s + b] = bytes[b][i];
      }
    }
  }
}

MGA_BF16 void sum_rows(const PairPlanes& x, int64_t pair, int64_t top, int64_t height, int64_t vectors,
                       float* columns) {
  for (int64_t v = 0; v < vectors; ++v) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t row = 0; row < height; ++row) {
      const __m512i both = _mm512_loadu_si512(x.at(pair, top + row, 16 * v));
      const __m512 low = low_half(both), high = high_half(both);
      sums[0] = _mm512_add_ps(sums[0], low);
      sums[1] = _mm512_fmadd_ps(low, low, sums[1]);
      sums[2] = _mm512_add_ps(sums[2], high);
      sums[3] = _mm512_fmadd_ps(high, high, sums[3]);
    }
    for (int i = 0; i < 4; ++i) _mm512_storeu_ps(columns + (i * vectors + v) * 16, sums[i]);
  }
}

MGA_BF16 void scale_rows(const PairPlanes& x, const PairPlanes* skip, const PairPlanes& out, int64_t pair, int64_t top,
                         int64_t height, int64_t vectors, const float* values, const uint16_t* lanes, float slope) {
  for (int64_t v = 0; v < vectors; ++v) {
    __m512 of[4];
    for (int i = 0; i < 4; ++i) of[i] = _mm512_loadu_ps(values + (i * vectors + v) * 16);
    for (int64_t row = top; row < top + height; ++row) {
      const __m512i both = _mm512_loadu_si512(x.at(pair, row, 16 * v));
      __m512 low = _mm512_fmadd_ps(low_half(both), of[0], of[1]);
      __m512 high = _mm512_fmadd_ps(high_half(both), of[2], of[3]);
      if (skip != nullptr) {
        const __m512i more = _mm512_loadu_si512(skip->at(pair, row, 16 * v));
        low = _mm512_add_ps(low, low_half(more));
        high = _mm512_add_ps(high, high_half(more));
      }
      const __m512i value = join_halves(leaky(low, slope), leaky(high, slope));
      _mm512_storeu_si512(out.at(pair, row, 16 * v), _mm512_maskz_mov_epi32(lanes[v], value));
    }
  }
}

MGA_BF16 void interpolate_row(const float* low, const float* high, const int32_t* first, const int32_t* second,
                              const float* share, int64_t width, const uint16_t* lanes, uint32_t* out) {
  for (int64_t v = 0; 16 * v < width; ++v) {
    const __m512i left = _mm512_loadu_si512(first + 16 * v), right = _mm512_loadu_si512(second + 16 * v);
    const __m512 part = _mm512_loadu_ps(share + 16 * v);
    const __m512 zero = _mm512_setzero_ps();
    const __m512 low_left = _mm512_mask_i32gather_ps(zero, 0xffff, left, low, 4);
    const __m512 low_right = _mm512_mask_i32gather_ps(zero, 0xffff, right, low, 4);
    const __m512 high_left = _mm512_mask_i32gather_ps(zero, 0xffff, left, high, 4);
    const __m512 high_right = _mm512_mask_i32gather_ps(zero, 0xffff, right, high, 4);
    const __m512 low_value = _mm512_fmadd_ps(part, _mm512_sub_ps(low_right, low_left), low_left);
    const __m512 high_value = _mm512_fmadd_ps(part, _mm512_sub_ps(high_right, high_left), high_left);
    _mm512_storeu_si512(out + 16 * v, _mm512_maskz_mov_epi32(lanes[v], join_halves(low_value, high_value)));
  }
}

}  // namespace

MGA_CONVOLUTION_KERNELS_OF(avx512_bf16, true)

}  // namespace mga
