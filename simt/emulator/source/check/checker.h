// What the check build knows beside the values in memory. In the plain build all of it is empty.
#pragma once

#ifdef SIMT_CHECK
#include "check/access_checker.h"
#else
#include "check/no_checker.h"
#endif
