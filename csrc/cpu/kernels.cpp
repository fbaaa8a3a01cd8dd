#include "kernels.h"

#include <cstdlib>
#include <cstring>

#include "../torch_glue.h"

namespace mga {
namespace {

struct Level {
  bool present;
  const CpuKernels* kernels;
};

const CpuKernels& choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const Level levels[] = {{has_avx512 && __builtin_cpu_supports("avx512bf16"), &avx512_bf16::kernels},
                          {has_avx512, &avx512::kernels},
                          {has_avx2, &avx2::kernels},
                          {true, &baseline::kernels}};
#else
  const Level levels[] = {{true, &baseline::kernels}};
#endif
  const char* wish = std::getenv("MGA_CPU_ISA");
  for (const Level& level : levels) {
    if (level.present && (wish == nullptr || std::strcmp(wish, level.kernels->name) == 0)) return *level.kernels;
  }
  STD_TORCH_CHECK(false, "MGA_CPU_ISA=", wish, ": this processor or this build has no such instruction set");
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace mga
