// What torch calls dtype and what operators call order, as kernels see them: no torch header, and no CUDA header.
#pragma once

namespace mga {

enum class Order { largest, smallest, random };
enum class Real { f16, bf16, f32, f64 };

}  // namespace mga
