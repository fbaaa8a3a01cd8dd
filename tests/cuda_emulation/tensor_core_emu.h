// What csrc/cuda/tensor_core.cuh asks of the emulation: asynchronous copies, ldmatrix and the 16x8x16 product, with the
// fragment layouts of the PTX manual. The product is summed in float, one term after another.
#pragma once
#include "cuda_emu.h"

namespace emu {

inline void copy_async(unsigned char* to, const void* from, int bytes) {
  if ((uintptr_t(to) | uintptr_t(from)) % bytes) fail("cp.async: an address is not aligned to the size of the copy");
  race_issue(to, bytes);
  T().open.push_back({to, from, bytes});
}

inline void commit_copies() {
  auto& thread = T();
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

inline void wait_copies(int groups) {
  auto& waiting = T().groups;
  while (int(waiting.size()) > groups) {
    for (const Copy& copy : waiting.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes);
      race_land(copy.to, copy.bytes);
    }
    waiting.erase(waiting.begin());
  }
}

inline void load_matrices(uint32_t (&to)[4], const unsigned char* row) {
  if (uintptr_t(row) % 16) fail("ldmatrix: a row is not aligned to 16 bytes");
  struct Registers {
    uint32_t values[4];
  };
  // Lane l receives items 2 (l % 4) and the next of row l / 4 of each matrix.
  const Registers got = collective(0xffffffffu, row, [&](auto of_lane) {
    Registers mine;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const unsigned char* place = of_lane(8 * matrix + lane() / 4) + 4 * (lane() % 4);
      race_read(place, 4);
      std::memcpy(&mine.values[matrix], place, 4);
    }
    return mine;
  });
  std::copy_n(got.values, 4, to);
}

template <class T>
float item(uint32_t pair, int which) {
  const uint16_t bits = uint16_t(which ? pair >> 16 : pair);
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, 2);
  return float(value);
}

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments {
    uint32_t a[4], b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  struct Sums {
    float values[4];
  };
  // Lane l has rows l / 4 and l / 4 + 8 of a and of the sums, column l / 4 of b; pairs along k, and columns of the
  // sums, go by l % 4.
  const Sums got = collective(0xffffffffu, mine, [&](auto of_lane) {
    Fragments left, right[2];
    Sums sums;
    std::copy_n(sum, 4, sums.values);
    for (int quad = 0; quad < 4; ++quad) {
      left = of_lane(lane() / 4 * 4 + quad);
      for (int column = 0; column < 2; ++column) right[column] = of_lane((2 * (lane() % 4) + column) * 4 + quad);
      for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < 4; ++k) {
          sums.values[i] += item<T>(left.a[i / 2 + k / 2 * 2], k % 2) * item<T>(right[i % 2].b[k / 2], k % 2);
        }
      }
    }
    return sums;
  });
  std::copy_n(got.values, 4, sum);
}

}  // namespace emu
