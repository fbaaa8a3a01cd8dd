// Vectors of 32-bit lanes, as wide as the instruction set has them.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "simd/bits.h"

namespace mga {
namespace MGA_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));

MGA_INLINE Floats load(const float* from) {
  Floats v;
  memcpy(&v, from, sizeof v);
  return v;
}
MGA_INLINE Words load(const uint32_t* from) {
  Words v;
  memcpy(&v, from, sizeof v);
  return v;
}
MGA_INLINE void store(float* to, Floats v) { memcpy(to, &v, sizeof v); }
MGA_INLINE void store(uint32_t* to, Words v) { memcpy(to, &v, sizeof v); }
MGA_INLINE Floats all(float value) { return value - Floats{}; }

// a * b + c, in one rounding where the processor can.
MGA_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// kLanes half precision numbers as float32.
MGA_INLINE Floats from_bf16(const uint16_t* from) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Halves v;
  memcpy(&v, from, sizeof v);
  return (Floats)(__builtin_convertvector(v, Words) << 16);
}

MGA_INLINE float from_f16(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
  // A factor of 2^112 moves the exponent's bias from 15 to 127 and is right for subnormals too.
  uint32_t bits = bits_of<uint32_t>(bits_of<float>(magnitude << 13) * 0x1p112f);
  if (magnitude >= 0x7c00) bits |= 0x7f800000;
  return bits_of<float>(bits | sign);
}

MGA_INLINE Floats from_f16(const uint16_t* from) {
#if defined(__AVX512F__)
  // The plain form makes g++ 12 warn of its own header.
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = from_f16(from[i]);
  return load(values);
#endif
}

template <int kLow, int kHigh, int kAt, int... kIndices>
struct Indices : Indices<kLow, kHigh, kAt - 1, (((kAt - 1) & kLow) == kHigh ? kAt - 1 : kLanes + ((kAt - 1) ^ kLow)),
                         kIndices...> {};
template <int kLow, int kHigh, int... kIndices>
struct Indices<kLow, kHigh, 0, kIndices...> {
  static MGA_INLINE Words of(Words a, Words b) { return __builtin_shufflevector(a, b, kIndices...); }
};

// One step of a transposition: exchanges the off-diagonal blocks of side kStep between rows that are kStep apart.
template <int kStep>
MGA_INLINE void exchange(Words* rows) {
  for (int i = 0; i < kLanes; ++i) {
    if (i & kStep) continue;
    const Words a = rows[i], b = rows[i + kStep];
    rows[i] = Indices<kStep, 0, kLanes>::of(a, b);
    rows[i + kStep] = Indices<kStep, kStep, kLanes>::of(b, a);
  }
}

// kLanes rows of kLanes words, in place.
MGA_INLINE void transpose(Words* rows) {
  exchange<1>(rows);
  exchange<2>(rows);
#if defined(__AVX2__)
  exchange<4>(rows);
#endif
#if defined(__AVX512F__)
  exchange<8>(rows);
#endif
}

// e^x to about 1e-7 relative, for x in [-87, 88]; outside as at the ends. NaN stays NaN.
MGA_INLINE Floats exponential(Floats x) {
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 88.0f ? all(88.0f) : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then is the low bits
  const Floats shifted = multiply_add(x, all(1.44269504f), all(kRound));
  const Floats n = shifted - kRound;
  Floats r = multiply_add(n, all(-0.693359375f), x);  // ln 2 in two parts
  r = multiply_add(n, all(2.12194440e-4f), r);
  Floats p = all(1.0f / 5040);
  constexpr float kTaylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (float c : kTaylor) p = multiply_add(p, r, all(c));
  return p * (Floats)(((Words)shifted << 23) + 0x3f800000u);
}

MGA_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace MGA_ISA
}  // namespace mga
