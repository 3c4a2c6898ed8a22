#include "ggml-turbo.h"

#include "ggml-impl.h"
#include "ggml-turbo-impl.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// This file is the definition that every kernel of every backend is compared with. It is compiled without
// floating-point contraction, and its sums run over 8 lanes in a fixed order, so that vector code can be bit-exact.

static_assert(GGML_TYPE_TURBO2 == GGML_TURBO2_TYPE, "wrong turbo2 type");
static_assert(GGML_TYPE_TURBO3 == GGML_TURBO3_TYPE, "wrong turbo3 type");
static_assert(GGML_TYPE_TURBO4 == GGML_TURBO4_TYPE, "wrong turbo4 type");

const int8_t ggml_turbo2_levels[2][4]  = GGML_TURBO_LEVELS(2);
const int8_t ggml_turbo3_levels[2][8]  = GGML_TURBO_LEVELS(3);
const int8_t ggml_turbo4_levels[2][16] = GGML_TURBO_LEVELS(4);

const ggml_turbo_codebook ggml_turbo2_codebook = GGML_TURBO_CODEBOOK(2);
const ggml_turbo_codebook ggml_turbo3_codebook = GGML_TURBO_CODEBOOK(3);
const ggml_turbo_codebook ggml_turbo4_codebook = GGML_TURBO_CODEBOOK(4);

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

bool ggml_turbo_involved(const struct ggml_tensor * op) {
    bool res = ggml_is_turbo(op->type);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        res = res || (op->src[i] && ggml_is_turbo(op->src[i]->type));
    }
    return res;
}

bool ggml_turbo_allows(ggml_backend_dev_t dev, const struct ggml_tensor * op) {
    // HIP and MUSA compile CUDA's files and have names of their own: nobody has proven the kernels there
    static const char * const names[] = { "CPU", "CUDA", "MTL", "RPC", "Vulkan" };

    // one that stands for several devices asks each of them
    if (!ggml_turbo_involved(op) || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_META) {
        return true;
    }

    // a cache is stored, read, copied and attended to: nobody calculates with its blocks
    switch (op->op) {
        case GGML_OP_SET_ROWS:
            if (op->src[3] && ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU) {
                return false;
            }
            break;
        case GGML_OP_ACC:
        case GGML_OP_ADD:
        case GGML_OP_ADD1:
        case GGML_OP_CLAMP:
        case GGML_OP_OUT_PROD:
        case GGML_OP_SET:
            return false;
        default:
            break;
    }

    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(dev);
    for (size_t i = 0; reg && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(ggml_backend_reg_name(reg), names[i]) == 0) {
            return true;
        }
    }
    return false;
}

float ggml_turbo_sign(int64_t i) {
    GGML_ASSERT(i >= 0 && i < GGML_TURBO_ROT_MAX);

    return (turbo_sign_bits[i / 64] >> (i % 64)) & 1 ? -1.0f : 1.0f;
}

int64_t ggml_turbo_rot_width(int64_t n) {
    const int64_t pow2 = n & -n;

    return pow2 < GGML_TURBO_ROT_MAX ? pow2 : GGML_TURBO_ROT_MAX;
}

//
// quantization
//

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
        for (int j = 0; j < GGML_TURBO_GROUP; j++) {
            const float a = fabsf(x[g * GGML_TURBO_GROUP + j]);
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
        const int   w = GGML_TURBO_WIDE(wide, j);
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
    return (uint16_t) GGML_TURBO_ROUND_STEP(h);
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
        *d = finite ? 0 : GGML_TURBO_NAN;
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

static void turbo2_pack(const uint8_t * codes, block_turbo2 * y) {
    for (int j = 0; j < QK_TURBO; j++) {
        y->qs[GGML_TURBO2_BYTE(j)] |= (uint8_t) (codes[j] << GGML_TURBO2_BIT(j));
    }
}

static void turbo3_pack(const uint8_t * codes, block_turbo3 * y) {
    for (int j = 0; j < QK_TURBO; j++) {
        y->qs[GGML_TURBO2_BYTE(j)] |= (uint8_t) ((codes[j] & 3) << GGML_TURBO2_BIT(j));
        y->qh[j / 8] |= (uint8_t) ((codes[j] >> 2) << (j % 8));
    }
}

static void turbo4_pack(const uint8_t * codes, block_turbo4 * y) {
    for (int j = 0; j < QK_TURBO; j++) {
        y->qs[GGML_TURBO4_BYTE(j)] |= (uint8_t) (codes[j] << GGML_TURBO4_BIT(j));
    }
}

#define TURBO_QUANTIZE_ROW(N)                                                                                      \
    void quantize_row_turbo##N##_ref(const float * GGML_RESTRICT x, block_turbo##N * GGML_RESTRICT y, int64_t k) { \
        assert(k % QK_TURBO == 0);                                                                                 \
                                                                                                                   \
        for (int64_t i = 0; i < k / QK_TURBO; i++) {                                                               \
            uint8_t codes[QK_TURBO];                                                                               \
            memset(&y[i], 0, sizeof(y[i]));                                                                        \
            if (turbo_quantize_block(&ggml_turbo##N##_codebook, x + i * QK_TURBO, codes, &y[i].d)) {               \
                turbo##N##_pack(codes, &y[i]);                                                                     \
            }                                                                                                      \
        }                                                                                                          \
    }

TURBO_QUANTIZE_ROW(2)
TURBO_QUANTIZE_ROW(3)
TURBO_QUANTIZE_ROW(4)

//
// rounding for scores
//

// part of the mean diagonal that is added to a moment: it stands for what the measured text has not shown
#define TURBO_FACTOR_PART 0.2

void ggml_turbo_make_factor(const double * a, ggml_turbo_factor * factor) {
    double m[QK_TURBO][QK_TURBO];

    double mean   = 0.0;
    bool   finite = true;
    for (int i = 0; i < QK_TURBO * QK_TURBO; i++) {
        finite = finite && isfinite(a[i]);
        mean += i % (QK_TURBO + 1) == 0 ? a[i] / QK_TURBO : 0.0;
    }
    const bool known = finite && isfinite(mean) && mean > 1e-30;
    for (int i = 0; i < QK_TURBO; i++) {
        for (int j = 0; j < QK_TURBO; j++) {
            const double one = i == j ? 1.0 : 0.0;
            m[i][j]          = known ? a[i * QK_TURBO + j] / mean + TURBO_FACTOR_PART * one : one;
        }
    }

    // column by column from the last, into the upper triangle; a moment that was rounded may have lost a little of being one
    for (int j = QK_TURBO - 1; j >= 0; j--) {
        const double d = fmax(m[j][j], 0.5 * TURBO_FACTOR_PART);
        for (int i = 0; i < j; i++) {
            for (int k = 0; k < j; k++) {
                m[i][k] -= m[i][j] * m[k][j] / d;
            }
        }
        for (int i = 0; i < j; i++) {
            m[i][j] /= d;
        }
        m[j][j]      = 1.0;
        factor->d[j] = (float) d;
    }

    const double most = GGML_TURBO_FACTOR_MOST;
    memset(factor->u, 0, sizeof(factor->u));
    for (int i = 0; i < QK_TURBO; i++) {
        for (int j = i; j < QK_TURBO; j++) {
            const double u                       = fmax(fmin(m[i][j] * GGML_TURBO_FACTOR_UNIT, most), -most);
            factor->u[GGML_TURBO_FACTOR_U(i, j)] = (int8_t) lround(u);
        }
    }
}

uint16_t ggml_turbo_scores_step(const ggml_turbo_codebook * cb, float step, float xx, float xl, float ll) {
    const float squares = xl / ll;
    const float norm    = sqrtf(xx / ll);
    const float fit     = squares + cb->norm_weight * (norm - squares);

    // not if levels and values have little in common, nor if they are not finite
    return fit > 0.5f && fit < 2.0f ? ggml_turbo_round_step(step * fit) : 0;
}

// code of the level of group table w that is nearest to t, and that level
static int turbo_level(const ggml_turbo_codebook * cb, int w, int32_t t, int32_t * level) {
    const float unit = GGML_TURBO_SCORES_UNIT * GGML_TURBO_FACTOR_UNIT;
    int         m    = 0;
    for (int i = 0; i < cb->n - 1; i++) {
        m += abs(t) > (int32_t) (cb->edges[w][i] * unit);
    }
    const int32_t l = (int32_t) cb->magnitudes[w][m] * GGML_TURBO_SCORES_UNIT;
    *level          = t < 0 ? -l : l;
    return t < 0 ? cb->n - 1 - m : cb->n + m;
}

// Rounds again for the step and the tables of d: each value is rounded after it has got what the errors of those before it
// can be made up for with. The step is then fitted as seen by the queries.
static void turbo_round_scores(const ggml_turbo_codebook * cb,
                               const float *               x,
                               const ggml_turbo_factor *   factor,
                               uint8_t *                   codes,
                               uint16_t *                  d) {
    const int   wide = *d & 15;
    const float step = GGML_FP16_TO_FP32(GGML_TURBO_STEP(*d)) * GGML_TURBO_STEP_UNIT;
    if (step == 0.0f) {
        memset(codes, 0, QK_TURBO);
        return;
    }

    const float unit = GGML_TURBO_SCORES_UNIT / step;
    const float most = GGML_TURBO_SCORES_MOST;
    int32_t     z[QK_TURBO];  // values
    int32_t     t[QK_TURBO];  // what is rounded; then values plus U^T times errors
    int32_t     u[QK_TURBO];  // U^T times values
    for (int j = 0; j < QK_TURBO; j++) {
        z[j] = (int32_t) lrintf(fmaxf(fminf(x[j] * unit, most), -most));
        t[j] = z[j] * GGML_TURBO_FACTOR_UNIT;
        u[j] = 0;
    }
    for (int i = 0; i < QK_TURBO; i++) {
        int32_t level;
        codes[i] = (uint8_t) turbo_level(cb, GGML_TURBO_WIDE(wide, i), t[i], &level);
        for (int j = i; j < QK_TURBO; j++) {
            const int32_t f = factor->u[GGML_TURBO_FACTOR_U(i, j)];
            t[j] += f * (z[i] - level);
            u[j] += f * z[i];
        }
    }

    // what queries see of values and levels: U^T times levels is that times values less that times errors
    float xx[8] = { 0 };
    float xl[8] = { 0 };
    float ll[8] = { 0 };
    for (int j = 0; j < QK_TURBO; j++) {
        const float uj = (float) u[j];
        const float vj = uj - (float) (t[j] - z[j] * GGML_TURBO_FACTOR_UNIT);
        const float du = factor->d[j] * uj;
        const float dv = factor->d[j] * vj;
        xx[j % 8] += du * uj;
        xl[j % 8] += du * vj;
        ll[j % 8] += dv * vj;
    }
    const uint16_t fit =
        ggml_turbo_scores_step(cb, step, turbo_sum_lanes(xx), turbo_sum_lanes(xl), turbo_sum_lanes(ll));
    *d = fit != 0 ? (uint16_t) (fit << 1 | wide) : *d;
}

#define TURBO_SCORES_BLOCK(N)                                                                 \
    case GGML_TYPE_TURBO##N:                                                                  \
        {                                                                                     \
            block_turbo##N * b = (block_turbo##N *) y + i;                                    \
            if (turbo_quantize_block(&ggml_turbo##N##_codebook, xi, codes, &b->d)) {          \
                turbo_round_scores(&ggml_turbo##N##_codebook, xi, &factors[i], codes, &b->d); \
                turbo##N##_pack(codes, b);                                                    \
            }                                                                                 \
        }                                                                                     \
        break;

void quantize_turbo_scores_ref(enum ggml_type              type,
                               const float * GGML_RESTRICT x,
                               void * GGML_RESTRICT        y,
                               int64_t                     k,
                               const ggml_turbo_factor *   factors) {
    assert(k % QK_TURBO == 0 && ggml_is_turbo(type));

    memset(y, 0, ggml_row_size(type, k));
    for (int64_t i = 0; i < k / QK_TURBO; i++) {
        const float * xi = x + i * QK_TURBO;
        uint8_t       codes[QK_TURBO];
        switch (type) {
            TURBO_SCORES_BLOCK(2)
            TURBO_SCORES_BLOCK(3)
            TURBO_SCORES_BLOCK(4)
            default:
                GGML_ABORT("fatal error");
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
        levels[j] =
            ggml_turbo2_levels[GGML_TURBO_WIDE(x->d, j)][(x->qs[GGML_TURBO2_BYTE(j)] >> GGML_TURBO2_BIT(j)) & 3];
    }
}

void ggml_turbo3_unpack(const block_turbo3 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        const int lo = (x->qs[GGML_TURBO2_BYTE(j)] >> GGML_TURBO2_BIT(j)) & 3;
        const int hi = (x->qh[j / 8] >> (j % 8)) & 1;
        levels[j]    = ggml_turbo3_levels[GGML_TURBO_WIDE(x->d, j)][lo | hi << 2];
    }
}

void ggml_turbo4_unpack(const block_turbo4 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        levels[j] =
            ggml_turbo4_levels[GGML_TURBO_WIDE(x->d, j)][(x->qs[GGML_TURBO4_BYTE(j)] >> GGML_TURBO4_BIT(j)) & 15];
    }
}

static void turbo_scale(const int8_t * levels, uint16_t d16, float * y) {
    const float d = GGML_FP16_TO_FP32(GGML_TURBO_STEP(d16)) * GGML_TURBO_STEP_UNIT;
    for (int j = 0; j < QK_TURBO; j++) {
        y[j] = d * (float) levels[j];
    }
}

#define TURBO_DEQUANTIZE_ROW(N)                                                                                \
    void dequantize_row_turbo##N(const block_turbo##N * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) { \
        assert(k % QK_TURBO == 0);                                                                             \
                                                                                                               \
        for (int64_t i = 0; i < k / QK_TURBO; i++) {                                                           \
            int8_t levels[QK_TURBO];                                                                           \
            ggml_turbo##N##_unpack(&x[i], levels);                                                             \
            turbo_scale(levels, x[i].d, y + i * QK_TURBO);                                                     \
        }                                                                                                      \
    }

TURBO_DEQUANTIZE_ROW(2)
TURBO_DEQUANTIZE_ROW(3)
TURBO_DEQUANTIZE_ROW(4)

bool ggml_turbo_validate(enum ggml_type type, const void * data, size_t nbytes) {
    const size_t size = ggml_type_size(type);
    if (nbytes % size != 0) {
        fprintf(stderr, "%s: %zu bytes are no whole blocks of %s\n", __func__, nbytes, ggml_type_name(type));
        return false;
    }

    for (size_t i = 0; i < nbytes / size; i++) {
        uint16_t d;
        memcpy(&d, (const char *) data + i * size, sizeof(d));
        if ((GGML_TURBO_STEP(d) & 0x7c00) == 0x7c00) {
            fprintf(stderr, "%s: the step of block %zu is not finite\n", __func__, i);
            return false;
        }
    }
    return true;
}
