// Vectors of 8 floats, and the sums of products of a block of 12 of them. Part of body.h.

#if defined(MGA_NEON)
#include "maps/vector_neon.h"
#else
#include "maps/vector_of_compiler.h"
#endif

#if !defined(__AVX512F__)
// Of t = factor * x, kept within [-126, 126] by keeping x within 87 of 0, the whole number next to it, as the low bits
// of `whole`, and how far t is from it.
constexpr float kPowers[] = {0.00132647273f, 0.00967151299f, 0.0555073358f, 0.240222424f, 0.693147004f, 1.0f};
INLINE void split(V8 x, float factor, V8& fraction, V8& whole) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = within(x, -87.0f, 87.0f);
  whole = fma(x, all(factor), all(kRound));
  fraction = fma(x, all(factor), all(kRound) - whole);
}
#endif

// Sigmoids of several vectors side by side, since each is a long chain of sums: 1 / (1 + 2^t), t = -x log2 e, which is
// right to about 2e-7 for x in [-87, 87], outside as at the ends; NaN stays NaN. Of 2^f, f the fraction of t, the
// polynomial is that of the fifth degree with the least largest relative error, among those that are 1 at 0.
template <int N, typename V>
INLINE void sigmoids(const V* x, V* to) {
  V f[N], whole[N], p[N];
  UNROLL for (int i = 0; i < N; ++i) {
    split(x[i], -1.44269504f, f[i], whole[i]);
    p[i] = all<V>(kPowers[0]);
  }
  UNROLL for (int d = 1; d < 6; ++d) { UNROLL for (int i = 0; i < N; ++i) p[i] = fma(p[i], f[i], all<V>(kPowers[d])); }
  UNROLL for (int i = 0; i < N; ++i) to[i] = inverse(all<V>(1.0f) + times_two_to_the(p[i], whole[i]));
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
