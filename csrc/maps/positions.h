// The weights of kernels at the positions of tiles, for a whole vector of outputs at a time. In doubles, so that
// what is lost is the last rounding to float only. Part of body.h.

typedef double D8 __attribute__((vector_size(64)));
typedef float F8 __attribute__((vector_size(32)));  // as V8, which is something else on some processors
typedef F8 UnalignedF8 __attribute__((aligned(4)));

INLINE D8 load_doubles(const float* from) {
  return __builtin_convertvector(*reinterpret_cast<const UnalignedF8*>(from), D8);
}
INLINE void store_floats(float* to, D8 v) {
  *reinterpret_cast<UnalignedF8*>(to) = __builtin_convertvector(v, F8);
}

// What a kernel of R values is at M + R - 1 positions; see transform.h for the points.
template <int M, int R>
struct KernelPositions;

template <>
struct KernelPositions<4, 3> {
  static constexpr double kA = 0.70710678118654752440, kB = 2 * kA;  // the root of 1/2
  static constexpr double kAt[6][3] = {{1, 0, 0},
                                       {-2. / 3, -2. / 3 * kA, -1. / 3},
                                       {-2. / 3, 2. / 3 * kA, -1. / 3},
                                       {1. / 6, kB / 6, 1. / 3},
                                       {1. / 6, -kB / 6, 1. / 3},
                                       {0, 0, 1}};
};

template <>
struct KernelPositions<6, 3> {
  static constexpr double kAt[8][3] = {{1, 0, 0},
                                       {-2. / 9, -2. / 9, -2. / 9},
                                       {-2. / 9, 2. / 9, -2. / 9},
                                       {1. / 90, 1. / 45, 2. / 45},
                                       {1. / 90, -1. / 45, 2. / 45},
                                       {1. / 45, 1. / 90, 1. / 180},
                                       {1. / 45, -1. / 90, 1. / 180},
                                       {0, 0, 1}};
};

template <>
struct KernelPositions<4, 5> {
  static constexpr double kAt[8][5] = {{1, 0, 0, 0, 0},
                                       {-2. / 9, -2. / 9, -2. / 9, -2. / 9, -2. / 9},
                                       {-2. / 9, 2. / 9, -2. / 9, 2. / 9, -2. / 9},
                                       {1. / 90, 1. / 45, 2. / 45, 4. / 45, 8. / 45},
                                       {1. / 90, -1. / 45, 2. / 45, -4. / 45, 8. / 45},
                                       {4. / 45, 2. / 45, 1. / 45, 1. / 90, 1. / 180},
                                       {4. / 45, -2. / 45, 1. / 45, -1. / 90, 1. / 180},
                                       {0, 0, 0, 0, 1}};
};

template <int M, int R>
INLINE D8 at_position(int position, const D8* kernel) {
  const double* const at = KernelPositions<M, R>::kAt[position];
  D8 sum = at[0] * kernel[0];
  UNROLL for (int i = 1; i < R; ++i) sum = sum + at[i] * kernel[i];
  return sum;
}

// A row of positions at a time: more streams of results than the first level of the cache has ways would push each
// other out of it.
template <int M, int R>
void transform_panel(const UntransformedWeight& weight, int64_t first, int64_t count, float* to) {
  constexpr int N = M + R - 1;
  const int64_t channels = weight.vectors * kGroup, tap = weight.inputs * channels;
  const int64_t position = weight.inputs * count * kGroup;
  to += N * N * weight.inputs * first * kGroup;
  for (int i = 0; i < N; ++i, to += N * position) {
    for (int64_t c = 0; c < weight.inputs; ++c) {
      for (int64_t v = 0; v < count; ++v) {
        const float* const from = weight.data + c * channels + (first + v) * kGroup;
        D8 row[R];
        UNROLL for (int x = 0; x < R; ++x) {
          D8 taps[R];
          UNROLL for (int y = 0; y < R; ++y) taps[y] = load_doubles(from + (R * y + x) * tap);
          row[x] = at_position<M, R>(i, taps);
        }
        float* const at = to + (c * count + v) * kGroup;
        UNROLL for (int j = 0; j < N; ++j) store_floats(at + j * position, at_position<M, R>(j, row));
      }
    }
  }
}
