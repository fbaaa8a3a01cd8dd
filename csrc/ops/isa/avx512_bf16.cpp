// Instruction set of x86_64: avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512bf16. Compiled for it as a whole.
#define MGA_ISA avx512_bf16
#include "ops/isa/kernels_of_set.h"
