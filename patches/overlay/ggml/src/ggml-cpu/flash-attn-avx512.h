#pragma once

// The kernels of attention for AVX-512 with VNNI; flash-attn-generic.h says what they compute.

#include "flash-attn-levels.h"

#include <immintrin.h>

namespace fa_avx512 {

// R rows, C groups of 16 cells
template <int NV, int R, int C>
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
        __m512i acc[R][C];
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                acc[r][c] = _mm512_set1_epi32(q.starts[(row + r) * n_blocks + b]);
            }
        }
        for (int j = 0; j < n; j++) {
            __m512i x[C];
            for (int c = 0; c < C; c++) {
                x[c] = _mm512_loadu_si512(k.data + (cell + 16 * c) * dk + (b * n + j) * 64);
            }
            for (int r = 0; r < R; r++) {
                const __m512i y = _mm512_set1_epi32(fa_load32(q.data + (row + r) * dk + (b * n + j) * 4));
                for (int c = 0; c < C; c++) {
                    acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], x[c], y);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                const __m512 step = _mm512_mul_ps(_mm512_set1_ps(q.steps[(row + r) * n_blocks + b]),
                                                  _mm512_loadu_ps(k.steps + b * FA_TILE + cell + 16 * c));
                float *      sc   = s + (row + r) * width + cell + 16 * c;
                _mm512_storeu_ps(sc, _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(acc[r][c]),
                                                     b == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(sc)));
            }
        }
    }
}

template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    fa_in_steps<4>(rows, [&](auto n_rows, int64_t row) {
        fa_in_steps<4>(width / 16, [&](auto n_groups, int64_t group) {
            dot_block<NV, n_rows(), n_groups()>(q, k, row, 16 * group, width, dk, s);
        });
    });
}

struct fa_weights {
    alignas(64) int8_t high[FA_TILE], low[FA_TILE];
    float   step;
    int32_t start;  // as fa_queries::starts
};

inline void round_weights(const float * w, const float * steps, int64_t n, fa_weights * to) {
    __m512  p[4];
    __m512i top = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        p[i] = 16 * i < n ? _mm512_mul_ps(_mm512_loadu_ps(w + 16 * i), _mm512_loadu_ps(steps + 16 * i)) :
                            _mm512_setzero_ps();
        top  = _mm512_max_epi32(top, _mm512_and_si512(_mm512_castps_si512(p[i]), _mm512_set1_epi32(0x7fffffff)));
    }
    to->step = fa_weight_step(_mm512_reduce_max_epi32(top));

    const __m512 scale = _mm512_set1_ps(1.0f / to->step);
    __m512i      sum   = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        const __m512i x    = _mm512_cvtps_epi32(_mm512_mul_ps(p[i], scale));
        const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 8);
        _mm_store_si128((__m128i *) (to->high + 16 * i), _mm512_cvtepi32_epi8(high));
        _mm_store_si128((__m128i *) (to->low + 16 * i), _mm512_cvtepi32_epi8(x));
        sum = _mm512_add_epi32(sum, x);
    }
    to->start = _mm512_reduce_add_epi32(_mm512_mullo_epi32(sum, _mm512_set1_epi32(-KV_OFFSET)));
}

// R rows, C times 32 values
template <int R, int C>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    __m512i high[R][2 * C], low[R][2 * C];
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < 2 * C; c++) {
            high[r][c] = _mm512_setzero_si512();
            low[r][c]  = _mm512_set1_epi32(w[r].start);
        }
    }
    for (int64_t i = 0; i < n_cells; i += KV_VALUE_CELLS, v += stride) {
        __m512i x[2 * C];
        for (int c = 0; c < 2 * C; c++) {
            x[c] = _mm512_loadu_si512(v + 64 * c);
        }
        for (int r = 0; r < R; r++) {
            const __m512i wh = _mm512_set1_epi32(fa_load32(w[r].high + i));
            const __m512i wl = _mm512_set1_epi32(fa_load32(w[r].low + i));
            for (int c = 0; c < 2 * C; c++) {
                high[r][c] = _mm512_dpbusd_epi32(high[r][c], x[c], wh);
                low[r][c]  = _mm512_dpbusd_epi32(low[r][c], x[c], wl);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        const __m512 step = _mm512_set1_ps(w[r].step);
        for (int c = 0; c < 2 * C; c += 2) {
            __m512 x[2];
            for (int j = 0; j < 2; j++) {
                x[j] = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high[r][c + j], 8), low[r][c + j]));
            }
            float *      to = y[r] + 16 * c;
            const __m512 lo = _mm512_shuffle_f32x4(x[0], x[1], 0x44);  // the first 16, as kv_value_order has them
            const __m512 hi = _mm512_shuffle_f32x4(x[0], x[1], 0xee);
            _mm512_storeu_ps(to, _mm512_fmadd_ps(step, lo, _mm512_loadu_ps(to)));
            _mm512_storeu_ps(to + 16, _mm512_fmadd_ps(step, hi, _mm512_loadu_ps(to + 16)));
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
        fa_in_steps<4>(rows, [&](auto n_rows, int64_t row) {
            constexpr int R = n_rows();
            constexpr int C = NV * R > 4 ? 1 : NV;

            fa_weights weights[R];
            for (int r = 0; r < R; r++) {
                round_weights(w[row + r], v.steps + b * FA_TILE, n_cells, &weights[r]);
            }
            for (int64_t j = b * 32 * NV; j < (b + 1) * 32 * NV; j += 32 * C) {
                add_block<R, C>(y.at(row, j), weights, v.data + j * KV_VALUE_CELLS, dv * KV_VALUE_CELLS, n_cells);
            }
        });
    }
}

}  // namespace fa_avx512
