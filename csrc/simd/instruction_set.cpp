#include "simd/instruction_set.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "instruction_sets.h"

namespace mga {
namespace {

#if defined(__x86_64__)
#define MGA_HAS(feature) __builtin_cpu_supports(feature)
#else
[[maybe_unused]] bool has(const char* feature) {
#if defined(__aarch64__)
  if (std::strcmp(feature, "neon") == 0) return true;
#if defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // of AT_HWCAP2
  if (std::strcmp(feature, "bf16") == 0) return (getauxval(AT_HWCAP2) & kBf16) != 0;
#endif
#endif
  return false;
}
#define MGA_HAS(feature) has(feature)
#endif

#define MGA_NAME(name, ...) #name,
#define MGA_IS_THERE(name, there) there,

constexpr const char* kNames[] = {MGA_INSTRUCTION_SETS(MGA_NAME)};
constexpr int kCount = sizeof kNames / sizeof *kNames;

int best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  const bool is_there[] = {MGA_INSTRUCTION_SETS(MGA_IS_THERE)};
  int set = 0;
  while (set + 1 < kCount && is_there[set + 1]) ++set;
  return set;
}

int choose() {
  const int most = best();
  const char* wish = std::getenv("MGA_CPU_ISA");
  if (wish == nullptr || *wish == 0) return most;
  for (int set = 0; set <= most; ++set) {
    if (std::strcmp(wish, kNames[set]) == 0) return set;
  }
  const std::string there = most == 0 ? kNames[0] : std::string(kNames[0]) + " to " + kNames[most];
  throw std::runtime_error(std::string("MGA_CPU_ISA=") + wish +
                           ": this processor or this build has no such instruction set; it has " + there);
}

}  // namespace

int instruction_set() {
  static const int chosen = choose();
  return chosen;
}

const char* name_of(int set) { return kNames[set]; }

}  // namespace mga
