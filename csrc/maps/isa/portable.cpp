// Instruction set: none.
// The convolutions in float maps in plain C++, for any processor.
#define MGA_ISA portable
#define MGA_MAPS_FAST false
#include "maps/body.h"
