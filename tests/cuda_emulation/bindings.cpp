// The launchers of the CUDA kernels with plain C arguments, for ctypes. -1: the emulation found a fault; fault() has
// it.
#include <exception>
#include <string>

#include "cuda/kernels.h"

namespace {

std::string last_fault;

template <typename F>
int guarded(F launch) {
  try {
    return launch();
  } catch (const std::exception& error) {
    last_fault = error.what();
    return -1;
  }
}

}  // namespace

extern "C" const char* fault() { return last_fault.c_str(); }

extern "C" int select_patches(const void* mask, int dtype, int32_t* indices, int64_t batch, int64_t cells,
                              int64_t count, int order, uint32_t seed) {
  return guarded([&] {
    return mga::select_patches_cuda(mask, mga::Real(dtype), indices, batch, cells, count, mga::Order(order), seed,
                                    nullptr);
  });
}

extern "C" int gather_patches(const void* feature, const int32_t* indices, void* patches, const int64_t* shape,
                              const int64_t* stride, int channels_last, int item_size) {
  mga::GatherShape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], {}, channels_last != 0};
  for (int i = 0; i < 4; ++i) s.stride[i] = stride[i];
  return guarded([&] { return mga::gather_patches_cuda(feature, indices, patches, s, item_size, nullptr); });
}

extern "C" int paste_patches(void* image, const void* patches, const int32_t* indices, const int64_t* shape,
                             const int64_t* image_stride, const int64_t* patch_stride, int item_size) {
  mga::PasteShape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], {}, {}};
  for (int i = 0; i < 4; ++i) {
    s.image_stride[i] = image_stride[i];
    s.patch_stride[i] = patch_stride[i];
  }
  return guarded([&] { return mga::paste_patches_cuda(image, patches, indices, s, item_size, nullptr); });
}

// sizes: batch, rows, columns, channels, size, count, order, seed. types: source, weight.
extern "C" int filter_and_select(const float* probability, const void* source, const void* weight, const void* bias,
                                 float* mask, int32_t* indices, void* workspace, const int64_t* sizes,
                                 const int64_t* source_stride, const int64_t* types) {
  mga::FilterTask s{};
  s.batch = sizes[0];
  s.rows = int(sizes[1]);
  s.columns = int(sizes[2]);
  s.channels = int(sizes[3]);
  s.size = int(sizes[4]);
  s.source = source;
  s.source_type = mga::Real(types[0]);
  s.weight = weight;
  s.bias = bias;
  s.weight_type = mga::Real(types[1]);
  for (int i = 0; i < 4; ++i) s.source_stride[i] = source_stride[i];
  return guarded([&] {
    return mga::filter_and_select_cuda(probability, mask, indices, workspace, s, sizes[5], mga::Order(sizes[6]),
                                       uint32_t(sizes[7]), nullptr);
  });
}

extern "C" int64_t filter_and_select_workspace(int64_t batch) { return mga::filter_and_select_workspace(batch); }
