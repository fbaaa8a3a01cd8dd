// Vectors of 8 floats as an extension of the compiler, which makes them of what the processor has. Part of vector.h.

typedef float V8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));

typedef V8 Unaligned __attribute__((aligned(4)));

// Not by memcpy, after which a compiler would read all that it knows again.
INLINE V8 load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
INLINE void store(float* to, V8 v) { *reinterpret_cast<Unaligned*>(to) = v; }
INLINE const float* as_floats(const V8* v) { return reinterpret_cast<const float*>(v); }
INLINE V8 all(float value) { return value - V8{}; }

// Around the caches where the processor can; `to` is aligned to 32 bytes.
INLINE void stream(float* to, V8 v) {
#if defined(__AVX__)
  _mm256_stream_ps(to, v);
#else
  store(to, v);
#endif
}

// a * b + c, in one rounding where the processor can.
INLINE V8 fma(V8 a, V8 b, V8 c) {
#if defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// In lanes where it holds all bits, elsewhere none.
INLINE I8 less(V8 a, V8 b) { return a < b; }
INLINE I8 not_zero(V8 v) { return v != 0.f; }
INLINE V8 choose(I8 which, V8 a, V8 b) { return which ? a : b; }
INLINE V8 only(I8 which, V8 v) { return (V8)((I8)v & which); }

// x, and the end of the range for what is outside; NaN stays NaN.
INLINE V8 within(V8 x, float low, float high) {
#if defined(__AVX__)
  return _mm256_min_ps(all(high), _mm256_max_ps(all(low), x));
#else
  x = choose(less(x, all(low)), all(low), x);
  return choose(less(all(high), x), all(high), x);
#endif
}

// 2^n, of n as the low bits of a number to which 1.5 * 2^23 was added.
INLINE V8 two_to_the(V8 n) { return (V8)(((I8)n << 23) + 0x3f800000); }

// 16 bytes: values rounded half to even, in 0..255, NaN as 0.
INLINE void store_bytes(uint8_t* to, V8 low, V8 high) {
#if defined(__AVX2__)
  // Of the two operands' NaN a minimum takes the second; what is out of the range of integers becomes the least one.
  const __m256i first = _mm256_cvtps_epi32(_mm256_min_ps(all(255.f), low));
  const __m256i second = _mm256_cvtps_epi32(_mm256_min_ps(all(255.f), high));
  const __m256i words = _mm256_packs_epi32(first, second), packed = _mm256_packus_epi16(words, words);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
  _mm_storeu_si128((__m128i*)to, _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(packed, order)));
#else
  // Adding 1.5 * 2^23 rounds half to even and leaves the byte in the lowest bits.
  const V8 both[2] = {low, high};
  for (int i = 0; i < 16; ++i) {
    float value = both[i / 8][i % 8];
    value = value > 0.f ? value : 0.f;
    value = (value < 255.f ? value : 255.f) + 12582912.f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    to[i] = uint8_t(bits);
  }
#endif
}

// Whether all lanes are zeros of any sign.
INLINE bool is_zero(V8 v) {
  const I8 same = v == 0.f;
  int32_t every = -1;
  UNROLL for (int i = 0; i < 8; ++i) every &= same[i];
  return every != 0;
}

// The sum of the lanes of each of four vectors, in the order of hadd.
INLINE void add_lanes(const V8* v, float* to) {
#if defined(__AVX__)
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
#else
  for (int i = 0; i < 4; ++i) {
    const V8& a = v[i];
    to[i] = ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
  }
#endif
}
