// What tiles of M x M pixels are transformed by, one row or column at a time (Winograd, F(M, R)). Part of body.h.

template <int M, int R>
struct Transform;

// F(4, 3) with the points 0, +-1/sqrt 2, +-sqrt 2 and infinity: half the rms error of 0, +-1, +-2.
template <>
struct Transform<4, 3> {
  template <typename V>
  static INLINE void in(const V* d, V* t) {
    const V a = all<V>(0.70710678118654752f), b = all<V>(1.41421356237309505f);
    const V half = all<V>(-.5f), two = all<V>(-2.f), c = all<V>(-2.5f);
    const V p = fma(two, d[2], d[4]), q = a * fma(two, d[1], d[3]);
    const V r = fma(half, d[2], d[4]), s = b * fma(half, d[1], d[3]);
    t[0] = fma(c, d[2], d[0] + d[4]);
    t[1] = p + q;
    t[2] = p - q;
    t[3] = r + s;
    t[4] = r - s;
    t[5] = fma(c, d[3], d[1] + d[5]);
  }
  template <typename V>
  static INLINE void out(const V* m, V* y) {
    const V a = all<V>(0.70710678118654752f), b = all<V>(1.41421356237309505f), half = all<V>(.5f), two = all<V>(2.f);
    const V s1 = m[1] + m[2], d1 = a * (m[1] - m[2]), s2 = m[3] + m[4], d2 = b * (m[3] - m[4]);
    y[0] = m[0] + s1 + s2;
    y[1] = d1 + d2;
    y[2] = fma(half, s1, two * s2);
    y[3] = fma(half, d1, fma(two, d2, m[5]));
  }
};

// F(6, 3) with 0, +-1, +-2, +-1/2 and infinity: fewer products, about four times the error.
template <>
struct Transform<6, 3> {
  template <typename V>
  static INLINE void in(const V* d, V* t) {
    t[0] = fma(all<V>(5.25f), d[4] - d[2], d[0] - d[6]);
    t[7] = fma(all<V>(5.25f), d[3] - d[5], d[7] - d[1]);
    V a = fma(all<V>(-4.25f), d[4], d[2] + d[6]), b = fma(all<V>(-4.25f), d[3], d[1] + d[5]);
    t[1] = a + b;
    t[2] = a - b;
    a = fma(all<V>(-1.25f), d[4], fma(all<V>(.25f), d[2], d[6]));
    b = fma(all<V>(2.f), d[5], fma(all<V>(-2.5f), d[3], all<V>(.5f) * d[1]));
    t[3] = a + b;
    t[4] = a - b;
    a = fma(all<V>(-5.f), d[4], fma(all<V>(4.f), d[2], d[6]));
    b = fma(all<V>(.5f), d[5], fma(all<V>(-2.5f), d[3], all<V>(2.f) * d[1]));
    t[5] = a + b;
    t[6] = a - b;
  }
  // The points +-1/2 come 32 times as large, so that their powers are whole numbers.
  template <typename V>
  static INLINE void out(const V* m, V* y) {
    const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4], s3 = m[5] + m[6];
    const V d3 = m[5] - m[6];
    y[0] = fma(all<V>(32.f), s3, m[0] + s1 + s2);
    y[1] = fma(all<V>(16.f), d3, fma(all<V>(2.f), d2, d1));
    y[2] = fma(all<V>(8.f), s3, fma(all<V>(4.f), s2, s1));
    y[3] = fma(all<V>(4.f), d3, fma(all<V>(8.f), d2, d1));
    y[4] = fma(all<V>(2.f), s3, fma(all<V>(16.f), s2, s1));
    y[5] = d3 + fma(all<V>(32.f), d2, d1 + m[7]);
  }
};

// F(4, 5) with the same points as F(6, 3), and so with the same inputs at them; +-1/2 come 8 times as large.
template <>
struct Transform<4, 5> {
  template <typename V>
  static INLINE void in(const V* d, V* t) {
    Transform<6, 3>::in(d, t);
  }
  template <typename V>
  static INLINE void out(const V* m, V* y) {
    const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4], s3 = m[5] + m[6];
    const V d3 = m[5] - m[6];
    y[0] = fma(all<V>(8.f), s3, m[0] + s1 + s2);
    y[1] = fma(all<V>(4.f), d3, fma(all<V>(2.f), d2, d1));
    y[2] = fma(all<V>(2.f), s3, fma(all<V>(4.f), s2, s1));
    y[3] = d3 + fma(all<V>(8.f), d2, d1 + m[7]);
  }
};
