#include "instruction_set.h"

#include <cstdlib>
#include <cstring>

#include "../torch_glue.h"

namespace mga {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16"};
constexpr int kCount = sizeof kNames / sizeof *kNames;

InstructionSet best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return InstructionSet::baseline;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!has_avx512) return InstructionSet::avx2;
  return __builtin_cpu_supports("avx512bf16") ? InstructionSet::avx512_bf16 : InstructionSet::avx512;
#else
  return InstructionSet::baseline;
#endif
}

InstructionSet choose() {
  const InstructionSet most = best();
  const char* wish = std::getenv("MGA_CPU_ISA");
  if (wish == nullptr || *wish == 0) return most;
  for (int i = 0; i < kCount; ++i) {
    if (std::strcmp(wish, kNames[i]) == 0 && i <= int(most)) return InstructionSet(i);
  }
  STD_TORCH_CHECK(false, "MGA_CPU_ISA=", wish,
                  ": this processor or this build has no such instruction set; it has baseline",
                  int(most) == 0 ? "" : " to ", int(most) == 0 ? "" : name_of(most));
}

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet chosen = choose();
  return chosen;
}

const char* name_of(InstructionSet set) { return kNames[int(set)]; }

}  // namespace mga
