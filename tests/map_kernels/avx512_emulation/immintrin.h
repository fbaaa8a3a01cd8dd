// What csrc/maps uses of AVX-512, in two halves of AVX2, so that a processor with AVX2 and FMA can run it: the compiler
// makes halves of the vectors of its extension by itself. Stands in front of the compiler's header of this name.
#pragma once
#include <cmath>
#include_next <immintrin.h>

#define __AVX512F__ 1
#define MGA_EMULATED 1

namespace emulated {

typedef float Wide __attribute__((vector_size(64)));
union Halves {
  Wide whole;
  __m256 half[2];
};

static inline Wide all(float x) { return x - Wide{}; }
static inline Wide load(const float* from) {
  Halves halves;
  halves.half[0] = _mm256_loadu_ps(from), halves.half[1] = _mm256_loadu_ps(from + 8);
  return halves.whole;
}
static inline void store(float* to, Wide v) {
  const Halves halves{v};
  _mm256_storeu_ps(to, halves.half[0]);
  _mm256_storeu_ps(to + 8, halves.half[1]);
}
static inline Wide multiply_add(Wide a, Wide b, Wide c) {
  Halves x{a}, y{b}, sum{c};
  for (int i = 0; i < 2; ++i) sum.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], sum.half[i]);
  return sum.whole;
}
// Of both halves.
template <typename Each>
static inline Wide each_half(Wide a, Wide b, Each each) {
  Halves x{a}, y{b};
  for (int i = 0; i < 2; ++i) x.half[i] = each(x.half[i], y.half[i]);
  return x.whole;
}
static inline Wide least(Wide a, Wide b) {
  return each_half(a, b, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
}
static inline Wide greatest(Wide a, Wide b) {
  return each_half(a, b, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
}
// v * 2^floor(n), 0 where 2^floor(n) is less than a normal number.
static inline __m256 scaled_half(__m256 v, __m256 n) {
  const __m256 whole = _mm256_max_ps(_mm256_set1_ps(-127.f), _mm256_floor_ps(n));  // NaN is the second, and stays
  const __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  return _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(power, 23)));
}
// v - floor(v), 0 of what is infinite.
static inline __m256 fraction_half(__m256 v) {
  const __m256 infinite = _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.f), v), _mm256_set1_ps(HUGE_VALF), _CMP_EQ_OQ);
  return _mm256_andnot_ps(infinite, _mm256_sub_ps(v, _mm256_floor_ps(v)));
}
static inline Wide fraction(Wide v) {
  Halves x{v};
  for (int i = 0; i < 2; ++i) x.half[i] = fraction_half(x.half[i]);
  return x.whole;
}
static inline Wide scaled(Wide v, Wide n) { return each_half(v, n, scaled_half); }
static inline __m256 inverse_half(__m256 v) { return _mm256_div_ps(_mm256_set1_ps(1.f), v); }
static inline Wide inverse(Wide v) { return all(1.f) / v; }
static inline Wide multiply_subtract_from(Wide a, Wide b, Wide c) { return multiply_add(-a, b, c); }

}  // namespace emulated

#define __m512 emulated::Wide
#define _mm512_setzero_ps() emulated::all(0.f)
#define _mm512_set1_ps emulated::all
#define _mm512_loadu_ps emulated::load
#define _mm512_storeu_ps emulated::store
#define _mm512_fmadd_ps emulated::multiply_add
#define _mm512_fnmadd_ps emulated::multiply_subtract_from
#define _mm512_maskz_min_ps(lanes, a, b) emulated::least(a, b)
#define _mm512_maskz_max_ps(lanes, a, b) emulated::greatest(a, b)
#define _mm512_maskz_scalef_ps(lanes, v, n) emulated::scaled(v, n)
#define _mm256_scalef_ps emulated::scaled_half
#define _mm512_maskz_reduce_ps(lanes, v, down) emulated::fraction(v)
#define _mm256_reduce_ps(v, down) emulated::fraction_half(v)
#define _mm512_stream_ps emulated::store
#define _mm512_maskz_rcp14_ps(lanes, v) emulated::inverse(v)
#define _mm256_rcp14_ps emulated::inverse_half
