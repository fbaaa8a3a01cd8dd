// The host side of conv_chain on CUDA: where each state lies, and how many patches a block takes. See conv_chain.cuh.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "ops/conv_chain/conv_chain.cuh"

namespace mga {
namespace {

// Gives every state a slot. A layer may write where a state lies that nobody reads later, its own input included.
// Returns the number of slots.
int assign_slots(const int64_t* skips, int layers, ChainPlan& plan) {
  std::vector<int> last_use(layers + 1);
  for (int l = 0; l < layers; ++l) {
    last_use[l] = std::max(last_use[l], l);
    if (skips[l] >= 0) last_use[skips[l]] = std::max(last_use[skips[l]], l);
  }
  std::vector<int> slot(layers + 1, 0), occupant{0};
  for (int l = 0; l < layers; ++l) {
    plan.from[l] = int8_t(slot[l]);
    plan.skip[l] = int8_t(skips[l] < 0 ? -1 : slot[skips[l]]);
    const auto free = std::find_if(occupant.begin(), occupant.end(), [&](int state) { return last_use[state] <= l; });
    slot[l + 1] = int(free - occupant.begin());
    if (free == occupant.end()) {
      occupant.push_back(l + 1);
    } else {
      *free = l + 1;
    }
    if (occupant.size() > 127) return 0;
    plan.to[l] = int8_t(slot[l + 1]);
  }
  return int(occupant.size());
}

// Rows of C elements that start at these byte distances: how many bytes to copy at once asynchronously, 0 for none.
template <typename... N>
int async_width(int64_t inner_stride, N... bytes) {
  const int width = widest_access(bytes...);
  return inner_stride == 1 && width >= 4 ? width : 0;
}

void choose_copies(ChainPlan& plan) {
  const ChainShape& s = plan.shape;
  const int64_t item = 2, row = item * s.channels;
  const int64_t *w = s.weight_stride, *x = s.patch_stride;
  plan.weight_copy = async_width(w[2], reinterpret_cast<uintptr_t>(s.weights), row, item * w[0], item * w[1],
                                 item * w[3], item * w[4]);
  plan.patch_copy =
      async_width(x[1], reinterpret_cast<uintptr_t>(s.patches), row, item * x[0], item * x[2], item * x[3]);
  plan.output_copy = widest_access(reinterpret_cast<uintptr_t>(plan.output), row) / int(item);
}

}  // namespace

int conv_chain_cuda(const ChainShape& shape, const int64_t* skips, Real type, void* output, void* stream) {
  if (shape.layers < 1 || shape.layers > kMaxChainLayers || shape.channels > kMaxChainChannels ||
      shape.side > kMaxChainSide || (type != Real::f16 && type != Real::bf16)) {
    return int(cudaErrorInvalidValue);
  }
  ChainPlan plan{};
  plan.shape = shape;
  plan.output = output;
  choose_copies(plan);
  const int slots = assign_slots(skips, shape.layers, plan);
  if (slots == 0) return int(cudaErrorInvalidConfiguration);

  // The size whose busiest multiprocessor has least to do, counting a tile's worth of overhead a block. That two or three
  // small blocks may share a multiprocessor is not in it, so a benchmark can force each size.
  const char* forced = std::getenv("MGA_CHAIN_TILES");
  const int multiprocessors = std::max(1, device_attribute(cudaDevAttrMultiProcessorCount));
  const size_t limit = size_t(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  const int depth = (shape.channels + 15) / 16, pixels = shape.side * shape.side;
  ChainKernel best{};
  int64_t least = INT64_MAX, blocks = 0;
  for (const int tiles : {4, 2, 1}) {
    if (forced != nullptr && std::atoi(forced) != tiles) continue;
    const ChainKernel kernel = type == Real::f16 ? chain_kernel_f16(depth, tiles) : chain_kernel_bf16(depth, tiles);
    if (pixels > kernel.rows || kernel.fixed_bytes + slots * kernel.slot_bytes > limit) continue;
    const int group = kernel.rows / pixels;
    const int64_t needed = (shape.count + group - 1) / group;
    const int64_t cost = (needed + multiprocessors - 1) / multiprocessors * (tiles + 1);
    if (cost < least) {
      least = cost;
      best = kernel;
      blocks = needed;
      plan.group = group;
    }
  }
  if (best.launch == nullptr) return int(cudaErrorInvalidConfiguration);
  if (blocks == 0) return 0;
  return best.launch(plan, blocks, best.fixed_bytes + slots * best.slot_bytes, stream);
}

}  // namespace mga
