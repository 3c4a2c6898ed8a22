#pragma once

// The kernels of attention for AVX2 and FMA; flash-attn-generic.h says what they compute.

#include "flash-attn-levels.h"

#include <immintrin.h>

namespace fa_avx {

// R rows, C groups of 8 cells
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
        __m256i acc[R][C];
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                acc[r][c] = _mm256_setzero_si256();
            }
        }
        for (int j = 0; j < n; j++) {
            for (int c = 0; c < C; c++) {
                const __m256i x =
                    _mm256_loadu_si256((const __m256i *) (k.data + (cell + 8 * c) * dk + (b * n + j) * 32));
                const __m256i abs_x = _mm256_abs_epi8(x);
                for (int r = 0; r < R; r++) {
                    // levels and queries are within +-127: two products fit 16 bits
                    const __m256i y = _mm256_set1_epi32(fa_load32(q.data + (row + r) * dk + (b * n + j) * 4));
                    const __m256i p = _mm256_maddubs_epi16(abs_x, _mm256_sign_epi8(y, x));
                    acc[r][c]       = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
                }
            }
        }
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                const __m256 step = _mm256_mul_ps(_mm256_set1_ps(q.steps[(row + r) * n_blocks + b]),
                                                  _mm256_loadu_ps(k.steps + b * FA_TILE + cell + 8 * c));
                float *      sc   = s + (row + r) * width + cell + 8 * c;
                _mm256_storeu_ps(sc, _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(acc[r][c]),
                                                     b == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(sc)));
            }
        }
    }
}

template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    fa_in_steps<4>(rows, [&](auto n_rows, int64_t row) {
        for (int64_t cell = 0; cell < width; cell += 16) {
            dot_block<NV, n_rows(), 2>(q, k, row, cell, width, dk, s);
        }
    });
}

struct fa_weights {
    alignas(32) int16_t whole[FA_TILE];
    float step;
};

inline void round_weights(const float * w, const float * steps, int64_t n, fa_weights * to) {
    alignas(32) float p[FA_TILE];
    __m256i           top = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(steps + i));
        top            = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)));
        _mm256_store_ps(p + i, x);
    }
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t         = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t         = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    to->step  = fa_weight_step(_mm_cvtsi128_si32(t));

    const __m256 scale = _mm256_set1_ps(1.0f / to->step);
    for (int64_t i = 0; i < n; i += 8) {
        const __m256i x = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(p + i), scale));
        _mm_store_si128((__m128i *) (to->whole + i),
                        _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
    }
}

inline __m256i repeat(const int16_t * weights) {
    int64_t x;
    memcpy(&x, weights, sizeof(x));
    return _mm256_set1_epi64x(x);
}

// R rows, P times four values, from place p of kv_value_order on
template <int R, int P>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells, int p) {
    __m256i acc[R][P];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < P; j++) {
            acc[r][j] = _mm256_setzero_si256();
        }
    }
    // eight cells at a time: where there are only four, the weights of the others are zero
    for (int64_t i = 0; i < n_cells; i += 2 * KV_VALUE_CELLS, v += 2 * stride) {
        __m256i x[2][P];
        for (int j = 0; j < P; j++) {
            x[0][j] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) (v + 16 * (p + j))));
            x[1][j] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) (v + stride + 16 * (p + j))));
        }
        for (int r = 0; r < R; r++) {
            const __m256i w0 = repeat(w[r].whole + i);
            const __m256i w1 = repeat(w[r].whole + i + KV_VALUE_CELLS);
            for (int j = 0; j < P; j++) {
                const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(x[0][j], w0), _mm256_madd_epi16(x[1][j], w1));
                acc[r][j]         = _mm256_add_epi32(acc[r][j], sum);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < P; j += 2) {
            const __m256i sums =
                _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[r][j], acc[r][j + 1]), _MM_SHUFFLE(3, 1, 2, 0));
            const __m256 x  = _mm256_mul_ps(_mm256_set1_ps(w[r].step), _mm256_cvtepi32_ps(sums));
            float *      lo = y[r] + kv_value_order[p + j];
            float *      hi = y[r] + kv_value_order[p + j + 1];
            _mm_storeu_ps(lo, _mm_add_ps(_mm_loadu_ps(lo), _mm256_castps256_ps128(x)));
            _mm_storeu_ps(hi, _mm_add_ps(_mm_loadu_ps(hi), _mm256_extractf128_ps(x, 1)));
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
            constexpr int P = R == 1 ? 8 : R == 2 ? 4 : 2;

            fa_weights weights[R];
            for (int r = 0; r < R; r++) {
                round_weights(w[row + r], v.steps + b * FA_TILE, fa_round_up(n_cells, FA_PAD), &weights[r]);
            }
            for (int64_t j = b * 32 * NV; j < (b + 1) * 32 * NV; j += 32) {
                for (int p = 0; p < 8; p += P) {
                    add_block<R, P>(y.at(row, j), weights, v.data + j * KV_VALUE_CELLS, dv * KV_VALUE_CELLS, n_cells,
                                    p);
                }
            }
        });
    }
}

}  // namespace fa_avx
