// AVX-512 with bf16 as far as csrc/convolution/isa/avx512_bf16.cpp uses it, lane by lane in plain C++, so that a
// processor without it can run that file. It stands in for the compiler's header of this name and follows the operation
// sections of Intel's manual. _mm512_rcp14_ps errs by nearly as much as it may.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#define MGA_BF16
#define MGA_BF16_INLINE inline

typedef float __m512 __attribute__((vector_size(64)));
typedef int32_t __m512i __attribute__((vector_size(64)));
typedef uint16_t __m512bh __attribute__((vector_size(64)));
typedef int8_t __m128i __attribute__((vector_size(16)));
typedef uint16_t __mmask16;
enum { _CMP_LT_OQ = 17 };

namespace emulated {

template <typename To, typename From>
To cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <typename Vector, typename F>
Vector lanes(F f) {
  Vector v{};
  for (unsigned i = 0; i < sizeof v / sizeof v[0]; ++i) v[i] = f(i);
  return v;
}

template <typename Vector>
Vector load(const void* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; }
inline float widen(uint16_t x) { return cast<float>(uint32_t(x) << 16); }

inline uint16_t narrow(float x) {
  const uint32_t bits = cast<uint32_t>(x);
  switch (std::fpclassify(x)) {
    case FP_ZERO:
    case FP_SUBNORMAL:
      return uint16_t(bits >> 16 & 0x8000);
    case FP_INFINITE:
      return uint16_t(bits >> 16);
    case FP_NAN:
      return uint16_t(bits >> 16 | 64);
    default:
      return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

}  // namespace emulated

inline __m512 _mm512_setzero_ps() { return __m512{}; }
inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512 _mm512_set1_ps(float x) { return x - __m512{}; }
inline __m512i _mm512_set1_epi32(int x) { return x - __m512i{}; }
template <typename... Numbers>
__m512i _mm512_setr_epi32(Numbers... x) {
  static_assert(sizeof...(x) == 16, "");
  return __m512i{x...};
}
inline __m512 _mm512_castsi512_ps(__m512i x) { return (__m512)x; }

inline __m512 _mm512_loadu_ps(const void* from) { return emulated::load<__m512>(from); }
inline __m512i _mm512_loadu_si512(const void* from) { return emulated::load<__m512i>(from); }
inline __m512i _mm512_load_si512(const void* from) { return emulated::load<__m512i>(from); }
inline void _mm512_storeu_ps(void* to, __m512 x) { std::memcpy(to, &x, sizeof x); }
inline void _mm512_storeu_si512(void* to, __m512i x) { std::memcpy(to, &x, sizeof x); }
inline void _mm512_stream_si512(__m512i* to, __m512i x) {
  if (reinterpret_cast<uintptr_t>(to) % 64 != 0) __builtin_trap();
  std::memcpy(to, &x, sizeof x);
}
inline void _mm_sfence() {}
inline void _mm512_mask_storeu_ps(float* to, __mmask16 k, __m512 x) {
  for (int i = 0; i < 16; ++i) {
    if (k >> i & 1) to[i] = x[i];
  }
}

inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return emulated::lanes<__m512>([&](int i) { return std::fma(a[i], b[i], c[i]); });
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return emulated::lanes<__m512>([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}
inline __m512 _mm512_min_ps(__m512 a, __m512 b) {
  return emulated::lanes<__m512>([&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
}
inline __m512 _mm512_mask_add_ps(__m512 other, __mmask16 k, __m512 a, __m512 b) {
  return emulated::lanes<__m512>([&](int i) { return k >> i & 1 ? a[i] + b[i] : other[i]; });
}
inline __m512 _mm512_mask_mul_ps(__m512 other, __mmask16 k, __m512 a, __m512 b) {
  return emulated::lanes<__m512>([&](int i) { return k >> i & 1 ? a[i] * b[i] : other[i]; });
}
inline __m512 _mm512_mask3_fmadd_ps(__m512 a, __m512 b, __m512 c, __mmask16 k) {
  return emulated::lanes<__m512>([&](int i) { return k >> i & 1 ? std::fma(a[i], b[i], c[i]) : c[i]; });
}
inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  if (how != _CMP_LT_OQ) __builtin_trap();
  __mmask16 k = 0;
  for (int i = 0; i < 16; ++i) k = __mmask16(k | (a[i] < b[i]) << i);
  return k;
}
inline __m512 _mm512_reduce_ps(__m512 a, int how) {
  if (how != 1) __builtin_trap();  // what is above the next lower integer
  return emulated::lanes<__m512>([&](int i) { return std::isinf(a[i]) ? 0.f : a[i] - std::floor(a[i]); });
}
inline __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
  return emulated::lanes<__m512>([&](int i) { return a[i] * std::exp2(std::floor(b[i])); });
}
inline __m512 _mm512_rcp14_ps(__m512 a) {
  return emulated::lanes<__m512>([&](int i) { return (1 + (i % 2 == 0 ? 1 : -1) * 0.99f / (1 << 14)) / a[i]; });
}

inline __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
inline __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
inline __m512i _mm512_slli_epi32(__m512i a, int by) {
  return emulated::lanes<__m512i>([&](int i) { return int32_t(uint32_t(a[i]) << by); });
}
inline __m512i _mm512_mullo_epi32(__m512i a, __m512i b) { return a * b; }
inline __m512i _mm512_maskz_mov_epi32(__mmask16 k, __m512i a) {
  return emulated::lanes<__m512i>([&](int i) { return k >> i & 1 ? a[i] : 0; });
}
inline __m512i _mm512_permutexvar_epi16(__m512i order, __m512i a) {
  const __m512bh from = (__m512bh)a, at = (__m512bh)order;
  return (__m512i)emulated::lanes<__m512bh>([&](int i) { return from[at[i] % 32]; });
}
inline __m512 _mm512_permutexvar_ps(__m512i order, __m512 a) {
  return emulated::lanes<__m512>([&](int i) { return a[order[i] & 15]; });
}
inline __m512i _mm512_permutex2var_epi32(__m512i a, __m512i order, __m512i b) {
  return emulated::lanes<__m512i>([&](int i) { return order[i] & 16 ? b[order[i] & 15] : a[order[i] & 15]; });
}
inline __m512 _mm512_mask_i32gather_ps(__m512 other, __mmask16 k, __m512i at, const void* from, int scale) {
  return emulated::lanes<__m512>([&](int i) {
    return k >> i & 1 ? emulated::load<float>(static_cast<const char*>(from) + int64_t(at[i]) * scale) : other[i];
  });
}
inline void _mm512_i32scatter_epi32(void* to, __m512i at, __m512i a, int scale) {
  for (int i = 0; i < 16; ++i) {
    const int32_t value = a[i];
    std::memcpy(static_cast<char*>(to) + int64_t(at[i]) * scale, &value, sizeof value);
  }
}

inline __m512i _mm512_cvtps_epi32(__m512 a) {
  return emulated::lanes<__m512i>([&](int i) { return int32_t(std::nearbyint(a[i])); });
}
inline __m128i _mm512_cvtusepi32_epi8(__m512i a) {
  return emulated::lanes<__m128i>([&](int i) { return int8_t(uint32_t(a[i]) > 255 ? 255 : a[i]); });
}
inline __m512i _mm512_cvtepu8_epi32(__m128i a) {
  return emulated::lanes<__m512i>([&](int i) { return int32_t(uint8_t(a[i])); });
}
inline __m512bh _mm512_cvtne2ps_pbh(__m512 upper, __m512 lower) {
  return emulated::lanes<__m512bh>([&](int i) { return emulated::narrow(i < 16 ? lower[i] : upper[i - 16]); });
}
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  return emulated::lanes<__m512>([&](int i) {
    float all = sum[i];
    for (const int j : {2 * i + 1, 2 * i}) {
      const float x = emulated::flush(emulated::widen(a[j])), y = emulated::flush(emulated::widen(b[j]));
      all = emulated::flush(std::fma(x, y, emulated::flush(all)));
    }
    return all;
  });
}

inline __m128i _mm_setzero_si128() { return __m128i{}; }
inline __m128i _mm_or_si128(__m128i a, __m128i b) { return a | b; }
inline __m128i _mm_load_si128(const __m128i* from) { return emulated::load<__m128i>(from); }
inline void _mm_store_si128(__m128i* to, __m128i a) { std::memcpy(to, &a, sizeof a); }
inline void _mm_storeu_si128(__m128i* to, __m128i a) { std::memcpy(to, &a, sizeof a); }
inline __m128i _mm_shuffle_epi8(__m128i a, __m128i order) {
  return emulated::lanes<__m128i>([&](int i) { return order[i] < 0 ? int8_t{0} : a[order[i] & 15]; });
}
