// A detector of data races: of all accesses to memory that g++ -fsanitize=thread reports, it finds those by two threads
// of a block to one byte of shared memory that no __syncthreads() lies between, one of them a write; the same for
// global memory that is tracked, where no two blocks are ordered at all. Atomic operations do not race with one
// another. An asynchronous copy writes at any time from its issue to its wait, and only its own thread has waited.
//
// It finds what no order of threads shows: a barrier that is missing where the values happen to be right.
#include <dlfcn.h>
#include <link.h>

#include <map>
#include <string>
#include <vector>

#include "cuda_emu.h"

namespace {

constexpr int kNobody = -1, kSeveral = -2;

// One byte. An epoch is the number of barriers that a thread has passed; a turn numbers the blocks.
struct Byte {
  int writer = kNobody, write_epoch = 0, reader = kNobody, read_epoch = 0;
  long write_turn = 0, read_turn = 0;
  bool atomic = false, under_way = false;
};

struct Range {
  uintptr_t begin = 0, end = 0;
  bool global = false;
  std::vector<Byte> bytes;
};

enum class Kind { read, write, atomic, issue };

std::vector<Range> ranges(2);  // dynamic shared, static shared, then what is tracked of global memory
std::map<std::string, long> found;
long turn = 0, accesses = 0;

void report(const char* what, const void* code, bool global) {
  Dl_info info{};
  dladdr(const_cast<void*>(code), &info);
  const long offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase);
  char text[400];
  snprintf(text, sizeof text, "%s, %s memory, at 0x%lx in %s", what, global ? "global" : "shared", offset,
           info.dli_sname ? info.dli_sname : "a function without name");
  ++found[text];
}

void look(Byte& b, bool global, int thread, int epoch, Kind kind, const void* code) {
  const auto unordered = [&](int other, int other_epoch, long other_turn) {
    if (other == kNobody) return false;
    if (other_turn != turn) return global;  // shared memory is another block's then
    return other_epoch == epoch && other != thread;
  };
  if (b.under_way) report("a copy is under way", code, global);
  const bool both_atomic = kind == Kind::atomic && b.atomic;
  if (!both_atomic && unordered(b.writer, b.write_epoch, b.write_turn)) {
    report(kind == Kind::read ? "read after write" : "write after write", code, global);
  }
  if (kind == Kind::read) {
    const bool again = b.reader != kNobody && b.read_epoch == epoch && b.read_turn == turn;
    b.reader = again && b.reader != thread ? kSeveral : thread;
    b.read_epoch = epoch;
    b.read_turn = turn;
    return;
  }
  if (unordered(b.reader, b.read_epoch, b.read_turn)) report("write after read", code, global);
  if (kind == Kind::issue) {
    b.under_way = true;
    return;
  }
  b.writer = thread;
  b.write_epoch = epoch;
  b.write_turn = turn;
  b.atomic = kind == Kind::atomic;
}

template <typename F>
void each_byte(const void* place, size_t n, F f) {
  for (size_t i = 0; i < n; ++i) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(place) + i;
    for (auto& range : ranges) {
      if (address < range.begin || address >= range.end) continue;
      f(range.bytes[address - range.begin], range.global);
      break;
    }
  }
}

void access(const void* place, size_t n, Kind kind, const void* code) {
  const auto* block = emu::B();
  if (!block || !block->cur) return;
  ++accesses;
  const int thread = block->cur->lin, epoch = block->cur->epoch;
  each_byte(place, n, [&](Byte& b, bool global) { look(b, global, thread, epoch, kind, code); });
}

// Static shared memory is static memory in the emulation: what this library may write.
int writable(struct dl_phdr_info* info, size_t, void* base) {
  if (reinterpret_cast<void*>(info->dlpi_addr) != base) return 0;
  for (int k = 0; k < info->dlpi_phnum; ++k) {
    const auto& part = info->dlpi_phdr[k];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_W)) continue;
    ranges[1].begin = info->dlpi_addr + part.p_vaddr;
    ranges[1].end = ranges[1].begin + part.p_memsz;
  }
  return 1;
}

}  // namespace

extern "C" {

void race_block(void* dynamic, unsigned long bytes) {
  if (ranges[1].begin == 0) {
    Dl_info info{};
    dladdr(reinterpret_cast<void*>(&writable), &info);
    dl_iterate_phdr(&writable, info.dli_fbase);
  }
  ++turn;
  ranges[0].begin = reinterpret_cast<uintptr_t>(dynamic);
  ranges[0].end = ranges[0].begin + bytes;
  for (int i = 0; i < 2; ++i) ranges[i].bytes.assign(ranges[i].end - ranges[i].begin, Byte());
}

void race_track(const void* place, unsigned long n) {
  Range range;
  range.begin = reinterpret_cast<uintptr_t>(place);
  range.end = range.begin + n;
  range.global = true;
  range.bytes.resize(n);
  ranges.push_back(std::move(range));
}

void race_forget() { ranges.resize(2); }

// What was found since the last call, a line each, in *count the accesses looked at.
const char* race_found(long* count) {
  static std::string all;
  all.clear();
  for (const auto& [text, times] : found) all += text + " (" + std::to_string(times) + " bytes)\n";
  found.clear();
  *count = accesses;
  accesses = 0;
  return all.c_str();
}

void race_atomic(const void* p, unsigned long n) { access(p, n, Kind::atomic, __builtin_return_address(0)); }
void race_issue(const void* p, unsigned long n) { access(p, n, Kind::issue, __builtin_return_address(0)); }
void race_read(const void* p, unsigned long n) { access(p, n, Kind::read, __builtin_return_address(0)); }

void race_land(const void* p, unsigned long n) {
  const auto* thread = emu::B()->cur;
  each_byte(p, n, [&](Byte& b, bool) {
    b.under_way = b.atomic = false;
    b.writer = thread->lin;
    b.write_epoch = thread->epoch;
    b.write_turn = turn;
  });
}

// What the compiler calls.
#define HOOK(name, n, kind) \
  void __tsan_##name##n(void* p) { access(p, n, Kind::kind, __builtin_return_address(0)); }
#define HOOKS(n)                                                                  \
  HOOK(read, n, read) HOOK(write, n, write) HOOK(unaligned_read, n, read)         \
  HOOK(unaligned_write, n, write) HOOK(volatile_read, n, read) HOOK(volatile_write, n, write)
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, unsigned long n) { access(p, n, Kind::read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, unsigned long n) { access(p, n, Kind::write, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) { return *p; }
int __tsan_atomic32_load(const volatile int* p, int) { return *p; }
void* __tsan_memcpy(void* to, const void* from, unsigned long n) {
  access(from, n, Kind::read, __builtin_return_address(0));
  access(to, n, Kind::write, __builtin_return_address(0));
  return std::memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, unsigned long n) {
  access(to, n, Kind::write, __builtin_return_address(0));
  return std::memset(to, value, n);
}
}
