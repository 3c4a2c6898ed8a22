#pragma once

// The kernels of attention for AVX-512 with VNNI and for AVX-VNNI; flash-attn-generic.h says what they compute.

#include "flash-attn-levels.h"
#include "flash-attn-vec.h"

#include <immintrin.h>

#include <algorithm>

namespace fa_vnni {
namespace {

// vectors of 32-bit integers, as many as a vec has floats, or of four times as many bytes
#if defined(KV_AVX512)

using ints = __m512i;

constexpr int max_sums = 16;  // of add_block that fit the registers

inline ints load(const void * p) {
    return _mm512_loadu_si512(p);
}

inline ints set(int32_t x) {
    return _mm512_set1_epi32(x);
}

inline ints add(ints a, ints b) {
    return _mm512_add_epi32(a, b);
}

// each of sum, plus the products of four unsigned bytes of a with four signed ones of b
inline ints add_products(ints sum, ints a, ints b) {
    return _mm512_dpbusd_epi32(sum, a, b);
}

inline ints magnitude_bits(vec x) {
    return _mm512_and_si512(_mm512_castps_si512(x.v), set(0x7fffffff));
}

inline ints larger(ints a, ints b) {
    return _mm512_max_epi32(a, b);
}

inline int32_t largest(ints x) {
    return _mm512_reduce_max_epi32(x);
}

inline int32_t total(ints x) {
    return _mm512_reduce_add_epi32(x);
}

inline ints round(vec x) {
    return _mm512_cvtps_epi32(x.v);
}

inline vec to_float(ints x) {
    return { _mm512_cvtepi32_ps(x) };
}

template <int N> ints shift_left(ints x) {
    return _mm512_slli_epi32(x, N);
}

// stores the bytes of integers of 16 bits: the high ones, so that the low ones may be negative, and those
inline void store_bytes(int8_t * high, int8_t * low, const ints (&x)[FA_TILE / 16]) {
    const ints a = _mm512_packs_epi32(x[0], x[1]), b = _mm512_packs_epi32(x[2], x[3]);
    const ints round = _mm512_set1_epi16(128), byte = _mm512_set1_epi16(255);
    const ints order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);

    const ints h = _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(a, round), 8),
                                      _mm512_srai_epi16(_mm512_add_epi16(b, round), 8));
    const ints l = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
    _mm512_storeu_si512(high, _mm512_permutexvar_epi32(order, h));
    _mm512_storeu_si512(low, _mm512_permutexvar_epi32(order, l));
}

// y + step*x of the first half at `lo`, of the other at `hi`
inline void add_halves(float * lo, float * hi, vec step, vec x) {
    const __m256 s = _mm512_castps512_ps256(step.v);
    _mm256_storeu_ps(lo, _mm256_fmadd_ps(s, _mm512_castps512_ps256(x.v), _mm256_loadu_ps(lo)));
    _mm256_storeu_ps(hi, _mm256_fmadd_ps(s, _mm512_extractf32x8_ps(x.v, 1), _mm256_loadu_ps(hi)));
}

#else

using ints = __m256i;

constexpr int max_sums = 12;

inline ints load(const void * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

inline ints set(int32_t x) {
    return _mm256_set1_epi32(x);
}

inline ints add(ints a, ints b) {
    return _mm256_add_epi32(a, b);
}

inline ints add_products(ints sum, ints a, ints b) {
    return _mm256_dpbusd_avx_epi32(sum, a, b);
}

inline ints magnitude_bits(vec x) {
    return _mm256_and_si256(_mm256_castps_si256(x.v), set(0x7fffffff));
}

inline ints larger(ints a, ints b) {
    return _mm256_max_epi32(a, b);
}

inline int32_t largest(ints x) {
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i two  = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

inline int32_t total(ints x) {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i two  = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

inline ints round(vec x) {
    return _mm256_cvtps_epi32(x.v);
}

inline vec to_float(ints x) {
    return { _mm256_cvtepi32_ps(x) };
}

template <int N> ints shift_left(ints x) {
    return _mm256_slli_epi32(x, N);
}

inline void store_bytes(int8_t * high, int8_t * low, const ints (&x)[FA_TILE / 8]) {
    const ints round = _mm256_set1_epi16(128), byte = _mm256_set1_epi16(255);
    const ints order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    for (int i = 0; i < FA_TILE / 32; i++) {
        const ints a = _mm256_packs_epi32(x[4 * i], x[4 * i + 1]), b = _mm256_packs_epi32(x[4 * i + 2], x[4 * i + 3]);
        const ints h = _mm256_packs_epi16(_mm256_srai_epi16(_mm256_add_epi16(a, round), 8),
                                          _mm256_srai_epi16(_mm256_add_epi16(b, round), 8));
        const ints l = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
        _mm256_storeu_si256((__m256i *) (high + 32 * i), _mm256_permutevar8x32_epi32(h, order));
        _mm256_storeu_si256((__m256i *) (low + 32 * i), _mm256_permutevar8x32_epi32(l, order));
    }
}

inline void add_halves(float * lo, float * hi, vec step, vec x) {
    const __m128 s = _mm256_castps256_ps128(step.v);
    _mm_storeu_ps(lo, _mm_fmadd_ps(s, _mm256_castps256_ps128(x.v), _mm_loadu_ps(lo)));
    _mm_storeu_ps(hi, _mm_fmadd_ps(s, _mm256_extractf128_ps(x.v, 1), _mm_loadu_ps(hi)));
}

#endif

static_assert(vec::lanes == KV_KEY_CELLS, "a sum for each cell");

constexpr int lanes = vec::lanes;

// R rows, C groups of cells
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
        ints acc[R][C];
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                acc[r][c] = set(q.starts[(row + r) * n_blocks + b]);
            }
        }
        for (int j = 0; j < n; j++) {
            ints x[C];
            for (int c = 0; c < C; c++) {
                x[c] = load(k.data + (cell + lanes * c) * dk + (b * n + j) * 4 * lanes);
            }
            for (int r = 0; r < R; r++) {
                const ints y = set(fa_load32(q.data + (row + r) * dk + (b * n + j) * 4));
                for (int c = 0; c < C; c++) {
                    acc[r][c] = add_products(acc[r][c], x[c], y);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                const vec step =
                    vec::set(q.steps[(row + r) * n_blocks + b]) * vec::load(k.steps + b * FA_TILE + cell + lanes * c);
                float * sc = s + (row + r) * width + cell + lanes * c;
                (b == 0 ? vec::set(0.0f) : vec::load(sc)).add(step, to_float(acc[r][c])).store(sc);
            }
        }
    }
}

template <int NV>
void dot_levels(const fa_queries & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    constexpr int max_groups = lanes / 4;  // that fit the registers, with four rows

    fa_in_steps<4>(rows, [&](auto n_rows, int64_t row) {
        fa_in_steps<max_groups>(width / lanes, [&](auto n_groups, int64_t group) {
            dot_block<NV, n_rows(), n_groups()>(q, k, row, lanes * group, width, dk, s);
        });
    });
}

struct fa_scale {
    float   step;
    int32_t start;  // as fa_queries::starts
};

inline fa_scale round_weights(const float * w, const float * steps, int64_t n, int8_t * high, int8_t * low) {
    constexpr int n_vectors = FA_TILE / lanes;

    vec  p[n_vectors];
    ints top = set(0);
    for (int i = 0; i < n_vectors; i++) {
        p[i] = lanes * i < n ? vec::load(w + lanes * i) * vec::load(steps + lanes * i) : vec::set(0.0f);
        top  = larger(top, magnitude_bits(p[i]));
    }
    const float step  = fa_weight_step(largest(top));
    const vec   scale = vec::set(1.0f / step);
    ints        sum   = set(0);
    ints        x[n_vectors];
    for (int i = 0; i < n_vectors; i++) {
        x[i] = round(p[i] * scale);
        sum  = add(sum, x[i]);
    }
    store_bytes(high, low, x);
    return { step, -KV_OFFSET * total(sum) };
}

struct fa_weights {
    alignas(64) int8_t high[FA_TILE], low[FA_TILE];
    fa_scale scale;
};

// where the first or the second half of vector i of values stands, of those in order
constexpr int value_at(int i, int half) {
    const int four = i * lanes / 4 + half * lanes / 8;
    return four / 8 * 32 + kv_value_order[four % 8];
}

// R rows, C vectors of values, from `FIRST` on
template <int R, int C, int FIRST>
void add_block(fa_rows<float> y, const fa_weights * w, const int8_t * v, int64_t stride, int64_t n_cells) {
    ints high[R][C], low[R][C];
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) {
            high[r][c] = set(0);
            low[r][c]  = set(w[r].scale.start);
        }
    }
    v += 4 * lanes * FIRST;
    for (int64_t i = 0; i < n_cells; i += KV_VALUE_CELLS, v += stride) {
        ints x[C];
        for (int c = 0; c < C; c++) {
            x[c] = load(v + 4 * lanes * c);
        }
        for (int r = 0; r < R; r++) {
            const ints wh = set(fa_load32(w[r].high + i));
            const ints wl = set(fa_load32(w[r].low + i));
            for (int c = 0; c < C; c++) {
                high[r][c] = add_products(high[r][c], x[c], wh);
                low[r][c]  = add_products(low[r][c], x[c], wl);
            }
        }
    }
    // loops that compilers leave rolled would keep the sums in memory
    fa_unroll<C>([&](auto c) {
        constexpr int lo = value_at(FIRST + c, 0), hi = value_at(FIRST + c, 1);
        fa_unroll<R>([&](auto r) {
            const vec x = to_float(add(shift_left<8>(high[r][c]), low[r][c]));
            add_halves(y[r] + lo, y[r] + hi, vec::set(w[r].scale.step), x);
        });
    });
}

// the largest power of two that is not above n
constexpr int floor_to_power(int n) {
    return n < 2 ? 1 : 2 * floor_to_power(n / 2);
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
            constexpr int C = floor_to_power(std::min({ 32 * NV / lanes, 4, max_sums / (2 * R) }));

            fa_weights weights[R];
            for (int r = 0; r < R; r++) {
                weights[r].scale =
                    round_weights(w[row + r], v.steps + b * FA_TILE, n_cells, weights[r].high, weights[r].low);
            }
            for (int64_t j = b * 32 * NV; j < (b + 1) * 32 * NV; j += std::max(32, C * lanes)) {
                fa_unroll<std::max(1, 32 / (C * lanes))>([&](auto i) {
                    add_block<R, C, i * C>(y.at(row, j), weights, v.data + j * KV_VALUE_CELLS, dv * KV_VALUE_CELLS,
                                           n_cells);
                });
            }
        });
    }
}

}  // namespace
}  // namespace fa_vnni
