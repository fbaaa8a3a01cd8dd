// Vectors of 8 floats as two registers of NEON. g++ keeps the vectors of 8 of its extension in memory here, and reads
// and writes them for every sum. Part of vector.h.

struct V8 {
  float32x4_t low, high;
};
struct I8 {
  uint32x4_t low, high;
};

template <typename V = V8>
INLINE V load(const float* from) {
  return {vld1q_f32(from), vld1q_f32(from + 4)};
}
INLINE void keep(const V8&) {}
INLINE void store(float* to, V8 v) {
  vst1q_f32(to, v.low);
  vst1q_f32(to + 4, v.high);
}
INLINE const float* as_floats(const V8* v) { return reinterpret_cast<const float*>(v); }
template <typename V = V8>
INLINE V all(float value) {
  return {vdupq_n_f32(value), vdupq_n_f32(value)};
}

INLINE V8 operator+(V8 a, V8 b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
INLINE V8 operator-(V8 a, V8 b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
INLINE V8 operator*(V8 a, V8 b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
INLINE V8 operator/(V8 a, V8 b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
INLINE V8 operator-(V8 v) { return {vnegq_f32(v.low), vnegq_f32(v.high)}; }

// There is no instruction for it that these compilers offer.
INLINE void stream(float* to, V8 v) { store(to, v); }

// What lies at the same place of as many groups as a vector has: one.
template <typename V = V8>
INLINE V load_groups(const float* const* from, int64_t at) {
  return load(from[0] + at);
}
INLINE void store_groups(float* const* to, int64_t at, V8 v) { store(to[0] + at, v); }
INLINE void stream_groups(float* const* to, int64_t at, V8 v) { stream(to[0] + at, v); }

// a * b + c, in one rounding.
INLINE V8 fma(V8 a, V8 b, V8 c) { return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)}; }

// In lanes where it holds all bits, elsewhere none.
INLINE I8 less(V8 a, V8 b) { return {vcltq_f32(a.low, b.low), vcltq_f32(a.high, b.high)}; }
INLINE I8 not_zero(V8 v) { return {vmvnq_u32(vceqzq_f32(v.low)), vmvnq_u32(vceqzq_f32(v.high))}; }
INLINE V8 choose(I8 which, V8 a, V8 b) {
  return {vbslq_f32(which.low, a.low, b.low), vbslq_f32(which.high, a.high, b.high)};
}
INLINE V8 only(I8 which, V8 v) { return choose(which, v, V8{}); }

// x, and the end of the range for what is outside; NaN stays NaN.
INLINE float32x4_t within(float32x4_t x, float low, float high) {
  return vminq_f32(vmaxq_f32(x, vdupq_n_f32(low)), vdupq_n_f32(high));
}
INLINE V8 within(V8 x, float low, float high) { return {within(x.low, low, high), within(x.high, low, high)}; }

INLINE float32x4_t times_two_to_the(float32x4_t v, float32x4_t whole) {
  const uint32x4_t power = vaddq_u32(vshlq_n_u32(vreinterpretq_u32_f32(whole), 23), vdupq_n_u32(0x3f800000));
  return vmulq_f32(v, vreinterpretq_f32_u32(power));
}
INLINE V8 times_two_to_the(V8 v, V8 whole) {
  return {times_two_to_the(v.low, whole.low), times_two_to_the(v.high, whole.high)};
}
INLINE V8 inverse(V8 v) { return all(1.f) / v; }

// 16 bytes: values rounded half to even, in 0..255, NaN as 0.
INLINE uint16x4_t words_of(float32x4_t v) { return vqmovun_s32(vcvtnq_s32_f32(v)); }
INLINE void store_bytes(uint8_t* to, V8 low, V8 high) {
  const uint16x8_t first = vcombine_u16(words_of(low.low), words_of(low.high));
  const uint16x8_t second = vcombine_u16(words_of(high.low), words_of(high.high));
  vst1q_u8(to, vcombine_u8(vqmovn_u16(first), vqmovn_u16(second)));
}

// Whether all lanes are zeros of any sign.
INLINE bool is_zero(V8 v) { return vminvq_u32(vandq_u32(vceqzq_f32(v.low), vceqzq_f32(v.high))) != 0; }

// The sum of the lanes of each of four vectors, in the order that the other instruction sets have.
INLINE void add_lanes(const V8* v, float* to) {
  const float32x4_t low = vpaddq_f32(vpaddq_f32(v[0].low, v[1].low), vpaddq_f32(v[2].low, v[3].low));
  const float32x4_t high = vpaddq_f32(vpaddq_f32(v[0].high, v[1].high), vpaddq_f32(v[2].high, v[3].high));
  vst1q_f32(to, vaddq_f32(low, high));
}
