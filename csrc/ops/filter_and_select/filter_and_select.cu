// filter_and_select on CUDA: D-Conv, exact top-K and raster-ordered indices in one kernel launch.
//
// Many blocks filter 512 cells each, write them to the mask, and count their keys by the first 11 bits in a histogram
// of the image. Each block then takes a ticket; the one that takes the last of its image knows the whole mask to be in
// L2 and chooses the cells (selection.cuh). No block ever waits for another, so it needs neither a cooperative launch
// nor a cluster and runs on every architecture; and because the choice is exact, the order of the blocks changes
// nothing. The workspace belongs to the call, so streams may overlap; a memset node before the kernel clears its 8 KiB
// an image. A persistent workspace would save that node and would be shared by graph replays and eager calls.
#include "ops/select_patches/selection.cuh"

namespace mga {
namespace {

constexpr int kWorkspace = kDigits + 1;  // histogram and ticket

struct FilteredKeys {
  const float* mask;  // of one image
  Order order;
  uint32_t seed;
  // From L2: other multiprocessors wrote the mask during this launch.
  __device__ __forceinline__ uint32_t operator()(int64_t cell) const {
    return key_of<uint32_t>(__ldcg(mask + cell), cell, order, seed);
  }
};

// D-Conv at one cell: a filter of kSize^2 coefficients, made from the S channels of the source there, applied to the
// neighbourhood in `probability` (rows, columns). `weights` (S + 1, kSize^2) in shared memory; the last row is the
// bias.
template <int kSize>
__device__ float filtered(const float* __restrict__ probability, const FilterTask& s, int64_t image, int row,
                          int column, const float* weights) {
  constexpr int kTaps = kSize * kSize;
  float filter[kTaps];
  MGA_UNROLL
  for (int t = 0; t < kTaps; ++t) filter[t] = weights[s.channels * kTaps + t];
  const int64_t place = image * s.source_stride[0] + row * s.source_stride[2] + column * s.source_stride[3];
  for (int c = 0; c < s.channels; ++c) {
    const float value = load_real(s.source, place + c * s.source_stride[1], s.source_type);
    MGA_UNROLL
    for (int t = 0; t < kTaps; ++t) filter[t] += weights[c * kTaps + t] * value;
  }
  const float* centre = probability + (image * s.rows + row) * s.columns + column;
  float sum = 0;
  MGA_UNROLL
  for (int t = 0; t < kTaps; ++t) {
    const int dy = t / kSize - kSize / 2, dx = t % kSize - kSize / 2;
    const bool inside = row + dy >= 0 && row + dy < s.rows && column + dx >= 0 && column + dx < s.columns;
    sum += filter[t] * (inside ? centre[dy * int64_t(s.columns) + dx] : 0.0f);
  }
  return sum;
}

// probability (B, rows, columns) -> mask alike and indices (B, count), ascending; workspace (B, kWorkspace) of zeros.
template <int kSize, template <typename, typename> class Keys>
__global__ void __launch_bounds__(kSelectThreads, 1)
    filter_and_select_kernel(const float* __restrict__ probability, float* mask, int32_t* __restrict__ indices,
                             unsigned* workspace, FilterTask s, int count, Order order, uint32_t seed,
                             unsigned blocks_per_image) {
  constexpr int kTaps = kSize * kSize;
  __shared__ SelectScratch scratch;
  __shared__ bool last;
  MGA_DYNAMIC_SHARED(dynamic);
  float* weights = reinterpret_cast<float*>(dynamic);  // (S + 1, kTaps)
  const int64_t image = blockIdx.x / blocks_per_image, cells = int64_t(s.rows) * s.columns;
  unsigned* histogram = workspace + image * kWorkspace;

  for (int i = threadIdx.x; i < kTaps * s.channels; i += kSelectThreads) {
    weights[i % s.channels * kTaps + i / s.channels] = load_real(s.weight, i, s.weight_type);
  }
  for (int i = threadIdx.x; i < kTaps; i += kSelectThreads) {
    weights[kTaps * s.channels + i] = load_real(s.bias, i, s.weight_type);
  }
  for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) scratch.histogram[d] = 0;
  __syncthreads();

  const int64_t cell = int64_t(blockIdx.x % blocks_per_image) * kSelectThreads + threadIdx.x;
  if (cell < cells) {
    const int row = int(cell / s.columns), column = int(cell % s.columns);
    const float value = filtered<kSize>(probability, s, image, row, column, weights);
    mask[image * cells + cell] = value;
    const uint32_t key = key_of<uint32_t>(value, cell, order, seed);
    atomicAdd(&scratch.histogram[key >> (32 - kDigitBits)], 1);
  }
  if (count == 0) return;
  __syncthreads();
  for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) {
    if (scratch.histogram[d] != 0) atomicAdd(&histogram[d], unsigned(scratch.histogram[d]));
  }
  __threadfence();  // this thread's part of mask and histogram, before the block's ticket
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&histogram[kDigits], 1u) == blocks_per_image - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();

  for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) scratch.histogram[d] = int(__ldcg(histogram + d));
  const FilteredKeys load{mask + image * cells, order, seed};
  Keys<uint32_t, FilteredKeys> keys(load, cells);
  __syncthreads();
  choose_cells<uint32_t>(keys, count, indices + image * count, scratch, true);
}

template <int kSize, template <typename, typename> class Keys>
int launch(const float* probability, float* mask, int32_t* indices, void* workspace, const FilterTask& s, int64_t count,
           Order order, uint32_t seed, void* stream) {
  const int64_t blocks = (int64_t(s.rows) * s.columns + kSelectThreads - 1) / kSelectThreads;
  const size_t shared = sizeof(float) * kSize * kSize * (s.channels + 1);
  if (count > 0) {
    const cudaError_t cleared = cudaMemsetAsync(workspace, 0, filter_and_select_workspace(s.batch) * sizeof(unsigned),
                                                static_cast<cudaStream_t>(stream));
    if (cleared != cudaSuccess) return int(cleared);
  }
  MGA_LAUNCH_SHARED((filter_and_select_kernel<kSize, Keys>), dim3(unsigned(s.batch * blocks)), dim3(kSelectThreads),
                    shared, stream, probability, mask, indices, static_cast<unsigned*>(workspace), s, int(count), order,
                    seed, unsigned(blocks));
  return int(cudaGetLastError());
}

template <int kSize>
int launch(const float* probability, float* mask, int32_t* indices, void* workspace, const FilterTask& s, int64_t count,
           Order order, uint32_t seed, void* stream) {
  const bool held = int64_t(s.rows) * s.columns <= kHeldCells;
  const auto run = held ? launch<kSize, HeldKeys> : launch<kSize, StreamedKeys>;
  return run(probability, mask, indices, workspace, s, count, order, seed, stream);
}

}  // namespace

int64_t filter_and_select_workspace(int64_t batch) { return batch * kWorkspace; }

int filter_and_select_cuda(const float* probability, float* mask, int32_t* indices, void* workspace,
                           const FilterTask& shape, int64_t count, Order order, uint32_t seed, void* stream) {
  if (shape.channels > kMaxFilterChannels) return int(cudaErrorInvalidValue);
  switch (shape.size) {
    case 1:
      return launch<1>(probability, mask, indices, workspace, shape, count, order, seed, stream);
    case 3:
      return launch<3>(probability, mask, indices, workspace, shape, count, order, seed, stream);
    case 5:
      return launch<5>(probability, mask, indices, workspace, shape, count, order, seed, stream);
    case 7:
      return launch<7>(probability, mask, indices, workspace, shape, count, order, seed, stream);
    default:
      return int(cudaErrorInvalidValue);
  }
}

}  // namespace mga
