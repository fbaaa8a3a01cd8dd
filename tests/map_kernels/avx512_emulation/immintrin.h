// What csrc/maps/multiply_avx512.h uses of AVX-512, in two halves of AVX2, so that a processor with AVX2 and FMA can
// run it. Stands in front of the compiler's header of this name.
#pragma once
#include_next <immintrin.h>

#define __AVX512F__ 1

namespace emulated {

struct Wide {
  __m256 low, high;
};

static inline Wide all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline Wide load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
static inline void store(float* to, const Wide& v) {
  _mm256_storeu_ps(to, v.low);
  _mm256_storeu_ps(to + 8, v.high);
}
static inline Wide multiply_add(const Wide& a, const Wide& b, const Wide& c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

}  // namespace emulated

#define __m512 emulated::Wide
#define _mm512_setzero_ps() emulated::all(0.f)
#define _mm512_set1_ps emulated::all
#define _mm512_loadu_ps emulated::load
#define _mm512_storeu_ps emulated::store
#define _mm512_fmadd_ps emulated::multiply_add
