// conv_chain on CUDA: a batch of small patches through a chain of 3x3 convolutions in one launch, on tensor cores.
//
// A block of four warps takes as many patches as fit in 64, 128 or 256 rows, one row a pixel with its channels, and
// keeps every state it still needs in shared memory. A convolution is nine products, one a tap: rows shifted by the tap
// times a C x C matrix; a pixel whose tap lies outside its patch reads a row of zeros, which costs less memory than a
// border around every patch. The sums of a whole layer stay in registers (256 x 64 floats over 128 threads), so a layer
// may write over its own input. Weights do not fit (73,728 bytes a layer of 64 channels), so the taps stream through
// four buffers by cp.async, three taps ahead, without a stop between layers.
//
// Floor for N patches of q x q, L layers: 18 N q^2 C^2 L operations at the tensor cores' rate, or N q^2 C bytes times 4
// (in and out) plus 18 C^2 L bytes of weights. At N = 1000, q = 6, C = 64 a layer is 2.65 GFLOP, 2.7 us at 990 TFLOP/s
// and about 4.4 us at what mma.sync reaches of that on sm_90; each block reads all weights again, from L2. Where it
// loses: few patches a multiprocessor (one layer of 1000 patches fills 132 of them for two thirds of the time), and C
// far below a multiple of 16. float32 is left to the reference: without tensor cores a layer takes tens of
// microseconds, beside which the launches that this kernel saves are nothing.
#pragma once
#include "cuda/tensor_core.cuh"

namespace mga {

// What the kernel is told, made from ChainShape by the host.
struct ChainPlan {
  ChainShape shape;
  void* output;
  int group;                     // patches a block
  int weight_copy, patch_copy;   // bytes of an asynchronous copy; 0: element by element
  int output_copy;               // elements of a store
  int8_t from[kMaxChainLayers];  // slot of the input state of each layer,
  int8_t skip[kMaxChainLayers];  // of the state added, -1 for none,
  int8_t to[kMaxChainLayers];    // and of the output
};

constexpr int kChainThreads = 128;
constexpr int kChainStages = 4;

// kDepth * 16 channels, kTiles * 16 rows a warp.
template <typename T, int kDepth, int kTiles>
struct Chain {
  static constexpr int kChannels = 16 * kDepth;
  static constexpr int kPitch = kChannels + 8;  // elements between rows: rows start in different banks for ldmatrix
  static constexpr int kRowBytes = kPitch * int(sizeof(T));
  static constexpr int kRows = 64 * kTiles;
  static constexpr int kSlot = kRows * kRowBytes, kStage = kChannels * kRowBytes;
  static constexpr int kFactors = 2 * kChannels * int(sizeof(float));  // biases and slopes of one layer
  static constexpr int kStages = kRowBytes, kScales = kStages + kChainStages * kStage;
  static constexpr int kSlots = kScales + 2 * kFactors;  // offsets in shared memory; a row of zeros comes first
  static size_t shared_bytes(int slots) { return size_t(kSlots) + size_t(slots) * kSlot; }
};

template <int kBytes>
__device__ __forceinline__ void copy_row_parts(SharedAddress to, const char* from, int rows, int row_bytes,
                                               int row_pitch, int64_t row_stride) {
  const int parts = row_bytes / kBytes, down = kChainThreads / parts, right = kChainThreads % parts;
  int row = int(threadIdx.x) / parts, part = int(threadIdx.x) % parts;
  while (row < rows) {
    copy_async<kBytes>(to + row * row_pitch + part * kBytes, from + row * row_stride + part * kBytes);
    row += down;
    part += right;
    if (part >= parts) {
      part -= parts;
      ++row;
    }
  }
}

// The C x C weights of one tap into a buffer, rows by output channel. What lies beyond C stays zero.
template <typename T, int kDepth, int kTiles>
__device__ __forceinline__ void stream_tap(const ChainPlan& p, int number, unsigned char* shared) {
  using K = Chain<T, kDepth, kTiles>;
  const ChainShape& s = p.shape;
  if (number < 9 * s.layers) {
    const int layer = number / 9, tap = number % 9;
    const int64_t start = layer * s.weight_stride[0] + tap / 3 * s.weight_stride[3] + tap % 3 * s.weight_stride[4];
    const T* weights = static_cast<const T*>(s.weights) + start;
    unsigned char* buffer = shared + K::kStages + number % kChainStages * K::kStage;
    const char* bytes = reinterpret_cast<const char*>(weights);
    const int row_bytes = s.channels * int(sizeof(T));
    const int64_t row_stride = s.weight_stride[1] * int64_t(sizeof(T));
    if (p.weight_copy == 16) {
      copy_row_parts<16>(shared_address(buffer), bytes, s.channels, row_bytes, K::kRowBytes, row_stride);
    } else if (p.weight_copy == 8) {
      copy_row_parts<8>(shared_address(buffer), bytes, s.channels, row_bytes, K::kRowBytes, row_stride);
    } else if (p.weight_copy == 4) {
      copy_row_parts<4>(shared_address(buffer), bytes, s.channels, row_bytes, K::kRowBytes, row_stride);
    } else {
      for (int i = threadIdx.x; i < s.channels * s.channels; i += kChainThreads) {
        const int out = i / s.channels, in = i % s.channels;
        reinterpret_cast<T*>(buffer)[out * K::kPitch + in] =
            weights[out * s.weight_stride[1] + in * s.weight_stride[2]];
      }
    }
  }
  commit_copies();  // an empty group too, so that counting groups is counting taps
}

// The patches of this block into their slot.
template <typename T, int kDepth, int kTiles>
__device__ __forceinline__ void load_patches(const ChainPlan& p, int64_t first, int rows, unsigned char* slot) {
  using K = Chain<T, kDepth, kTiles>;
  const ChainShape& s = p.shape;
  const T* patches = static_cast<const T*>(s.patches);
  const int pixels = s.side * s.side, items = p.patch_copy > 0 ? p.patch_copy / int(sizeof(T)) : 1;
  const int parts = s.channels / items;
  for (int i = threadIdx.x; i < rows * parts; i += kChainThreads) {
    const int row = i / parts, c = i % parts * items, pixel = row % pixels;
    const T* from = patches + (first + row / pixels) * s.patch_stride[0] + c * s.patch_stride[1] +
                    pixel / s.side * s.patch_stride[2] + pixel % s.side * s.patch_stride[3];
    T* to = reinterpret_cast<T*>(slot) + row * K::kPitch + c;
    if (p.patch_copy == 16) {
      copy_async<16>(shared_address(to), from);
    } else if (p.patch_copy == 8) {
      copy_async<8>(shared_address(to), from);
    } else if (p.patch_copy == 4) {
      copy_async<4>(shared_address(to), from);
    } else {
      *to = *from;
    }
  }
}

template <typename T>
struct alignas(4) Pair {
  T values[2];
};

// sums + bias + skip, activation, rounding, into the slot of the new state.
template <typename T, int kDepth, int kTiles>
__device__ __forceinline__ void finish_layer(const float (&sums)[kTiles][2 * kDepth][4], const float* factors,
                                             const unsigned char* skip, unsigned char* to) {
  using K = Chain<T, kDepth, kTiles>;
  const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * 16 * kTiles + lane / 4;
  MGA_UNROLL
  for (int n = 0; n < 2 * kDepth; ++n) {
    const int channel = 8 * n + 2 * (lane % 4);
    MGA_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      MGA_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int place = (first + 16 * tile + 8 * half) * K::kRowBytes + channel * int(sizeof(T));
        Pair<T> added{}, result;
        if (skip != nullptr) added = *reinterpret_cast<const Pair<T>*>(skip + place);
        MGA_UNROLL
        for (int e = 0; e < 2; ++e) {
          float value = sums[tile][n][2 * half + e] + factors[channel + e];
          if (skip != nullptr) value += to_float(added.values[e]);
          result.values[e] = T(value > 0.0f ? value : value * factors[K::kChannels + channel + e]);
        }
        *reinterpret_cast<Pair<T>*>(to + place) = result;
      }
    }
  }
}

template <typename T, int kItems>
__device__ __forceinline__ void store_patches(const ChainPlan& p, int64_t first, int patches, int pitch,
                                              const unsigned char* slot) {
  struct alignas(kItems * sizeof(T)) Access {
    T values[kItems];
  };
  const ChainShape& s = p.shape;
  const int side = s.side - 2 * s.crop, parts = s.channels / kItems;
  T* output = static_cast<T*>(p.output) + first * side * side * s.channels;
  for (int i = threadIdx.x; i < patches * side * side * parts; i += kChainThreads) {
    const int pixel = i / parts, part = i % parts, patch = pixel / (side * side), within = pixel % (side * side);
    const int row = (patch * s.side + within / side + s.crop) * s.side + within % side + s.crop;
    reinterpret_cast<Access*>(output)[i] =
        reinterpret_cast<const Access*>(reinterpret_cast<const T*>(slot) + row * pitch)[part];
  }
}

// patches (N, C, q, q) by stride, weights (L, C, C, 3, 3) by stride -> output (N, q - 2 crop, q - 2 crop, C), dense.
template <typename T, int kDepth, int kTiles>
__global__ void __launch_bounds__(kChainThreads, kTiles > 2 ? 2 : 3) chain_kernel(const __grid_constant__ ChainPlan p) {
  using K = Chain<T, kDepth, kTiles>;
  MGA_DYNAMIC_SHARED(shared);
  const ChainShape& s = p.shape;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pixels = s.side * s.side;
  const int64_t first = int64_t(blockIdx.x) * p.group;
  const int patches = int(s.count - first < p.group ? s.count - first : p.group), rows = patches * pixels;

  unsigned char* slots = shared + K::kSlots;
  for (int i = threadIdx.x; i < K::kScales / 4; i += kChainThreads) reinterpret_cast<uint32_t*>(shared)[i] = 0;
  unsigned char* input = slots + p.from[0] * K::kSlot;
  for (int i = threadIdx.x; i < K::kSlot / 4; i += kChainThreads) reinterpret_cast<uint32_t*>(input)[i] = 0;
  __syncthreads();
  load_patches<T, kDepth, kTiles>(p, first, rows, input);  // arrives with the first tap
  for (int tap = 0; tap < kChainStages - 1; ++tap) stream_tap<T, kDepth, kTiles>(p, tap, shared);

  // Where ldmatrix finds the left side for this lane, and the taps that lie within its pixel's patch.
  int place[kTiles];
  unsigned taps[kTiles];
  MGA_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    const int row = (warp * kTiles + tile) * 16 + lane % 16, pixel = row % pixels;
    const int y = pixel / s.side, x = pixel % s.side;
    place[tile] = row * K::kRowBytes + lane / 16 * 16;
    taps[tile] = 0;
    for (int tap = 0; tap < 9; ++tap) {
      const int v = y + tap / 3 - 1, u = x + tap % 3 - 1;
      const bool inside = row < rows && v >= 0 && v < s.side && u >= 0 && u < s.side;
      taps[tile] |= unsigned(inside) << tap;
    }
  }
  const SharedAddress zeros = shared_address(shared) + lane / 16 * 16;
  const int right = (lane % 8 + lane / 16 * 8) * K::kRowBytes + lane / 8 % 2 * 16;
  const bool odd = s.channels <= K::kChannels - 8;  // nothing is in the last eight channels

  for (int layer = 0; layer < s.layers; ++layer) {
    float* factors = reinterpret_cast<float*>(shared + K::kScales + layer % 2 * K::kFactors);
    for (int c = threadIdx.x; c < K::kChannels; c += kChainThreads) {
      const bool exists = c < s.channels;
      const int64_t i = int64_t(layer) * s.channels + c;
      factors[c] = exists ? to_float(static_cast<const T*>(s.biases)[i]) : 0.0f;
      factors[K::kChannels + c] = exists ? to_float(static_cast<const T*>(s.slopes)[i]) : 0.0f;
    }
    const SharedAddress from = shared_address(slots + p.from[layer] * K::kSlot);
    float sums[kTiles][2 * kDepth][4] = {};
    MGA_UNROLL_BY(1)
    for (int tap = 0; tap < 9; ++tap) {
      const int number = 9 * layer + tap;
      wait_copies<kChainStages - 2>();
      __syncthreads();  // the tap is there for all, and nobody uses the buffer of the one before any more
      stream_tap<T, kDepth, kTiles>(p, number + kChainStages - 1, shared);
      const SharedAddress weights = shared_address(shared + K::kStages + number % kChainStages * K::kStage) + right;
      const int shift = ((tap / 3 - 1) * s.side + tap % 3 - 1) * K::kRowBytes;
      MGA_UNROLL
      for (int k = 0; k < kDepth; ++k) {
        uint32_t left[kTiles][4];
        MGA_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          const SharedAddress row = taps[tile] >> tap & 1 ? from + (place[tile] + shift) : zeros;
          load_matrices(left[tile], row + 32 * k);
        }
        MGA_UNROLL
        for (int n = 0; n < kDepth; ++n) {
          uint32_t b[4];
          load_matrices(b, weights + n * 16 * K::kRowBytes + 32 * k);
          MGA_UNROLL
          for (int tile = 0; tile < kTiles; ++tile) multiply_add<T>(sums[tile][2 * n], left[tile], b[0], b[1]);
          if (n == kDepth - 1 && odd) continue;
          MGA_UNROLL
          for (int tile = 0; tile < kTiles; ++tile) multiply_add<T>(sums[tile][2 * n + 1], left[tile], b[2], b[3]);
        }
      }
    }
    __syncthreads();  // all have read the states of this layer: its output may take the place of one
    const unsigned char* skip = p.skip[layer] < 0 ? nullptr : slots + p.skip[layer] * K::kSlot;
    finish_layer<T, kDepth, kTiles>(sums, factors, skip, slots + p.to[layer] * K::kSlot);
  }
  wait_copies<0>();
  __syncthreads();
  const unsigned char* result = slots + p.to[s.layers - 1] * K::kSlot;
  if (p.output_copy == 8) {
    store_patches<T, 8>(p, first, patches, K::kPitch, result);
  } else if (p.output_copy >= 2) {
    store_patches<T, 2>(p, first, patches, K::kPitch, result);
  } else {
    store_patches<T, 1>(p, first, patches, K::kPitch, result);
  }
}

// One size of the kernel, as the host sees it.
struct ChainKernel {
  int tiles, rows;
  size_t fixed_bytes, slot_bytes;
  int (*launch)(const ChainPlan& plan, int64_t blocks, size_t shared, void* stream);
};

template <typename T, int kDepth, int kTiles>
int launch_chain(const ChainPlan& plan, int64_t blocks, size_t shared, void* stream) {
  const auto kernel = chain_kernel<T, kDepth, kTiles>;
  const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
  if (status != cudaSuccess) return int(status);
  MGA_LAUNCH_SHARED(kernel, dim3(unsigned(blocks)), dim3(kChainThreads), shared, stream, plan);
  return int(cudaGetLastError());
}

template <typename T, int kDepth, int kTiles>
ChainKernel chain_kernel_of() {
  using K = Chain<T, kDepth, kTiles>;
  return {kTiles, K::kRows, size_t(K::kSlots), size_t(K::kSlot), launch_chain<T, kDepth, kTiles>};
}

// Of the three sizes, for kDepth = 1, 3 or 4; each dtype is compiled in a file of its own, side by side.
template <typename T>
inline ChainKernel chain_kernel_for(int depth, int tiles) {
  const auto of = [&](auto d) {
    constexpr int kDepth = decltype(d)::value;
    return tiles == 1   ? chain_kernel_of<T, kDepth, 1>()
           : tiles == 2 ? chain_kernel_of<T, kDepth, 2>()
                        : chain_kernel_of<T, kDepth, 4>();
  };
  if (depth == 1) return of(std::integral_constant<int, 1>{});
  if (depth <= 3) return of(std::integral_constant<int, 3>{});
  return of(std::integral_constant<int, 4>{});
}

ChainKernel chain_kernel_f16(int depth, int tiles);
ChainKernel chain_kernel_bf16(int depth, int tiles);

}  // namespace mga
