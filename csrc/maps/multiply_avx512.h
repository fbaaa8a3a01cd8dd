// The innermost loop with AVX-512: the 16 channels of two vectors are one register, and a pixel's value is broadcast by
// the instruction that multiplies with it, or once for the registers of several panels. Of 32 registers 12 to 24 are
// sums: with fewer, each product would wait for the one before it. Part of vector.h.

template <int NV, int WIDE>
struct Sums {
  static constexpr int kCount = WIDE * kPixels<NV>, kTwos = NV / 2;
  __m512 two[kCount][kTwos == 0 ? 1 : kTwos];
  __m256 one[kCount];  // the only vector of one, the last of three

  INLINE void clear() {
    UNROLL for (int p = 0; p < kCount; ++p) {
      UNROLL for (int i = 0; i < kTwos; ++i) two[p][i] = _mm512_setzero_ps();
      one[p] = _mm256_setzero_ps();
    }
  }
  // One value of a run. The weights of each further panel are `panel` floats behind those of the one before.
  INLINE void add(const float* x, const float* weight, int64_t panel) {
    __m512 wide[kTwos == 0 ? 1 : kTwos];
    UNROLL for (int i = 0; i < kTwos; ++i) wide[i] = _mm512_loadu_ps(weight + i * panel);
    const __m256 narrow = NV % 2 != 0 ? _mm256_loadu_ps(weight + (NV - 1) * kGroup) : _mm256_setzero_ps();
    UNROLL for (int p = 0; p < kCount; ++p) {
      const float value = x[p * kGroup];
      UNROLL for (int i = 0; i < kTwos; ++i) two[p][i] = _mm512_fmadd_ps(_mm512_set1_ps(value), wide[i], two[p][i]);
      if (NV % 2 != 0) one[p] = _mm256_fmadd_ps(_mm256_set1_ps(value), narrow, one[p]);
    }
  }
  INLINE void keep(float* sums, int64_t pitch) const {
    UNROLL for (int p = 0; p < kCount; ++p) {
      UNROLL for (int i = 0; i < kTwos; ++i) _mm512_storeu_ps(sums + p * pitch + 2 * i * kGroup, two[p][i]);
      if (NV % 2 != 0) _mm256_storeu_ps(sums + p * pitch + (NV - 1) * kGroup, one[p]);
    }
  }
};

template <int NV, int WIDE>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, int64_t panel, float* sums,
                     int64_t pitch, const float* fetched) {
  constexpr int kWidth = kPanel<NV> * kGroup, kLine = 16;
  constexpr int kFetched = fetched_a_value<NV>(WIDE * kPixels<NV>);
  Sums<NV, WIDE> total;
  total.clear();
  // At a time two, where there are registers for that.
  constexpr int kValues = Sums<NV, WIDE>::kCount * ((NV + 1) / 2) <= 12 ? 2 : 1;
  const auto fetch = [&] {
    UNROLL for (int i = 0; i < NV / kPanel<NV>; ++i) __builtin_prefetch(fetched + i * panel);
  };
  for (const Run* run = runs; run < runs + count; ++run) {
    const float* x = run->at + shift;
    int64_t k = 0;
    for (; k + kValues <= run->length; k += kValues, weight += kValues * kWidth) {
      UNROLL for (int i = 0; i < kValues; ++i) {
        if (i * kFetched % kLine == 0) fetch();
        total.add(x + k + i, weight + i * kWidth, panel);
        fetched += kFetched;
      }
    }
    for (; k < run->length; ++k, weight += kWidth, fetched += kFetched) {
      fetch();
      total.add(x + k, weight, panel);
    }
  }
  total.keep(sums, pitch);
}
