// Which instructions the CPU kernels of this library use: those of the operators and those of the convolutions.
#pragma once

namespace mga {

// Each has all instructions of those before it.
enum class InstructionSet { baseline, avx2, avx512, avx512_bf16 };

// The best that this processor has, or what the environment variable MGA_CPU_ISA names: an error if the processor or
// the build has not got it. Asked for once.
InstructionSet instruction_set();

const char* name_of(InstructionSet set);

}  // namespace mga
