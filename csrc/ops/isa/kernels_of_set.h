// Included by every file in ops/isa, with MGA_ISA its name. Nothing here or below may include a header of the C++
// library: its inline functions would be compiled for this instruction set, and the linker might choose that copy for
// the whole library.
#include "ops/dynamic_filter/rows.h"
#include "ops/high_pass/rows.h"
#include "ops/kernels.h"
#include "ops/mask_head/rows.h"
#include "ops/output_to_image/pixels.h"

namespace mga {
namespace MGA_ISA {

#define MGA_TEXT_OF(x) #x
#define MGA_TEXT(x) MGA_TEXT_OF(x)

extern const OperatorKernels operator_kernels;
const OperatorKernels operator_kernels = {MGA_TEXT(MGA_ISA), mask_head_words, mask_head_pack,
                                          mask_head_rows,    filter_row,      units_to_bytes,
                                          interleave_bytes,  luma_row,        distance_row};

}  // namespace MGA_ISA
}  // namespace mga
