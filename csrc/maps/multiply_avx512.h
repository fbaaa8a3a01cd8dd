// The innermost loop with AVX-512: the 16 channels of two vectors are one register, and a pixel's value is broadcast by
// the instruction that multiplies with it. Part of vector.h.

INLINE __m512 load16(const float* from) { return _mm512_loadu_ps(from); }

template <int NV>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, float* sums, int64_t pitch,
                     const float* fetched) {
  constexpr int kPixels = 12 / NV;
  __m512 wide[kPixels];
  __m256 narrow[kPixels];  // the only vector of one, the last of three
  UNROLL for (int p = 0; p < kPixels; ++p) {
    wide[p] = _mm512_setzero_ps();
    narrow[p] = _mm256_setzero_ps();
  }
  for (const Run* run = runs; run < runs + count; ++run) {
    const float* x = run->at + shift;
    for (int64_t k = 0; k < run->length; ++k, weight += NV * kGroup) {
      if (k % 2 == 0) __builtin_prefetch(fetched), fetched += 16;
      const __m512 two = NV > 1 ? load16(weight) : _mm512_setzero_ps();
      const __m256 one = NV != 2 ? _mm256_loadu_ps(weight + (NV - 1) * kGroup) : _mm256_setzero_ps();
      UNROLL for (int p = 0; p < kPixels; ++p) {
        const float value = x[p * kGroup + k];
        if (NV > 1) wide[p] = _mm512_fmadd_ps(_mm512_set1_ps(value), two, wide[p]);
        if (NV != 2) narrow[p] = _mm256_fmadd_ps(_mm256_set1_ps(value), one, narrow[p]);
      }
    }
  }
  UNROLL for (int p = 0; p < kPixels; ++p) {
    if (NV > 1) _mm512_storeu_ps(sums + p * pitch, wide[p]);
    if (NV != 2) _mm256_storeu_ps(sums + p * pitch + (NV - 1) * kGroup, narrow[p]);
  }
}
