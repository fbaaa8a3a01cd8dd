// Runs CUDA C++ kernels on the CPU, for tests of correctness without a GPU: g++ -x c++ -DMGA_CPU_EMU.
// Model: one OS thread; every CUDA thread of a block is a fiber, and fibers switch at barriers and warp collectives
// only. Finds: wrong indexing (with ASan), missing __syncthreads and __syncwarp (EMU_ORDER=fwd|rev|<seed> changes the
// order in which threads run between barriers), divergent barriers, deadlock, shuffles from lanes outside the mask,
// reads of dynamic shared memory that nobody wrote (it is filled with NaN); with races.cpp, data races. Blocks run one
// after another, in an order that EMU_ORDER changes too. Does not model: reordering by the memory model, races between
// blocks, timing.
#pragma once
#ifndef MGA_CPU_EMU
#error "define MGA_CPU_EMU"
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>     // host versions of conversions and arithmetic
#include <cuda_runtime.h>  // g++ sees host API + vector types; __global__ etc. expand to nothing
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include "races.h"

namespace emu {
enum St : uint8_t { READY, AT_BLOCK, AT_WARP, DONE };
struct Thread {
  ucontext_t start;         // of its first block
  void* place[5];           // where it goes on
  bool started = false;
  char* stack = nullptr;
  St st;
  int epoch = 0;  // barriers of the block that it has passed
  uint3 tid;
  int lin;
  unsigned wmask;
  const void* site;
  void* fake = nullptr;
};
constexpr size_t kStack = 256 * 1024, kShared = 232448;  // bytes; the latter of a block
struct Slot {
  alignas(16) unsigned char b[64];
};
struct Block {
  dim3 grid, block;
  uint3 bid;
  std::vector<Thread> th;
  std::vector<Slot> slots;
  unsigned char* dyn = nullptr;
  Thread* cur = nullptr;
  void* main[5];  // where launch() goes on
  void* main_fake = nullptr;
  const void* main_stack = nullptr;
  size_t main_size = 0;
  const std::function<void()>* fn = nullptr;
  std::string error;
  long switches = 0, without = 0;
};
inline Block*& B() {
  static thread_local Block* b = nullptr;
  return b;
}
inline Thread& T() { return *B()->cur; }
inline void fail(const std::string& m) {
  auto& t = T();
  throw std::runtime_error("cuda_emu: " + m + " [block " + std::to_string(B()->bid.x) + "," +
                           std::to_string(B()->bid.y) + "," + std::to_string(B()->bid.z) + " thread " +
                           std::to_string(t.lin) + "]");
}
// Threads switch by GCC's own setjmp: swapcontext() would ask the kernel for the mask of signals at every switch, and
// longjmp() would tell AddressSanitizer that the frames left behind are gone.
#define EMU_SWITCH __attribute__((noinline, no_sanitize("address", "thread", "undefined")))
EMU_SWITCH inline void go_on(void** place) { __builtin_longjmp(place, 1); }
EMU_SWITCH inline void leave_for(void** from, void** to) {
  if (__builtin_setjmp(from) == 0) go_on(to);
}
EMU_SWITCH inline void leave_for_the_start(void** from, const ucontext_t* start) {
  if (__builtin_setjmp(from) == 0) setcontext(start);
}
inline void start_sw(void** fake, const void* stk, size_t n) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake, stk, n);
#endif
  (void)fake;
  (void)stk;
  (void)n;
}
inline void finish_sw(void* fake, const void** os, size_t* on) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, os, on);
#endif
  (void)fake;
  (void)os;
  (void)on;
}
inline void yield_(St s, const void* site) {
  auto* b = B();
  auto& t = *b->cur;
  t.st = s;
  t.site = site;
  start_sw(&t.fake, b->main_stack, b->main_size);
  leave_for(t.place, b->main);
  finish_sw(t.fake, nullptr, nullptr);
  if (!b->error.empty()) throw 0;
}
inline void entry() {  // one block after the other
  finish_sw(nullptr, &B()->main_stack, &B()->main_size);
  for (;;) {
    auto* b = B();
    try {
      (*b->fn)();
    } catch (int) {
    } catch (const std::exception& e) {
      if (b->error.empty()) b->error = e.what();
    }
    auto& t = *b->cur;
    t.st = DONE;
    start_sw(&t.fake, b->main_stack, b->main_size);
    leave_for(t.place, b->main);
    finish_sw(t.fake, nullptr, nullptr);
  }
}
inline void run(Block& b, Thread& t) {
  b.cur = &t;
  ++b.switches;
  start_sw(&b.main_fake, t.stack, kStack);
  if (t.started) {
    leave_for(b.main, t.place);
  } else {
    t.started = true;
    leave_for_the_start(b.main, &t.start);
  }
  finish_sw(b.main_fake, nullptr, nullptr);
}
inline std::vector<int> order(int n) {
  std::vector<int> o(n);
  for (int i = 0; i < n; ++i) o[i] = i;
  const char* e = std::getenv("EMU_ORDER");
  if (!e || !*e || !strcmp(e, "fwd")) return o;
  if (!strcmp(e, "rev")) {
    std::reverse(o.begin(), o.end());
    return o;
  }
  std::mt19937 g(unsigned(std::atoi(e)));
  std::shuffle(o.begin(), o.end(), g);
  return o;
}
struct Stats {
  long switches = 0, blocks = 0;
};
inline long setting(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atol(text) : otherwise;
}
// Whether a fault that tests have planted acts: the one that EMU_WITHOUT names.
inline bool without(long fault) { return B()->without == fault; }
inline unsigned char* dynamic_shared() { return B()->dyn; }
inline Stats launch(dim3 grid, dim3 block, size_t smem, const std::function<void()>& fn) {
  const int n = int(block.x * block.y * block.z), nw = (n + 31) / 32;
  if (n < 1 || n > 1024) throw std::runtime_error("cuda_emu: block size " + std::to_string(n));
  if (smem > kShared)
    throw std::runtime_error("cuda_emu: dynamic shared memory " + std::to_string(smem));
  Block b;
  b.grid = grid;
  b.block = block;
  b.fn = &fn;
  b.without = setting("EMU_WITHOUT", 0);
  b.th.resize(n);
  b.slots.resize(size_t(nw) * 32);
  void* dynamic = nullptr;  // of the exact size, so that AddressSanitizer sees its end
  if (posix_memalign(&dynamic, 128, std::max<size_t>(smem, 1))) throw std::bad_alloc();
  b.dyn = static_cast<unsigned char*>(dynamic);
  char* stacks = static_cast<char*>(
      mmap(nullptr, kStack * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  struct Unmap {
    void* p;
    size_t n;
    void* dynamic;
    Block* old;
    ~Unmap() {
      munmap(p, n);
      std::free(dynamic);
      B() = old;
    }
  } unmap{stacks, kStack * n, dynamic, B()};
  B() = &b;
  Stats s;
  for (int i = 0; i < n; ++i) {
    auto& t = b.th[i];
    t.stack = stacks + kStack * i;
    getcontext(&t.start);
    t.start.uc_stack.ss_sp = t.stack;
    t.start.uc_stack.ss_size = kStack;
    t.start.uc_link = nullptr;
    makecontext(&t.start, entry, 0);
  }
  const auto word = order(nw), lord = order(32);
  for (unsigned bz = 0; bz < grid.z; ++bz)
    for (unsigned by = 0; by < grid.y; ++by)
      for (const int bx : order(int(grid.x))) {
        b.bid = make_uint3(unsigned(bx), by, bz);
        std::memset(b.dyn, 0xFF, smem);
        race_block(b.dyn, smem);
        for (int i = 0; i < n; ++i) {
          auto& t = b.th[i];
          t.lin = i;
          t.tid = make_uint3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
          t.st = READY;
          t.epoch = 0;
        }
        // Warp by warp, each as far as it can go (its own collectives included) before the next one starts: the largest
        // skew between warps that the program allows, so a missing __syncthreads() shows in some order.
        auto release_warp = [&](int w) {
          bool rel = false;
          for (int l = 0; l < 32 && w * 32 + l < n; ++l) {
            auto& t = b.th[w * 32 + l];
            if (t.st != AT_WARP) continue;
            unsigned m = t.wmask;
            bool all = true;
            for (int k = 0; k < 32; ++k)
              if (m >> k & 1) {
                int j = w * 32 + k;
                if (j >= n) {
                  b.error = "cuda_emu: warp mask names lanes that do not exist";
                  return false;
                }
                auto& u = b.th[j];
                if (u.st == DONE || u.st == AT_BLOCK) {
                  b.error = "cuda_emu: lane " + std::to_string(k) +
                            " of a warp collective has exited or waits at __syncthreads";
                  return false;
                }
                if (u.st != AT_WARP || u.wmask != m) all = false;
              }
            if (all) {
              for (int k = 0; k < 32; ++k)
                if (m >> k & 1) b.th[w * 32 + k].st = READY;
              rel = true;
            }
          }
          return rel;
        };
        for (;;) {
          for (int w : word)
            for (bool go = true; go && b.error.empty();) {
              for (int l : lord)
                if (w * 32 + l < n && b.th[w * 32 + l].st == READY) run(b, b.th[w * 32 + l]);
              go = release_warp(w);
            }
          if (!b.error.empty()) {
            for (auto& t : b.th)
              if (t.st != DONE) {
                t.st = READY;
                run(b, t);
              }
            break;
          }  // unwind every fiber
          int alive = 0, atb = 0;
          for (auto& t : b.th) {
            alive += t.st != DONE;
            atb += t.st == AT_BLOCK;
          }
          if (!alive) break;
          if (atb == alive) {
            const void* s0 = nullptr;
            for (auto& t : b.th)
              if (t.st == AT_BLOCK) {
                if (!s0)
                  s0 = t.site;
                else if (t.site != s0)
                  b.error =
                      "cuda_emu: threads of one block wait at different __syncthreads() calls (divergent barrier)";
              }
            for (auto& t : b.th) t.st = t.st == AT_BLOCK ? READY : t.st;
            continue;
          }
          b.error = "cuda_emu: deadlock: " + std::to_string(atb) + " of " + std::to_string(alive) +
                    " threads at __syncthreads, the rest in warp collectives with masks that do not match";
        }
        ++s.blocks;
        if (!b.error.empty()) throw std::runtime_error(b.error);
      }
  s.switches = b.switches;
  return s;
}
// ---- barriers and warp collectives
__attribute__((noinline)) inline void sync_block() {
  yield_(AT_BLOCK, __builtin_return_address(0));
  ++T().epoch;
}
inline void sync_warp(unsigned m) {
  auto& t = T();
  if (!(m >> (t.lin & 31) & 1)) fail("calling lane is not in its own mask");
  t.wmask = m;
  yield_(AT_WARP, nullptr);
}
inline Slot* wslot() { return &B()->slots[size_t(T().lin / 32) * 32]; }
template <class V, class F>
auto collective(unsigned m, const V& v, F f) {
  static_assert(sizeof(V) <= sizeof(Slot));
  auto* s = wslot();
  std::memcpy(s[T().lin & 31].b, &v, sizeof(V));
  sync_warp(m);
  auto get = [&](int l) {
    if (!(m >> l & 1)) fail("shuffle/vote reads lane " + std::to_string(l) + " outside the mask");
    V r;
    std::memcpy(&r, s[l].b, sizeof(V));
    return r;
  };
  auto r = f(get);
  sync_warp(m);
  return r;
}
inline int lane() { return T().lin & 31; }
}  // namespace emu

#include "cuda_builtins.h"
