// select_patches on CUDA: one block an image. A radix select finds the smallest key chosen, byte by byte; one more pass
// writes the chosen cells in raster order. Exact, with the tie rule of the reference, and nothing is read by the host.
#include <cstring>

#include "cuda_launch.cuh"
#include "hash.h"

namespace mga {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kDigits = 256;

// Keys that sort unsigned as the values do, larger key earlier choice; NaN gets 0 in both orders.
__device__ __forceinline__ uint32_t ascending_key(float value) {
  if (value != value) return 0;
  value += 0.0f;  // -0.0 becomes +0.0
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 31 ? ~bits : bits | uint32_t(1) << 31;
}

__device__ __forceinline__ uint64_t ascending_key(double value) {
  if (value != value) return 0;
  value += 0.0;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }

template <typename T, typename Key>
__device__ __forceinline__ Key key_of(const T* __restrict__ values, int64_t cell, Order order, uint32_t seed) {
  if (order == Order::random) return cell_hash(uint32_t(cell), seed);
  const Key key = ascending_key(widen(values[cell]));
  return order == Order::smallest && key != 0 ? ~key : key;
}

// values (cells), histogram (256, shared), state (2, shared): the count-th largest key, and in `ties` how many cells
// with exactly that key are chosen.
template <typename T, typename Key>
__device__ Key find_threshold(const T* __restrict__ values, int64_t cells, int count, Order order, uint32_t seed,
                              int* histogram, int* state, int& ties) {
  Key prefix = 0;
  int remaining = count;
  for (int shift = 8 * sizeof(Key) - 8; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < kDigits; d += kThreads) histogram[d] = 0;
    __syncthreads();
    const Key above = shift + 8 == 8 * int(sizeof(Key)) ? Key(0) : Key(~Key(0)) << (shift + 8);
    for (int64_t i = threadIdx.x; i < cells; i += kThreads) {
      const Key key = key_of<T, Key>(values, i, order, seed);
      if (((key ^ prefix) & above) == 0) atomicAdd(&histogram[int(key >> shift) & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = kDigits - 1, left = remaining;
      while (histogram[digit] < left) left -= histogram[digit--];
      state[0] = digit;
      state[1] = left;
    }
    __syncthreads();
    prefix |= Key(state[0]) << shift;
    remaining = state[1];  // next written two barriers later
  }
  ties = remaining;
  return prefix;
}

// mask (B, cells) -> indices (B, count), ascending.
template <typename T, typename Key>
__global__ void __launch_bounds__(kThreads) select_kernel(const T* __restrict__ mask, int32_t* __restrict__ indices,
                                                          int64_t cells, int count, Order order, uint32_t seed) {
  __shared__ int histogram[kDigits];
  __shared__ int state[2];
  __shared__ int warp_greater[kWarps], warp_equal[kWarps];
  const T* values = mask + int64_t(blockIdx.x) * cells;
  int32_t* chosen = indices + int64_t(blockIdx.x) * count;
  int ties = 0;
  const Key threshold = find_threshold<T, Key>(values, cells, count, order, seed, histogram, state, ties);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned lower_lanes = (1u << lane) - 1;
  int greater_before = 0, equal_before = 0;  // in the chunks that are done
  for (int64_t start = 0; start < cells; start += kThreads) {
    const int64_t cell = start + threadIdx.x;
    const Key key = cell < cells ? key_of<T, Key>(values, cell, order, seed) : Key(0);
    const bool greater = cell < cells && key > threshold;
    const bool equal = cell < cells && key == threshold;
    const unsigned greater_lanes = __ballot_sync(0xffffffffu, greater);
    const unsigned equal_lanes = __ballot_sync(0xffffffffu, equal);
    if (lane == 0) {
      warp_greater[warp] = __popc(greater_lanes);
      warp_equal[warp] = __popc(equal_lanes);
    }
    __syncthreads();
    int greater_rank = greater_before + __popc(greater_lanes & lower_lanes);
    int equal_rank = equal_before + __popc(equal_lanes & lower_lanes);
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) {
        greater_rank += warp_greater[w];
        equal_rank += warp_equal[w];
      }
      greater_before += warp_greater[w];
      equal_before += warp_equal[w];
    }
    if (greater || (equal && equal_rank < ties)) {
      chosen[greater_rank + (equal_rank < ties ? equal_rank : ties)] = int32_t(cell);
    }
    __syncthreads();
  }
}

template <typename T, typename Key>
int launch(const void* mask, int32_t* indices, int64_t batch, int64_t cells, int64_t count, Order order, uint32_t seed,
           void* stream) {
  MGA_LAUNCH((select_kernel<T, Key>), dim3(unsigned(batch)), dim3(kThreads), stream, static_cast<const T*>(mask),
             indices, cells, int(count), order, seed);
  return int(cudaGetLastError());
}

}  // namespace

int select_patches_cuda(const void* mask, Real dtype, int32_t* indices, int64_t batch, int64_t cells, int64_t count,
                        Order order, uint32_t seed, void* stream) {
  if (batch == 0 || count == 0) return 0;
  switch (dtype) {
    case Real::f16:
      return launch<__half, uint32_t>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::bf16:
      return launch<__nv_bfloat16, uint32_t>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::f32:
      return launch<float, uint32_t>(mask, indices, batch, cells, count, order, seed, stream);
    case Real::f64:
      return launch<double, uint64_t>(mask, indices, batch, cells, count, order, seed, stream);
  }
  return int(cudaErrorInvalidValue);
}

}  // namespace mga
