// Instruction set of x86_64: avx2 fma f16c avx512f avx512bw avx512vl avx512dq. Compiled for it as a whole.
#define MGA_ISA avx512
#define MGA_MAPS_FAST true
#include "maps/body.h"
