#pragma once

// The kernels of attention in plain C++. What each computes is said here; the variants for a CPU compute the same.

#include "flash-attn-kernels.h"

#include <algorithm>

namespace fa_generic {

// s[r][c] = sum over blocks b of 32*NV values of q.steps[r][b]*k.steps[b][c]*<q.data[r], k.data[c]>, for `width` cells, a
// multiple of FA_PAD. Rows of k.steps are FA_TILE apart.
template <int NV>
void dot_levels(const fa_levels & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            s[r * width + c] = 0.0f;
            for (int64_t b = 0; b < dk / (32 * NV); b++) {
                int32_t sum = 0;
                for (int64_t j = 32 * NV * b; j < 32 * NV * (b + 1); j++) {
                    sum += (int32_t) k.data[c * dk + j] * q.data[r * dk + j];
                }
                s[r * width + c] += q.steps[r * (dk / (32 * NV)) + b] * k.steps[b * FA_TILE + c] * (float) sum;
            }
        }
    }
}

// Some floats. FA_PAD is a multiple of `lanes`; `max_rows` times two vectors fit the registers, with two more.
struct vec {
    static constexpr int lanes = 8, max_rows = 4;
    float                v[lanes];

    // of bytes as well
    template <typename T> static vec load(const T * p) {
        vec x;
        std::copy(p, p + lanes, x.v);
        return x;
    }

    void store(float * p) const { std::copy(v, v + lanes, p); }

    void add(vec a, float x) {
        for (int i = 0; i < lanes; i++) {
            v[i] += a.v[i] * x;
        }
    }

    void raise(vec a) {
        for (int i = 0; i < lanes; i++) {
            v[i] = std::max(v[i], a.v[i]);
        }
    }
};

}  // namespace fa_generic
