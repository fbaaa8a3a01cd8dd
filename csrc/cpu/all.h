// Included by every isa_*.cpp. Nothing here or below may include a header of the C++ library: its inline functions
// would be compiled for this instruction set, and the linker might choose that copy for the whole library.
#include "dynamic_filter.h"
#include "kernels.h"
#include "mask_head.h"
#include "pixels.h"

namespace mga {
namespace MGA_ISA {

#define MGA_TEXT_OF(x) #x
#define MGA_TEXT(x) MGA_TEXT_OF(x)

const CpuKernels kernels = {MGA_TEXT(MGA_ISA), mask_head_words, mask_head_pack,  mask_head_rows,
                            filter_row,        units_to_pixels, interleave_bytes};

}  // namespace MGA_ISA
}  // namespace mga
