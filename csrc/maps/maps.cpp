// convolve_maps_ as an operator of torch, on its threads.
#include "maps/reader.h"
#include "torch/glue.h"

namespace mga {
namespace {

void convolve_maps_in_torch(const std::vector<Tensor>& tensors, const std::vector<int64_t>& maps,
                            const std::vector<Tensor>& lanes, const std::vector<Tensor>& rows,
                            const std::vector<Tensor>& weights, const std::vector<Tensor>& epilogues,
                            const std::vector<int64_t>& layers, const std::vector<Tensor>& tiles,
                            const std::vector<Tensor>& statistics, const std::vector<int64_t>& frame, double gain,
                            const std::optional<Tensor>& added) {
  convolve_maps(tensors, maps, lanes, rows, weights, epilogues, layers, tiles, statistics, frame, gain, added,
                [](ChainRun& work) {
                  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), work.tasks());
                  if (threads <= 1) {
                    work.work();
                  } else {
                    torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) { work.work(); });
                  }
                });
}

}  // namespace
}  // namespace mga

STABLE_TORCH_LIBRARY_FRAGMENT(mga, m) {
  m.def(
      "convolve_maps_(Tensor(a!)[] tensors, int[] maps, Tensor[] lanes, Tensor[] rows, Tensor[] weights, "
      "Tensor[] epilogues, int[] layers, Tensor[] tiles, Tensor(b!)[] statistics, int[] frame, float gain, "
      "Tensor? added) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(mga, CPU, m) { m.impl("convolve_maps_", TORCH_BOX(&mga::convolve_maps_in_torch)); }
