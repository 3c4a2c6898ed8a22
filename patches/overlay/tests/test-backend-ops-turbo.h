#pragma once

// Included by test-backend-ops.cpp behind its test classes, on which these cases are built.

static void add_turbo_test_cases(std::vector<std::unique_ptr<test_case>> & test_cases) {
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
            // a long cache of which each query sees few cells, which a backend may gather
            for (int nb : { 1, 32 }) {
                test_cases.emplace_back(new test_flash_attn_ext(64, 64, 2, { 4, 1 }, 4096, nb, true, false, 0.0f, 0.0f,
                                                                GGML_PREC_F32, type_K, type_V, { 0, 1, 2, 3 }, true,
                                                                false, 200));
            }
        }
    }
}
