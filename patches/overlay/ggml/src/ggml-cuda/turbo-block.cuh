#pragma once

// The turbo codec's tables on a GPU, and decoding: a thread decodes 4 of the 64 values of a block.
//
// To prove without a GPU that this is what ggml-turbo.c does, a test compiles this file as plain C++ too: nothing may be
// used here that its shim lacks. Include common.cuh (or the shim) first.

#include "ggml-turbo-impl.h"

// Tables of ggml-turbo.c again, because a kernel cannot read host memory. As functions they become immediates where loops
// are unrolled. `wide` is 0 or 1.
template <typename block_t> struct turbo_codec;

template <> struct turbo_codec<block_turbo2> {
    static constexpr int   n           = 2;
    static constexpr int   n_trials    = 7;
    static constexpr float sigma       = 56.056f;
    static constexpr float norm_weight = 0.5f;

    static constexpr __device__ float trial(const int t) {
        constexpr float v[n_trials] = { 0.5443f, 0.6667f, 0.8165f, 1.0f, 1.2247f, 1.5f, 1.8371f };
        return v[t];
    }

    static constexpr __device__ float edge(const int wide, const int) { return wide ? 82.5f : 55.0f; }

    static constexpr __device__ int magnitude(const int wide, const int m) {
        constexpr int v[2][n] = {
            { 25, 85  },
            { 38, 127 }
        };
        return v[wide][m];
    }
};

template <> struct turbo_codec<block_turbo3> {
    static constexpr int   n           = 4;
    static constexpr int   n_trials    = 7;
    static constexpr float sigma       = 40.9097f;
    static constexpr float norm_weight = 1.0f;

    static constexpr __device__ float trial(const int t) {
        constexpr float v[n_trials] = { 0.6202f, 0.7273f, 0.8528f, 1.0f, 1.1726f, 1.375f, 1.6123f };
        return v[t];
    }

    static constexpr __device__ float edge(const int wide, const int i) {
        constexpr float v[2][n - 1] = {
            { 20.5f, 43.0f, 71.5f },
            { 28.5f, 59.5f, 98.5f }
        };
        return v[wide][i];
    }

    static constexpr __device__ int magnitude(const int wide, const int m) {
        constexpr int v[2][n] = {
            { 10, 31, 55, 88  },
            { 14, 43, 76, 121 }
        };
        return v[wide][m];
    }
};

template <> struct turbo_codec<block_turbo4> {
    static constexpr int   n           = 8;
    static constexpr int   n_trials    = 9;
    static constexpr float sigma       = 38.1556f;
    static constexpr float norm_weight = 0.5f;

    static constexpr __device__ float trial(const int t) {
        constexpr float v[n_trials] = { 0.6508f, 0.7091f, 0.7728f, 0.8421f, 0.9177f, 1.0f, 1.0897f, 1.1875f, 1.2941f };
        return v[t];
    }

    static constexpr __device__ float edge(const int wide, const int i) {
        constexpr float v[2][n - 1] = {
            { 10.0f, 20.0f, 30.5f, 42.0f, 55.0f, 70.5f, 91.5f  },
            { 12.0f, 24.0f, 36.5f, 50.0f, 65.0f, 83.5f, 109.0f }
        };
        return v[wide][i];
    }

    static constexpr __device__ int magnitude(const int wide, const int m) {
        constexpr int v[2][n] = {
            { 5, 15, 25, 36, 48, 62, 79, 104 },
            { 6, 18, 30, 43, 57, 73, 94, 124 }
        };
        return v[wide][m];
    }
};

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
    return __half2float(__ushort_as_half((d >> 1) & 0x7ff8)) * GGML_TURBO_STEP_UNIT;
}

// whether value j is in a group that takes the wide table
template <typename block_t> static __device__ __forceinline__ bool turbo_is_wide(const block_t * x, const int j) {
    return (x->d >> (j / (QK_TURBO / GGML_TURBO_N_GROUPS))) & 1;
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
    const uint32_t codes = (turbo_load_4(x->qs + j % 16) >> (2 * (j / 16))) & 0x03030303;
    const uint32_t table =
        turbo_is_wide(x, j) ? turbo_level_word<block_turbo2>(1, 0) : turbo_level_word<block_turbo2>(0, 0);
    return __byte_perm(table, 0, turbo_selector(codes));
}

static __device__ __forceinline__ uint32_t turbo_levels_4(const block_turbo3 * x, const int j) {
    const uint32_t lo    = (turbo_load_4(x->qs + j % 16) >> (2 * (j / 16))) & 0x03030303;
    const uint32_t hi    = (x->qh[j / 8] >> (j % 8)) & 0x0f;
    // bit i of hi moves to bit 8*i
    const uint32_t codes = lo | ((hi * 0x00204081) & 0x01010101) << 2;
    const bool     wide  = turbo_is_wide(x, j);
    const uint32_t t0    = wide ? turbo_level_word<block_turbo3>(1, 0) : turbo_level_word<block_turbo3>(0, 0);
    const uint32_t t1    = wide ? turbo_level_word<block_turbo3>(1, 1) : turbo_level_word<block_turbo3>(0, 1);
    return __byte_perm(t0, t1, turbo_selector(codes));
}

static __device__ __forceinline__ uint32_t turbo_levels_4(const block_turbo4 * x, const int j) {
    const uint32_t codes = (turbo_load_4(x->qs + j % 32) >> (4 * (j / 32))) & 0x0f0f0f0f;
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
