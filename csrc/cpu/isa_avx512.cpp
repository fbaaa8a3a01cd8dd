// The CPU kernels for one instruction set, that of the compiler options which setup.py gives this file.
#if defined(__x86_64__)
#define MGA_ISA avx512
#include "all.h"
#endif
