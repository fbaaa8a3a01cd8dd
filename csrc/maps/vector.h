// Vectors of 8 floats, and the sums of products of a block of 12 of them. Part of body.h.

#if defined(MGA_NEON)
#include "maps/vector_neon.h"
#else
#include "maps/vector_of_compiler.h"
#endif

// Sigmoids of several vectors side by side, since each is a long chain of sums: 1 / (1 + e^-x), with e^-x to about 2e-7
// relative for x in [-87, 88], outside as at the ends; NaN stays NaN. e^-x is 2^n e^-r, n whole, |r| <= ln 2 / 2: the
// polynomial is that of the fifth degree with the least largest error relative to e^-r, among those that are 1 at 0.
template <int N, typename V>
INLINE void sigmoids(const V* x, V* to) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then is the low bits
  V n[N], shifted[N], r[N], p[N];
  UNROLL for (int i = 0; i < N; ++i) {
    r[i] = within(x[i], -87.0f, 88.0f);
    shifted[i] = fma(r[i], all<V>(-1.44269504f), all<V>(kRound));
    n[i] = shifted[i] - all<V>(kRound);
    r[i] = fma(n[i], all<V>(0.693359375f), r[i]);  // ln 2 in two parts
    r[i] = fma(n[i], all<V>(-2.12194440e-4f), r[i]);
    p[i] = all<V>(-0.00829031484f);
  }
  constexpr float kFactors[] = {0.0418979305f, -0.166676362f, 0.499991495f, -0.999999707f, 1.0f};
  UNROLL for (float c : kFactors) { UNROLL for (int i = 0; i < N; ++i) p[i] = fma(p[i], r[i], all<V>(c)); }
  UNROLL for (int i = 0; i < N; ++i) to[i] = inverse(all<V>(1.0f) + times_two_to_the(p[i], n[i], shifted[i]));
}

// The vectors in which NV of 8 that lie side by side are computed.
template <bool even>
struct Vector {
  typedef V8 type;
};
#if defined(__AVX512F__)
template <>
struct Vector<true> {
  typedef V16 type;
};
#endif
template <int NV>
using VectorOf = typename Vector<NV % 2 == 0>::type;

// `length` values of a pixel, 8 at most; the next pixel is 8 floats further.
struct Run {
  const float* at;
  int64_t length;
};

// Pixels of which NV vectors, a panel, are summed at a time: 12 sums, and more where there are registers for them and
// as many pixels are left. Where there are, two or three panels of two vectors are summed together: 4 or 6 vectors.
template <int NV>
constexpr int kPixels = NV == 6 ? 4 : 12 / NV;
#if defined(__AVX512F__)
template <int NV>
constexpr int kWide = NV == 6 ? 2 : NV;
constexpr bool kTogether = true;
constexpr int64_t kMostTogether = 6;
#else
template <int NV>
constexpr int kWide = 1;
constexpr bool kTogether = false;
constexpr int64_t kMostTogether = kLargestPanel;
#endif
template <int NV>
constexpr int kPanel = NV > kLargestPanel ? 2 : NV;

// Of so many vectors, how many are summed next.
INLINE int64_t vectors_together(int64_t left) {
  const int64_t panel = panel_of(left);
  if (!kTogether || panel != 2) return panel;
  const int64_t twos = (left % 2 == 0 ? left : left - 7) / 2;  // before there are others, see panel_of
  return twos == 1 ? 2 : twos % 2 == 0 ? 4 : 6;
}

// Floats of the weights that come next that are fetched for every value: all of a panel of two, or half of it where
// the same weights serve other pixels, too.
template <int NV>
constexpr int fetched_a_value(int64_t pixels) {
  return pixels == kPixels<NV> ? 8 : 16;
}

// sums[pixel * pitch + channel] = sum over runs and their values of at[shift + pixel * 8 + value] * weight, in this
// order, for WIDE * kPixels<NV> pixels and 8 * NV channels; the weights stand in the order in which they are used, those
// of a further panel `panel` floats behind those of the one before it. What comes next is fetched from `fetched` on, see
// above. In assembly its variables have these names.
#define TEXT_(x) #x
#define OPERANDS_                                                                                               \
  : [x] "=&r"(x), [k] "=&r"(k), [runs] "+r"(runs), [count] "+r"(count), [w] "+r"(weight), [to] "+r"(sums),      \
    [ahead] "+r"(fetched)                                                                                       \
  : [shift] "r"(bytes), [pitch] "r"(row)
#if defined(__AVX512F__)
#include "maps/multiply_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "maps/multiply_avx2.h"
#elif defined(MGA_NEON)
#include "maps/multiply_neon.h"
#else
template <int NV, int WIDE>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, int64_t, float* sums,
                     int64_t pitch, const float*) {
  V8 total[kPixels<NV>][NV]{};
  for (const Run* run = runs; run < runs + count; ++run) {
    const float* x = run->at + shift;
    for (int64_t k = 0; k < run->length; ++k, weight += NV * kGroup) {
      for (int p = 0; p < kPixels<NV>; ++p) {
        for (int v = 0; v < NV; ++v) total[p][v] = fma(all(x[p * kGroup + k]), load(weight + v * kGroup), total[p][v]);
      }
    }
  }
  for (int p = 0; p < kPixels<NV>; ++p) {
    for (int v = 0; v < NV; ++v) store(sums + p * pitch + v * kGroup, total[p][v]);
  }
}
#endif

// How many pixels are computed next, of those that are left.
template <int NV>
INLINE int64_t pixels_together(int64_t left) {
  return kWide<NV> != 1 && left > kPixels<NV> ? kWide<NV> * kPixels<NV> : kPixels<NV>;
}

// About in how many steps so many vectors of so many pixels are computed.
INLINE int64_t steps_of(int64_t pixels, int64_t vectors) {
  constexpr int64_t kVectors = kTogether ? 4 : 2, kStep = kWide<kVectors> * kPixels<kVectors>;
  return (pixels + kStep - 1) / kStep * ((vectors + kVectors - 1) / kVectors);
}

template <int NV>
INLINE void multiply(int64_t pixels, const Run* runs, int64_t count, int64_t shift, const float* weight, int64_t panel,
                     float* sums, int64_t pitch, const float* fetched) {
  pixels == kPixels<NV> ? multiply<NV, 1>(runs, count, shift, weight, panel, sums, pitch, fetched)
                        : multiply<NV, kWide<NV>>(runs, count, shift, weight, panel, sums, pitch, fetched);
}
