#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// As ggml_get_type_traits(type)->to_float, with this CPU's kernels where there are any; the values are the same.
// NULL for F32.
ggml_to_float_t ggml_cpu_get_to_float(enum ggml_type type);

#ifdef __cplusplus
}
#endif
