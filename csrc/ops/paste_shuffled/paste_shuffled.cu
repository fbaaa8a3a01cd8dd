// paste_shuffled_ on CUDA: pixel shuffle, gain, clamp, conversion and paste in one launch. A block takes a few patches
// into shared memory in the order of their memory, 16 bytes a thread, and writes their cells in the order of the
// image's memory, up to 16 bytes a thread; the shuffle happens between the two. Patches that are not dense, or too
// large, are read where they lie.
#include "cuda/launch.cuh"

namespace mga {
namespace {

constexpr int kThreads = 256;
constexpr int kStaged = 8192;  // float values a block takes into shared memory

struct ShufflePlan {
  int64_t patches, count, cells, columns;
  int64_t image_batch, cell_row, cell_column;  // in elements, as all strides
  int64_t pixel_stride[3];                     // of the image: channel, row, column
  int64_t patch_step;
  int64_t patch_stride[3];
  uint32_t near[3];                     // the same where the patch is staged and they are small
  uint32_t channels, scale, side, run;  // C, r, q, and elements of one row of a cell that follow one another in memory
  FastDivisor by_scale, by_row, by_rows, by_vectors, by_chunks;
  uint32_t vectors;  // accesses a cell
  uint32_t items;    // elements a patch
  uint32_t group;    // patches a block takes at a time
  uint32_t chunk;    // elements staged by one access
  bool staged, channels_last;
  float gain;
  Real type;
};

template <typename T>
struct alignas(16) Sixteen {
  T values[16 / sizeof(T)];
};

__device__ __forceinline__ float unit(float value) { return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value; }

template <typename T>
__device__ __forceinline__ T pixel(float value);
template <>
__device__ __forceinline__ float pixel<float>(float value) {
  return unit(value);
}
template <>
__device__ __forceinline__ __half pixel<__half>(float value) {
  return __float2half_rn(unit(value));
}
template <>
__device__ __forceinline__ __nv_bfloat16 pixel<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(unit(value));
}
template <>
__device__ __forceinline__ uint8_t pixel<uint8_t>(float value) {
  return value == value ? uint8_t(rintf(unit(value) * 255.0f)) : uint8_t(0);
}

template <typename T>
__device__ __forceinline__ void stage_chunk(const void* patches, int64_t from, float* to) {
  const Sixteen<T> loaded = *reinterpret_cast<const Sixteen<T>*>(static_cast<const T*>(patches) + from);
  MGA_UNROLL
  for (int i = 0; i < int(16 / sizeof(T)); ++i) to[i] = to_float(loaded.values[i]);
}

// `group` patches from `first` on, in the order of their memory, as floats.
__device__ __forceinline__ void stage(const void* patches, const ShufflePlan& p, int64_t first, uint32_t group,
                                      float* staged) {
  const uint32_t chunks = p.items / p.chunk;
  for (uint32_t i = threadIdx.x; i < group * chunks; i += kThreads) {
    uint32_t chunk;
    const uint32_t patch = p.by_chunks(i, chunk);
    const int64_t from = (first + patch) * p.patch_step + chunk * p.chunk;
    float* to = staged + patch * p.items + chunk * p.chunk;
    if (p.chunk == 1) {
      *to = load_real(patches, from, p.type);
    } else if (p.type == Real::f16) {
      stage_chunk<__half>(patches, from, to);
    } else if (p.type == Real::bf16) {
      stage_chunk<__nv_bfloat16>(patches, from, to);
    } else {
      stage_chunk<float>(patches, from, to);
    }
  }
}

// kBytes: of an access to the image, a multiple of the size of its elements.
template <typename T, int kBytes>
__global__ void __launch_bounds__(kThreads) shuffle_kernel(T* __restrict__ image, const void* __restrict__ patches,
                                                           const int32_t* __restrict__ indices, ShufflePlan p) {
  constexpr int kItems = kBytes / sizeof(T);
  struct alignas(kBytes) Access {
    T values[kItems];
  };
  MGA_DYNAMIC_SHARED(dynamic);
  float* staged = reinterpret_cast<float*>(dynamic);
  for (int64_t first = int64_t(blockIdx.x) * p.group; first < p.patches; first += int64_t(gridDim.x) * p.group) {
    const uint32_t group = uint32_t(p.patches - first < p.group ? p.patches - first : p.group);
    if (p.staged) {
      stage(patches, p, first, group, staged);
      __syncthreads();
    }
    for (uint32_t i = threadIdx.x; i < group * p.vectors; i += kThreads) {
      uint32_t place, row, start;
      const uint32_t member = p.by_vectors(i, place);
      const int64_t patch = first + member, cell = indices[patch];
      if (cell < 0 || cell >= p.cells) continue;
      uint32_t c = p.by_rows(p.by_row(place, start), row), x = start * kItems;
      if (p.channels_last) {  // a run holds pixels of all channels, so c was 0
        const uint32_t pixels = x / p.channels;
        c = x - pixels * p.channels;
        x = pixels;
      }
      T* to = image + patch / p.count * p.image_batch + cell / p.columns * p.cell_row +
              cell % p.columns * p.cell_column + c * p.pixel_stride[0] + row * p.pixel_stride[1] +
              x * p.pixel_stride[2];
      uint32_t dx, dy;
      uint32_t column = p.by_scale(x, dx);
      const uint32_t line = p.by_scale(row, dy);
      Access out;
      MGA_UNROLL
      for (int j = 0; j < kItems; ++j) {
        const uint32_t channel = (c * p.scale + dy) * p.scale + dx;
        float value;
        if (p.staged) {
          value = staged[member * p.items + channel * p.near[0] + line * p.near[1] + column * p.near[2]];
        } else {
          value = load_real(patches,
                            patch * p.patch_step + channel * p.patch_stride[0] + line * p.patch_stride[1] +
                                column * p.patch_stride[2],
                            p.type);
        }
        out.values[j] = pixel<T>(value * p.gain);
        if (p.channels_last && ++c < p.channels) continue;
        if (p.channels_last) c = 0;
        if (++dx == p.scale) {
          dx = 0;
          ++column;
        }
      }
      *reinterpret_cast<Access*>(to) = out;
    }
    if (p.staged) __syncthreads();
  }
}

// Whether the elements of a patch fill a block of memory, in any order of the axes.
bool is_dense(const int64_t (&size)[3], const int64_t (&stride)[3]) {
  bool used[3] = {};
  int64_t expected = 1;
  for (int turn = 0; turn < 3; ++turn) {
    int next = -1;
    for (int i = 0; i < 3; ++i) {
      if (!used[i] && (size[i] == 1 || stride[i] == expected)) next = i;
    }
    if (next < 0) return false;
    used[next] = true;
    expected *= size[next];
  }
  return true;
}

ShufflePlan make_plan(const ShuffleShape& s, Real type, const void* patches) {
  ShufflePlan p{};
  const int64_t side = s.scale * s.side, item_size = type == Real::f32 ? 4 : 2;
  const int64_t size[3] = {s.channels * s.scale * s.scale, s.side, s.side};
  p.patches = s.batch * s.count;
  p.count = s.count;
  p.cells = s.rows * s.columns;
  p.columns = s.columns;
  p.image_batch = s.batch > 1 ? s.image_stride[0] : 0;
  p.cell_row = s.image_stride[2] * side;
  p.cell_column = s.image_stride[3] * side;
  for (int i = 0; i < 3; ++i) {
    p.pixel_stride[i] = s.image_stride[i + 1];
    p.patch_stride[i] = size[i] > 1 ? s.patch_stride[i + 1] : 0;
    p.near[i] = uint32_t(p.patch_stride[i]);
  }
  p.patch_step = s.patch_stride[0];
  p.channels = uint32_t(s.channels);
  p.scale = uint32_t(s.scale);
  p.side = uint32_t(side);
  p.channels_last = s.channels > 1 && s.image_stride[1] == 1 && s.image_stride[3] == s.channels;
  p.run = uint32_t(p.channels_last ? side * s.channels : side);
  p.by_scale = FastDivisor(s.scale);
  p.by_rows = FastDivisor(side);
  p.items = uint32_t(size[0] * size[1] * size[2]);
  p.staged = p.items <= kStaged && is_dense(size, p.patch_stride);
  p.group = p.staged ? kStaged / p.items : 1;
  // Rather more blocks with less to do than multiprocessors that have none.
  const int64_t places = 2 * device_attribute(cudaDevAttrMultiProcessorCount);
  const int64_t share = places > 0 ? (p.patches + places - 1) / places : p.group;
  if (p.group > share) p.group = uint32_t(share);
  const bool wide =
      widest_access(reinterpret_cast<uintptr_t>(patches), p.patch_step * item_size, p.items * item_size) == 16;
  p.chunk = wide ? uint32_t(16 / item_size) : 1;
  p.by_chunks = FastDivisor(p.items / p.chunk);
  p.gain = s.gain;
  p.type = type;
  return p;
}

template <typename T, int kBytes>
int launch(void* image, const void* patches, const int32_t* indices, ShufflePlan p, void* stream) {
  constexpr uint32_t kItems = kBytes / sizeof(T);
  const uint32_t rows = p.channels_last ? p.side : p.side * p.channels;
  p.vectors = rows * (p.run / kItems);
  p.by_row = FastDivisor(p.run / kItems);
  p.by_vectors = FastDivisor(p.vectors);
  const int64_t blocks = (p.patches + p.group - 1) / p.group;
  const size_t shared = p.staged ? sizeof(float) * p.group * p.items : 0;
  MGA_LAUNCH_SHARED((shuffle_kernel<T, kBytes>), blocks_for(blocks, 1), dim3(kThreads), shared, stream,
                    static_cast<T*>(image), patches, indices, p);
  return int(cudaGetLastError());
}

template <typename T>
int launch(void* image, const void* patches, const int32_t* indices, const ShufflePlan& p, void* stream) {
  const int64_t n = sizeof(T);
  const bool together = p.channels_last || p.pixel_stride[2] == 1;
  // Along the run nothing but its start must be aligned.
  const int width =
      !together ? int(n)
                : widest_access(reinterpret_cast<uintptr_t>(image), n * p.run, n * p.image_batch, n * p.cell_row,
                                n * p.cell_column, n * p.pixel_stride[1], p.channels_last ? 0 : n * p.pixel_stride[0]);
  if (width == 16) return launch<T, 16>(image, patches, indices, p, stream);
  if (width >= 4 && sizeof(T) < 4)
    return launch<T, (sizeof(T) < 4 ? 4 : sizeof(T))>(image, patches, indices, p, stream);
  return launch<T, sizeof(T)>(image, patches, indices, p, stream);
}

}  // namespace

int paste_shuffled_cuda(void* image, Pixel pixel_type, const void* patches, Real patch_type, const int32_t* indices,
                        const ShuffleShape& shape, void* stream) {
  const int64_t values = shape.channels * shape.scale * shape.scale * shape.side * shape.side;
  if (shape.batch * shape.count * values == 0) return 0;
  if (values >= INT32_MAX / 2 || patch_type == Real::f64) return int(cudaErrorInvalidValue);
  const ShufflePlan plan = make_plan(shape, patch_type, patches);
  switch (pixel_type) {
    case Pixel::f16:
      return launch<__half>(image, patches, indices, plan, stream);
    case Pixel::bf16:
      return launch<__nv_bfloat16>(image, patches, indices, plan, stream);
    case Pixel::f32:
      return launch<float>(image, patches, indices, plan, stream);
    case Pixel::u8:
      return launch<uint8_t>(image, patches, indices, plan, stream);
    default:
      return int(cudaErrorInvalidValue);
  }
}

}  // namespace mga
