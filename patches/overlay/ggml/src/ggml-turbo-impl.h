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

// Where u has the product of value i's error with value j: squares of 8*8, of the upper triangle, row by row. In a square
// pairs of values i stand beside each other. It is zero for j < i.
#define GGML_TURBO_FACTOR_SQUARE(i, j) ((i) / 8 * (17 - (i) / 8) / 2 + (j) / 8 - (i) / 8)
#define GGML_TURBO_FACTOR_U(i, j)      (64 * GGML_TURBO_FACTOR_SQUARE(i, j) + (i) % 8 / 2 * 16 + (j) % 8 * 2 + (i) % 2)

// Rounding for scores is done in integers: values and levels in 32nds of a step, at most so many; sums of their products with
// u, the largest of which is 127, are less than 2^31.
#define GGML_TURBO_SCORES_UNIT 32
#define GGML_TURBO_SCORES_MOST 28672
#define GGML_TURBO_FACTOR_UNIT 64
#define GGML_TURBO_FACTOR_MOST 127

// The step for scores: of squares and products of values and levels, weighted; 0 where they say nothing
GGML_API uint16_t ggml_turbo_scores_step(const ggml_turbo_codebook * cb, float step, float xx, float xl, float ll);

// Blocks that ggml_turbo_set_rows stores, and the factor of each
GGML_API void quantize_turbo_scores_ref(enum ggml_type              type,
                                        const float * GGML_RESTRICT x,
                                        void * GGML_RESTRICT        y,
                                        int64_t                     k,
                                        const ggml_turbo_factor *   factors);

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
