#pragma once

// Blocks of the types whose values are levels times a step, as C++ templates take them.

#include "kv-levels.h"

// vectors of 32 values in a block
template <typename block> inline constexpr int n_vectors = 1;

template <> inline constexpr int n_vectors<block_turbo2> = 2;
template <> inline constexpr int n_vectors<block_turbo3> = 2;
template <> inline constexpr int n_vectors<block_turbo4> = 2;

template <typename block> float get_step(const block * x) {
    return n_vectors<block> == 2 ? kv_turbo_step(x->d) : kv_step(x->d);
}

// levels first..first + 31 of a block

inline i8x32 get_levels(const block_q8_0 * x, int) {
    return q8_0_levels(x);
}

inline i8x32 get_levels(const block_q5_0 * x, int) {
    return q5_0_levels(x);
}

inline i8x32 get_levels(const block_q4_0 * x, int) {
    return q4_0_levels(x);
}

inline i8x32 get_levels(const block_iq4_nl * x, int) {
    return iq4_nl_levels(x);
}

inline i8x32 get_levels(const block_turbo2 * x, int first) {
    return turbo2_levels(x, first);
}

inline i8x32 get_levels(const block_turbo3 * x, int first) {
    return turbo3_levels(x, first);
}

inline i8x32 get_levels(const block_turbo4 * x, int first) {
    return turbo4_levels(x, first);
}

// f of a block of this type; nothing for types of another form
template <typename R, typename F> R kv_for_type(enum ggml_type type, const F & f) {
    switch (type) {
        case GGML_TYPE_Q8_0:
            return f(block_q8_0());
        case GGML_TYPE_Q5_0:
            return f(block_q5_0());
        case GGML_TYPE_Q4_0:
            return f(block_q4_0());
        case GGML_TYPE_IQ4_NL:
            return f(block_iq4_nl());
        case GGML_TYPE_TURBO2:
            return f(block_turbo2());
        case GGML_TYPE_TURBO3:
            return f(block_turbo3());
        case GGML_TYPE_TURBO4:
            return f(block_turbo4());
        default:
            return R();
    }
}
