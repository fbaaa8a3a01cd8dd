// paste_patches_ on CUDA: one thread an element of the patches, in the order of the image's memory.
#include "cuda_launch.cuh"

namespace mga {
namespace {

constexpr int kThreads = 256;

// image (B, C, rows*q, columns*q) by s.image_stride, patches (B*K, C, q, q) by s.patch_stride, indices (B, K). A cell
// outside the grid is left out. Which of two patches for one cell stays is not defined here.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    paste_kernel(T* __restrict__ image, const T* __restrict__ patches, const int32_t* __restrict__ indices,
                 PasteShape s, bool channels_last, int64_t total) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    int64_t rest = i, c = 0;
    if (channels_last) {
      c = rest % s.channels;
      rest /= s.channels;
    }
    const int64_t x = rest % s.side;
    rest /= s.side;
    const int64_t y = rest % s.side;
    rest /= s.side;
    if (!channels_last) {
      c = rest % s.channels;
      rest /= s.channels;
    }
    const int64_t cell = indices[rest];
    if (cell < 0 || cell >= s.rows * s.columns) continue;
    const int64_t row = cell / s.columns * s.side + y, column = cell % s.columns * s.side + x;
    const int64_t b = rest / s.count;
    const int64_t from =
        rest * s.patch_stride[0] + c * s.patch_stride[1] + y * s.patch_stride[2] + x * s.patch_stride[3];
    image[b * s.image_stride[0] + c * s.image_stride[1] + row * s.image_stride[2] + column * s.image_stride[3]] =
        patches[from];
  }
}

template <typename T>
int launch(void* image, const void* patches, const int32_t* indices, const PasteShape& s, void* stream) {
  const int64_t total = s.batch * s.count * s.channels * s.side * s.side;
  if (total == 0) return 0;
  const bool channels_last = s.channels > 1 && s.image_stride[1] == 1;
  MGA_LAUNCH(paste_kernel<T>, blocks_for(total, kThreads), dim3(kThreads), stream, static_cast<T*>(image),
             static_cast<const T*>(patches), indices, s, channels_last, total);
  return int(cudaGetLastError());
}

}  // namespace

int paste_patches_cuda(void* image, const void* patches, const int32_t* indices, const PasteShape& shape, int item_size,
                       void* stream) {
  switch (item_size) {
    case 1:
      return launch<uint8_t>(image, patches, indices, shape, stream);
    case 2:
      return launch<uint16_t>(image, patches, indices, shape, stream);
    case 4:
      return launch<uint32_t>(image, patches, indices, shape, stream);
    case 8:
      return launch<uint64_t>(image, patches, indices, shape, stream);
    default:
      return int(cudaErrorInvalidValue);
  }
}

}  // namespace mga
