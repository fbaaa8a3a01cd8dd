// paste_patches_ on CUDA: a warp writes one cell, or a part of one where there are few, in the order of the image's
// memory, up to 16 bytes a thread where image and patches are dense along the innermost axis.
#include "cuda/launch.cuh"

namespace mga {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// The copy of one patch as three axes, the innermost of the image's memory last; in items of the copied width.
struct PastePlan {
  int64_t patches, count, cells, columns;
  int64_t image_batch, cell_row, cell_column, patch_stride;  // steps from image to image, cell to cell, patch to patch
  int64_t size[3], to[3], from[3];
  FastDivisor middle, inner;
  WarpParts split;
};

// A cell outside the grid is left out. Which of two patches for one cell stays is not defined here.
template <typename T>
__global__ void __launch_bounds__(kThreads) paste_kernel(T* __restrict__ image, const T* __restrict__ patches,
                                                         const int32_t* __restrict__ indices, PastePlan p) {
  const int lane = threadIdx.x % 32;
  const int64_t units = p.patches * p.split.parts, step = int64_t(gridDim.x) * kWarps;
  for (int64_t unit = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; unit < units; unit += step) {
    const int64_t patch = unit / p.split.parts, cell = indices[patch];
    if (cell < 0 || cell >= p.cells) continue;
    T* to = image + patch / p.count * p.image_batch + cell / p.columns * p.cell_row + cell % p.columns * p.cell_column;
    const T* from = patches + patch * p.patch_stride;
    const uint32_t begin = uint32_t(unit % p.split.parts) * p.split.part;
    const uint32_t end = begin + p.split.part < p.split.items ? begin + p.split.part : p.split.items;
    MGA_UNROLL_BY(4)
    for (uint32_t i = begin + lane; i < end; i += 32) {
      uint32_t v, w;
      const uint32_t u = p.middle(p.inner(i, w), v);
      to[u * p.to[0] + v * p.to[1] + w * p.to[2]] = from[u * p.from[0] + v * p.from[1] + w * p.from[2]];
    }
  }
}

// Axes in the order of the image's memory; channels and columns become one axis where both sides have them dense.
PastePlan plan_in_elements(const PasteShape& s) {
  PastePlan p{};
  p.patches = s.batch * s.count;
  p.count = s.count;
  p.cells = s.rows * s.columns;
  p.columns = s.columns;
  p.image_batch = s.image_stride[0];
  p.cell_row = s.image_stride[2] * s.side;
  p.cell_column = s.image_stride[3] * s.side;
  p.patch_stride = s.patch_stride[0];
  const bool channels_last = s.channels > 1 && s.image_stride[1] == 1;
  const int axes[2][3] = {{1, 2, 3}, {2, 3, 1}};
  const int64_t sizes[4] = {0, s.channels, s.side, s.side};
  for (int i = 0; i < 3; ++i) {
    const int axis = axes[channels_last][i];
    p.size[i] = sizes[axis];
    p.to[i] = s.image_stride[axis];
    p.from[i] = s.patch_stride[axis];
  }
  if (p.to[2] == 1 && p.from[2] == 1 && p.to[1] == p.size[2] && p.from[1] == p.size[2]) {
    p.size[2] *= p.size[1];
    p.size[1] = 1;
  }
  // Strides that are never used say nothing about alignment.
  if (s.batch == 1) p.image_batch = 0;
  for (int i = 0; i < 2; ++i) {
    if (p.size[i] == 1) p.to[i] = p.from[i] = 0;
  }
  return p;
}

template <typename T>
int launch(void* image, const void* patches, const int32_t* indices, PastePlan p, int item_size, void* stream) {
  const int64_t packed = int64_t(sizeof(T)) / item_size;
  for (int64_t* number : {&p.image_batch, &p.cell_row, &p.cell_column, &p.patch_stride, &p.size[2], &p.to[0], &p.to[1],
                          &p.from[0], &p.from[1]}) {
    *number /= packed;
  }
  const int64_t items = p.size[0] * p.size[1] * p.size[2];
  if (items >= INT32_MAX) return int(cudaErrorInvalidValue);
  p.middle = FastDivisor(p.size[1]);
  p.inner = FastDivisor(p.size[2]);
  p.split = WarpParts(items, p.patches);
  MGA_LAUNCH(paste_kernel<T>, blocks_for(p.patches * p.split.parts, kWarps), dim3(kThreads), stream,
             static_cast<T*>(image), static_cast<const T*>(patches), indices, p);
  return int(cudaGetLastError());
}

}  // namespace

int paste_patches_cuda(void* image, const void* patches, const int32_t* indices, const PasteShape& shape, int item_size,
                       void* stream) {
  if (shape.batch * shape.count * shape.channels * shape.side == 0) return 0;
  const PastePlan p = plan_in_elements(shape);
  int width = item_size;
  if (p.to[2] == 1 && p.from[2] == 1) {
    const int64_t n = item_size;
    width = widest_access(reinterpret_cast<uintptr_t>(image), reinterpret_cast<uintptr_t>(patches), n * p.image_batch,
                          n * p.cell_row, n * p.cell_column, n * p.patch_stride, n * p.size[2], n * p.to[0],
                          n * p.to[1], n * p.from[0], n * p.from[1]);
  }
  return launch_by_width(
      width, [&](auto item) { return launch<decltype(item)>(image, patches, indices, p, item_size, stream); });
}

}  // namespace mga
