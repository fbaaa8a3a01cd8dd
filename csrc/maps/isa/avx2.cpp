// Instruction set of x86_64: avx2 fma f16c. Compiled for it as a whole.
#define MGA_ISA avx2
#define MGA_MAPS_FAST true
#include "maps/body.h"
