#pragma once

#include "simd-mappings.h"

#include <cstdint>

// The passes of a Hadamard product that are shorter than a vector. Together they are a product with H of a vector's
// width: rows of signs times single values.

constexpr int FWHT_HEAD_MAX = 16;

struct fwht_head_signs {
    float rows[FWHT_HEAD_MAX][FWHT_HEAD_MAX] = {};

    constexpr fwht_head_signs() {
        for (int i = 0; i < FWHT_HEAD_MAX; i++) {
            for (int j = 0; j < FWHT_HEAD_MAX; j++) {
                int odd = 0;
                for (int both = i & j; both != 0; both >>= 1) {
                    odd ^= both & 1;
                }
                rows[i][j] = odd ? -1.0f : 1.0f;
            }
        }
    }
};

// Transforms a row of n values in place as far as vectors of `step` values go, and returns the length that comes next.
static inline int64_t ggml_fwht_head(float * row, int64_t n, int step) {
#if defined(GGML_SIMD)
    static constexpr fwht_head_signs signs;

    if (step > FWHT_HEAD_MAX || n % (4 * step) != 0) {
        return 1;
    }

    // four vectors at once hide the latency
    for (float * x = row; x < row + n; x += 4 * step) {
        GGML_F32_VEC y0 = GGML_F32_VEC_SET1(0.0f);
        GGML_F32_VEC y1 = y0;
        GGML_F32_VEC y2 = y0;
        GGML_F32_VEC y3 = y0;
        for (int i = 0; i < step; i++) {
            const GGML_F32_VEC h = GGML_F32_VEC_LOAD(signs.rows[i]);

            y0 = GGML_F32_VEC_FMA(y0, h, GGML_F32_VEC_SET1(x[i]));
            y1 = GGML_F32_VEC_FMA(y1, h, GGML_F32_VEC_SET1(x[i + step]));
            y2 = GGML_F32_VEC_FMA(y2, h, GGML_F32_VEC_SET1(x[i + 2 * step]));
            y3 = GGML_F32_VEC_FMA(y3, h, GGML_F32_VEC_SET1(x[i + 3 * step]));
        }
        GGML_F32_VEC_STORE(x, y0);
        GGML_F32_VEC_STORE(x + step, y1);
        GGML_F32_VEC_STORE(x + 2 * step, y2);
        GGML_F32_VEC_STORE(x + 3 * step, y3);
    }

    return step;
#else
    return 1;

    GGML_UNUSED(row);
    GGML_UNUSED(n);
    GGML_UNUSED(step);
#endif
}
