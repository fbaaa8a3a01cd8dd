// Instruction set: none.
#define MGA_ISA baseline
#include "ops/isa/kernels_of_set.h"
