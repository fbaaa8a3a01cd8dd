// Counts allocations of at least a limit while it is told to watch. Preloaded before the C library (bench/memory.py).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static size_t limit, count, largest;

static void note(size_t size) {
  if (limit == 0 || size < limit) return;
  __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
  if (size > largest) largest = size;
}

void watch_allocations(size_t from) {
  count = largest = 0;
  limit = from;
}
size_t allocations_seen(void) { return count; }
size_t largest_allocation(void) { return largest; }

void* malloc(size_t size) {
  note(size);
  return __libc_malloc(size);
}
void* calloc(size_t items, size_t size) {
  note(items * size);
  return __libc_calloc(items, size);
}
void* realloc(void* old, size_t size) {
  note(size);
  return __libc_realloc(old, size);
}
void* memalign(size_t alignment, size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void** out, size_t alignment, size_t size) {
  *out = memalign(alignment, size);
  return *out == NULL && size != 0 ? ENOMEM : 0;
}
void* mmap(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  static void* (*real)(void*, size_t, int, int, int, off_t);
  if (real == NULL) real = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  note(size);
  return real(address, size, protection, flags, file, offset);
}
