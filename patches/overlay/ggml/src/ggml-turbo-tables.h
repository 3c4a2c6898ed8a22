#ifndef GGML_TURBO_TABLES_H
#define GGML_TURBO_TABLES_H

// What all kernels of the turbo cache types share: the layout of their blocks and the tables of their codec. C, C++, CUDA,
// Metal and GLSL include this file, so that it holds only what all of their preprocessors know: no macro takes `...`.

// in enum ggml_type
#define GGML_TURBO2_TYPE 100
#define GGML_TURBO3_TYPE 101
#define GGML_TURBO4_TYPE 102

#define QK_TURBO            64  // values in a block
#define GGML_TURBO_GROUP    16  // values that share a choice of table
#define GGML_TURBO_N_GROUPS 4

// bytes of a block: d, then qs and qh
#define GGML_TURBO2_SIZE 18
#define GGML_TURBO3_SIZE 26
#define GGML_TURBO4_SIZE 34

// A value is step*level. The level comes from one of two tables, narrow or wide, which each 16 values choose.
//
// d holds both: bits 4..15 are the upper 12 bits of 64*step as a positive fp16 (7 bits of mantissa), bit s (0..3) says
// that values 16*s..16*s + 15 take the wide table. An all-zero block decodes to zeros, as a cleared buffer must.
// A block that was quantized from a non-finite value has a NaN step, so that the error stays visible.
#define GGML_TURBO_STEP(d)    (((d) >> 1) & 0x7ff8)  // 64*step as fp16
#define GGML_TURBO_WIDE(d, j) (((d) >> ((j) / GGML_TURBO_GROUP)) & 1)
#define GGML_TURBO_NAN        (0x7e00 << 1)          // as d

// an fp16 to those that d can hold; the largest one instead of infinity
#define GGML_TURBO_ROUND_STEP(h) ((h) < 0x7bf4 ? ((h) + 4) & 0xfff8 : 0x7bf8)

// Where the code of value j begins: a byte of qs and a bit of it. turbo3 has the low two bits there, and the third one in
// bit j%8 of qh[j/8].
#define GGML_TURBO2_BYTE(j) ((j) % 16)
#define GGML_TURBO2_BIT(j)  (2 * ((j) / 16))
#define GGML_TURBO4_BYTE(j) ((j) % 32)
#define GGML_TURBO4_BIT(j)  (4 * ((j) / 32))

// Lloyd-Max levels of N(0,1), scaled to integers so that dot products stay in int8. Each table is N positive ones and their
// negatives: code N + m stands for the m-th positive one, code N - 1 - m for its negative. F says what becomes of a table.
#define GGML_TURBO2_N 2
#define GGML_TURBO3_N 4
#define GGML_TURBO4_N 8

#define GGML_TURBO2_NARROW(F) F(25, 85)
#define GGML_TURBO2_WIDE(F)   F(38, 127)
#define GGML_TURBO3_NARROW(F) F(10, 31, 55, 88)
#define GGML_TURBO3_WIDE(F)   F(14, 43, 76, 121)
#define GGML_TURBO4_NARROW(F) F(5, 15, 25, 36, 48, 62, 79, 104)
#define GGML_TURBO4_WIDE(F)   F(6, 18, 30, 43, 57, 73, 94, 124)

// the positive ones
#define GGML_TURBO2_MAGNITUDES(a, b)                   a, b
#define GGML_TURBO3_MAGNITUDES(a, b, c, d)             a, b, c, d
#define GGML_TURBO4_MAGNITUDES(a, b, c, d, e, f, g, h) a, b, c, d, e, f, g, h

// by code
#define GGML_TURBO2_LEVELS(a, b)                   -b, -a, a, b
#define GGML_TURBO3_LEVELS(a, b, c, d)             -d, -c, -b, -a, a, b, c, d
#define GGML_TURBO4_LEVELS(a, b, c, d, e, f, g, h) -h, -g, -f, -e, -d, -c, -b, -a, a, b, c, d, e, f, g, h

// thresholds: midpoints between magnitudes
#define GGML_TURBO2_EDGES(a, b)       (a + b) / 2.0f
#define GGML_TURBO3_EDGES(a, b, c, d) GGML_TURBO2_EDGES(a, b), GGML_TURBO2_EDGES(b, c), GGML_TURBO2_EDGES(c, d)
#define GGML_TURBO4_EDGES(a, b, c, d, e, f, g, h) \
    GGML_TURBO3_EDGES(a, b, c, d), GGML_TURBO2_EDGES(d, e), GGML_TURBO3_EDGES(e, f, g, h)

// Quantizing: the standard deviation that the narrow levels are made for, where the final step lies between the one of least
// squares (0) and the one that keeps the norm (1), and the steps that are tried. Those are multiples of the one that fits the
// block's standard deviation, two to a wide/narrow ratio: a trial with the wide table stands for the second next one with
// the narrow table.
#define GGML_TURBO2_SIGMA       56.056f
#define GGML_TURBO3_SIGMA       40.9097f
#define GGML_TURBO4_SIGMA       38.1556f
#define GGML_TURBO2_NORM_WEIGHT 0.5f
#define GGML_TURBO3_NORM_WEIGHT 1.0f
#define GGML_TURBO4_NORM_WEIGHT 0.5f
#define GGML_TURBO2_N_TRIALS    7
#define GGML_TURBO3_N_TRIALS    7
#define GGML_TURBO4_N_TRIALS    9
#define GGML_TURBO2_TRIALS      0.5443f, 0.6667f, 0.8165f, 1.0f, 1.2247f, 1.5f, 1.8371f
#define GGML_TURBO3_TRIALS      0.6202f, 0.7273f, 0.8528f, 1.0f, 1.1726f, 1.375f, 1.6123f
#define GGML_TURBO4_TRIALS      0.6508f, 0.7091f, 0.7728f, 0.8421f, 0.9177f, 1.0f, 1.0897f, 1.1875f, 1.2941f
#define GGML_TURBO_N_TRIALS     9  // at most

// on Metal: rows that a simdgroup multiplies with a vector, and simdgroups of a threadgroup there and in the quantizer
#define N_R0_TURBO          2
#define N_SG_TURBO          2
#define N_SG_TURBO_QUANTIZE 4

#ifndef GL_core_profile  // in GLSL a block is words, see turbo_types.glsl

#    ifndef __METAL_VERSION__
#        include <assert.h>
#        include <stdint.h>
#    endif

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
} block_turbo2;

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
    uint8_t  qh[QK_TURBO / 8];
} block_turbo3;

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 2];
} block_turbo4;

static_assert(sizeof(block_turbo2) == GGML_TURBO2_SIZE, "wrong turbo2 block size");
static_assert(sizeof(block_turbo3) == GGML_TURBO3_SIZE, "wrong turbo3 block size");
static_assert(sizeof(block_turbo4) == GGML_TURBO4_SIZE, "wrong turbo4 block size");

typedef struct {
    int   n;
    int   n_trials;
    float sigma;
    float norm_weight;
    float trials[GGML_TURBO_N_TRIALS];
    float edges[2][7];  // narrow, wide
    float magnitudes[2][8];
} ggml_turbo_codebook;

// clang-format off
#define GGML_TURBO_TABLES(N, F) { { GGML_TURBO##N##_NARROW(F) }, { GGML_TURBO##N##_WIDE(F) } }

// initialisers: levels by table and code, and a ggml_turbo_codebook
#define GGML_TURBO_LEVELS(N)   GGML_TURBO_TABLES(N, GGML_TURBO##N##_LEVELS)
#define GGML_TURBO_CODEBOOK(N) {                                                                \
    GGML_TURBO##N##_N, GGML_TURBO##N##_N_TRIALS, GGML_TURBO##N##_SIGMA, GGML_TURBO##N##_NORM_WEIGHT, \
    { GGML_TURBO##N##_TRIALS },                                                                 \
    GGML_TURBO_TABLES(N, GGML_TURBO##N##_EDGES),                                                \
    GGML_TURBO_TABLES(N, GGML_TURBO##N##_MAGNITUDES),                                           \
}
// clang-format on

#endif  // GL_core_profile

#endif  // GGML_TURBO_TABLES_H
