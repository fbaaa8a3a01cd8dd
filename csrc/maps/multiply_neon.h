// The innermost loop with NEON, in assembly: g++ 12 makes of the same in intrinsics 20 to 60 moves of sums to memory
// and back for 192 products. v0 to v23 are the sums, two or four registers for each pixel or six; a product takes one
// lane of a register of neighbouring values of a pixel. Part of vector.h.

#define ZERO_(sum) "movi v" TEXT_(sum) ".2d, #0\n\t"
#define LOAD_(kind, pixel, bytes, to) "ldr " TEXT_(kind) TEXT_(to) ", [%[x], #" TEXT_(pixel) "*32+" TEXT_(bytes) "]\n\t"
#define WEIGHT_(bytes, q, to) "ldr q" TEXT_(to) ", [%[w], #" TEXT_(bytes) "+" TEXT_(q) "*16]\n\t"
#define ADD_(sum, weight, x, lane) \
  "fmla v" TEXT_(sum) ".4s, v" TEXT_(weight) ".4s, v" TEXT_(x) ".s[" TEXT_(lane) "]\n\t"
#define STORE_(a, b, q) "stp q" TEXT_(a) ", q" TEXT_(b) ", [%[to], #" TEXT_(q) "*16]\n\t"
#define NEXT_ "add %[to], %[to], %[pitch]\n\t"
#define FETCH_(line) "prfm pldl1keep, [%[ahead], #" TEXT_(line) "*64]\n\t"

// One vector, 12 pixels. Values of all of them have no room, so those of a pixel are loaded two by two, and weights
// stay.
#define WEIGHTS1_(k, a, b) WEIGHT_((k)*32, 0, a) WEIGHT_((k)*32, 1, b)
#define TWO1_(pixel, k, x, a, b) \
  LOAD_(d, pixel, (k)*4, x) ADD_(a, 24, x, 0) ADD_(b, 25, x, 0) ADD_(a, 26, x, 1) ADD_(b, 27, x, 1)
#define PAIR1_(k)          \
  WEIGHTS1_(k, 24, 25)     \
  WEIGHTS1_(k + 1, 26, 27) \
  TWO1_(0, k, 28, 0, 1)    \
  TWO1_(1, k, 29, 2, 3)    \
  TWO1_(2, k, 30, 4, 5)    \
  TWO1_(3, k, 31, 6, 7)    \
  TWO1_(4, k, 28, 8, 9)    \
  TWO1_(5, k, 29, 10, 11)  \
  TWO1_(6, k, 30, 12, 13)  \
  TWO1_(7, k, 31, 14, 15)  \
  TWO1_(8, k, 28, 16, 17) TWO1_(9, k, 29, 18, 19) TWO1_(10, k, 30, 20, 21) TWO1_(11, k, 31, 22, 23)
#define FOUR1_(four) PAIR1_(four * 4) PAIR1_(four * 4 + 2)
#define ONE1_(pixel, x, a, b) LOAD_(s, pixel, 0, x) ADD_(a, 24, x, 0) ADD_(b, 25, x, 0)
#define SINGLE1_       \
  WEIGHTS1_(0, 24, 25) \
  ONE1_(0, 28, 0, 1)   \
  ONE1_(1, 29, 2, 3)   \
  ONE1_(2, 30, 4, 5)   \
  ONE1_(3, 31, 6, 7)   \
  ONE1_(4, 28, 8, 9)   \
  ONE1_(5, 29, 10, 11) \
  ONE1_(6, 30, 12, 13) \
  ONE1_(7, 31, 14, 15) \
  ONE1_(8, 28, 16, 17) ONE1_(9, 29, 18, 19) ONE1_(10, 30, 20, 21) ONE1_(11, 31, 22, 23)
#define STORE1_                                                                                                   \
  STORE_(0, 1, 0)                                                                                                 \
  NEXT_ STORE_(2, 3, 0) NEXT_ STORE_(4, 5, 0) NEXT_ STORE_(6, 7, 0) NEXT_ STORE_(8, 9, 0) NEXT_ STORE_(10, 11, 0) \
      NEXT_ STORE_(12, 13, 0) NEXT_ STORE_(14, 15, 0) NEXT_ STORE_(16, 17, 0) NEXT_ STORE_(18, 19, 0)             \
          NEXT_ STORE_(20, 21, 0) NEXT_ STORE_(22, 23, 0)

// Two vectors, 6 pixels, four values of each in v24 to v29.
#define LOAD2_(kind, bytes) \
  LOAD_(kind, 0, bytes, 24) \
  LOAD_(kind, 1, bytes, 25) \
  LOAD_(kind, 2, bytes, 26) LOAD_(kind, 3, bytes, 27) LOAD_(kind, 4, bytes, 28) LOAD_(kind, 5, bytes, 29)
#define QUARTER2_(k, lane, q, w, a, b, c, d, e, f) \
  WEIGHT_((k)*64, q, w)                            \
  ADD_(a, w, 24, lane)                             \
  ADD_(b, w, 25, lane) ADD_(c, w, 26, lane) ADD_(d, w, 27, lane) ADD_(e, w, 28, lane) ADD_(f, w, 29, lane)
#define VALUE2_(k, lane)                          \
  QUARTER2_(k, lane, 0, 30, 0, 4, 8, 12, 16, 20)  \
  QUARTER2_(k, lane, 1, 31, 1, 5, 9, 13, 17, 21)  \
  QUARTER2_(k, lane, 2, 30, 2, 6, 10, 14, 18, 22) \
  QUARTER2_(k, lane, 3, 31, 3, 7, 11, 15, 19, 23)
#define FOUR2_(four)   \
  LOAD2_(q, four * 16) \
  VALUE2_(four * 4, 0) VALUE2_(four * 4 + 1, 1) VALUE2_(four * 4 + 2, 2) VALUE2_(four * 4 + 3, 3)
#define SINGLE2_ LOAD2_(s, 0) VALUE2_(0, 0)
#define STORE2_                                                                                         \
  STORE_(0, 1, 0)                                                                                       \
  STORE_(2, 3, 2)                                                                                       \
  NEXT_ STORE_(4, 5, 0) STORE_(6, 7, 2) NEXT_ STORE_(8, 9, 0) STORE_(10, 11, 2) NEXT_ STORE_(12, 13, 0) \
      STORE_(14, 15, 2) NEXT_ STORE_(16, 17, 0) STORE_(18, 19, 2) NEXT_ STORE_(20, 21, 0) STORE_(22, 23, 2)

// Three vectors, 4 pixels, four values of each in v24 to v27.
#define LOAD3_(kind, bytes) \
  LOAD_(kind, 0, bytes, 24) LOAD_(kind, 1, bytes, 25) LOAD_(kind, 2, bytes, 26) LOAD_(kind, 3, bytes, 27)
#define SIXTH3_(k, lane, q, w, a, b, c, d) \
  WEIGHT_((k)*96, q, w) ADD_(a, w, 24, lane) ADD_(b, w, 25, lane) ADD_(c, w, 26, lane) ADD_(d, w, 27, lane)
#define VALUE3_(k, lane)                \
  SIXTH3_(k, lane, 0, 28, 0, 6, 12, 18) \
  SIXTH3_(k, lane, 1, 29, 1, 7, 13, 19) \
  SIXTH3_(k, lane, 2, 30, 2, 8, 14, 20) \
  SIXTH3_(k, lane, 3, 31, 3, 9, 15, 21) SIXTH3_(k, lane, 4, 28, 4, 10, 16, 22) SIXTH3_(k, lane, 5, 29, 5, 11, 17, 23)
#define FOUR3_(four)   \
  LOAD3_(q, four * 16) \
  VALUE3_(four * 4, 0) VALUE3_(four * 4 + 1, 1) VALUE3_(four * 4 + 2, 2) VALUE3_(four * 4 + 3, 3)
#define SINGLE3_ LOAD3_(s, 0) VALUE3_(0, 0)
#define STORE3_                                                                                                       \
  STORE_(0, 1, 0)                                                                                                     \
  STORE_(2, 3, 2)                                                                                                     \
  STORE_(4, 5, 4)                                                                                                     \
  NEXT_ STORE_(6, 7, 0) STORE_(8, 9, 2) STORE_(10, 11, 4) NEXT_ STORE_(12, 13, 0) STORE_(14, 15, 2) STORE_(16, 17, 4) \
      NEXT_ STORE_(18, 19, 0) STORE_(20, 21, 2) STORE_(22, 23, 4)

// Whole runs of 8 without a loop, shorter ones value by value.
#define MULTIPLY_(FOUR, SINGLE, STORES, BYTES) \
  asm volatile(ZERO_(0) ZERO_(1) ZERO_(2) ZERO_(3) ZERO_(4) ZERO_(5) ZERO_(6) ZERO_(7) ZERO_(8) ZERO_(9) ZERO_(10)     \
                   ZERO_(11) ZERO_(12) ZERO_(13) ZERO_(14) ZERO_(15) ZERO_(16) ZERO_(17) ZERO_(18) ZERO_(19)           \
                       ZERO_(20) ZERO_(21) ZERO_(22) ZERO_(23)                                                         \
               ".p2align 4\n1:\n\t"                                                                                    \
               "ldp %[x], %[k], [%[runs]], #16\n\tadd %[x], %[x], %[shift]\n\tcmp %[k], #8\n\tb.ne 3f\n\t"             \
               FETCH_(0) FETCH_(1) FOUR(0) FETCH_(2) FETCH_(3) FOUR(1)                                                 \
               "add %[ahead], %[ahead], #256\n\tadd %[w], %[w], #8*" TEXT_(BYTES) "\n"                                 \
               "2:\n\tsubs %[count], %[count], #1\n\tb.ne 1b\n\tb 4f\n"                                                \
               "3:\n\t" SINGLE "add %[x], %[x], #4\n\tadd %[w], %[w], #" TEXT_(BYTES)                                  \
               "\n\tsubs %[k], %[k], #1\n\tb.ne 3b\n\tb 2b\n"                                                          \
               "4:\n\t" STORES                                                                                         \
               OPERANDS_                                                                                               \
               : "memory", "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",      \
                 "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",     \
                 "v27", "v28", "v29", "v30", "v31")

template <int NV, int WIDE>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, int64_t, float* sums,
                     int64_t pitch, const float* fetched) {
  static_assert(WIDE == 1, "there are no more registers");
  const float* x;
  int64_t k;
  const int64_t bytes = shift * 4, row = pitch * 4;
  if (NV == 1) MULTIPLY_(FOUR1_, SINGLE1_, STORE1_, 32);
  if (NV == 2) MULTIPLY_(FOUR2_, SINGLE2_, STORE2_, 64);
  if (NV == 3) MULTIPLY_(FOUR3_, SINGLE3_, STORE3_, 96);
}
