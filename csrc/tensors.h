// The tensors that readers of records take: torch's in the library of operators, and in the module that runs without it
// (csrc/alone) others that have the same members.
#pragma once
#ifdef MGA_ALONE
#include "alone/tensor.h"
#else
#include "torch/glue.h"
#endif
