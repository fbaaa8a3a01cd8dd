// The CPU kernels for one instruction set, that of the compiler options which setup.py gives this file.
#define MGA_ISA baseline
#include "all.h"
