// The innermost loops of pair_conv: AVX-512 with bf16 dot products, compiled for it whatever the flags of the build.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics
#endif
#include <immintrin.h>

#include <cstdint>

#define MGA_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define MGA_BF16_INLINE inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace mga {

enum class Finish { pairs, gate, planar };

// What happens to the sums of one block of output channels at 16 * NV pixels. Pointers stand at the first channel of the
// block and at the first pixel.
struct BlockEnd {
  Finish finish;
  const float* bias;       // of each channel
  const float* slopes;     // factor of negative values, of each channel
  const float* shifts;     // taken off at the end, of each channel
  const uint32_t* skip;    // pairs that are added (finish pairs; may be null) or multiplied (finish gate)
  int64_t skip_plane;      // in dwords
  void* out;               // pairs, or float planes
  int64_t out_plane;       // in dwords
  const uint16_t* lanes;   // one bit a pixel, one word a vector: others are written as zero
};

MGA_BF16_INLINE __m512 low_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
MGA_BF16_INLINE __m512 high_half(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000))));
}

// One dword a lane: bf16 of `low` below, of `high` above.
MGA_BF16_INLINE __m512i join_halves(__m512 low, __m512 high) {
  const __m512i lower = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
  const __m512i upper = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
  return _mm512_or_si512(lower, _mm512_slli_epi32(upper, 16));
}

// e^x within 2e-7 relative for |x| < 88, by 2^n times a polynomial.
MGA_BF16_INLINE __m512 exponential(__m512 x) {
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.f)), _mm512_set1_ps(87.f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.f / 720);
  for (const float c : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, n);
}

MGA_BF16_INLINE __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

MGA_BF16_INLINE __m512 leaky(__m512 x, float slope) {
  return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), x, _mm512_set1_ps(slope));
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
    return;
  }
  for (int o = 0; o < OB; o += 2) {
    for (int v = 0; v < NV; ++v) {
      __m512 low = _mm512_add_ps(sum[o][v], _mm512_set1_ps(end.bias[o]));
      __m512 high = _mm512_add_ps(sum[o + 1][v], _mm512_set1_ps(end.bias[o + 1]));
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
      uint32_t* out = static_cast<uint32_t*>(end.out) + o / 2 * end.out_plane + 16 * v;
      _mm512_storeu_si512(out, _mm512_maskz_mov_epi32(end.lanes[v], join_halves(low, high)));
    }
  }
}

// OB output channels at 16 * NV pixels. x: upper left tap of the first pixel, dwords; weight: [row][pair][column][OB].
template <int SIZE, int OB, int NV>
MGA_BF16 void conv_block(const uint32_t* x, int64_t plane, int64_t pitch, int64_t pairs, const uint32_t* weight,
                         const BlockEnd& end) {
  __m512 sum[OB][NV];
#pragma GCC unroll 16
  for (int o = 0; o < OB; ++o) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[o][v] = _mm512_setzero_ps();
  }
  for (int row = 0; row < SIZE; ++row) {
    const uint32_t* from = x + row * pitch;
    for (int64_t pair = 0; pair < pairs; ++pair, from += plane) {
#pragma GCC unroll 3
      for (int column = 0; column < SIZE; ++column, weight += OB) {
        __m512bh pixels[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) pixels[v] = (__m512bh)_mm512_loadu_si512(from + column + 16 * v);
#pragma GCC unroll 16
        for (int o = 0; o < OB; ++o) {
          const __m512bh factor = (__m512bh)_mm512_set1_epi32(int(weight[o]));
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) sum[o][v] = _mm512_dpbf16_ps(sum[o][v], pixels[v], factor);
        }
      }
    }
  }
  finish_block<OB, NV>(sum, end);
}

}  // namespace mga
