#include "convolution/kernels.h"

#include "instruction_sets.h"
#include "simd/instruction_set.h"

namespace mga {

MGA_BEST_TABLE(ConvolutionKernels, convolution_kernels, MGA_CONVOLUTION_KERNELS)

}  // namespace mga
