#pragma once

// Reference functions of the turbo cache types, shared by ggml-base and the CPU backend.

#include "ggml-backend.h"
#include "ggml-turbo-tables.h"
#include "ggml-turbo.h"
#include "ggml.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The step is this fp16 divided by 64, which moves fp16's range to where steps are: f16's largest value still fits.
#define GGML_TURBO_STEP_UNIT (1.0f / 64)

// by table, narrow or wide, and code
GGML_API const int8_t ggml_turbo2_levels[2][4];
GGML_API const int8_t ggml_turbo3_levels[2][8];
GGML_API const int8_t ggml_turbo4_levels[2][16];

GGML_API const ggml_turbo_codebook ggml_turbo2_codebook;
GGML_API const ggml_turbo_codebook ggml_turbo3_codebook;
GGML_API const ggml_turbo_codebook ggml_turbo4_codebook;

// The trial whose step is the narrow one of the best pair, and the groups that take the wide table, as bits. gain[t][g] says
// how much smaller the squared error of group g is with step t than with zeros.
GGML_API int ggml_turbo_choose(const ggml_turbo_codebook * cb, float gain[][GGML_TURBO_N_GROUPS], int * wide);

// 64*step as fp16 with 7 bits of mantissa; the largest one instead of infinity
GGML_API uint16_t ggml_turbo_round_step(float step);

GGML_API void quantize_row_turbo2_ref(const float * GGML_RESTRICT x, block_turbo2 * GGML_RESTRICT y, int64_t k);
GGML_API void quantize_row_turbo3_ref(const float * GGML_RESTRICT x, block_turbo3 * GGML_RESTRICT y, int64_t k);
GGML_API void quantize_row_turbo4_ref(const float * GGML_RESTRICT x, block_turbo4 * GGML_RESTRICT y, int64_t k);

// the float of a block's factor: a product of value i's error with value j, j > i, and of D
#define GGML_TURBO_FACTOR_U(i, j) ((i) * (125 - (i)) / 2 + (j) - 1)
#define GGML_TURBO_FACTOR_D(i)    (63 * 64 / 2 + (i))

// The step for scores: of squares and products of values and levels, weighted; 0 where they say nothing
GGML_API uint16_t ggml_turbo_scores_step(const ggml_turbo_codebook * cb, float step, float xx, float xl, float ll);

// Blocks that ggml_turbo_set_rows stores, of which the first is block `first` of a row,
// whose factors are in groups of `group` blocks. Kernels multiply and add in one step,
// which is slow where the CPU cannot: without `fused` in two, so that a value between two levels may become the other one.
GGML_API void quantize_turbo_scores_ref(enum ggml_type              type,
                                        const float * GGML_RESTRICT x,
                                        void * GGML_RESTRICT        y,
                                        int64_t                     k,
                                        const float *               factors,
                                        int64_t                     first,
                                        int64_t                     group,
                                        bool                        fused);

GGML_API void dequantize_row_turbo2(const block_turbo2 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
GGML_API void dequantize_row_turbo3(const block_turbo3 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
GGML_API void dequantize_row_turbo4(const block_turbo4 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);

// Whether these are whole blocks whose steps are numbers, as ggml_validate_row_data asks; says on stderr what is wrong
GGML_API bool ggml_turbo_validate(enum ggml_type type, const void * data, size_t nbytes);

// False for an op on a turbo type and a device whose backend has no kernels for them. Others know best what they can do
// themselves; many backends take any type for granted that they do not exclude by name.
GGML_API bool ggml_turbo_allows(ggml_backend_dev_t dev, const struct ggml_tensor * op);

// the levels of one block's codes: 64 integers
GGML_API void ggml_turbo2_unpack(const block_turbo2 * x, int8_t * levels);
GGML_API void ggml_turbo3_unpack(const block_turbo3 * x, int8_t * levels);
GGML_API void ggml_turbo4_unpack(const block_turbo4 * x, int8_t * levels);

// as the quantize_* functions of ggml-quants.h; imatrix is not used
GGML_API size_t quantize_turbo(enum ggml_type              type,
                               const float * GGML_RESTRICT src,
                               void * GGML_RESTRICT        dst,
                               int64_t                     nrows,
                               int64_t                     n_per_row);

// a row of ggml.c's table of types
#define GGML_TURBO_TYPE_TRAITS(bits)                                          \
    {                                                                         \
        .type_name      = "turbo" #bits,                                      \
        .blck_size      = QK_TURBO,                                           \
        .type_size      = sizeof(block_turbo##bits),                          \
        .is_quantized   = true,                                               \
        .to_float       = (ggml_to_float_t) dequantize_row_turbo##bits,       \
        .from_float_ref = (ggml_from_float_t) quantize_row_turbo##bits##_ref, \
    }

#ifdef __cplusplus
}
#endif
