#pragma once

// Runs a random-weight model with turbo caches, alone, calibrated and under every setting of the rotation gate, and
// compares the logits with those of an f16 cache. The bounds are about twice the largest error seen over all architectures; a wrong
// rotation, stride or type gives an error of the order of 1.

#include "../src/llama-arch.h"
#include "../src/llama-kv-moments.h"
#include "../src/llama-model.h"
#include "ggml.h"
#include "llama-cpp.h"
#include "llama-kv-calibration.h"
#include "log.h"
#include "test-set-env.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

struct test_turbo_result {
    size_t n_tests  = 0;
    size_t n_failed = 0;
};

// moments that give each layer means and scales of its own, not those that fit
static std::shared_ptr<const llama_kv_calibration> test_turbo_calibration(const llama_hparams & hparams) {
    std::mt19937                    rng(1);
    std::normal_distribution<float> normal;

    llama_kv_calibration res;
    for (uint32_t il = 0; il < hparams.n_layer_all; ++il) {
        if (!hparams.has_kv(il) || hparams.n_head_kv(il) == 0) {
            continue;
        }
        auto & layer      = res.layers[il];
        layer.n_embd_head = hparams.n_embd_head_k(il);
        layer.n_head_kv   = hparams.n_head_kv(il);
        for (uint32_t i = 0; i < layer.n_embd_head * layer.n_head_kv; ++i) {
            layer.k_mean.push_back(0.1f * normal(rng));
            layer.k_sq.push_back(std::exp(0.5f * normal(rng)) + layer.k_mean.back() * layer.k_mean.back());
            layer.k_cross.push_back(0.0f);
            layer.q_sq.push_back(std::exp(0.5f * normal(rng)));
            layer.q_cross.push_back(0.0f);
            layer.k_first.push_back(normal(rng));
            layer.k_first_sq.push_back(layer.k_first.back() * layer.k_first.back());
        }
    }

    return std::make_shared<const llama_kv_calibration>(std::move(res));
}

// nmse_of decodes the test tokens with the given context and returns the error of the logits against an f16 cache
template <typename F>
static test_turbo_result test_turbo_caches(llm_arch arch, llama_model * model, bool encode, float stdev, F && nmse_of) {
    struct config {
        ggml_type    type_k;
        ggml_type    type_v;
        const char * rot_k;
        const char * rot_v;
        double       max_nmse;
        const char * calibration = "off";
        bool         flash_attn  = true;
    };

    const config configs[] = {
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "0", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "0", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "1", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "1", 0.02 },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO3, "0", "0", 0.06 },
        { GGML_TYPE_TURBO2, GGML_TYPE_TURBO2, "0", "0", 0.25 },
        { GGML_TYPE_Q8_0, GGML_TYPE_TURBO4, "1", "1", 0.02 },
        { GGML_TYPE_TURBO4, GGML_TYPE_F16, "1", "0", 0.02 },
        // Without flash attention, which would make f16 of f32: what rounding alone does, and then within that. It may do
        // more than usual, where it decides which expert a token goes to.
        { GGML_TYPE_F32, GGML_TYPE_F32, "0", "0", INFINITY, "off", false },
        { GGML_TYPE_F32, GGML_TYPE_F32, "0", "0", 1e-6, "test", false },
        { GGML_TYPE_F16, GGML_TYPE_F16, "0", "0", 1e-6, "test" },
        { GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, "1", "1", 0.02, "test" },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "0", 0.04, "test" },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "1", 0.04, "test" },
    };

    test_turbo_result res;
    double            rounding = 0.0;  // error of the run before

    for (const auto & cfg : configs) {
        // with larger weights attention is sharp: what is exact must stay so, while nothing else has a bound any more
        if (stdev > 0.1f && cfg.type_k != GGML_TYPE_F32) {
            continue;
        }
        test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", cfg.rot_k);
        test_set_env("LLAMA_ATTN_ROT_V_OVERRIDE", cfg.rot_v);
        llama_kv_calibration_set(cfg.calibration);
        model->kv_calib = { "", test_turbo_calibration(model->hparams), "of the test", "test", true };

        llama_context_params params = llama_context_default_params();
        params.n_ctx                = 0;
        params.n_threads            = 2;
        params.n_threads_batch      = 2;
        params.n_ubatch             = encode ? params.n_ubatch : 64;
        params.type_k               = cfg.type_k;
        params.type_v               = cfg.type_v;
        params.flash_attn_type      = cfg.flash_attn ? params.flash_attn_type : LLAMA_FLASH_ATTN_TYPE_DISABLED;

        const std::string name = std::string(ggml_type_name(cfg.type_k)) + "/" + ggml_type_name(cfg.type_v) +
                                 (*cfg.rot_k == '1' ? " k" : "") + (*cfg.rot_v == '1' ? " v" : "") +
                                 (cfg.calibration == std::string("off") ? "" : " calibrated");

        LOG("    %-16s %-20s ", llm_arch_name(arch), name.c_str());

        // a head size that no block fits, or K and V of different types with MLA, is refused with a message
        llama_context_ptr lctx(llama_init_from_model(model, params));
        if (!lctx) {
            LOG("refused\n");
            continue;
        }

        const double err   = nmse_of(lctx.get());
        const bool   exact = cfg.type_k == GGML_TYPE_F32 || cfg.type_k == GGML_TYPE_F16;
        const double max   = cfg.max_nmse + (exact ? 1.5 * rounding : 0.0);
        const bool   ok    = std::isfinite(err) && err <= max;

        rounding = err;

        res.n_tests += 1;
        res.n_failed += !ok;

        LOG("%s (%.2e, at most %.2e)\n", ok ? "\033[1;32mOK\033[0m" : "\033[1;31mFAIL\033[0m", err, max);
    }

    test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", "");
    test_set_env("LLAMA_ATTN_ROT_V_OVERRIDE", "");
    llama_kv_calibration_set("off");

    return res;
}
