// conv_chain in bfloat16; see conv_chain.cuh.
#include "ops/conv_chain/conv_chain.cuh"

namespace mga {

ChainKernel chain_kernel_bf16(int depth, int tiles) { return chain_kernel_for<__nv_bfloat16>(depth, tiles); }

}  // namespace mga
