// select_patches on the CPU: keys that sort as the order says, and the choice by them.
#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "ops/select_patches/hash.h"
#include "types.h"

namespace mga {

// A key that sorts unsigned as the values do: larger key, earlier choice. NaN gets 0, below every number, in both
// orders.
inline uint64_t value_key(double value, bool smallest) {
  if (value != value) return 0;
  value += 0.0;  // -0.0 becomes +0.0
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint64_t ascending = bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
  return smallest ? ~ascending : ascending;
}

template <typename T>
void fill_keys(const T* values, std::vector<uint64_t>& keys, Order order, uint32_t seed) {
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = order == Order::random ? cell_hash(uint32_t(i), seed)
                                     : value_key(static_cast<double>(values[i]), order == Order::smallest);
  }
}

// The `count` largest keys; among keys equal to the smallest one chosen, those of the lowest cells.
inline void choose(const std::vector<uint64_t>& keys, int64_t count, int32_t* indices) {
  std::vector<uint64_t> sorted(keys);
  std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), std::greater<>());
  const uint64_t threshold = sorted[count - 1];
  int64_t ties = count - std::count_if(keys.begin(), keys.end(), [&](uint64_t key) { return key > threshold; });
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] > threshold || (keys[i] == threshold && ties-- > 0)) *indices++ = int32_t(i);
  }
}

}  // namespace mga
