// The bits of numbers, and bf16 as the upper half of a float. Functions are inlined always, because these are also used
// in files that are compiled for an instruction set as a whole: a copy of their own could be chosen for all files. No
// header of the C++ library, for the same reason.
#pragma once
#include <stdint.h>
#include <string.h>

#define MGA_INLINE inline __attribute__((always_inline))

namespace mga {

template <class To, class From>
MGA_INLINE To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same number of bits");
  To bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The two channels of a pixel in a word of pair planes, see convolution/layout.h.
MGA_INLINE float low_half(uint32_t pair) { return bits_of<float>(pair << 16); }
MGA_INLINE float high_half(uint32_t pair) { return bits_of<float>(pair & 0xffff0000u); }

}  // namespace mga
