#pragma once

// Blocks, tables and reference functions of the turbo cache types, shared by ggml-base and the CPU backend.

#include "ggml.h"

#include <stdint.h>

#ifdef  __cplusplus
extern "C" {
#endif

#define QK_TURBO 64

// d is the step of the integer levels. An all-zero block decodes to zeros, as a cleared buffer must.
// A block that was quantized from a non-finite value has d = NaN, so that the error stays visible.

// value j is the 2-bit code in bits 2*(j/16) of qs[j%16]
typedef struct {
    uint16_t d; // fp16
    uint8_t  qs[QK_TURBO/4];
} block_turbo2;

// low two bits as in turbo2; the third bit of value j is bit j%8 of qh[j/8]
typedef struct {
    uint16_t d; // fp16
    uint8_t  qs[QK_TURBO/4];
    uint8_t  qh[QK_TURBO/8];
} block_turbo3;

// value j is the low (j < 32) or high nibble of qs[j%32]
typedef struct {
    uint16_t d; // fp16
    uint8_t  qs[QK_TURBO/2];
} block_turbo4;

// Lloyd-Max levels of N(0,1), scaled to integers so that dot products stay in int8; code i decodes to d*levels[i]
GGML_API const int8_t ggml_turbo2_levels[4];
GGML_API const int8_t ggml_turbo3_levels[8];
GGML_API const int8_t ggml_turbo4_levels[16];

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
GGML_API size_t quantize_turbo(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst, int64_t nrows, int64_t n_per_row);

#ifdef  __cplusplus
}
#endif
