// CUDA's built-ins for g++, on the threads of cuda_emu.h, which includes this file behind them.

#pragma once

#undef __shared__
#undef __global__
#undef __device__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static /* one block at a time per process: block-shared. See MGA_SHARED for poison */
#define threadIdx (emu::T().tid)
#define blockIdx (emu::B()->bid)
#define blockDim (emu::B()->block)
#define gridDim (emu::B()->grid)
#define warpSize 32
#define __syncthreads() emu::sync_block()
inline void __syncwarp(unsigned m = 0xffffffffu) { emu::sync_warp(m); }
template <class T>
T __shfl_sync(unsigned m, T v, int src, int w = 32) {
  return emu::collective(m, v, [&](auto g) {
    int l = emu::lane();
    return g((l & ~(w - 1)) + (src & (w - 1)));
  });
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
  return emu::collective(m, v, [&](auto g) {
    int l = emu::lane(), s = l ^ x;
    return (s & ~(w - 1)) > (l & ~(w - 1)) ? v : g(s);
  });
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
  return emu::collective(m, v, [&](auto g) {
    int l = emu::lane();
    return (l & (w - 1)) + int(d) < w ? g(l + int(d)) : v;
  });
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
  return emu::collective(m, v, [&](auto g) {
    int l = emu::lane();
    return (l & (w - 1)) >= int(d) ? g(l - int(d)) : v;
  });
}
inline unsigned __ballot_sync(unsigned m, int p) {
  return emu::collective(m, p, [&](auto g) {
    unsigned r = 0;
    for (int k = 0; k < 32; ++k)
      if (m >> k & 1) r |= unsigned(g(k) != 0) << k;
    return r;
  });
}
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == m; }
template <class T>
EMU_ATOMIC T atomicAdd(T* p, T v) {
  race_atomic(p, sizeof(T));
  T o = *p;
  *p = o + v;
  return o;
}
template <class T>
EMU_ATOMIC T atomicMax(T* p, T v) {
  race_atomic(p, sizeof(T));
  T o = *p;
  *p = std::max(o, v);
  return o;
}
template <class T>
EMU_ATOMIC T atomicMin(T* p, T v) {
  race_atomic(p, sizeof(T));
  T o = *p;
  *p = std::min(o, v);
  return o;
}
template <class T>
EMU_ATOMIC T atomicExch(T* p, T v) {
  race_atomic(p, sizeof(T));
  T o = *p;
  *p = v;
  return o;
}
template <class T>
EMU_ATOMIC T atomicCAS(T* p, T c, T v) {
  race_atomic(p, sizeof(T));
  T o = *p;
  if (o == c) *p = v;
  return o;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
template <class T>
T __ldcg(const T* p) {
  return *p;
}
#undef __grid_constant__
#define __grid_constant__
#define cudaMemsetAsync(place, value, bytes, stream) ((void)(stream), std::memset(place, value, bytes), cudaSuccess)
#define cudaGetLastError() cudaSuccess
#define cudaFuncSetAttribute(...) cudaSuccess
#define cudaGetErrorString(e) "emulated"
