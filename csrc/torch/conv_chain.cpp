// conv_chain: schema and CUDA binding.
#include <vector>

#include "torch/glue.h"

#ifdef MGA_WITH_CUDA
namespace mga {
namespace {

constexpr const char* kOp = "conv_chain";

ChainShape check(const Tensor& patches, const Tensor& weights, const Tensor& biases, const Tensor& slopes,
                 const std::vector<int64_t>& skips, int64_t crop) {
  STD_TORCH_CHECK(patches.dim() == 4 && patches.size(2) == patches.size(3), kOp, ": patches must be (N, C, q, q)");
  const int64_t channels = patches.size(1), side = patches.size(2), layers = weights.size(0);
  STD_TORCH_CHECK(weights.dim() == 5 && weights.size(1) == channels && weights.size(2) == channels &&
                      weights.size(3) == 3 && weights.size(4) == 3,
                  kOp, ": weights must be (L, C, C, 3, 3)");
  for (const Tensor& factors : {biases, slopes}) {
    STD_TORCH_CHECK(factors.dim() == 2 && factors.size(0) == layers && factors.size(1) == channels, kOp,
                    ": biases and slopes must be (L, C)");
  }
  for (const Tensor& tensor : {weights, biases, slopes}) {
    STD_TORCH_CHECK(tensor.scalar_type() == patches.scalar_type(), kOp, ": all tensors must have one dtype");
    STD_TORCH_CHECK(tensor.get_device() == patches.get_device(), kOp, ": all tensors must be on one device");
  }
  STD_TORCH_CHECK(layers >= 1 && int64_t(skips.size()) == layers, kOp, ": skips must hold a number a layer");
  for (int64_t l = 0; l < layers; ++l) {
    STD_TORCH_CHECK(skips[l] >= -1 && skips[l] <= l, kOp, ": skips[", l, "] must be between -1 and ", l);
  }
  STD_TORCH_CHECK((crop == 0 || crop == 1) && side > 2 * crop, kOp, ": crop must be 0, or 1 for 3x3 and more");
  STD_TORCH_CHECK(channels >= 1 && channels <= kMaxChainChannels && layers <= kMaxChainLayers && side <= kMaxChainSide,
                  kOp, ": on CUDA at most ", kMaxChainChannels, " channels, ", kMaxChainLayers,
                  " layers and patches of ", kMaxChainSide, "x", kMaxChainSide);
  ChainShape shape{};
  shape.count = patches.size(0);
  shape.channels = int(channels);
  shape.side = int(side);
  shape.layers = int(layers);
  shape.crop = int(crop);
  for (int i = 0; i < 4; ++i) shape.patch_stride[i] = patches.stride(i);
  for (int i = 0; i < 5; ++i) shape.weight_stride[i] = weights.stride(i);
  return shape;
}

Tensor conv_chain_gpu(const Tensor& patches, const Tensor& weights, const Tensor& biases, const Tensor& slopes,
                      std::vector<int64_t> skips, int64_t crop) {
  using torch::headeronly::MemoryFormat;
  const torch::stable::accelerator::DeviceGuard guard(patches.get_device_index());
  ChainShape shape = check(patches, weights, biases, slopes, skips, crop);
  const Real dtype = real_of(kOp, patches);
  STD_TORCH_CHECK(dtype == Real::f16 || dtype == Real::bf16, kOp, ": float16 and bfloat16 only on CUDA");
  const std::vector<int64_t> sizes{shape.count, shape.channels, shape.side - 2 * crop, shape.side - 2 * crop};
  Tensor output = torch::stable::empty(sizes, patches.scalar_type(), std::nullopt, patches.device(), std::nullopt,
                                       MemoryFormat::ChannelsLast);
  const Tensor dense_biases = torch::stable::contiguous(biases), dense_slopes = torch::stable::contiguous(slopes);
  shape.patches = patches.const_data_ptr();
  shape.weights = weights.const_data_ptr();
  shape.biases = dense_biases.const_data_ptr();
  shape.slopes = dense_slopes.const_data_ptr();
  check_launch(kOp,
               conv_chain_cuda(shape, skips.data(), dtype, output.mutable_data_ptr(), current_stream(kOp, patches)));
  return output;
}

}  // namespace
}  // namespace mga
#endif

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def("conv_chain(Tensor patches, Tensor weights, Tensor biases, Tensor slopes, int[] skips, int crop) -> Tensor");
}
#ifdef MGA_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(mga, CUDA, m) { m.impl("conv_chain", TORCH_BOX(&mga::conv_chain_gpu)); }
#endif
