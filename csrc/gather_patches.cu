// gather_patches on CUDA: one thread an element of the result, in the order of its memory.
#include "cuda_launch.cuh"

namespace mga {
namespace {

constexpr int kThreads = 256;

// feature (B, C, H, W) by s.stride; indices (B, K); patches (B*K, C, side, side), dense in either layout. A cell
// outside the grid gives zeros: the host must not wait for the indices, so it cannot refuse them.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* __restrict__ feature, const int32_t* __restrict__ indices, T* __restrict__ patches,
                  GatherShape s, int64_t total) {
  const int64_t side = s.patch_size + 2 * s.halo, columns = s.width / s.patch_size;
  const int64_t cells = s.height / s.patch_size * columns;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    int64_t rest = i, c = 0;
    if (s.channels_last) {
      c = rest % s.channels;
      rest /= s.channels;
    }
    const int64_t x = rest % side;
    rest /= side;
    const int64_t y = rest % side;
    rest /= side;
    if (!s.channels_last) {
      c = rest % s.channels;
      rest /= s.channels;
    }
    const int64_t cell = indices[rest];
    const int64_t row = cell / columns * s.patch_size - s.halo + y;
    const int64_t column = cell % columns * s.patch_size - s.halo + x;
    const bool inside = cell >= 0 && cell < cells && row >= 0 && row < s.height && column >= 0 && column < s.width;
    const int64_t b = rest / s.count;
    patches[i] = inside ? feature[b * s.stride[0] + c * s.stride[1] + row * s.stride[2] + column * s.stride[3]] : T(0);
  }
}

template <typename T>
int launch(const void* feature, const int32_t* indices, void* patches, const GatherShape& s, void* stream) {
  const int64_t total = s.batch * s.count * s.channels * s.side() * s.side();
  if (total == 0) return 0;
  MGA_LAUNCH(gather_kernel<T>, blocks_for(total, kThreads), dim3(kThreads), stream, static_cast<const T*>(feature),
             indices, static_cast<T*>(patches), s, total);
  return int(cudaGetLastError());
}

}  // namespace

int gather_patches_cuda(const void* feature, const int32_t* indices, void* patches, const GatherShape& shape,
                        int item_size, void* stream) {
  switch (item_size) {
    case 1:
      return launch<uint8_t>(feature, indices, patches, shape, stream);
    case 2:
      return launch<uint16_t>(feature, indices, patches, shape, stream);
    case 4:
      return launch<uint32_t>(feature, indices, patches, shape, stream);
    case 8:
      return launch<uint64_t>(feature, indices, patches, shape, stream);
    default:
      return int(cudaErrorInvalidValue);
  }
}

const char* cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace mga
