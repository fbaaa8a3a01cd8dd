// The innermost loop with AVX-512: the 16 channels of two vectors are one register, and a pixel's value is broadcast by
// the instruction that multiplies with it. Of 32 registers 12 to 16 are sums: with fewer, each product would wait for
// the one before it. Part of vector.h.

template <int NV, int WIDE>
struct Sums {
  static constexpr int kPixels = WIDE * 12 / NV;
  __m512 two[kPixels];
  __m256 one[kPixels];  // the only vector of one, the last of three

  INLINE void clear() {
    UNROLL for (int p = 0; p < kPixels; ++p) two[p] = _mm512_setzero_ps(), one[p] = _mm256_setzero_ps();
  }
  // One value of a run.
  INLINE void add(const float* x, const float* weight) {
    const __m512 wide = NV > 1 ? _mm512_loadu_ps(weight) : _mm512_setzero_ps();
    const __m256 narrow = NV != 2 ? _mm256_loadu_ps(weight + (NV - 1) * kGroup) : _mm256_setzero_ps();
    UNROLL for (int p = 0; p < kPixels; ++p) {
      const float value = x[p * kGroup];
      if (NV > 1) two[p] = _mm512_fmadd_ps(_mm512_set1_ps(value), wide, two[p]);
      if (NV != 2) one[p] = _mm256_fmadd_ps(_mm256_set1_ps(value), narrow, one[p]);
    }
  }
  INLINE void keep(float* sums, int64_t pitch) const {
    UNROLL for (int p = 0; p < kPixels; ++p) {
      if (NV > 1) _mm512_storeu_ps(sums + p * pitch, two[p]);
      if (NV != 2) _mm256_storeu_ps(sums + p * pitch + (NV - 1) * kGroup, one[p]);
    }
  }
};

template <int NV, int WIDE>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, float* sums, int64_t pitch,
                     const float* fetched) {
  Sums<NV, WIDE> total;
  total.clear();
  for (const Run* run = runs; run < runs + count; ++run) {
    const float* x = run->at + shift;
    if (run->length != kGroup) {
      for (int64_t k = 0; k < run->length; ++k, weight += NV * kGroup) total.add(x + k, weight);
      continue;
    }
    UNROLL for (int k = 0; k < kGroup; ++k) {
      if (k % 2 == 0) __builtin_prefetch(fetched + k * 8);
      total.add(x + k, weight + k * NV * kGroup);
    }
    fetched += 64, weight += kGroup * NV * kGroup;
  }
  total.keep(sums, pitch);
}
