#pragma once

// Runs a random-weight model with turbo caches, alone and under every setting of the rotation gate, and compares the
// logits with those of an f16 cache. The bounds are about twice the largest error seen over all architectures; a wrong
// rotation, stride or type gives an error of the order of 1.

#include "../src/llama-arch.h"
#include "ggml.h"
#include "llama-cpp.h"
#include "log.h"

#include <cmath>
#include <cstdlib>
#include <string>

struct test_turbo_result {
    size_t n_tests  = 0;
    size_t n_failed = 0;
};

static void test_turbo_setenv(const char * name, const char * value) {
#ifdef _WIN32
    _putenv_s(name, value);
#else
    setenv(name, value, 1);
#endif
}

// nmse_of decodes the test tokens with the given context and returns the error of the logits against an f16 cache
template <typename F>
static test_turbo_result test_turbo_caches(llm_arch arch, llama_model * model, bool encode, F && nmse_of) {
    struct config {
        ggml_type    type_k;
        ggml_type    type_v;
        const char * rot_k;
        const char * rot_v;
        double       max_nmse;
    };

    const config configs[] = {
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "0", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "0", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "1", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "1", 0.02 },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO3, "0", "0", 0.06 },
        { GGML_TYPE_TURBO2, GGML_TYPE_TURBO2, "0", "0", 0.25 },
        { GGML_TYPE_Q8_0,   GGML_TYPE_TURBO4, "1", "1", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_F16,    "1", "0", 0.02 },
    };

    test_turbo_result res;

    for (const auto & cfg : configs) {
        test_turbo_setenv("LLAMA_ATTN_ROT_K_OVERRIDE", cfg.rot_k);
        test_turbo_setenv("LLAMA_ATTN_ROT_V_OVERRIDE", cfg.rot_v);

        llama_context_params params = llama_context_default_params();
        params.n_ctx                = 0;
        params.n_threads            = 4;
        params.n_threads_batch      = 4;
        params.n_ubatch             = encode ? params.n_ubatch : 64;
        params.type_k               = cfg.type_k;
        params.type_v               = cfg.type_v;

        const std::string name = std::string(ggml_type_name(cfg.type_k)) + "/" + ggml_type_name(cfg.type_v) +
                                 (*cfg.rot_k == '1' ? " k" : "") + (*cfg.rot_v == '1' ? " v" : "");

        LOG("    %-16s %-20s ", llm_arch_name(arch), name.c_str());

        // a head size that no block fits, or K and V of different types with MLA, is refused with a message
        llama_context_ptr lctx(llama_init_from_model(model, params));
        if (!lctx) {
            LOG("refused\n");
            continue;
        }

        const double err = nmse_of(lctx.get());
        const bool   ok  = std::isfinite(err) && err <= cfg.max_nmse;

        res.n_tests += 1;
        res.n_failed += !ok;

        LOG("%s (%.2e, at most %.2e)\n", ok ? "\033[1;32mOK\033[0m" : "\033[1;31mFAIL\033[0m", err, cfg.max_nmse);
    }

    test_turbo_setenv("LLAMA_ATTN_ROT_K_OVERRIDE", "");
    test_turbo_setenv("LLAMA_ATTN_ROT_V_OVERRIDE", "");

    return res;
}
