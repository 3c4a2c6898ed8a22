#include "turbo.h"

#include "ggml-cpu-impl.h"
#include "ggml-turbo.h"

#include "../ggml-turbo-impl.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "simd-mappings.h"

#include <assert.h>
#include <math.h>

static_assert(QK_TURBO == 2*QK8_0, "a turbo block pairs with two q8_0 blocks");

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo2_ref(x, y, k);
}

void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo3_ref(x, y, k);
}

void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo4_ref(x, y, k);
}

// dot product of one block's levels with the two q8_0 blocks beside it, in units of the turbo step
static float turbo_dot_q8_0(const int8_t * levels, const block_q8_0 * y) {
    int32_t sum[2] = { 0, 0 };
    for (int h = 0; h < 2; h++) {
        for (int j = 0; j < QK8_0; j++) {
            sum[h] += levels[h*QK8_0 + j]*y[h].qs[j];
        }
    }
    return GGML_CPU_FP16_TO_FP32(y[0].d)*(float) sum[0] + GGML_CPU_FP16_TO_FP32(y[1].d)*(float) sum[1];
}

#define TURBO_VEC_DOT(name) \
    void ggml_vec_dot_##name##_q8_0(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) { \
        assert(n % QK_TURBO == 0); \
        assert(nrc == 1); \
        GGML_UNUSED(bs); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(nrc); \
        const block_##name * x = vx; \
        const block_q8_0   * y = vy; \
        float sumf = 0.0f; \
        for (int i = 0; i < n/QK_TURBO; i++) { \
            int8_t levels[QK_TURBO]; \
            ggml_##name##_unpack(&x[i], levels); \
            sumf += GGML_CPU_FP16_TO_FP32(x[i].d)*turbo_dot_q8_0(levels, y + 2*i); \
        } \
        *s = sumf; \
    }

TURBO_VEC_DOT(turbo2)
TURBO_VEC_DOT(turbo3)
TURBO_VEC_DOT(turbo4)

// in place, not normalised
static void turbo_fwht(float * x, int64_t n) {
    for (int64_t len = 1; len < n; len *= 2) {
        for (int64_t i = 0; i < n; i += 2*len) {
            for (int64_t j = i; j < i + len; j++) {
                const float u = x[j];
                const float v = x[j + len];
                x[j]       = u + v;
                x[j + len] = u - v;
            }
        }
    }
}

bool ggml_compute_forward_turbo_rot(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const int32_t hint = ggml_get_op_params_i32(dst, 1);

    if ((hint != GGML_HINT_SRC0_IS_TURBO_ROT && hint != GGML_HINT_SRC0_IS_TURBO_ROT_INV) || params->use_ref) {
        return false;
    }

    const struct ggml_tensor * src1 = dst->src[1];

    // anything else is left to the ordinary matrix product, which is also right
    if (src1->type != GGML_TYPE_F32 || !ggml_is_contiguous(src1) || !ggml_is_contiguous(dst)) {
        return false;
    }

    const int64_t n  = src1->ne[0];
    const int64_t nr = ggml_nrows(src1);

    GGML_ASSERT(n <= GGML_TURBO_ROT_MAX && (n & (n - 1)) == 0);
    GGML_ASSERT(dst->src[0]->ne[0] == n && dst->src[0]->ne[1] == n);

    const bool inverse = hint == GGML_HINT_SRC0_IS_TURBO_ROT_INV;

    // the normalisation is folded into the signs
    float sign[GGML_TURBO_ROT_MAX];
    for (int64_t j = 0; j < n; j++) {
        sign[j] = ggml_turbo_sign(j)/sqrtf((float) n);
    }

    const int64_t dr  = (nr + params->nth - 1)/params->nth;
    const int64_t ir0 = dr*params->ith;
    const int64_t ir1 = MIN(ir0 + dr, nr);

    for (int64_t ir = ir0; ir < ir1; ir++) {
        const float * x = (const float *) src1->data + ir*n;
              float * y = (      float *) dst->data  + ir*n;
        for (int64_t j = 0; j < n; j++) {
            y[j] = inverse ? x[j] : x[j]*sign[j];
        }
        turbo_fwht(y, n);
        for (int64_t j = 0; inverse && j < n; j++) {
            y[j] *= sign[j];
        }
    }

    return true;
}
