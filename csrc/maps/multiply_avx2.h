// The innermost loop with AVX2, in assembly: g++ 12 makes a third less of the same in intrinsics, because it spills
// sums or reloads a weight for every product. ymm0 to 11 are the sums, 12 to 14 weights. Part of vector.h.

#define BROADCAST_(pixel, k, to) "vbroadcastss " TEXT_(pixel) "*32+" TEXT_(k) "*4(%[x]), %%ymm" TEXT_(to) "\n\t"
#define WEIGHT_(k, bytes, v, to) "vmovups " TEXT_(k) "*" TEXT_(bytes) "+" TEXT_(v) "*32(%[w]), %%ymm" TEXT_(to) "\n\t"
#define ADD_(weight, x, sum) "vfmadd231ps %%ymm" TEXT_(weight) ", %%ymm" TEXT_(x) ", %%ymm" TEXT_(sum) "\n\t"
#define STORE_(sum, v) "vmovups %%ymm" TEXT_(sum) ", " TEXT_(v) "*32(%[to])\n\t"
#define NEXT_ "addq %[pitch], %[to]\n\t"
#define ZERO_(sum) "vxorps %%xmm" TEXT_(sum) ", %%xmm" TEXT_(sum) ", %%xmm" TEXT_(sum) "\n\t"
#define FETCH_(line) "prefetcht0 " TEXT_(line) "*64(%[ahead])\n\t"

// Value k of the run, for 12 pixels of one vector, 6 of two, 4 of three.
#define ONE1_(pixel, k, x) BROADCAST_(pixel, k, x) ADD_(12, x, pixel)
#define STEP1_(k)       \
  WEIGHT_(k, 32, 0, 12) \
  ONE1_(0, k, 13)       \
  ONE1_(1, k, 14)       \
  ONE1_(2, k, 15)       \
  ONE1_(3, k, 13)       \
  ONE1_(4, k, 14)       \
  ONE1_(5, k, 15) ONE1_(6, k, 13) ONE1_(7, k, 14) ONE1_(8, k, 15) ONE1_(9, k, 13) ONE1_(10, k, 14) ONE1_(11, k, 15)
#define STORE1_                                                                                                     \
  STORE_(0, 0)                                                                                                      \
  NEXT_ STORE_(1, 0) NEXT_ STORE_(2, 0) NEXT_ STORE_(3, 0) NEXT_ STORE_(4, 0) NEXT_ STORE_(5, 0) NEXT_ STORE_(6, 0) \
      NEXT_ STORE_(7, 0) NEXT_ STORE_(8, 0) NEXT_ STORE_(9, 0) NEXT_ STORE_(10, 0) NEXT_ STORE_(11, 0)
#define ONE2_(pixel, k, x, a, b) BROADCAST_(pixel, k, x) ADD_(12, x, a) ADD_(13, x, b)
#define STEP2_(k)       \
  WEIGHT_(k, 64, 0, 12) \
  WEIGHT_(k, 64, 1, 13) \
  ONE2_(0, k, 14, 0, 1) \
  ONE2_(1, k, 15, 2, 3) ONE2_(2, k, 14, 4, 5) ONE2_(3, k, 15, 6, 7) ONE2_(4, k, 14, 8, 9) ONE2_(5, k, 15, 10, 11)
#define STORE2_                                                                                                      \
  STORE_(0, 0)                                                                                                       \
  STORE_(1, 1)                                                                                                       \
  NEXT_ STORE_(2, 0) STORE_(3, 1) NEXT_ STORE_(4, 0) STORE_(5, 1) NEXT_ STORE_(6, 0) STORE_(7, 1) NEXT_ STORE_(8, 0) \
      STORE_(9, 1) NEXT_ STORE_(10, 0) STORE_(11, 1)
#define ONE3_(pixel, k, a, b, c) BROADCAST_(pixel, k, 15) ADD_(12, 15, a) ADD_(13, 15, b) ADD_(14, 15, c)
#define STEP3_(k)       \
  WEIGHT_(k, 96, 0, 12) \
  WEIGHT_(k, 96, 1, 13) \
  WEIGHT_(k, 96, 2, 14) ONE3_(0, k, 0, 1, 2) ONE3_(1, k, 3, 4, 5) ONE3_(2, k, 6, 7, 8) ONE3_(3, k, 9, 10, 11)
#define STORE3_                                                                                                \
  STORE_(0, 0)                                                                                                 \
  STORE_(1, 1)                                                                                                 \
  STORE_(2, 2)                                                                                                 \
  NEXT_ STORE_(3, 0) STORE_(4, 1) STORE_(5, 2) NEXT_ STORE_(6, 0) STORE_(7, 1) STORE_(8, 2) NEXT_ STORE_(9, 0) \
      STORE_(10, 1) STORE_(11, 2)

// Whole runs of 8 without a loop, shorter ones value by value.
#define MULTIPLY_(STEP, STORES, BYTES) \
  asm volatile(ZERO_(0) ZERO_(1) ZERO_(2) ZERO_(3) ZERO_(4) ZERO_(5) ZERO_(6) ZERO_(7) ZERO_(8) ZERO_(9) ZERO_(10)     \
                   ZERO_(11)                                                                                           \
               ".p2align 5\n1:\n\t"                                                                                    \
               "movq (%[runs]), %[x]\n\taddq %[shift], %[x]\n\tmovq 8(%[runs]), %[k]\n\taddq $16, %[runs]\n\t"         \
               "cmpq $8, %[k]\n\tjne 3f\n\t"                                                                           \
               FETCH_(0) STEP(0) STEP(1) FETCH_(1) STEP(2) STEP(3) FETCH_(2) STEP(4) STEP(5) FETCH_(3) STEP(6) STEP(7) \
               "addq $256, %[ahead]\n\taddq $8*" TEXT_(BYTES) ", %[w]\n\t"                                             \
               "2:\n\tdecq %[count]\n\tjne 1b\n\tjmp 4f\n"                                                             \
               "3:\n\t" STEP(0) "addq $4, %[x]\n\taddq $" TEXT_(BYTES) ", %[w]\n\tdecq %[k]\n\tjne 3b\n\tjmp 2b\n"     \
               "4:\n\t" STORES                                                                                         \
               OPERANDS_                                                                                               \
               : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",       \
                 "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

template <int NV, int WIDE>
INLINE void multiply(const Run* runs, int64_t count, int64_t shift, const float* weight, int64_t, float* sums,
                     int64_t pitch, const float* fetched) {
  static_assert(WIDE == 1, "there are no more registers");
  const float* x;
  int64_t k;
  const int64_t bytes = shift * 4, row = pitch * 4;
  if (NV == 1) MULTIPLY_(STEP1_, STORE1_, 32);
  if (NV == 2) MULTIPLY_(STEP2_, STORE2_, 64);
  if (NV == 3) MULTIPLY_(STEP3_, STORE3_, 96);
}
