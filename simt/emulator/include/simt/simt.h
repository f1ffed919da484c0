// Everything that a CUDA kernel expects to find, for its execution as ordinary C++20 on the CPU.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <limits>

#include "simt/keywords.h"
#include "simt/vector_types.h"
#include "simt/thread.h"
#include "simt/runtime.h"
#include "simt/synchronisation.h"
#include "simt/warp.h"
#include "simt/atomics.h"
#include "simt/bits.h"
#include "simt/arithmetic.h"
#include "simt/conversions.h"
#include "simt/memory.h"
#include "simt/half.h"

#include <assert.h>
