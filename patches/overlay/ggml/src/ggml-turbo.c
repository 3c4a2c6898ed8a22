#include "ggml-turbo.h"

#include "ggml-impl.h"
#include "ggml-turbo-impl.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

// This file is the definition that every kernel of every backend is compared with. It is compiled without
// floating-point contraction, and its sums run over 8 lanes in a fixed order, so that vector code can be bit-exact.

static_assert(sizeof(block_turbo2) == 18, "wrong turbo2 block size");
static_assert(sizeof(block_turbo3) == 26, "wrong turbo3 block size");
static_assert(sizeof(block_turbo4) == 34, "wrong turbo4 block size");

const int8_t ggml_turbo2_levels[2][4] = {
    { -85,  -25, 25, 85  },
    { -127, -38, 38, 127 },
};

const int8_t ggml_turbo3_levels[2][8] = {
    { -88,  -55, -31, -10, 10, 31, 55, 88  },
    { -121, -76, -43, -14, 14, 43, 76, 121 },
};

const int8_t ggml_turbo4_levels[2][16] = {
    { -104, -79, -62, -48, -36, -25, -15, -5, 5, 15, 25, 36, 48, 62, 79, 104 },
    { -124, -94, -73, -57, -43, -30, -18, -6, 6, 18, 30, 43, 57, 73, 94, 124 },
};

//
// rotation
//

// the first 256 bits of the fraction of pi: nobody chose them
static const uint64_t turbo_sign_bits[GGML_TURBO_ROT_MAX / 64] = {
    0x243f6a8885a308d3,
    0x13198a2e03707344,
    0xa4093822299f31d0,
    0x082efa98ec4e6c89,
};

bool ggml_is_turbo(enum ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

float ggml_turbo_sign(int64_t i) {
    GGML_ASSERT(i >= 0 && i < GGML_TURBO_ROT_MAX);

    return (turbo_sign_bits[i / 64] >> (i % 64)) & 1 ? -1.0f : 1.0f;
}

int64_t ggml_turbo_rot_width(int64_t n) {
    const int64_t pow2 = n & -n;

    return pow2 < GGML_TURBO_ROT_MAX ? pow2 : GGML_TURBO_ROT_MAX;
}

void ggml_turbo_rot_fill(float * dst, int64_t n, bool inverse) {
    GGML_ASSERT(n > 0 && n <= GGML_TURBO_ROT_MAX && (n & (n - 1)) == 0);

    const float scale = 1.0f / sqrtf((float) n);

    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            int parity = 0;
            for (int64_t bits = i & j; bits; bits &= bits - 1) {
                parity ^= 1;
            }
            dst[i * n + j] = (parity ? -scale : scale) * ggml_turbo_sign(inverse ? i : j);
        }
    }
}

//
// quantization
//

#define N_GROUP (QK_TURBO / GGML_TURBO_N_GROUPS)

const ggml_turbo_codebook ggml_turbo2_codebook = {
    2,
    56.056f,
    0.5f,
    7,
    { 0.5443f, 0.6667f, 0.8165f, 1.0f, 1.2247f, 1.5f, 1.8371f },
    { { 55.0f }, { 82.5f } },
    { { 25, 85 }, { 38, 127 } },
};

const ggml_turbo_codebook ggml_turbo3_codebook = {
    4,
    40.9097f,
    1.0f,
    7,
    { 0.6202f, 0.7273f, 0.8528f, 1.0f, 1.1726f, 1.375f, 1.6123f },
    { { 20.5f, 43.0f, 71.5f }, { 28.5f, 59.5f, 98.5f } },
    { { 10, 31, 55, 88 }, { 14, 43, 76, 121 } },
};

const ggml_turbo_codebook ggml_turbo4_codebook = {
    8,
    38.1556f,
    0.5f,
    9,
    { 0.6508f, 0.7091f, 0.7728f, 0.8421f, 0.9177f, 1.0f, 1.0897f, 1.1875f, 1.2941f },
    { { 10.0f, 20.0f, 30.5f, 42.0f, 55.0f, 70.5f, 91.5f }, { 12.0f, 24.0f, 36.5f, 50.0f, 65.0f, 83.5f, 109.0f } },
    { { 5, 15, 25, 36, 48, 62, 79, 104 }, { 6, 18, 30, 43, 57, 73, 94, 124 } },
};

static float turbo_sum_lanes(const float * lane) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static float turbo_sum_squares(const float * x) {
    float lane[8] = { 0 };
    for (int j = 0; j < QK_TURBO; j++) {
        lane[j % 8] += x[j] * x[j];
    }
    return turbo_sum_lanes(lane);
}

// position of the magnitude that is nearest to a
static int turbo_nearest(const ggml_turbo_codebook * cb, int wide, float a) {
    int m = 0;
    for (int i = 0; i < cb->n - 1; i++) {
        m += a > cb->edges[wide][i];
    }
    return m;
}

// For each group: how much smaller the squared error is with narrow levels times step than with zeros.
static void turbo_gain(const ggml_turbo_codebook * cb, const float * x, float step, float * gain) {
    const float inv_step = 1.0f / step;
    for (int g = 0; g < GGML_TURBO_N_GROUPS; g++) {
        float xl[8] = { 0 };
        float ll[8] = { 0 };
        for (int j = 0; j < N_GROUP; j++) {
            const float a = fabsf(x[g * N_GROUP + j]);
            const float l = cb->magnitudes[0][turbo_nearest(cb, 0, a * inv_step)];
            xl[j % 8] += a * l;
            ll[j % 8] += l * l;
        }
        const float sum = turbo_sum_lanes(xl);
        gain[g]         = step * ((sum + sum) - step * turbo_sum_lanes(ll));
    }
}

// Codes of the levels that are nearest to x for a step and the groups' tables; returns the step that fits them best.
static float turbo_assign(const ggml_turbo_codebook * cb,
                          const float *               x,
                          float                       norm2,
                          float                       inv_step,
                          int                         wide,
                          uint8_t *                   codes) {
    float xl[8] = { 0 };
    float ll[8] = { 0 };
    for (int j = 0; j < QK_TURBO; j++) {
        const int   w = (wide >> j / N_GROUP) & 1;
        const float a = fabsf(x[j]);
        const int   m = turbo_nearest(cb, w, a * inv_step);
        const float l = cb->magnitudes[w][m];
        xl[j % 8] += a * l;
        ll[j % 8] += l * l;
        codes[j] = (uint8_t) (x[j] < 0.0f ? cb->n - 1 - m : cb->n + m);
    }
    const float sum     = turbo_sum_lanes(ll);
    const float squares = turbo_sum_lanes(xl) / sum;
    const float norm    = sqrtf(norm2 / sum);
    return squares + cb->norm_weight * (norm - squares);
}

int ggml_turbo_choose(const ggml_turbo_codebook * cb, float gain[][GGML_TURBO_N_GROUPS], int * wide) {
    int   best       = 0;
    float best_total = -INFINITY;
    for (int t = 0; t < cb->n_trials - 2; t++) {
        float g[GGML_TURBO_N_GROUPS];
        for (int i = 0; i < GGML_TURBO_N_GROUPS; i++) {
            g[i] = gain[t + 2][i] > gain[t][i] ? gain[t + 2][i] : gain[t][i];
        }
        const float total = (g[0] + g[2]) + (g[1] + g[3]);
        if (total > best_total) {
            best_total = total;
            best       = t;
        }
    }

    *wide = 0;
    for (int i = 0; i < GGML_TURBO_N_GROUPS; i++) {
        *wide |= (gain[best + 2][i] > gain[best][i]) << i;
    }
    return best;
}

uint16_t ggml_turbo_round_step(float step) {
    const float    x = step / GGML_TURBO_STEP_UNIT;
    const uint16_t h = GGML_FP32_TO_FP16(x < 65504.0f ? x : 65504.0f);
    return h < 0x7bf4 ? (uint16_t) ((h + 4) & 0xfff8) : 0x7bf8;
}

// Choose 64 codes, the groups' tables and the step for x. Returns false if the block is zero or not finite: then codes are
// not set and d says which.
//
// Each group takes the better table for each trial step, and the step with the least squared error wins. The step is
// then fitted to the levels and rounded, and both are done again for the rounded step.
static bool turbo_quantize_block(const ggml_turbo_codebook * cb, const float * x, uint8_t * codes, uint16_t * d) {
    float amax   = 0.0f;
    bool  finite = true;
    for (int j = 0; j < QK_TURBO; j++) {
        const float a = fabsf(x[j]);
        finite        = finite && a <= FLT_MAX;
        amax          = a > amax ? a : amax;
    }

    if (!finite || amax == 0.0f) {
        *d = finite ? 0 : 0x7e00 << 1;
        return false;
    }

    // work on x/amax: no square overflows or vanishes
    float xs[QK_TURBO];
    for (int j = 0; j < QK_TURBO; j++) {
        xs[j] = x[j] / amax;
    }

    const float norm2 = turbo_sum_squares(xs);
    const float unit  = sqrtf(norm2 / QK_TURBO) / cb->sigma;

    float gain[GGML_TURBO_N_TRIALS][GGML_TURBO_N_GROUPS];
    for (int t = 0; t < cb->n_trials; t++) {
        turbo_gain(cb, xs, unit * cb->trials[t], gain[t]);
    }

    int       wide;
    const int best = ggml_turbo_choose(cb, gain, &wide);

    float    fit  = turbo_assign(cb, xs, norm2, 1.0f / (unit * cb->trials[best]), wide, codes);
    uint16_t step = ggml_turbo_round_step(fit * amax);
    if (step != 0) {
        fit  = turbo_assign(cb, xs, norm2, amax / (GGML_FP16_TO_FP32(step) * GGML_TURBO_STEP_UNIT), wide, codes);
        step = ggml_turbo_round_step(fit * amax);
    }

    *d = (uint16_t) (step << 1 | wide);
    return true;
}

void quantize_row_turbo2_ref(const float * GGML_RESTRICT x, block_turbo2 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        uint8_t codes[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&ggml_turbo2_codebook, x + i * QK_TURBO, codes, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            y[i].qs[j % 16] |= (uint8_t) (codes[j] << 2 * (j / 16));
        }
    }
}

void quantize_row_turbo3_ref(const float * GGML_RESTRICT x, block_turbo3 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        uint8_t codes[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&ggml_turbo3_codebook, x + i * QK_TURBO, codes, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            y[i].qs[j % 16] |= (uint8_t) ((codes[j] & 3) << 2 * (j / 16));
            y[i].qh[j / 8] |= (uint8_t) ((codes[j] >> 2) << (j % 8));
        }
    }
}

void quantize_row_turbo4_ref(const float * GGML_RESTRICT x, block_turbo4 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        uint8_t codes[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&ggml_turbo4_codebook, x + i * QK_TURBO, codes, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            y[i].qs[j % 32] |= (uint8_t) (codes[j] << 4 * (j / 32));
        }
    }
}

size_t quantize_turbo(enum ggml_type              type,
                      const float * GGML_RESTRICT src,
                      void * GGML_RESTRICT        dst,
                      int64_t                     nrows,
                      int64_t                     n_per_row) {
    const size_t row_size = ggml_row_size(type, n_per_row);

    ggml_get_type_traits(type)->from_float_ref(src, dst, nrows * n_per_row);

    return nrows * row_size;
}

//
// dequantization
//

void ggml_turbo2_unpack(const block_turbo2 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        levels[j] = ggml_turbo2_levels[(x->d >> j / 16) & 1][(x->qs[j % 16] >> 2 * (j / 16)) & 3];
    }
}

void ggml_turbo3_unpack(const block_turbo3 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        const int lo = (x->qs[j % 16] >> 2 * (j / 16)) & 3;
        const int hi = (x->qh[j / 8] >> (j % 8)) & 1;
        levels[j]    = ggml_turbo3_levels[(x->d >> j / 16) & 1][lo | hi << 2];
    }
}

void ggml_turbo4_unpack(const block_turbo4 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        levels[j] = ggml_turbo4_levels[(x->d >> j / 16) & 1][(x->qs[j % 32] >> 4 * (j / 32)) & 15];
    }
}

static void turbo_scale(const int8_t * levels, uint16_t d16, float * y) {
    const float d = GGML_FP16_TO_FP32(ggml_turbo_step(d16)) * GGML_TURBO_STEP_UNIT;
    for (int j = 0; j < QK_TURBO; j++) {
        y[j] = d * (float) levels[j];
    }
}

void dequantize_row_turbo2(const block_turbo2 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo2_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i * QK_TURBO);
    }
}

void dequantize_row_turbo3(const block_turbo3 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo3_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i * QK_TURBO);
    }
}

void dequantize_row_turbo4(const block_turbo4 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo4_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i * QK_TURBO);
    }
}
