// Vectors of 8 floats, and the sums of products of a block of 12 of them. Part of body.h.

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

// e^x to about 1e-7 relative for x in [-87, 88], outside as at the ends; NaN stays NaN. See simd/vec.h.
INLINE V8 exponential(V8 x) {
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 88.0f ? all(88.0f) : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then is the low bits
  const V8 shifted = fma(x, all(1.44269504f), all(kRound));
  const V8 n = shifted - kRound;
  V8 r = fma(n, all(-0.693359375f), x);  // ln 2 in two parts
  r = fma(n, all(2.12194440e-4f), r);
  V8 p = all(1.0f / 5040);
  constexpr float kTaylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (float c : kTaylor) p = fma(p, r, all(c));
  return p * (V8)(((I8)shifted << 23) + 0x3f800000);
}

INLINE V8 sigmoid(V8 x) { return 1.0f / (1.0f + exponential(-x)); }

// `length` values of a pixel, 8 at most; the next pixel is 8 floats further.
struct Run {
  const float* at;
  int64_t length;
};

// sums[pixel * pitch + channel] = sum over runs and their values of at[shift + pixel * 8 + value] * weight, in this
// order, for 12 / NV pixels and 8 * NV channels; the weights stand in the order in which they are used. A cache line
// from `fetched` on is fetched for every two values.
#if defined(__AVX512F__)
#include "maps/multiply_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "maps/multiply_avx2.h"
#else
template <int NV>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, float* sums, int64_t pitch,
                     const float*) {
  constexpr int kPixels = 12 / NV;
  V8 total[kPixels][NV]{};
  for (const Run* run = runs; run < runs + count; ++run) {
    const float* x = run->at + shift;
    for (int64_t k = 0; k < run->length; ++k, weight += NV * kGroup) {
      for (int p = 0; p < kPixels; ++p) {
        for (int v = 0; v < NV; ++v) total[p][v] = fma(all(x[p * kGroup + k]), load(weight + v * kGroup), total[p][v]);
      }
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    for (int v = 0; v < NV; ++v) store(sums + p * pitch + v * kGroup, total[p][v]);
  }
}
#endif
