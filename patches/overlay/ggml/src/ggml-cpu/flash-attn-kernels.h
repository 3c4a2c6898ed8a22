#pragma once

// The kernels of attention, each chosen for the CPU that this file is compiled for.

#include "flash-attn-plan.h"
#include "vec.h"

#include <algorithm>
#include <cstring>

// rows of integers within +-127, and the steps that they are multiples of
struct fa_levels {
    int8_t * data;
    float *  steps;
};

#if defined(__AVX2__) && defined(__FMA__)
#    include "flash-attn-avx.h"
using fa_avx::dot_levels;
using fa_avx::vec;
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "flash-attn-neon.h"
using fa_neon::dot_levels;
using fa_neon::vec;
#else
#    include "flash-attn-generic.h"
using fa_generic::dot_levels;
using fa_generic::vec;
#endif

namespace {

static_assert(FA_PAD % vec::lanes == 0, "rows end in the middle of a vector");

// rows of values, `stride` apart
template <typename T> struct fa_rows {
    T *     data;
    int64_t stride;

    T * operator[](int64_t i) const { return data + i * stride; }

    fa_rows at(int64_t i, int64_t j) const { return { (*this)[i] + j, stride }; }
};

using fa_weights = float[FA_TILE];

// y[r][j] += sum over i < n of w[r][i]*x[i][j], for R rows and N vectors
template <int R, int N, typename T>
void add_block(fa_rows<float> y, const fa_weights * w, fa_rows<const T> x, int64_t n) {
    vec acc[R][N];
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < N; j++) {
            acc[r][j] = vec::load(y[r] + j * vec::lanes);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        vec xi[N];
        for (int j = 0; j < N; j++) {
            xi[j] = vec::load(x[i] + j * vec::lanes);
        }
        for (int r = 0; r < R; r++) {
            for (int j = 0; j < N; j++) {
                acc[r][j].add(xi[j], w[r][i]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int j = 0; j < N; j++) {
            acc[r][j].store(y[r] + j * vec::lanes);
        }
    }
}

// the same for `width` values, a multiple of FA_PAD
template <int R, int N, typename T>
void add_columns(fa_rows<float> y, const fa_weights * w, fa_rows<const T> x, int64_t width, int64_t n) {
    int64_t j = 0;
    for (; j + N * vec::lanes <= width; j += N * vec::lanes) {
        add_block<R, N>(y.at(0, j), w, x.at(0, j), n);
    }
    if constexpr (N > 1) {
        add_columns<R, N / 2>(y.at(0, j), w, x.at(0, j), width - j, n);
    }
}

// the same for `rows` rows, at most R
template <int R, typename T>
void add_rows(fa_rows<float> y, const fa_weights * w, fa_rows<const T> x, int64_t rows, int64_t width, int64_t n) {
    if constexpr (R > 1) {
        if (rows < R) {
            add_rows<R - 1>(y, w, x, rows, width, n);
            return;
        }
    }
    constexpr bool wide = sizeof(T) == sizeof(float) && 2 * R <= vec::max_rows;  // bytes cost more to load
    add_columns<R, wide ? 4 : 2>(y, w, x, width, n);
}

// y[r][j] += sum over i < n of w[r][i]*steps[i]*x[i][j], for `width` values, a multiple of FA_PAD; null steps are 1.
// Rows of w are read in whole tiles.
template <typename T>
void add_products(fa_rows<float>       y,
                  fa_rows<const float> w,
                  const float *        steps,
                  fa_rows<const T>     x,
                  int64_t              rows,
                  int64_t              width,
                  int64_t              n) {
    for (int64_t r = 0; r < rows; r += vec::max_rows) {
        const int64_t some = std::min<int64_t>(rows - r, vec::max_rows);
        for (int64_t i = 0; i < n; i += FA_TILE) {
            const int64_t few = std::min(n - i, FA_TILE);
            fa_weights    weights[vec::max_rows];
            for (int64_t j = 0; j < some; j++) {
                if (steps) {
                    ggml_vec_mul_f32(few, weights[j], w[r + j] + i, steps + i);
                } else {
                    memcpy(weights[j], w[r + j] + i, sizeof(weights[j]));
                }
            }
            add_rows<vec::max_rows>(y.at(r, 0), weights, x.at(i, 0), some, width, few);
        }
    }
}

// the largest of n values, a multiple of FA_PAD
inline float largest(const float * x, int64_t n) {
    vec m = vec::load(x);
    for (int64_t i = vec::lanes; i < n; i += vec::lanes) {
        m.raise(vec::load(x + i));
    }
    float lanes[vec::lanes];
    m.store(lanes);
    return *std::max_element(lanes, lanes + vec::lanes);
}

}  // namespace
