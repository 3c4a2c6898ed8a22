#pragma once

// What the kernels of attention over levels are given, and what they compute; flash-attn-generic.h has it in plain C++.

#include "flash-attn-plan.h"
#include "kv-tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

// a tile of keys or values, as ggml_kv_unpack_t lays it out; steps of a block are FA_TILE apart
struct fa_levels {
    int8_t * data;
    float *  steps;
};

// rows of integers within +-127, and for each block of such a row the step that they are multiples of, and what a sum of
// products with levels and KV_OFFSET begins at: -KV_OFFSET times the sum of the block
struct fa_queries {
    int8_t *  data;
    float *   steps;
    int32_t * starts;
};

// rows of values, `stride` apart
template <typename T> struct fa_rows {
    T *     data;
    int64_t stride;

    T * operator[](int64_t i) const { return data + i * stride; }

    fa_rows at(int64_t i, int64_t j) const { return { (*this)[i] + j, stride }; }
};

// Weights of a row for a tile, times the steps of V, are rounded to multiples of a step within +-FA_TOP_WEIGHT: to 256*high +
// low, both within a signed byte. What a row adds up is then an integer, in whatever order.
constexpr int32_t FA_TOP_WEIGHT = 127 * 256 + 127;

// Below this a largest weight is not told from it: 1/step stays finite.
constexpr float FA_LEAST_WEIGHT = 0x1p-100f;

// the step for weights of which the largest has these bits but for the sign; NaN if one of them is not finite
inline float fa_weight_step(int32_t top_bits) {
    float top;
    memcpy(&top, &top_bits, sizeof(top));
    return top_bits >= 0x7f800000 ? NAN : std::max(top, FA_LEAST_WEIGHT) / FA_TOP_WEIGHT;
}

inline int32_t fa_load32(const int8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return x;
}

// calls f with std::integral_constant<int, N> for the largest N <= MAX of a range of n, and so on until it is done
template <int MAX, typename F> void fa_in_steps(int64_t n, const F & f, int64_t first = 0) {
    for (; first + MAX <= n; first += MAX) {
        f(std::integral_constant<int, MAX>(), first);
    }
    if constexpr (MAX > 1) {
        if (first < n) {
            fa_in_steps<MAX - 1>(n, f, first);
        }
    }
}

template <typename F, int... I> void fa_unroll(const F & f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>()), ...);
}

// calls f with std::integral_constant<int, I> for each I below N
template <int N, typename F> void fa_unroll(const F & f) {
    fa_unroll(f, std::make_integer_sequence<int, N>());
}
