#pragma once

// The kernels of attention, each chosen for the CPU that this file is compiled for.

#include "flash-attn-levels.h"
#include "flash-attn-vec.h"

#include <algorithm>
#include <cstring>

#if defined(KV_VNNI)
#    include "flash-attn-amx.h"
using fa_vnni::add_levels;
using fa_vnni::dot_levels;
#elif defined(__AVX2__) && defined(__FMA__)
#    include "flash-attn-avx.h"
using fa_avx::add_levels;
using fa_avx::dot_levels;
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "flash-attn-neon.h"
using fa_neon::add_levels;
using fa_neon::dot_levels;
#else
#    include "flash-attn-generic.h"
using fa_generic::add_levels;
using fa_generic::dot_levels;
#endif

#if defined(FA_AMX)
using fa_amx::add_levels;
using fa_amx::dot_levels;
using fa_registers = fa_amx::registers;
#else
// what kernels need to be set up for a block
struct fa_registers {
    fa_registers(int64_t, int64_t) {}
};

template <int NV, typename... A> void dot_levels(const fa_registers &, const A &... args) {
    dot_levels<NV>(args...);
}

template <int NV, typename... A> void add_levels(const fa_registers &, const A &... args) {
    add_levels<NV>(args...);
}
#endif

namespace {

static_assert(FA_PAD % vec::lanes == 0, "rows end in the middle of a vector");

// y[r][j] += sum over i < n of w[r][i]*x[i][j], for R rows and N vectors
template <int R, int N> void add_block(fa_rows<float> y, fa_rows<const float> w, fa_rows<const float> x, int64_t n) {
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
            const vec wi = vec::set(w[r][i]);
            for (int j = 0; j < N; j++) {
                acc[r][j] = acc[r][j].add(xi[j], wi);
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
template <int R, int N>
void add_columns(fa_rows<float> y, fa_rows<const float> w, fa_rows<const float> x, int64_t width, int64_t n) {
    int64_t j = 0;
    for (; j + N * vec::lanes <= width; j += N * vec::lanes) {
        add_block<R, N>(y.at(0, j), w, x.at(0, j), n);
    }
    if constexpr (N > 1) {
        add_columns<R, N / 2>(y.at(0, j), w, x.at(0, j), width - j, n);
    }
}

// y[r][j] += sum over i < n of w[r][i]*x[i][j], for `width` values, a multiple of FA_PAD
inline void add_products(fa_rows<float>       y,
                         fa_rows<const float> w,
                         fa_rows<const float> x,
                         int64_t              rows,
                         int64_t              width,
                         int64_t              n) {
    fa_in_steps<vec::max_rows>(rows, [&](auto n_rows, int64_t r) {
        constexpr int R = n_rows();
        add_columns<R, 2 * R <= vec::max_rows ? 4 : 2>(y.at(r, 0), w.at(r, 0), x, width, n);
    });
}

// the largest of n values, a multiple of FA_PAD
inline float largest(const float * x, int64_t n) {
    vec m = vec::load(x);
    for (int64_t i = vec::lanes; i < n; i += vec::lanes) {
        m = m.largest(vec::load(x + i));
    }
    return m.largest();
}

// x becomes cap*tanh(x), for n values, a multiple of FA_PAD. The error is below cap/2^21, also where tanh is small.
inline void soft_cap(float * x, int64_t n, float cap) {
    const vec one = vec::set(1.0f);
    for (int64_t i = 0; i < n; i += vec::lanes) {
        const vec y = vec::load(x + i);
        const vec z = vec::set(-2.0f * cap) / ((y + y).exp() + one);
        (vec::set(cap) + z).store(x + i);
    }
}

// x becomes e to the power of x - top, for N vectors; returns sum and theirs
template <int N> vec exponentiate(float * x, vec top, vec sum) {
    vec y[N];
    for (int i = 0; i < N; i++) {
        y[i] = (vec::load(x + i * vec::lanes) - top).exp_below();
    }
    for (int i = 0; i < N; i++) {
        y[i].store(x + i * vec::lanes);
        sum = sum + y[i];
    }
    return sum;
}

// x becomes e to the power of x - top, for n values, a multiple of FA_PAD and none above top; returns the sum
inline float exponentiate(float * x, int64_t n, float top) {
    constexpr int64_t step = 4 * vec::lanes;

    vec     sum = vec::set(0.0f);
    int64_t i   = 0;
    for (; i + step <= n; i += step) {
        sum = exponentiate<4>(x + i, vec::set(top), sum);
    }
    for (; i < n; i += vec::lanes) {
        sum = exponentiate<1>(x + i, vec::set(top), sum);
    }
    return sum.sum();
}

}  // namespace
