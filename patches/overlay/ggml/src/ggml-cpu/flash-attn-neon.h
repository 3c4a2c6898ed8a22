#pragma once

// The kernels of attention for NEON; flash-attn-generic.h says what they compute. CPUs with SVE run them as well.

#include "flash-attn-levels.h"

#include <arm_neon.h>

namespace fa_neon {

// sum[i] += <four bytes of a, four bytes of b> from place 4*i on
inline int32x4_t mul_add(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, a, b);
#else
    const int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const int32x4_t hi = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
    return vaddq_s32(sum, vpaddq_s32(lo, hi));
#endif
}

inline int8x16_t repeat(const int8_t * p) {
    return vreinterpretq_s8_s32(vdupq_n_s32(fa_load32(p)));
}

// R rows, 16 cells
template <int NV, int R>
void dot_block(const fa_queries & q,
               const fa_levels &  k,
               int64_t            row,
               int64_t            cell,
               int64_t            width,
               int64_t            dk,
               float *            s) {
    constexpr int n = 8 * NV;  // fours of values in a block

    const int64_t n_blocks = dk / (32 * NV);
    for (int64_t b = 0; b < n_blocks; b++) {
        int32x4_t acc[R][4];
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < 4; c++) {
                acc[r][c] = vdupq_n_s32(0);
            }
        }
        for (int j = 0; j < n; j++) {
            int8x16_t y[R];
            for (int r = 0; r < R; r++) {
                y[r] = repeat(q.data + (row + r) * dk + (b * n + j) * 4);
            }
            for (int c = 0; c < 4; c++) {
                const int8x16_t x = vld1q_s8(k.data + (cell + 4 * c) * dk + (b * n + j) * 16);
                for (int r = 0; r < R; r++) {
                    acc[r][c] = mul_add(acc[r][c], x, y[r]);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < 4; c++) {
                const float32x4_t step =
                    vmulq_n_f32(vld1q_f32(k.steps + b * FA_TILE + cell + 4 * c), q.steps[(row + r) * n_blocks + b]);
                float * sc = s + (row + r) * width + cell + 4 * c;
                vst1q_f32(sc, vfmaq_f32(b == 0 ? vdupq_n_f32(0.0f) : vld1q_f32(sc), step, vcvtq_f32_s32(acc[r][c])));
            }
        }
    }
}

template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    fa_in_steps<4>(rows, [&](auto n_rows, int64_t row) {
        for (int64_t cell = 0; cell < width; cell += 16) {
            dot_block<NV, n_rows()>(q, k, row, cell, width, dk, s);
        }
    });
}

struct fa_weights {
    int8_t high[FA_TILE], low[FA_TILE];
    float  step;
};

inline void round_weights(const float * w, const float * steps, int64_t n, fa_weights * to) {
    float      p[FA_TILE];
    uint32x4_t top = vdupq_n_u32(0);
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t x = vmulq_f32(vld1q_f32(w + i), vld1q_f32(steps + i));
        top                 = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffff)));
        vst1q_f32(p + i, x);
    }
    to->step = fa_weight_step((int32_t) vmaxvq_u32(top));

    const float scale = 1.0f / to->step;
    for (int64_t i = 0; i < n; i += 8) {
        const int16x4_t lo = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(p + i), scale)));
        const int16x4_t hi = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(p + i + 4), scale)));
        const int16x8_t x  = vcombine_s16(lo, hi);
        vst1_s8(to->high + i, vshrn_n_s16(vqaddq_s16(x, vdupq_n_s16(128)), 8));
        vst1_s8(to->low + i, vmovn_s16(x));
    }
}

// R rows, 16 values
template <int R>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    int32x4_t high[R][4], low[R][4];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < 4; j++) {
            high[r][j] = low[r][j] = vdupq_n_s32(0);
        }
    }
    for (int64_t i = 0; i < n_cells; i += KV_VALUE_CELLS, v += stride) {
        for (int r = 0; r < R; r++) {
            const int8x16_t wh = repeat(w[r].high + i);
            const int8x16_t wl = repeat(w[r].low + i);
            for (int j = 0; j < 4; j++) {
                const int8x16_t x = vld1q_s8(v + 16 * j);
                high[r][j]        = mul_add(high[r][j], x, wh);
                low[r][j]         = mul_add(low[r][j], x, wl);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < 4; j++) {
            const float32x4_t x = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high[r][j], 8), low[r][j]));
            vst1q_f32(y[r] + 4 * j, vfmaq_n_f32(vld1q_f32(y[r] + 4 * j), x, w[r].step));
        }
    }
}

template <int NV>
void add_levels(fa_rows<float>       y,
                fa_rows<const float> w,
                const fa_levels &    v,
                int64_t              rows,
                int64_t              dv,
                int64_t              n_cells) {
    for (int64_t b = 0; b < dv / (32 * NV); b++) {
        fa_in_steps<2>(rows, [&](auto n_rows, int64_t row) {
            fa_weights weights[n_rows()];
            for (int r = 0; r < n_rows(); r++) {
                round_weights(w[row + r], v.steps + b * FA_TILE, fa_round_up(n_cells, FA_PAD), &weights[r]);
            }
            for (int64_t j = b * 32 * NV; j < (b + 1) * 32 * NV; j += 16) {
                add_block<n_rows()>(y.at(row, j), weights, v.data + j * KV_VALUE_CELLS, dv * KV_VALUE_CELLS, n_cells);
            }
        });
    }
}

}  // namespace fa_neon
