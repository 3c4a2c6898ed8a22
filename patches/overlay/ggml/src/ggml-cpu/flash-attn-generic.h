#pragma once

// The kernels of attention over levels in plain C++. What each computes is said here; the variants for a CPU compute the same:
// sums are exact, and what is rounded is rounded in the same order for any number of rows.

#include "flash-attn-levels.h"

#include <cmath>

namespace fa_generic {

// s[r][c] = sum over blocks b of 32*NV values of (q.steps[r][b]*k.steps[b][c])*<q.data[r], levels of cell c>, for `width`
// cells, a multiple of FA_PAD.
template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    static_assert(KV_OFFSET == 0 && KV_KEY_CELLS == 1, "rows of levels are expected");
    const int64_t n_blocks = dk / (32 * NV);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            s[r * width + c] = 0.0f;
            for (int64_t b = 0; b < n_blocks; b++) {
                int32_t sum = 0;
                for (int64_t j = 32 * NV * b; j < 32 * NV * (b + 1); j++) {
                    sum += (int32_t) k.data[c * dk + j] * q.data[r * dk + j];
                }
                s[r * width + c] += q.steps[r * n_blocks + b] * k.steps[b * FA_TILE + c] * (float) sum;
            }
        }
    }
}

// the nearest integer of what fits 16 bits; of NaN any one
inline int16_t round_to_int16(float x) {
    const float y = x + 12582912.0f;  // 1.5*2^23: the sum's low mantissa bits are the rounded value
    int32_t     bits;
    memcpy(&bits, &y, sizeof(bits));
    return (int16_t) bits;
}

// w*steps as multiples of a step
inline float round_weights(const float * w, const float * steps, int64_t n, int16_t * to) {
    float   p[FA_TILE];
    int32_t top = 0;  // the bits of a float's magnitude order as it does; infinity and NaN are the largest
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        p[i] = w[i] * steps[i];
        memcpy(&bits, &p[i], sizeof(bits));
        top = std::max(top, bits & 0x7fffffff);
    }
    const float step = fa_weight_step(top);
    for (int64_t i = 0; i < n; i++) {
        to[i] = round_to_int16(p[i] * (1.0f / step));
    }
    return step;
}

// y[r][j] += sum over blocks b of 32*NV values, and the cells, of weights*steps rounded, times levels
template <int NV>
void add_levels(fa_rows<float>       y,
                fa_rows<const float> w,
                const fa_levels &    v,
                int64_t              rows,
                int64_t              dv,
                int64_t              n_cells) {
    static_assert(KV_VALUE_CELLS == 1, "rows of levels are expected");
    for (int64_t b = 0; b < dv / (32 * NV); b++) {
        for (int64_t r = 0; r < rows; r++) {
            int16_t     weights[FA_TILE];
            int32_t     sums[32 * NV] = { 0 };
            const float step          = round_weights(w[r], v.steps + b * FA_TILE, n_cells, weights);
            for (int64_t i = 0; i < n_cells; i++) {
                const int8_t * x = v.data + i * dv + b * 32 * NV;
                for (int64_t j = 0; j < 32 * NV; j++) {
                    sums[j] += (int32_t) weights[i] * x[j];
                }
            }
            for (int64_t j = 0; j < 32 * NV; j++) {
                y[r][b * 32 * NV + j] += step * (float) sums[j];
            }
        }
    }
}

}  // namespace fa_generic
