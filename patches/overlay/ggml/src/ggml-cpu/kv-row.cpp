#include "kv-row.h"

#include "ggml-cpu.h"
#include "kv-levels.h"

namespace {

// Vectors of 32 values in a block, and their levels.

template <typename block> constexpr int n_vectors = 1;

template <> constexpr int n_vectors<block_turbo2> = 2;
template <> constexpr int n_vectors<block_turbo3> = 2;
template <> constexpr int n_vectors<block_turbo4> = 2;

template <typename block> float get_step(const block * x) {
    return n_vectors<block> == 2 ? kv_turbo_step(x->d) : kv_step(x->d);
}

inline void get_levels(const block_q8_0 * x, i8x32 * v) {
    v[0] = q8_0_levels(x);
}

inline void get_levels(const block_q5_0 * x, i8x32 * v) {
    v[0] = q5_0_levels(x);
}

inline void get_levels(const block_q4_0 * x, i8x32 * v) {
    v[0] = q4_0_levels(x);
}

inline void get_levels(const block_iq4_nl * x, i8x32 * v) {
    v[0] = iq4_nl_levels(x);
}

inline void get_levels(const block_turbo2 * x, i8x32 * v) {
    turbo2_levels(x, &v[0], &v[1]);
}

inline void get_levels(const block_turbo3 * x, i8x32 * v) {
    turbo3_levels(x, &v[0], &v[1]);
}

inline void get_levels(const block_turbo4 * x, i8x32 * v) {
    turbo4_levels(x, &v[0], &v[1]);
}

// N blocks a row if N is not 0
template <typename block, int N>
void kv_unpack_rows(const char *    base,
                    size_t          nb,
                    const int32_t * rows,
                    int64_t         n_rows,
                    int64_t         n,
                    int8_t *        levels,
                    float *         steps,
                    int64_t         stride) {
    constexpr int nv = n_vectors<block>;

    const int64_t n_blocks = N != 0 ? N : n / (32 * nv);

    for (int64_t r = 0; r < n_rows; r++) {
        const block * x = (const block *) (base + rows[r] * nb);
        for (int64_t i = 0; i < n_blocks; i++) {
            i8x32 v[nv];
            get_levels(&x[i], v);
            for (int j = 0; j < nv; j++) {
                i8x32_store(levels + (r * n_blocks + i) * 32 * nv + 32 * j, v[j]);
            }
            steps[i * stride + r] = get_step(&x[i]);
        }
    }
}

template <typename block>
void kv_unpack(const char *    base,
               size_t          nb,
               const int32_t * rows,
               int64_t         n_rows,
               int64_t         n,
               int8_t *        levels,
               float *         steps,
               int64_t         stride) {
    switch (n / (32 * n_vectors<block>) ) {
        case 1:
            kv_unpack_rows<block, 1>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        case 2:
            kv_unpack_rows<block, 2>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        case 4:
            kv_unpack_rows<block, 4>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        default:
            kv_unpack_rows<block, 0>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
    }
}

template <typename block> void kv_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    constexpr int nv = n_vectors<block>;

    const block * x = (const block *) row;
    for (int64_t i = 0; i < n / (32 * nv); i++) {
        i8x32 v[nv];
        get_levels(&x[i], v);
        for (int j = 0; j < nv; j++) {
            i8x32_to_float(v[j], get_step(&x[i]), y + 32 * (nv * i + j));
        }
    }
}

void f16_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) row, y, n);
}

void bf16_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) row, y, n);
}

}  // namespace

ggml_to_float_t ggml_cpu_get_to_float(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_F16:
            return f16_to_float;
        case GGML_TYPE_BF16:
            return bf16_to_float;
        case GGML_TYPE_Q8_0:
            return kv_to_float<block_q8_0>;
        case GGML_TYPE_Q5_0:
            return kv_to_float<block_q5_0>;
        case GGML_TYPE_Q4_0:
            return kv_to_float<block_q4_0>;
        case GGML_TYPE_IQ4_NL:
            return kv_to_float<block_iq4_nl>;
        case GGML_TYPE_TURBO2:
            return kv_to_float<block_turbo2>;
        case GGML_TYPE_TURBO3:
            return kv_to_float<block_turbo3>;
        case GGML_TYPE_TURBO4:
            return kv_to_float<block_turbo4>;
        default:
            return ggml_get_type_traits(type)->to_float;
    }
}

ggml_kv_unpack_t ggml_kv_get_unpack(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q8_0:
            return kv_unpack<block_q8_0>;
        case GGML_TYPE_Q5_0:
            return kv_unpack<block_q5_0>;
        case GGML_TYPE_Q4_0:
            return kv_unpack<block_q4_0>;
        case GGML_TYPE_IQ4_NL:
            return kv_unpack<block_iq4_nl>;
        case GGML_TYPE_TURBO2:
            return kv_unpack<block_turbo2>;
        case GGML_TYPE_TURBO3:
            return kv_unpack<block_turbo3>;
        case GGML_TYPE_TURBO4:
            return kv_unpack<block_turbo4>;
        default:
            return nullptr;
    }
}

int64_t ggml_kv_step_width(enum ggml_type type) {
    return ggml_blck_size(type);
}
