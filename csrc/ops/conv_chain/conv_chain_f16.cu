// conv_chain in float16; see conv_chain.cuh.
#include "ops/conv_chain/conv_chain.cuh"

namespace mga {

ChainKernel chain_kernel_f16(int depth, int tiles) { return chain_kernel_for<__half>(depth, tiles); }

}  // namespace mga
