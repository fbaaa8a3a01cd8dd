// The exact choice of the K first cells of one image by one block, shared by select_patches.cu and
// filter_and_select.cu: a radix select of 11 bits a step over keys, then one ordered pass that writes the chosen cells.
//
// Every warp owns a run of consecutive cells, so ranks need one scan over the warps. Up to 32,768 cells of 32-bit keys
// stay in registers, 64 a thread, and the mask is read once; larger masks are read again from L2 in each step. A step
// that leaves no choice within its digit is the last, which for distinct values is the second.
#pragma once
#include <cstring>

#include "cuda/launch.cuh"
#include "ops/select_patches/hash.h"

namespace mga {

constexpr int kSelectThreads = 512;
constexpr int kSelectWarps = kSelectThreads / 32;
constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kHeldKeys = 64;
constexpr int64_t kHeldCells = int64_t(kHeldKeys) * kSelectThreads;

struct SelectScratch {
  int histogram[kDigits];
  int warp_sum[kSelectWarps];
  int warp_greater[kSelectWarps], warp_equal[kSelectWarps];
  int digit, left, size;  // of the digit in which the last chosen cell falls: which, how many of it, out of how many
};

// Keys that sort unsigned as the values do, larger key earlier choice; NaN gets 0 in both orders.
__device__ __forceinline__ uint32_t ascending_key(float value) {
  if (value != value) return 0;
  value += 0.0f;  // -0.0 becomes +0.0
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 31 ? ~bits : bits | uint32_t(1) << 31;
}

__device__ __forceinline__ uint64_t ascending_key(double value) {
  if (value != value) return 0;
  value += 0.0;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

template <typename Key, typename T>
__device__ __forceinline__ Key key_of(T value, int64_t cell, Order order, uint32_t seed) {
  if (order == Order::random) return cell_hash(uint32_t(cell), seed);
  const Key key = ascending_key(value);
  return order == Order::smallest && key != 0 ? ~key : key;
}

// Calls f(cell, key) for the cells of this warp in ascending order, all lanes together. `Load` maps a cell to its key.
// Cells behind the last one have the key 0: as no key is lower, and ties go to the lower cell, they are never chosen
// before one that exists.
template <typename Key, typename Load>
class StreamedKeys {
 public:
  __device__ StreamedKeys(Load load, int64_t cells) : load_(load), cells_(cells) {
    constexpr int64_t kBlock = int64_t(kBatch) * kSelectThreads;
    steps_ = int((cells + kBlock - 1) / kBlock) * kBatch;
  }

  template <typename F>
  __device__ void each(F f) {
    const int64_t first = int64_t(threadIdx.x / 32) * steps_ * 32 + threadIdx.x % 32;
    for (int start = 0; start < steps_; start += kBatch) {
      Key keys[kBatch];  // all loads are under way before the first key is used
      MGA_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        const int64_t cell = first + (start + j) * 32;
        keys[j] = cell < cells_ ? load_(cell) : Key(0);
      }
      MGA_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        const int64_t cell = first + (start + j) * 32;
        f(cell, keys[j]);
      }
    }
  }

 private:
  static constexpr int kBatch = 8;
  Load load_;
  int64_t cells_;
  int steps_;
};

// The same for at most kHeldCells cells, loaded once.
template <typename Key, typename Load>
class HeldKeys {
 public:
  __device__ HeldKeys(Load load, int64_t cells) : steps_((int(cells) + kSelectThreads - 1) / kSelectThreads) {
    MGA_UNROLL
    for (int j = 0; j < kHeldKeys; ++j) keys_[j] = j < steps_ && cell(j) < cells ? load(cell(j)) : Key(0);
  }

  template <typename F>
  __device__ void each(F f) {
    MGA_UNROLL
    for (int j = 0; j < kHeldKeys; ++j) {
      if (j < steps_) f(cell(j), keys_[j]);
    }
  }

 private:
  __device__ int cell(int j) const { return (int(threadIdx.x / 32) * steps_ + j) * 32 + int(threadIdx.x % 32); }
  Key keys_[kHeldKeys];
  int steps_;
};

__device__ __forceinline__ int warp_inclusive_scan(int value) {
  MGA_UNROLL
  for (int distance = 1; distance < 32; distance *= 2) {
    const int lower = __shfl_up_sync(0xffffffffu, value, distance);
    if (int(threadIdx.x % 32) >= distance) value += lower;
  }
  return value;
}

// Of one number a warp, the sum over the warps before this one.
__device__ __forceinline__ int sum_of_warps_before(const int (&numbers)[kSelectWarps]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int sums = warp_inclusive_scan(lane < kSelectWarps ? numbers[lane] : 0);
  const int before = __shfl_sync(0xffffffffu, sums, (warp + 31) % 32);
  return warp == 0 ? 0 : before;
}

// Finds in s.histogram the digit of the remaining-th largest key; leaves it in s.digit, s.left and s.size.
__device__ __forceinline__ void find_digit(SelectScratch& s, int remaining) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  constexpr int kOwn = kDigits / kSelectThreads;
  const int high = kDigits - 1 - kOwn * int(threadIdx.x);  // this thread has the digits from here downwards
  int counts[kOwn], sum = 0;
  MGA_UNROLL
  for (int d = 0; d < kOwn; ++d) sum += counts[d] = s.histogram[high - d];
  const int within = warp_inclusive_scan(sum);
  if (lane == 31) s.warp_sum[warp] = within;
  __syncthreads();
  int above = sum_of_warps_before(s.warp_sum) + within - sum;  // keys with greater digits
  MGA_UNROLL
  for (int d = 0; d < kOwn; ++d) {
    if (above < remaining && remaining <= above + counts[d]) {
      s.digit = high - d;
      s.left = remaining - above;
      s.size = counts[d];
    }
    above += counts[d];
  }
  __syncthreads();
}

// Writes the `count` >= 1 cells with the largest keys to `chosen` in ascending order; equal keys go to the lower cell.
// With `counted`, s.histogram already holds the number of keys by their first 11 bits.
template <typename Key, typename Keys>
__device__ void choose_cells(Keys& keys, int count, int32_t* __restrict__ chosen, SelectScratch& s, bool counted) {
  constexpr int kBits = 8 * sizeof(Key);
  Key prefix = 0;  // the key sought, from bit `shift` upwards
  int shift = kBits, remaining = count;
  bool decided = false;
  while (!decided && shift > 0) {
    const int top = shift, width = top < kDigitBits ? top : kDigitBits;
    shift = top - width;
    if (!counted || top < kBits) {
      for (int d = threadIdx.x; d < kDigits; d += kSelectThreads) s.histogram[d] = 0;
      __syncthreads();
      keys.each([&](int64_t, Key key) {
        const bool candidate = top == kBits || Key(key >> (top % kBits)) == prefix;
        if (candidate) atomicAdd(&s.histogram[int(key >> shift) & ((1 << width) - 1)], 1);
      });
      __syncthreads();
    }
    find_digit(s, remaining);
    prefix = Key(prefix << width) | Key(s.digit);
    remaining = s.left;
    decided = s.left == s.size;
    // The next step writes s.histogram when all have passed find_digit, and s.digit two barriers after that.
  }

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int greater = 0, equal = 0;
  keys.each([&](int64_t, Key key) {
    greater += Key(key >> shift) > prefix;
    equal += Key(key >> shift) == prefix;
  });
  greater = warp_inclusive_scan(greater);
  equal = warp_inclusive_scan(equal);
  if (lane == 31) {
    s.warp_greater[warp] = greater;
    s.warp_equal[warp] = equal;
  }
  __syncthreads();
  greater = sum_of_warps_before(s.warp_greater);
  equal = sum_of_warps_before(s.warp_equal);
  keys.each([&](int64_t cell, Key key) {
    const bool is_greater = Key(key >> shift) > prefix, is_equal = Key(key >> shift) == prefix;
    const unsigned greater_lanes = __ballot_sync(0xffffffffu, is_greater);
    const unsigned equal_lanes = __ballot_sync(0xffffffffu, is_equal);
    const unsigned lower = (1u << lane) - 1;
    const int equal_rank = equal + __popc(equal_lanes & lower);
    const int rank = greater + __popc(greater_lanes & lower) + (equal_rank < remaining ? equal_rank : remaining);
    if (is_greater || (is_equal && equal_rank < remaining)) chosen[rank] = int32_t(cell);
    greater += __popc(greater_lanes);
    equal += __popc(equal_lanes);
  });
}

}  // namespace mga
