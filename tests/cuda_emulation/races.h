// What the emulation tells a detector of data races (races.cpp), in a library that is compiled with -DEMU_RACES.
#pragma once
#ifdef EMU_RACES
extern "C" {
void race_block(void* dynamic, unsigned long bytes);    // a block begins, with this dynamic shared memory
void race_atomic(const void* place, unsigned long n);   // read and written by an atomic operation
void race_issue(const void* place, unsigned long n);    // an asynchronous copy to this place is under way
void race_land(const void* place, unsigned long n);     // it has been waited for
void race_read(const void* place, unsigned long n);     // read by a lane in a collective of its warp
}
#define EMU_ATOMIC __attribute__((no_sanitize_thread, noinline))
#else
inline void race_block(void*, unsigned long) {}
inline void race_atomic(const void*, unsigned long) {}
inline void race_issue(const void*, unsigned long) {}
inline void race_land(const void*, unsigned long) {}
inline void race_read(const void*, unsigned long) {}
#define EMU_ATOMIC
#endif
