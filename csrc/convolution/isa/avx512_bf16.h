// The innermost loops of a convolution with AVX-512 and its bf16 dot products. Functions are compiled for these
// instructions whatever the flags of the build, because those of a whole file would also be given to the functions of
// the C++ library in it, of which the linker may choose this copy for all files.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics
#endif
#include <immintrin.h>

#include "convolution/kernels.h"

#ifndef MGA_BF16  // an emulation of the intrinsics defines both as nothing
#define MGA_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define MGA_BF16_INLINE inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#endif

namespace mga {

namespace {

// Where the sums of one block of output channels at 16 * NV pixels go, and what is done to them first. Pointers point
// to the first channel of the block and the first pixel.
struct BlockEnd {
  Finish finish;
  int shuffle;            // s of the pixel shuffle, 1 without; bias and slopes have s * s values for each channel
  const float* bias;      // of each channel
  const float* slopes;    // factor of negative values, of each channel
  const float* shifts;    // taken off at the end, of each channel; not with a shuffle
  const uint32_t* skip;   // pairs that are added (finish pairs; may be null) or multiplied (finish gate)
  int64_t skip_plane;     // in dwords
  void* out;              // pairs, or float planes
  int64_t out_plane;      // in dwords
  int64_t out_vectors;    // from `out` to the end of the row
  const uint16_t* lanes;  // one bit a pixel of the output, one word a vector: others are written as zero
  bool past_caches;       // pairs are written around the caches
  float* statistics;      // null, or (channels, 2, 16): sums of the values and of their squares, lane by lane
};

MGA_BF16_INLINE __m512 low_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
MGA_BF16_INLINE __m512 high_half(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000))));
}

// One dword a lane: bf16 of `low` below, of `high` above.
MGA_BF16_INLINE __m512i join_halves(__m512 low, __m512 high) {
  const __m512i order =
      _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
                        0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// 1 / (1 + e^-x) within 2e-4 relative, which is finer than the bf16 that comes of it: 2^z is 2^floor(z) times a
// polynomial of what is left of z.
MGA_BF16_INLINE __m512 sigmoid(__m512 x) {
  const __m512 z = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
  const __m512 r = _mm512_reduce_ps(z, 1);
  __m512 p = _mm512_set1_ps(0.07802479f);
  for (const float c : {0.22606668f, 0.69583376f, 0.99992521f}) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.f), _mm512_scalef_ps(p, z)));
}

MGA_BF16_INLINE __m512 leaky(__m512 x, float slope) {
  return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), x, _mm512_set1_ps(slope));
}

MGA_BF16_INLINE void store_pairs(uint32_t* out, __m512i value, bool past_caches) {
  past_caches ? _mm512_stream_si512(reinterpret_cast<__m512i*>(out), value) : _mm512_storeu_si512(out, value);
}

// One channel's values at the pixels of `lanes` join its (2, 16) sums.
MGA_BF16_INLINE void accumulate(float* sums, __mmask16 lanes, __m512 value) {
  _mm512_storeu_ps(sums, _mm512_mask_add_ps(_mm512_loadu_ps(sums), lanes, _mm512_loadu_ps(sums), value));
  _mm512_storeu_ps(sums + 16, _mm512_mask3_fmadd_ps(value, value, _mm512_loadu_ps(sums + 16), lanes));
}

// Two channels at 16 pixels: the skip is added or gated, then activation, shift, statistics and rounding to bf16.
MGA_BF16_INLINE void finish_pair(__m512 low, __m512 high, int o, int v, const BlockEnd& end) {
  if (end.skip != nullptr) {
    const __m512i pairs = _mm512_loadu_si512(end.skip + o / 2 * end.skip_plane + 16 * v);
    if (end.finish == Finish::gate) {
      low = _mm512_mul_ps(sigmoid(low), low_half(pairs));
      high = _mm512_mul_ps(sigmoid(high), high_half(pairs));
    } else {
      low = _mm512_add_ps(low, low_half(pairs));
      high = _mm512_add_ps(high, high_half(pairs));
    }
  }
  low = _mm512_sub_ps(leaky(low, end.slopes[o]), _mm512_set1_ps(end.shifts[o]));
  high = _mm512_sub_ps(leaky(high, end.slopes[o + 1]), _mm512_set1_ps(end.shifts[o + 1]));
  if (end.statistics != nullptr) {
    accumulate(end.statistics + 32 * o, end.lanes[v], low);
    accumulate(end.statistics + 32 * (o + 1), end.lanes[v], high);
  }
  uint32_t* out = static_cast<uint32_t*>(end.out) + o / 2 * end.out_plane + 16 * v;
  store_pairs(out, _mm512_maskz_mov_epi32(end.lanes[v], join_halves(low, high)), end.past_caches);
}

// Indices for permutex2var that interleave S rows of 16 pixels. Lane i of result `part` comes from the first two rows
// by `first`, and for S = 3 from that intermediate result and the third row by `second`.
template <int S>
struct Interleaving {
  alignas(64) int32_t first[S][16] = {}, second[S][16] = {};

  constexpr Interleaving() {
    for (int part = 0; part < S; ++part) {
      for (int i = 0; i < 16; ++i) {
        const int from = (16 * part + i) % S, at = (16 * part + i) / S;
        first[part][i] = from < 2 ? 16 * from + at : 0;
        second[part][i] = from < 2 ? i : 16 + at;
      }
    }
  }
};
template <int S>
constexpr Interleaving<S> kInterleaving;

template <int S>
MGA_BF16_INLINE __m512i interleave(const __m512i (&rows)[S], int part) {
  const auto& order = kInterleaving<S>;
  const __m512i two = _mm512_permutex2var_epi32(rows[0], _mm512_load_si512(order.first[part]), rows[1]);
  return S == 2 ? two : _mm512_permutex2var_epi32(two, _mm512_load_si512(order.second[part]), rows[S - 1]);
}

// One row of a pixel shuffle: the sums are [column of the shuffle][channel].
template <int S, int OB, int NV>
MGA_BF16_INLINE void finish_shuffle(__m512 (&sum)[OB][NV], const BlockEnd& end) {
  constexpr int kChannels = OB / S;
  for (int c = 0; c < kChannels; c += 2) {
    uint32_t* out = static_cast<uint32_t*>(end.out) + c / 2 * end.out_plane;
    for (int v = 0; v < NV; ++v) {
      __m512i rows[S];
      for (int dx = 0; dx < S; ++dx) {
        const int low = c * S * S + dx, high = low + S * S;
        rows[dx] = join_halves(
            leaky(_mm512_add_ps(sum[dx * kChannels + c][v], _mm512_set1_ps(end.bias[low])), end.slopes[low]),
            leaky(_mm512_add_ps(sum[dx * kChannels + c + 1][v], _mm512_set1_ps(end.bias[high])), end.slopes[high]));
      }
      for (int part = 0; part < S; ++part) {
        const int at = S * v + part;
        if (at >= end.out_vectors) break;
        store_pairs(out + 16 * at, _mm512_maskz_mov_epi32(end.lanes[at], interleave(rows, part)), end.past_caches);
      }
    }
  }
}

template <int OB, int NV>
MGA_BF16_INLINE void finish_block(__m512 (&sum)[OB][NV], const BlockEnd& end) {
  if (end.finish == Finish::planar) {
    for (int o = 0; o < OB; ++o) {
      for (int v = 0; v < NV; ++v) {
        __m512 value = leaky(_mm512_add_ps(sum[o][v], _mm512_set1_ps(end.bias[o])), end.slopes[o]);
        value = _mm512_sub_ps(value, _mm512_set1_ps(end.shifts[o]));
        _mm512_mask_storeu_ps(static_cast<float*>(end.out) + o * end.out_plane + 16 * v, end.lanes[v], value);
      }
    }
  } else if (end.finish == Finish::shuffle) {
    if constexpr (OB % 4 == 0) {
      if (end.shuffle == 2) finish_shuffle<2>(sum, end);
    }
    if constexpr (OB % 6 == 0) {
      if (end.shuffle == 3) finish_shuffle<3>(sum, end);
    }
  } else if constexpr (OB % 2 == 0) {
    for (int o = 0; o < OB; o += 2) {
      for (int v = 0; v < NV; ++v) {
        finish_pair(_mm512_add_ps(sum[o][v], _mm512_set1_ps(end.bias[o])),
                    _mm512_add_ps(sum[o + 1][v], _mm512_set1_ps(end.bias[o + 1])), o, v, end);
      }
    }
  }
}

// Adds what one pair at one column of the kernel gives to the sums [FIRST, LAST).
template <int FIRST, int LAST, int OB, int NV>
MGA_BF16_INLINE void multiply(__m512 (&sum)[OB][NV], const uint32_t* from, const uint32_t*& weight) {
  __m512bh pixels[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) pixels[v] = (__m512bh)_mm512_loadu_si512(from + 16 * v);
#pragma GCC unroll 16
  for (int o = FIRST; o < LAST; ++o) {
    const __m512bh factor = (__m512bh)_mm512_set1_epi32(int(weight[o - FIRST]));
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[o][v] = _mm512_dpbf16_ps(sum[o][v], pixels[v], factor);
  }
  weight += LAST - FIRST;
}

// OB output channels at 16 * NV pixels. taps: the rows of the kernel that count, `offset` to the leftmost column of the
// first pixel; weight: [row][pair][column][OB]. SIZE 0: `columns` of them. PHASES s > 1: sums of a pixel shuffle of s,
// of which those of the left column of the shuffle have nothing in the right column of the kernel and so on, see
// Phases.
template <int SIZE, int OB, int NV, int PHASES>
MGA_BF16 void conv_block(const Tap* taps, int64_t rows, int columns, int64_t offset, int64_t pairs,
                         const uint32_t* weight, const BlockEnd& end) {
  __m512 sum[OB][NV];
#pragma GCC unroll 16
  for (int o = 0; o < OB; ++o) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[o][v] = _mm512_setzero_ps();
  }
  for (int64_t row = 0; row < rows; ++row) {
    const uint32_t* from = taps[row].row + offset;
    for (int64_t pair = 0; pair < pairs; ++pair, from += taps[row].plane) {
      if constexpr (PHASES > 1) {
        multiply<0, OB / PHASES>(sum, from, weight);
        multiply<0, OB>(sum, from + 1, weight);
        multiply<OB - OB / PHASES, OB>(sum, from + 2, weight);
      } else if constexpr (SIZE == 3) {
        multiply<0, OB>(sum, from, weight);
        multiply<0, OB>(sum, from + 1, weight);
        multiply<0, OB>(sum, from + 2, weight);
      } else if constexpr (SIZE == 1) {
        multiply<0, OB>(sum, from, weight);
      } else {
        for (int column = 0; column < columns; ++column) multiply<0, OB>(sum, from + column, weight);
      }
    }
  }
  finish_block<OB, NV>(sum, end);
}

}  // namespace
}  // namespace mga
