// select_patches on CUDA: one launch, one block an image, nothing read by the host. One block is enough: reading the
// 128 KiB of a 960x540 image's mask takes one multiprocessor about a microsecond, and more blocks would have to meet.
#include "ops/select_patches/selection.cuh"

namespace mga {
namespace {

__device__ __forceinline__ double widen(double value) { return value; }
template <typename T>
__device__ __forceinline__ float widen(T value) {
  return to_float(value);
}

template <typename T, typename Key>
struct MaskKeys {
  const T* values;
  Order order;
  uint32_t seed;
  __device__ __forceinline__ Key operator()(int64_t cell) const {
    return key_of<Key>(widen(values[cell]), cell, order, seed);
  }
};

// mask (B, cells) -> indices (B, count), ascending.
template <typename T, typename Key, template <typename, typename> class Keys>
__global__ void __launch_bounds__(kSelectThreads, 1)
    select_kernel(const T* __restrict__ mask, int32_t* __restrict__ indices, int64_t cells, int count, Order order,
                  uint32_t seed) {
  __shared__ SelectScratch scratch;
  const MaskKeys<T, Key> load{mask + int64_t(blockIdx.x) * cells, order, seed};
  Keys<Key, MaskKeys<T, Key>> keys(load, cells);
  choose_cells<Key>(keys, count, indices + int64_t(blockIdx.x) * count, scratch, false);
}

template <typename T, typename Key, template <typename, typename> class Keys>
int launch(const void* mask, int32_t* indices, int64_t batch, int64_t cells, int64_t count, Order order, uint32_t seed,
           void* stream) {
  MGA_LAUNCH((select_kernel<T, Key, Keys>), dim3(unsigned(batch)), dim3(kSelectThreads), stream,
             static_cast<const T*>(mask), indices, cells, int(count), order, seed);
  return int(cudaGetLastError());
}

template <typename T>
int launch(const void* mask, int32_t* indices, int64_t batch, int64_t cells, int64_t count, Order order, uint32_t seed,
           void* stream) {
  const auto run = cells <= kHeldCells ? launch<T, uint32_t, HeldKeys> : launch<T, uint32_t, StreamedKeys>;
  return run(mask, indices, batch, cells, count, order, seed, stream);
}

}  // namespace

int select_patches_cuda(const void* mask, Real dtype, int32_t* indices, int64_t batch, int64_t cells, int64_t count,
                        Order order, uint32_t seed, void* stream) {
  if (batch == 0 || count == 0) return 0;
  switch (dtype) {
    case Real::f16:
      return launch<__half>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::bf16:
      return launch<__nv_bfloat16>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::f32:
      return launch<float>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::f64:  // its keys are too many for the registers
      return launch<double, uint64_t, StreamedKeys>(mask, indices, batch, cells, count, order, seed, stream);
  }
  return int(cudaErrorInvalidValue);
}

}  // namespace mga
