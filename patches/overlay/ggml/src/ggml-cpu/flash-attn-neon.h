#pragma once

// The kernels of attention for NEON; flash-attn-generic.h says what they compute. CPUs with SVE run them as well.
//
// Queries stay in registers while all cells of a tile go by, and cells while all rows of a step do. Bytes are multiplied by
// what the CPU has: i8mm multiplies two rows with two rows, dotprod four bytes with four, and without either two products of
// bytes fit 16 bits, levels of a query being within +-127.

#include "flash-attn-levels.h"

#include <arm_neon.h>

namespace fa_neon {

// s = or += sums of products as floats, for four cells
inline void put_sums(float * s, bool first, int32x4_t sums, float32x4_t steps, float step) {
    const float32x4_t before = first ? vdupq_n_f32(0.0f) : vld1q_f32(s);
    vst1q_f32(s, vfmaq_f32(before, vmulq_n_f32(steps, step), vcvtq_f32_s32(sums)));
}

#if defined(KV_I8MM)

// R rows, block b of 32*NV values
template <int NV, int R>
void dot_block(const fa_queries & q,
               const fa_levels &  k,
               int64_t            row,
               int64_t            b,
               int64_t            width,
               int64_t            dk,
               float *            s) {
    constexpr int P = (R + 1) / 2;  // pairs of rows; an odd one is paired with itself
    constexpr int C = 8 / P;        // pairs of cells
    constexpr int n = 4 * NV;       // eights of values

    const int64_t first = 32 * NV * b;

    int8x16_t y[P][n];
    for (int p = 0; p < P; p++) {
        const int8_t * even = q.data + (row + 2 * p) * dk + first;
        const int8_t * odd  = 2 * p + 1 < R ? even + dk : even;
        for (int j = 0; j < n; j += 2) {
            const int64x2_t e = vreinterpretq_s64_s8(vld1q_s8(even + 8 * j));
            const int64x2_t o = vreinterpretq_s64_s8(vld1q_s8(odd + 8 * j));
            y[p][j]           = vreinterpretq_s8_s64(vzip1q_s64(e, o));
            y[p][j + 1]       = vreinterpretq_s8_s64(vzip2q_s64(e, o));
        }
    }
    for (int64_t cell = 0; cell < width; cell += 2 * C) {
        int32x4_t acc[P][C];  // two rows of each of two cells
        for (int p = 0; p < P; p++) {
            for (int c = 0; c < C; c++) {
                acc[p][c] = vdupq_n_s32(0);
            }
        }
        for (int j = 0; j < n; j++) {
            for (int c = 0; c < C; c++) {
                const int8x16_t x = vld1q_s8(k.data + (cell + 2 * c) * dk + 2 * first + 16 * j);
                for (int p = 0; p < P; p++) {
                    acc[p][c] = vmmlaq_s32(acc[p][c], x, y[p][j]);
                }
            }
        }
        for (int c = 0; c < C; c += 2) {
            const float32x4_t steps = vld1q_f32(k.steps + b * FA_TILE + cell + 2 * c);
            for (int r = 0; r < R; r++) {
                const int32x4_t x    = acc[r / 2][c];
                const int32x4_t z    = acc[r / 2][c + 1];
                const float     step = q.steps[(row + r) * (dk / (32 * NV)) + b];
                put_sums(s + (row + r) * width + cell + 2 * c, b == 0, r % 2 ? vuzp2q_s32(x, z) : vuzp1q_s32(x, z),
                         steps, step);
            }
        }
    }
}

#elif defined(KV_DOTPROD)

template <int NV, int R>
void dot_block(const fa_queries & q,
               const fa_levels &  k,
               int64_t            row,
               int64_t            b,
               int64_t            width,
               int64_t            dk,
               float *            s) {
    constexpr int n = 2 * NV;                     // sixteens of values
    constexpr int C = R * (n + 4) <= 28 ? 4 : 2;  // fours of cells: what the registers hold

    const int64_t first = 32 * NV * b;

    int8x16_t y[R][n];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < n; j++) {
            y[r][j] = vld1q_s8(q.data + (row + r) * dk + first + 16 * j);
        }
    }
    for (int64_t cell = 0; cell < width; cell += 4 * C) {
        int32x4_t acc[R][C];
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                acc[r][c] = vdupq_n_s32(0);
            }
        }
        for (int j = 0; j < n; j++) {
            fa_unroll<4>([&](auto lane) {
                for (int c = 0; c < C; c++) {
                    const int8x16_t x = vld1q_s8(k.data + (cell + 4 * c) * dk + 4 * first + 64 * j + 16 * lane());
                    for (int r = 0; r < R; r++) {
                        acc[r][c] = vdotq_laneq_s32(acc[r][c], x, y[r][j], lane());
                    }
                }
            });
        }
        for (int c = 0; c < C; c++) {
            const float32x4_t steps = vld1q_f32(k.steps + b * FA_TILE + cell + 4 * c);
            for (int r = 0; r < R; r++) {
                const float step = q.steps[(row + r) * (dk / (32 * NV)) + b];
                put_sums(s + (row + r) * width + cell + 4 * c, b == 0, acc[r][c], steps, step);
            }
        }
    }
}

#else

template <int NV, int R>
void dot_block(const fa_queries & q,
               const fa_levels &  k,
               int64_t            row,
               int64_t            b,
               int64_t            width,
               int64_t            dk,
               float *            s) {
    constexpr int n = 4 * NV;  // eights of values

    const int64_t first = 32 * NV * b;

    int8x16_t y[R][n];  // eight values, twice
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < n; j++) {
            const int8x8_t eight = vld1_s8(q.data + (row + r) * dk + first + 8 * j);
            y[r][j]              = vcombine_s8(eight, eight);
        }
    }
    for (int64_t cell = 0; cell < width; cell += 4) {
        int32x4_t acc[R][4];  // to be added up
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < 4; c++) {
                acc[r][c] = vdupq_n_s32(0);
            }
        }
        for (int j = 0; j < n; j += 2) {
            for (int c = 0; c < 4; c += 2) {
                const int8_t *  levels = k.data + (cell + c) * dk + 2 * first + 16 * j;
                const int8x16_t x      = vld1q_s8(levels);
                const int8x16_t z      = vld1q_s8(levels + 16);
                for (int r = 0; r < R; r++) {
                    int16x8_t lo  = vmull_s8(vget_low_s8(x), vget_low_s8(y[r][j]));
                    int16x8_t hi  = vmull_high_s8(x, y[r][j]);
                    lo            = vmlal_s8(lo, vget_low_s8(z), vget_low_s8(y[r][j + 1]));
                    hi            = vmlal_high_s8(hi, z, y[r][j + 1]);
                    acc[r][c]     = vpadalq_s16(acc[r][c], lo);
                    acc[r][c + 1] = vpadalq_s16(acc[r][c + 1], hi);
                }
            }
        }
        const float32x4_t steps = vld1q_f32(k.steps + b * FA_TILE + cell);
        for (int r = 0; r < R; r++) {
            const int32x4_t sums = vpaddq_s32(vpaddq_s32(acc[r][0], acc[r][1]), vpaddq_s32(acc[r][2], acc[r][3]));
            const float     step = q.steps[(row + r) * (dk / (32 * NV)) + b];
            put_sums(s + (row + r) * width + cell, b == 0, sums, steps, step);
        }
    }
}

#endif

template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
#if defined(KV_I8MM) || defined(KV_DOTPROD)
    constexpr int max_rows = 4;
#else
    constexpr int max_rows = 2;
#endif
    fa_in_steps<max_rows>(rows, [&](auto n_rows, int64_t row) {
        for (int64_t b = 0; b < dk / (32 * NV); b++) {
            dot_block<NV, n_rows()>(q, k, row, b, width, dk, s);
        }
    });
}

struct fa_weights {
#if defined(KV_I8MM)
    int8_t bytes[2 * FA_TILE];  // of eight cells the high bytes, then the low ones
#elif defined(KV_DOTPROD)
    int8_t high[FA_TILE], low[FA_TILE];
#else
    int16_t whole[FA_TILE];
#endif
    float step;

    void set(int64_t i, int16x8_t x) {
#if defined(KV_I8MM) || defined(KV_DOTPROD)
        const int8x8_t hi = vshrn_n_s16(vqaddq_s16(x, vdupq_n_s16(128)), 8);
        const int8x8_t lo = vmovn_s16(x);
#endif
#if defined(KV_I8MM)
        vst1q_s8(bytes + 2 * i, vcombine_s8(hi, lo));
#elif defined(KV_DOTPROD)
        vst1_s8(high + i, hi);
        vst1_s8(low + i, lo);
#else
        vst1q_s16(whole + i, x);
#endif
    }
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
        to->set(i, vcombine_s16(lo, hi));
    }
}

inline void add_sums(float * y, int32x4_t sums, float step) {
    vst1q_f32(y, vfmaq_n_f32(vld1q_f32(y), vcvtq_f32_s32(sums), step));
}

#if defined(KV_I8MM)

constexpr int VALUES = 16;  // of a step

template <int R>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    int32x4_t acc[R][VALUES / 2];  // of two values each the sums with high and with low bytes
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 2; j++) {
            acc[r][j] = vdupq_n_s32(0);
        }
    }
    for (int64_t i = 0; i < n_cells; i += KV_VALUE_CELLS, v += stride) {
        int8x16_t wi[R];
        for (int r = 0; r < R; r++) {
            wi[r] = vld1q_s8(w[r].bytes + 2 * i);
        }
        for (int j = 0; j < VALUES / 2; j++) {
            const int8x16_t x = vld1q_s8(v + 16 * j);
            for (int r = 0; r < R; r++) {
                acc[r][j] = vmmlaq_s32(acc[r][j], x, wi[r]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 2; j += 2) {
            const int32x4_t high = vuzp1q_s32(acc[r][j], acc[r][j + 1]);
            const int32x4_t low  = vuzp2q_s32(acc[r][j], acc[r][j + 1]);
            add_sums(y[r] + 2 * j, vaddq_s32(vshlq_n_s32(high, 8), low), w[r].step);
        }
    }
}

#elif defined(KV_DOTPROD)

constexpr int VALUES = 16;

template <int R>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    int32x4_t high[R][VALUES / 4], low[R][VALUES / 4];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 4; j++) {
            high[r][j] = low[r][j] = vdupq_n_s32(0);
        }
    }
    int8x16_t wh[R], wl[R];

    const auto add = [&](auto lane) {
        for (int j = 0; j < VALUES / 4; j++) {
            const int8x16_t x = vld1q_s8(v + 16 * j);
            for (int r = 0; r < R; r++) {
                high[r][j] = vdotq_laneq_s32(high[r][j], x, wh[r], lane());
                low[r][j]  = vdotq_laneq_s32(low[r][j], x, wl[r], lane());
            }
        }
        v += stride;
    };
    int64_t i = 0;
    for (; i + 16 <= n_cells; i += 16) {
        for (int r = 0; r < R; r++) {
            wh[r] = vld1q_s8(w[r].high + i);
            wl[r] = vld1q_s8(w[r].low + i);
        }
        fa_unroll<4>(add);
    }
    for (; i < n_cells; i += KV_VALUE_CELLS) {
        for (int r = 0; r < R; r++) {
            wh[r] = vreinterpretq_s8_s32(vdupq_n_s32(fa_load32(w[r].high + i)));
            wl[r] = vreinterpretq_s8_s32(vdupq_n_s32(fa_load32(w[r].low + i)));
        }
        fa_unroll<1>(add);
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 4; j++) {
            add_sums(y[r] + 4 * j, vaddq_s32(vshlq_n_s32(high[r][j], 8), low[r][j]), w[r].step);
        }
    }
}

#else

constexpr int VALUES = 32;

template <int R>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    int32x4_t acc[R][VALUES / 4];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 4; j++) {
            acc[r][j] = vdupq_n_s32(0);
        }
    }
    int16x8_t wi[R];

    const auto add = [&](auto lane) {
        for (int j = 0; j < VALUES / 16; j++) {
            const int8x16_t x    = vld1q_s8(v + 16 * j);
            const int16x8_t z[2] = { vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x) };
            for (int r = 0; r < R; r++) {
                for (int h = 0; h < 2; h++) {
                    int32x4_t * a = &acc[r][4 * j + 2 * h];
                    a[0]          = vmlal_laneq_s16(a[0], vget_low_s16(z[h]), wi[r], lane());
                    a[1]          = vmlal_high_laneq_s16(a[1], z[h], wi[r], lane());
                }
            }
        }
        v += stride;
    };
    int64_t i = 0;
    for (; i + 8 <= n_cells; i += 8) {
        for (int r = 0; r < R; r++) {
            wi[r] = vld1q_s16(w[r].whole + i);
        }
        fa_unroll<8>(add);
    }
    for (; i < n_cells; i++) {
        for (int r = 0; r < R; r++) {
            wi[r] = vdupq_n_s16(w[r].whole[i]);
        }
        fa_unroll<1>(add);
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < VALUES / 4; j++) {
            add_sums(y[r] + 4 * j, acc[r][j], w[r].step);
        }
    }
}

#endif

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
            for (int64_t j = b * 32 * NV; j < (b + 1) * 32 * NV; j += VALUES) {
                add_block<n_rows()>(y.at(row, j), weights, v.data + j * KV_VALUE_CELLS, dv * KV_VALUE_CELLS, n_cells);
            }
        });
    }
}

}  // namespace fa_neon
