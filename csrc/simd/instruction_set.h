// Which instructions the CPU kernels of this library use: those of the operators and those of the convolutions.
//
// Sets are numbered; each has all instructions of those before it, and 0 is what every processor has. Which there are,
// and what a processor must have for each, is said by the first lines of csrc/*/isa/*.cpp: setup.py makes the header
// instruction_sets.h of them.
#pragma once

namespace mga {

// The best that this processor has, or what the environment variable MGA_CPU_ISA names: an error if the processor or
// the build has not got it. Asked for once.
int instruction_set();

const char* name_of(int set);

// Kernels made for one instruction set.
template <typename Kernels>
struct Candidate {
  const Kernels* kernels;
  int set;
};

// The last of the candidates, which stand in the order of their sets, that instruction_set() has the instructions for.
template <typename Kernels, int N>
const Kernels& best_of(const Candidate<Kernels> (&candidates)[N]) {
  const Kernels* best = candidates[0].kernels;
  for (const Candidate<Kernels>& candidate : candidates) {
    if (candidate.set <= instruction_set()) best = candidate.kernels;
  }
  return *best;
}

// Defines TABLE(), the best of the tables of this name, of type KERNELS, that the files of csrc/*/isa make, each in a namespace
// of its own. TABLES is the list of them in instruction_sets.h.
#define MGA_BEST_TABLE(KERNELS, TABLE, TABLES)                                     \
  TABLES(MGA_DECLARE_TABLE, KERNELS, TABLE)                                        \
  const KERNELS& TABLE() {                                                         \
    static constexpr Candidate<KERNELS> kAll[] = {TABLES(MGA_CANDIDATE, , TABLE)}; \
    return best_of(kAll);                                                          \
  }
#define MGA_DECLARE_TABLE(name, set, KERNELS, TABLE) \
  namespace name {                                   \
  extern const KERNELS TABLE;                        \
  }
#define MGA_CANDIDATE(name, set, KERNELS, TABLE) {&name::TABLE, set},

}  // namespace mga
