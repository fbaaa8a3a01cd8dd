// The PTX that conv_chain.cu needs, each instruction with its emulation: asynchronous copies to shared memory, ldmatrix
// and the tensor cores' 16x8x16 product. All exist from sm_80 on.
#pragma once
#include <type_traits>

#include "cuda/launch.cuh"
#ifdef MGA_CPU_EMU
#include "tensor_core_emu.h"
#endif

namespace mga {

#ifdef MGA_CPU_EMU
using SharedAddress = unsigned char*;
__device__ __forceinline__ SharedAddress shared_address(void* place) { return static_cast<unsigned char*>(place); }
#else
using SharedAddress = unsigned;
__device__ __forceinline__ SharedAddress shared_address(void* place) {
  return static_cast<unsigned>(__cvta_generic_to_shared(place));
}
#endif

// kBytes (4, 8 or 16, both addresses aligned to it) from global to shared memory, there after the wait.
template <int kBytes>
__device__ __forceinline__ void copy_async(SharedAddress to, const void* from) {
#ifdef MGA_CPU_EMU
  emu::copy_async(to, from, kBytes);
#else
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(kBytes) : "memory");
  }
#endif
}

__device__ __forceinline__ void commit_copies() {
#ifdef MGA_CPU_EMU
  emu::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until at most kGroups of this thread's groups are under way.
template <int kGroups>
__device__ __forceinline__ void wait_copies() {
#ifdef MGA_CPU_EMU
  emu::wait_copies(kGroups);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit items; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], SharedAddress row) {
#ifdef MGA_CPU_EMU
  emu::load_matrices(to, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
#endif
}

// sum (16x8, float) += a (16x16) * b (16x8); T is __half or __nv_bfloat16.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef MGA_CPU_EMU
  emu::multiply_add<T>(sum, a, b0, b1);
#else
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same_v<T, __nv_bfloat16>);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

}  // namespace mga
