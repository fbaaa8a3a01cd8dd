// Vectors of 8 floats as an extension of the compiler, which makes them of what the processor has, and of 16 with
// AVX-512. Part of vector.h.

typedef float V8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef V8 Unaligned __attribute__((aligned(4)));

// Not by memcpy, after which a compiler would read all that it knows again.
template <typename V = V8>
INLINE V load(const float* from) {
  return *reinterpret_cast<const Unaligned*>(from);
}
INLINE void store(float* to, V8 v) { *reinterpret_cast<Unaligned*>(to) = v; }
template <typename V>
INLINE const float* as_floats(const V* v) {
  return reinterpret_cast<const float*>(v);
}
template <typename V = V8>
INLINE V all(float value) {
  return value - V{};
}

// Around the caches where the processor can; `to` is aligned to 32 bytes.
INLINE void stream(float* to, V8 v) {
#if defined(__AVX__)
  _mm256_stream_ps(to, v);
#else
  store(to, v);
#endif
}

// Stays in a register, where compilers would load it again for every product.
template <typename V>
INLINE void keep([[maybe_unused]] V& v) {
#if defined(__AVX__) && !defined(MGA_EMULATED)
  asm("" : "+v"(v));
#endif
}

// What lies at the same place of as many groups as a vector has.
template <typename V = V8>
INLINE V load_groups(const float* const* from, int64_t at) {
  return load(from[0] + at);
}
INLINE void store_groups(float* const* to, int64_t at, V8 v) { store(to[0] + at, v); }
INLINE void stream_groups(float* const* to, int64_t at, V8 v) { stream(to[0] + at, v); }

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

#if defined(__AVX512F__)
// Of t = factor * x, kept below 127, the fraction in [0, 1); the whole part is taken of t itself.
constexpr float kPowers[] = {0.00186713017f, 0.00901702978f, 0.0557999127f, 0.240164444f, 0.693151295f, 1.0f};
constexpr float kMostWhole = 126.0f;
constexpr int kDown = 9;  // to the whole number below, without a fault
INLINE void split(V8 x, float factor, V8& fraction, V8& whole) {
  whole = _mm256_min_ps(all(kMostWhole), x * all(factor));
  fraction = _mm256_reduce_ps(whole, kDown);
}
INLINE V8 times_two_to_the(V8 v, V8 whole) { return _mm256_scalef_ps(v, whole); }
#else
// x, and the end of the range for what is outside; NaN stays NaN.
INLINE V8 within(V8 x, float low, float high) {
#if defined(__AVX__)
  return _mm256_min_ps(all(high), _mm256_max_ps(all(low), x));
#else
  x = choose(less(x, all(low)), all(low), x);
  return choose(less(all(high), x), all(high), x);
#endif
}
INLINE V8 times_two_to_the(V8 v, V8 whole) { return v * (V8)(((I8)whole << 23) + 0x3f800000); }
#endif

// 1 / v of v in [1, 2^126]; with AVX-512, whose approximation has 14 bits, to about an ulp.
INLINE V8 inverse(V8 v) {
#if defined(__AVX512F__)
  const V8 about = _mm256_rcp14_ps(v);
  return fma(about, _mm256_fnmadd_ps(v, about, all(1.f)), about);
#else
  return all(1.f) / v;
#endif
}

#if defined(__AVX512F__)
typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef V16 Unaligned16 __attribute__((aligned(4)));

template <>
INLINE V16 load<V16>(const float* from) {
  return *reinterpret_cast<const Unaligned16*>(from);
}
INLINE void store(float* to, V16 v) { *reinterpret_cast<Unaligned16*>(to) = v; }
INLINE V16 fma(V16 a, V16 b, V16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE I16 less(V16 a, V16 b) { return a < b; }
INLINE I16 not_zero(V16 v) { return v != 0.f; }
INLINE V16 choose(I16 which, V16 a, V16 b) { return which ? a : b; }
INLINE V16 only(I16 which, V16 v) { return (V16)((I16)v & which); }
constexpr __mmask16 kAllLanes = 0xffff;  // for g++ takes what it leaves undefined without a mask for a mistake
INLINE void split(V16 x, float factor, V16& fraction, V16& whole) {
  whole = _mm512_maskz_min_ps(kAllLanes, all<V16>(kMostWhole), x * all<V16>(factor));
  fraction = _mm512_maskz_reduce_ps(kAllLanes, whole, kDown);
}
INLINE V16 times_two_to_the(V16 v, V16 whole) { return _mm512_maskz_scalef_ps(kAllLanes, v, whole); }
INLINE V16 inverse(V16 v) {
  const V16 about = _mm512_maskz_rcp14_ps(kAllLanes, v);
  return fma(about, _mm512_fnmadd_ps(v, about, all<V16>(1.f)), about);
}

INLINE V16 both(V8 a, V8 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
INLINE V8 low_of(V16 v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
INLINE V8 high_of(V16 v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
template <>
INLINE V16 load_groups<V16>(const float* const* from, int64_t at) {
  return both(load(from[0] + at), load(from[1] + at));
}
INLINE void store_groups(float* const* to, int64_t at, V16 v) {
  store(to[0] + at, low_of(v));
  store(to[1] + at, high_of(v));
}
INLINE void stream_groups(float* const* to, int64_t at, V16 v) {
  stream(to[0] + at, low_of(v));
  stream(to[1] + at, high_of(v));
}
INLINE V16 lows_of(V16 a, V16 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
INLINE V16 highs_of(V16 a, V16 b) {
  return __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
// Around the caches in whole lines; `to` is aligned to 64 bytes.
INLINE void stream(float* to, V16 v) { _mm512_stream_ps(to, v); }
// What two pixels side by side have of two groups: a line of each.
INLINE void store_lines(float* const* to, int64_t at, V16 a, V16 b) {
  store(to[0] + at, lows_of(a, b));
  store(to[1] + at, highs_of(a, b));
}
INLINE void stream_lines(float* const* to, int64_t at, V16 a, V16 b) {
  stream(to[0] + at, lows_of(a, b));
  stream(to[1] + at, highs_of(a, b));
}
#endif

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
#if defined(__AVX__)
  return _mm256_movemask_ps((__m256)same) == 0xff;
#else
  int32_t every = -1;
  UNROLL for (int i = 0; i < 8; ++i) every &= same[i];
  return every != 0;
#endif
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
