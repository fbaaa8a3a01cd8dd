// What csrc/maps uses of AVX-512, in two halves of AVX2, so that a processor with AVX2 and FMA can run it: the compiler
// makes halves of the vectors of its extension by itself. Stands in front of the compiler's header of this name.
#pragma once
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

}  // namespace emulated

#define __m512 emulated::Wide
#define _mm512_setzero_ps() emulated::all(0.f)
#define _mm512_set1_ps emulated::all
#define _mm512_loadu_ps emulated::load
#define _mm512_storeu_ps emulated::store
#define _mm512_fmadd_ps emulated::multiply_add
