// Patches side by side in planes or maps, as the operators over them are told. No torch header.
#pragma once
#include <cstdint>

namespace mga {

// Patches of height x width, `across` in a row, one pixel between them.
struct Patches {
  int64_t count, height, width, across;

  int64_t down() const { return (count + across - 1) / across; }
  int64_t rows() const { return top_of_row(down()) - 1; }
  int64_t columns() const { return across * (width + 1) - 1; }
  int64_t top_of_row(int64_t row) const { return row * (height + 1); }
  int64_t top(int64_t patch) const { return top_of_row(patch / across); }
  int64_t left(int64_t patch) const { return patch % across * (width + 1); }
  bool exist() const { return count >= 1 && height >= 1 && width >= 1 && across >= 1; }
};

}  // namespace mga
