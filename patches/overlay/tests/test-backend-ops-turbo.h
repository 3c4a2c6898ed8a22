#pragma once

// Included by test-backend-ops.cpp behind its test classes, on which these cases are built.

#include "ggml-turbo.h"

// GGML_HINT_SRC0_IS_TURBO_ROT and its inverse
struct test_mul_mat_turbo_rot : public test_mul_mat {
    const bool inverse;

    test_mul_mat_turbo_rot(int64_t width, int64_t n, bool inverse) :
        test_mul_mat(GGML_TYPE_F32, GGML_TYPE_F32, width, n, width, { 1, 1 }, { 1, 1 }),
        inverse(inverse) {}

    std::string vars() override { return VARS_TO_STR3(m, n, inverse); }

    double max_nmse_err() override { return 1e-7; }

    ggml_tensor * build_graph(ggml_context * ctx) override {
        ggml_tensor * out = test_mul_mat::build_graph(ctx);
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != NULL; t = ggml_get_next_tensor(ctx, t)) {
            if (t->op == GGML_OP_MUL_MAT) {
                ggml_mul_mat_set_hint(t, inverse ? GGML_HINT_SRC0_IS_TURBO_ROT_INV : GGML_HINT_SRC0_IS_TURBO_ROT);
            }
        }
        return out;
    }

    void initialize_tensors(ggml_context * ctx) override {
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != NULL; t = ggml_get_next_tensor(ctx, t)) {
            if (strcmp(t->name, "a") == 0) {
                std::vector<float> data(ggml_nelements(t));
                ggml_turbo_rot_fill(data.data(), t->ne[0], inverse);
                ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
            } else if (t->op == GGML_OP_NONE) {
                init_tensor_uniform(t);
            }
        }
    }

    std::string op_desc(ggml_tensor * t) override {
        GGML_UNUSED(t);
        return "MUL_MAT_TURBO_ROT";
    }
};

static void add_turbo_test_cases(std::vector<std::unique_ptr<test_case>> & test_cases) {
    for (int width : { 16, 32, 64, 128, 256 }) {
        for (int n : { 1, 7, 512 }) {
            test_cases.emplace_back(new test_mul_mat_turbo_rot(width, n, false));
            test_cases.emplace_back(new test_mul_mat_turbo_rot(width, n, true));
        }
    }

    // turbo caches: alone and mixed, over head sizes, masks, sinks, ALiBi and soft-capping
    for (ggml_type type : { GGML_TYPE_TURBO2, GGML_TYPE_TURBO3, GGML_TYPE_TURBO4 }) {
        const std::pair<ggml_type, ggml_type> pairs[] = {
            { type,           type           },
            { GGML_TYPE_Q8_0, type           },
            { type,           GGML_TYPE_Q8_0 },
            { GGML_TYPE_F16,  type           },
            { type,           GGML_TYPE_F16  },
            { GGML_TYPE_BF16, type           },
            { type,           GGML_TYPE_Q4_1 },
        };
        const std::pair<int, int> head_sizes[] = {
            { 64,  64  },
            { 128, 128 },
            { 192, 128 },
            { 256, 256 },
            { 320, 256 },
            { 512, 512 },
            { 576, 512 },
        };
        for (const auto & [type_K, type_V] : pairs) {
            for (const auto & [hsk, hsv] : head_sizes) {
                const bool v_is_view_of_k = hsk == 576;
                if (v_is_view_of_k && type_K != type_V) {
                    continue;
                }
                for (int nb : { 1, 3, 32, 75 }) {
                    if (nb == 75 && hsk > 64) {
                        continue;
                    }
                    for (int kv : { 113, 512 }) {
                        test_cases.emplace_back(new test_flash_attn_ext(hsk, hsv, 4, { 4, 1 }, kv, nb, true, false,
                                                                        0.0f, 0.0f, GGML_PREC_F32, type_K, type_V,
                                                                        { 0, 1, 2, 3 }, true, v_is_view_of_k));
                    }
                    test_cases.emplace_back(new test_flash_attn_ext(hsk, hsv, 4, { 1, 1 }, 512, nb, true, true, 8.0f,
                                                                    10.0f, GGML_PREC_F32, type_K, type_V,
                                                                    { 0, 2, 1, 3 }, true, v_is_view_of_k));
                    test_cases.emplace_back(new test_flash_attn_ext(hsk, hsv, 4, { 1, 3 }, 512, nb, false, false, 0.0f,
                                                                    0.0f, GGML_PREC_F32, type_K, type_V, { 0, 1, 2, 3 },
                                                                    true, v_is_view_of_k));
                }
            }
        }
    }
}
