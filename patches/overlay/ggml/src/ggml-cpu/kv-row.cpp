#include "kv-row.h"

#include "ggml-cpu.h"
#include "kv-block.h"

namespace {

template <typename block> void kv_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    constexpr int nv = n_vectors<block>;

    const block * x = (const block *) row;
    for (int64_t i = 0; i < n / (32 * nv); i++) {
        for (int j = 0; j < nv; j++) {
            i8x32_to_float(get_levels(&x[i], 32 * j), get_step(&x[i]), y + 32 * (nv * i + j));
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
    if (type == GGML_TYPE_F16) {
        return f16_to_float;
    }
    if (type == GGML_TYPE_BF16) {
        return bf16_to_float;
    }
    const auto own = kv_for_type<ggml_to_float_t>(type, [](auto block) { return kv_to_float<decltype(block)>; });
    return own ? own : ggml_get_type_traits(type)->to_float;
}
