// Instruction set of aarch64: neon.
// Every aarch64 processor has it, and its compilers need no flag for it. No such processor has been timed.
#define MGA_ISA neon
#define MGA_NEON
#define MGA_MAPS_FAST true
#include "maps/body.h"
