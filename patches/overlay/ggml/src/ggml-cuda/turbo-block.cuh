#pragma once

// The turbo codec's tables on a GPU, and decoding: a thread decodes 4 of the 64 values of a block.
//
// To prove without a GPU that this is what ggml-turbo.c does, a test compiles this file as plain C++ too: nothing may be
// used here that its shim lacks. Include common.cuh (or the shim) first.

#include "ggml-turbo-impl.h"

// Tables as functions: a kernel cannot read host memory, and where loops are unrolled they become immediates. `wide` is 0 or 1.
template <typename block_t> struct turbo_codec;

#define TURBO_CODEC(N)                                                                 \
    template <> struct turbo_codec<block_turbo##N> {                                   \
        static constexpr int   n           = GGML_TURBO##N##_N;                        \
        static constexpr int   n_trials    = GGML_TURBO##N##_N_TRIALS;                 \
        static constexpr float sigma       = GGML_TURBO##N##_SIGMA;                    \
        static constexpr float norm_weight = GGML_TURBO##N##_NORM_WEIGHT;              \
                                                                                       \
        static constexpr __device__ float trial(const int t) {                         \
            constexpr float v[n_trials] = { GGML_TURBO##N##_TRIALS };                  \
            return v[t];                                                               \
        }                                                                              \
        static constexpr __device__ float edge(const int wide, const int i) {          \
            constexpr float v[2][n - 1] = GGML_TURBO_TABLES(N, GGML_TURBO##N##_EDGES); \
            return v[wide][i];                                                         \
        }                                                                              \
        static constexpr __device__ int magnitude(const int wide, const int m) {       \
            constexpr int v[2][n] = GGML_TURBO_TABLES(N, GGML_TURBO##N##_MAGNITUDES);  \
            return v[wide][m];                                                         \
        }                                                                              \
    };

TURBO_CODEC(2)
TURBO_CODEC(3)
TURBO_CODEC(4)

// the integer level of a code
template <typename block_t> static constexpr __device__ int turbo_level(const int wide, const int code) {
    constexpr int n = turbo_codec<block_t>::n;
    return code < n ? -turbo_codec<block_t>::magnitude(wide, n - 1 - code) :
                      turbo_codec<block_t>::magnitude(wide, code - n);
}

// the levels of codes 4*i..4*i + 3 as bytes
template <typename block_t> static constexpr __device__ uint32_t turbo_level_word(const int wide, const int i) {
    uint32_t word = 0;
    for (int k = 0; k < 4; ++k) {
        word |= (turbo_level<block_t>(wide, 4 * i + k) & 0xffu) << (8 * k);
    }
    return word;
}

//
// decoding
//

static __device__ __forceinline__ float turbo_step(const uint16_t d) {
    return __half2float(__ushort_as_half(GGML_TURBO_STEP(d))) * GGML_TURBO_STEP_UNIT;
}

// whether value j is in a group that takes the wide table
template <typename block_t> static __device__ __forceinline__ bool turbo_is_wide(const block_t * x, const int j) {
    return GGML_TURBO_WIDE(x->d, j);
}

// 4 bytes of a block, which is aligned to 2 bytes
static __device__ __forceinline__ uint32_t turbo_load_4(const uint8_t * p) {
    const uint16_t * p16 = (const uint16_t *) p;
    return p16[0] | (uint32_t) p16[1] << 16;
}

// 4 codes, one in the low nibble of each byte, as 16 bits: the form that __byte_perm selects with
static __device__ __forceinline__ uint32_t turbo_selector(const uint32_t codes) {
    return __byte_perm(codes | codes >> 4, 0, 0x4420);
}

// The levels of values j..j + 3 of a block as bytes; j is a multiple of 4.
static __device__ __forceinline__ uint32_t turbo_levels_4(const block_turbo2 * x, const int j) {
    const uint32_t codes = (turbo_load_4(x->qs + GGML_TURBO2_BYTE(j)) >> GGML_TURBO2_BIT(j)) & 0x03030303;
    const uint32_t table =
        turbo_is_wide(x, j) ? turbo_level_word<block_turbo2>(1, 0) : turbo_level_word<block_turbo2>(0, 0);
    return __byte_perm(table, 0, turbo_selector(codes));
}

static __device__ __forceinline__ uint32_t turbo_levels_4(const block_turbo3 * x, const int j) {
    const uint32_t lo    = (turbo_load_4(x->qs + GGML_TURBO2_BYTE(j)) >> GGML_TURBO2_BIT(j)) & 0x03030303;
    const uint32_t hi    = (x->qh[j / 8] >> (j % 8)) & 0x0f;
    // bit i of hi moves to bit 8*i
    const uint32_t codes = lo | ((hi * 0x00204081) & 0x01010101) << 2;
    const bool     wide  = turbo_is_wide(x, j);
    const uint32_t t0    = wide ? turbo_level_word<block_turbo3>(1, 0) : turbo_level_word<block_turbo3>(0, 0);
    const uint32_t t1    = wide ? turbo_level_word<block_turbo3>(1, 1) : turbo_level_word<block_turbo3>(0, 1);
    return __byte_perm(t0, t1, turbo_selector(codes));
}

static __device__ __forceinline__ uint32_t turbo_levels_4(const block_turbo4 * x, const int j) {
    const uint32_t codes = (turbo_load_4(x->qs + GGML_TURBO4_BYTE(j)) >> GGML_TURBO4_BIT(j)) & 0x0f0f0f0f;
    const uint32_t sel   = turbo_selector(codes);
    const bool     wide  = turbo_is_wide(x, j);
    const uint32_t t0    = wide ? turbo_level_word<block_turbo4>(1, 0) : turbo_level_word<block_turbo4>(0, 0);
    const uint32_t t1    = wide ? turbo_level_word<block_turbo4>(1, 1) : turbo_level_word<block_turbo4>(0, 1);
    const uint32_t t2    = wide ? turbo_level_word<block_turbo4>(1, 2) : turbo_level_word<block_turbo4>(0, 2);
    const uint32_t t3    = wide ? turbo_level_word<block_turbo4>(1, 3) : turbo_level_word<block_turbo4>(0, 3);
    // __byte_perm looks at 3 bits of a nibble, so the fourth chooses between its results for both halves of the table.
    return __byte_perm(__byte_perm(t0, t1, sel), __byte_perm(t2, t3, sel), 0x3210 | ((sel & 0x8888) >> 1));
}

// Values j..j + 3 of a block. The products are exact, so contraction cannot change them.
template <typename block_t>
static __device__ __forceinline__ void turbo_decode_4(const block_t * x, const int j, float * y) {
    const uint32_t levels = turbo_levels_4(x, j);
    const float    step   = turbo_step(x->d);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        y[k] = step * (int8_t) (levels >> (8 * k));
    }
}
