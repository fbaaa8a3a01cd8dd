// gather_patches on CUDA: a warp copies one patch, or a part of one where there are few, so that the cell is looked up
// once a warp; up to 16 bytes a thread where channels are innermost, in the order of the result's memory.
#include "cuda/launch.cuh"

namespace mga {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// The copy with its axes in the order of the result's memory, sizes and strides in items of the copied width.
struct GatherPlan {
  int64_t patches, count, cells;      // B * K, K, rows * columns
  int64_t columns, patch_size, halo;  // cells a row, p, h
  int64_t height, width;
  int64_t batch_stride, row_stride, column_stride;
  int64_t stride[3];  // of the axes below in the feature
  FastDivisor middle, inner;
  WarpParts split;
  bool channels_last;
};

// feature (B, C, H, W) by stride; indices (B, K); patches (B*K, C, side, side), dense in either layout. A cell outside
// the grid gives zeros: the host must not wait for the indices, so it cannot refuse them.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const T* __restrict__ feature, const int32_t* __restrict__ indices, T* __restrict__ patches,
                  GatherPlan p) {
  const int lane = threadIdx.x % 32;
  const int64_t units = p.patches * p.split.parts, step = int64_t(gridDim.x) * kWarps;
  for (int64_t unit = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; unit < units; unit += step) {
    const int64_t patch = unit / p.split.parts, cell = indices[patch];
    const bool known = cell >= 0 && cell < p.cells;
    const int64_t top = cell / p.columns * p.patch_size - p.halo, left = cell % p.columns * p.patch_size - p.halo;
    const T* from = feature + patch / p.count * p.batch_stride + top * p.row_stride + left * p.column_stride;
    T* to = patches + patch * p.split.items;
    const uint32_t begin = uint32_t(unit % p.split.parts) * p.split.part;
    const uint32_t end = begin + p.split.part < p.split.items ? begin + p.split.part : p.split.items;
    MGA_UNROLL_BY(4)
    for (uint32_t i = begin + lane; i < end; i += 32) {
      uint32_t v, w;
      const uint32_t u = p.middle(p.inner(i, w), v);
      const int64_t y = top + (p.channels_last ? u : v), x = left + (p.channels_last ? v : w);
      const bool inside = known && y >= 0 && y < p.height && x >= 0 && x < p.width;
      to[i] = inside ? from[u * p.stride[0] + v * p.stride[1] + w * p.stride[2]] : T{};
    }
  }
}

template <typename T>
int launch(const void* feature, const int32_t* indices, void* patches, const GatherShape& s, int item_size,
           void* stream) {
  const int64_t packed = int64_t(sizeof(T)) / item_size;  // elements an item
  const int64_t channels = s.channels / packed, side = s.side();
  const int64_t items = channels * side * side;
  if (items >= INT32_MAX) return int(cudaErrorInvalidValue);
  GatherPlan p{};
  p.patches = s.batch * s.count;
  p.count = s.count;
  p.cells = s.rows() * s.columns();
  p.columns = s.columns();
  p.patch_size = s.patch_size;
  p.halo = s.halo;
  p.height = s.height;
  p.width = s.width;
  p.batch_stride = s.stride[0] / packed;
  p.row_stride = s.stride[2] / packed;
  p.column_stride = s.stride[3] / packed;
  const int64_t channel_stride = packed > 1 ? 1 : s.stride[1];
  const int64_t strides[2][3] = {{channel_stride, p.row_stride, p.column_stride},
                                 {p.row_stride, p.column_stride, channel_stride}};
  for (int i = 0; i < 3; ++i) p.stride[i] = strides[s.channels_last][i];
  p.middle = FastDivisor(side);
  p.inner = FastDivisor(s.channels_last ? channels : side);
  p.split = WarpParts(items, p.patches);
  p.channels_last = s.channels_last;
  MGA_LAUNCH(gather_kernel<T>, blocks_for(p.patches * p.split.parts, kWarps), dim3(kThreads), stream,
             static_cast<const T*>(feature), indices, static_cast<T*>(patches), p);
  return int(cudaGetLastError());
}

}  // namespace

int gather_patches_cuda(const void* feature, const int32_t* indices, void* patches, const GatherShape& shape,
                        int item_size, void* stream) {
  if (shape.batch * shape.count * shape.channels * shape.side() == 0) return 0;
  int width = item_size;
  if (shape.channels_last && shape.stride[1] == 1) {
    width = widest_access(reinterpret_cast<uintptr_t>(feature), reinterpret_cast<uintptr_t>(patches),
                          shape.channels * item_size, shape.batch > 1 ? shape.stride[0] * item_size : 0,
                          shape.stride[2] * item_size, shape.stride[3] * item_size);
  }
  return launch_by_width(
      width, [&](auto item) { return launch<decltype(item)>(feature, indices, patches, shape, item_size, stream); });
}

const char* cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace mga
