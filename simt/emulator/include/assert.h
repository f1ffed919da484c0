// Stands in for the C header of this name: a failed assertion in a kernel ends the launch with a
// fault, not the process. Without include guard, as in C: NDEBUG decides anew each time.
#include "simt/runtime.h"
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) \
  ((condition) ? (void)0 : ::simt::fail_assertion(#condition, ::simt::loc_t::current()))
#endif
