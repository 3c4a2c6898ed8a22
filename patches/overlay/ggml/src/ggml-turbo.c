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

const int8_t ggml_turbo2_levels[4]  = { -127, -38, 38, 127 };
const int8_t ggml_turbo3_levels[8]  = { -88, -55, -31, -10, 10, 31, 55, 88 };
const int8_t ggml_turbo4_levels[16] = { -104, -79, -62, -48, -36, -25, -15, -5, 5, 15, 25, 36, 48, 62, 79, 104 };

//
// rotation
//

// the first 256 bits of the fraction of pi: nobody chose them
static const uint64_t turbo_sign_bits[GGML_TURBO_ROT_MAX/64] = {
    0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0, 0x082efa98ec4e6c89,
};

bool ggml_is_turbo(enum ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

float ggml_turbo_sign(int64_t i) {
    GGML_ASSERT(i >= 0 && i < GGML_TURBO_ROT_MAX);

    return (turbo_sign_bits[i/64] >> (i%64)) & 1 ? -1.0f : 1.0f;
}

int64_t ggml_turbo_rot_width(int64_t n) {
    const int64_t pow2 = n & -n;

    return pow2 < GGML_TURBO_ROT_MAX ? pow2 : GGML_TURBO_ROT_MAX;
}

void ggml_turbo_rot_fill(float * dst, int64_t n, bool inverse) {
    GGML_ASSERT(n > 0 && n <= GGML_TURBO_ROT_MAX && (n & (n - 1)) == 0);

    const float scale = 1.0f/sqrtf((float) n);

    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            int parity = 0;
            for (int64_t bits = i & j; bits; bits &= bits - 1) {
                parity ^= 1;
            }
            dst[i*n + j] = (parity ? -scale : scale)*ggml_turbo_sign(inverse ? i : j);
        }
    }
}

//
// quantization
//

typedef struct {
    int            n;      // number of magnitudes
    float          sigma;  // standard deviation that the levels are made for
    const int8_t * levels; // magnitudes, ascending
    const float  * edges;  // n - 1 midpoints between magnitudes
} turbo_codebook;

static const float turbo2_edges[1] = { 82.5f };
static const float turbo3_edges[3] = { 20.5f, 43.0f, 71.5f };
static const float turbo4_edges[7] = { 10.0f, 20.0f, 30.5f, 42.0f, 55.0f, 70.5f, 91.5f };

static const turbo_codebook turbo2_codebook = { 2, 84.0698f, ggml_turbo2_levels + 2, turbo2_edges };
static const turbo_codebook turbo3_codebook = { 4, 40.9097f, ggml_turbo3_levels + 4, turbo3_edges };
static const turbo_codebook turbo4_codebook = { 8, 38.1556f, ggml_turbo4_levels + 8, turbo4_edges };

static float turbo_sum_lanes(const float * lane) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static float turbo_sum_squares(const float * x) {
    float lane[8] = { 0 };
    for (int j = 0; j < QK_TURBO; j++) {
        lane[j%8] += x[j]*x[j];
    }
    return turbo_sum_lanes(lane);
}

static float turbo_dot_levels(const float * x, const int8_t * q) {
    float lane[8] = { 0 };
    for (int j = 0; j < QK_TURBO; j++) {
        lane[j%8] += x[j]*(float) q[j];
    }
    return turbo_sum_lanes(lane);
}

// nearest level of each x/step; returns the sum of the squared levels
static int turbo_nearest(const turbo_codebook * cb, const float * x, float inv_step, int8_t * q) {
    int sum = 0;
    for (int j = 0; j < QK_TURBO; j++) {
        const float a = fabsf(x[j]*inv_step);
        int m = 0;
        for (int i = 0; i < cb->n - 1; i++) {
            m += a > cb->edges[i];
        }
        const int level = cb->levels[m];
        q[j] = (int8_t) (x[j] < 0.0f ? -level : level);
        sum += level*level;
    }
    return sum;
}

// Choose 64 levels and the fp16 step for x. Returns false if the block is zero or not finite: then q is not set
// and d says which (0 or NaN).
//
// Steps are tried at the codebook's sigma and at three clips of the largest value; the one whose levels point best
// in the direction of x wins. The final step keeps the norm of x: on keys that beats least squares end to end.
static bool turbo_quantize_block(const turbo_codebook * cb, const float * x, int8_t * q, uint16_t * d) {
    float amax = 0.0f;
    bool finite = true;
    for (int j = 0; j < QK_TURBO; j++) {
        const float a = fabsf(x[j]);
        finite = finite && a <= FLT_MAX;
        amax = a > amax ? a : amax;
    }

    if (!finite || amax == 0.0f) {
        *d = finite ? 0 : 0x7e00;
        return false;
    }

    // work on x/amax: no square overflows or vanishes
    float xs[QK_TURBO];
    for (int j = 0; j < QK_TURBO; j++) {
        xs[j] = x[j]/amax;
    }

    const float norm2    = turbo_sum_squares(xs);
    const float top      = (float) cb->levels[cb->n - 1];
    const float trial[4] = {
        cb->sigma/sqrtf(norm2/QK_TURBO), top, top/0.9f, top/0.8f,
    };

    float best_score = -1.0f;
    int   best_cc    = 1;

    for (int t = 0; t < 4; t++) {
        int8_t qt[QK_TURBO];
        const int   cc    = turbo_nearest(cb, xs, trial[t], qt);
        const float xc    = turbo_dot_levels(xs, qt);
        const float score = xc*xc/(float) cc;
        if (score > best_score) {
            best_score = score;
            best_cc    = cc;
            memcpy(q, qt, QK_TURBO);
        }
    }

    const float step = sqrtf(norm2/(float) best_cc)*amax;

    // the largest fp16 instead of infinity
    *d = GGML_FP32_TO_FP16(step < 65504.0f ? step : 65504.0f);
    return true;
}

// code of a level: its position in the ascending table of all levels
static int turbo_code(const turbo_codebook * cb, int8_t level) {
    int m = 0;
    while (cb->levels[m] != (level < 0 ? -level : level)) {
        m++;
    }
    return level < 0 ? cb->n - 1 - m : cb->n + m;
}

void quantize_row_turbo2_ref(const float * GGML_RESTRICT x, block_turbo2 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t q[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&turbo2_codebook, x + i*QK_TURBO, q, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            y[i].qs[j%16] |= (uint8_t) (turbo_code(&turbo2_codebook, q[j]) << 2*(j/16));
        }
    }
}

void quantize_row_turbo3_ref(const float * GGML_RESTRICT x, block_turbo3 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t q[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&turbo3_codebook, x + i*QK_TURBO, q, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            const int code = turbo_code(&turbo3_codebook, q[j]);
            y[i].qs[j%16] |= (uint8_t) ((code & 3)  << 2*(j/16));
            y[i].qh[j/8]  |= (uint8_t) ((code >> 2) << (j%8));
        }
    }
}

void quantize_row_turbo4_ref(const float * GGML_RESTRICT x, block_turbo4 * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t q[QK_TURBO];
        memset(&y[i], 0, sizeof(y[i]));
        if (!turbo_quantize_block(&turbo4_codebook, x + i*QK_TURBO, q, &y[i].d)) {
            continue;
        }
        for (int j = 0; j < QK_TURBO; j++) {
            y[i].qs[j%32] |= (uint8_t) (turbo_code(&turbo4_codebook, q[j]) << 4*(j/32));
        }
    }
}

size_t quantize_turbo(enum ggml_type type, const float * GGML_RESTRICT src, void * GGML_RESTRICT dst, int64_t nrows, int64_t n_per_row) {
    const size_t row_size = ggml_row_size(type, n_per_row);

    ggml_get_type_traits(type)->from_float_ref(src, dst, nrows*n_per_row);

    return nrows*row_size;
}

//
// dequantization
//

void ggml_turbo2_unpack(const block_turbo2 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        levels[j] = ggml_turbo2_levels[(x->qs[j%16] >> 2*(j/16)) & 3];
    }
}

void ggml_turbo3_unpack(const block_turbo3 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        const int lo = (x->qs[j%16] >> 2*(j/16)) & 3;
        const int hi = (x->qh[j/8]  >> (j%8))    & 1;
        levels[j] = ggml_turbo3_levels[lo | hi << 2];
    }
}

void ggml_turbo4_unpack(const block_turbo4 * x, int8_t * levels) {
    for (int j = 0; j < QK_TURBO; j++) {
        levels[j] = ggml_turbo4_levels[(x->qs[j%32] >> 4*(j/32)) & 15];
    }
}

static void turbo_scale(const int8_t * levels, uint16_t d16, float * y) {
    const float d = GGML_FP16_TO_FP32(d16);
    for (int j = 0; j < QK_TURBO; j++) {
        y[j] = d*(float) levels[j];
    }
}

void dequantize_row_turbo2(const block_turbo2 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo2_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i*QK_TURBO);
    }
}

void dequantize_row_turbo3(const block_turbo3 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo3_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i*QK_TURBO);
    }
}

void dequantize_row_turbo4(const block_turbo4 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    assert(k % QK_TURBO == 0);

    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        int8_t levels[QK_TURBO];
        ggml_turbo4_unpack(&x[i], levels);
        turbo_scale(levels, x[i].d, y + i*QK_TURBO);
    }
}
