#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// As ggml_get_type_traits(type)->to_float, with this CPU's kernels where there are any; the values are the same.
// NULL for F32.
ggml_to_float_t ggml_cpu_get_to_float(enum ggml_type type);

// n values of each of some rows as levels and steps: value i of row rows[r] is
// levels[r*n + i]*steps[i/ggml_kv_step_width(type)*stride + r]. Row r begins at base + r*nb.
// n is a multiple of the block size.
typedef void (*ggml_kv_unpack_t)(const char *    base,
                                 size_t          nb,
                                 const int32_t * rows,
                                 int64_t         n_rows,
                                 int64_t         n,
                                 int8_t *        levels,
                                 float *         steps,
                                 int64_t         stride);

// NULL for types whose values are not of that form.
ggml_kv_unpack_t ggml_kv_get_unpack(enum ggml_type type);

// Values that share a step: 32 or 64.
int64_t ggml_kv_step_width(enum ggml_type type);

#ifdef __cplusplus
}
#endif
