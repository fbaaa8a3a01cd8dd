#include "kernels.h"

#include "instruction_set.h"

namespace mga {

const CpuKernels& cpu_kernels() {
  switch (instruction_set()) {
#if defined(__x86_64__)
    case InstructionSet::avx512_bf16:
      return avx512_bf16::kernels;
    case InstructionSet::avx512:
      return avx512::kernels;
    case InstructionSet::avx2:
      return avx2::kernels;
#endif
    default:
      return baseline::kernels;
  }
}

}  // namespace mga
