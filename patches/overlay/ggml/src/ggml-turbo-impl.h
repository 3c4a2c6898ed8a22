#pragma once

// Blocks, tables and reference functions of the turbo cache types, shared by ggml-base and the CPU backend.

#include "ggml.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QK_TURBO 64

// A value is step*level. The level comes from one of two tables, narrow or wide, which each 16 values choose.
//
// d holds both: bits 4..15 are the upper 12 bits of 64*step as a positive fp16 (7 bits of mantissa), bit s (0..3) says
// that values 16*s..16*s + 15 take the wide table. An all-zero block decodes to zeros, as a cleared buffer must.
// A block that was quantized from a non-finite value has a NaN step, so that the error stays visible.

// value j is the 2-bit code in bits 2*(j/16) of qs[j%16]
typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
} block_turbo2;

// low two bits as in turbo2; the third bit of value j is bit j%8 of qh[j/8]
typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
    uint8_t  qh[QK_TURBO / 8];
} block_turbo3;

// value j is the low (j < 32) or high nibble of qs[j%32]
typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 2];
} block_turbo4;

// The step is this fp16 divided by 64, which moves fp16's range to where steps are: f16's largest value still fits.
#define GGML_TURBO_STEP_UNIT (1.0f / 64)

static inline uint16_t ggml_turbo_step(uint16_t d) {
    return (d >> 1) & 0x7ff8;
}

// Lloyd-Max levels of N(0,1), scaled to integers so that dot products stay in int8; [0] is narrow, [1] wide.
// Value j of a block with code i is step*levels[(d >> j/16) & 1][i].
GGML_API const int8_t ggml_turbo2_levels[2][4];
GGML_API const int8_t ggml_turbo3_levels[2][8];
GGML_API const int8_t ggml_turbo4_levels[2][16];

#define GGML_TURBO_N_GROUPS 4  // of 16 values in a block
#define GGML_TURBO_N_TRIALS 9  // at most

// Trial steps are multiples of the one that fits the block's standard deviation, two to a wide/narrow ratio: a trial with
// the wide table stands for the second next one with the narrow table.
typedef struct {
    int   n;          // number of magnitudes
    float sigma;      // standard deviation that the narrow levels are made for
    float
        norm_weight;  // where the final step lies between the one of least squares (0) and the one that keeps the norm (1)
    int   n_trials;
    float trials[GGML_TURBO_N_TRIALS];
    float edges[2][7];  // midpoints between magnitudes; narrow, wide
    float magnitudes[2][8];
} ggml_turbo_codebook;

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

GGML_API void dequantize_row_turbo2(const block_turbo2 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
GGML_API void dequantize_row_turbo3(const block_turbo3 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
GGML_API void dequantize_row_turbo4(const block_turbo4 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);

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

#ifdef __cplusplus
}
#endif
