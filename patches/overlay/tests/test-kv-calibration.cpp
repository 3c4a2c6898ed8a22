// Calibrated K caches of a real model: what is exact stays so, what is quantized gains, and what does not belong together is
// refused.
//
//     test-kv-calibration MODEL
//
// The model needs a vocabulary and RoPE of the usual kinds.

#include "ggml.h"
#include "gguf.h"
#include "llama-cpp.h"
#include "llama-kv-calibration.h"
#include "llama.h"
#include "test-set-env.h"

// TODO: moments and values are not in the public interface
#include "../src/llama-context.h"
#include "../src/llama-kv-calib-file.h"
#include "../src/llama-kv-moments.h"
#include "../src/llama-model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

namespace fs = std::filesystem;

using tokens = std::vector<llama_token>;
using floats = std::vector<float>;

static const char * const TEXT =
    "In the spring the river rose above the lower fields, and the farmers carried their seed up the hill. Nobody had "
    "expected so much rain in a month that was usually dry. They waited for eleven days. When the water had gone, "
    "there "
    "was a layer of dark mud on everything, finger-deep, and the old people said that it would be a good year. "
    "int main(void) { return 0; } The total was 4,512.75 in 2019 and 5,130.20 in 2020. Why did she leave so early, and "
    "who told her about the letter that was still lying on the table? He did not answer.";

// caches are judged on another text than K is measured on
static const char * const JUDGED =
#include "../src/llama-kv-calib-text.inc"
    ;

static int         n_tests  = 0;
static int         n_failed = 0;
static size_t      n_vocab  = 0;
static std::string log_text;

static void check(bool ok, const std::string & what) {
    n_tests++;
    n_failed += !ok;
    printf("%s: %s\n", ok ? "ok" : "FAILED", what.c_str());
    if (!ok) {
        printf("      log: %s\n", log_text.c_str());
    }
}

static std::string with(const std::string & what, double value, double limit) {
    char buf[64];
    snprintf(buf, sizeof(buf), " (%.2e, at most %.2e)", value, limit);
    return what + buf;
}

static void at_most(double value, double limit, const std::string & what) {
    check(std::isfinite(value) && value <= limit, with(what, value, limit));
}

//
// contexts
//

static llama_context_params params_of(ggml_type type, bool flash_attn) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 512;
    params.n_batch              = 256;
    params.n_ubatch             = 256;
    params.n_threads            = 2;
    params.n_threads_batch      = 2;
    params.type_k               = type;
    params.type_v               = type == GGML_TYPE_F32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.flash_attn_type      = flash_attn ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;

    return params;
}

static llama_context_ptr context_of(llama_model *       model,
                                    const std::string & how,
                                    ggml_type           type,
                                    bool                flash_attn = true) {
    llama_kv_calibration_set(how.c_str());
    log_text.clear();

    return llama_context_ptr(llama_init_from_model(model, params_of(type, flash_attn)));
}

static floats logits_of(llama_context * ctx, const tokens & text) {
    const llama_pos p0    = llama_memory_seq_pos_max(llama_get_memory(ctx), 0) + 1;
    const int       n_out = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));

    llama_batch batch = llama_batch_init((int32_t) text.size(), 0, 1);
    for (size_t i = 0; i < text.size(); i++) {
        batch.token[i]     = text[i];
        batch.pos[i]       = p0 + (llama_pos) i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = 1;
    }
    batch.n_tokens = (int32_t) text.size();

    floats res;
    if (llama_decode(ctx, batch) == 0) {
        for (size_t i = 0; i < text.size(); i++) {
            const float * logits = llama_get_logits_ith(ctx, (int32_t) i);
            res.insert(res.end(), logits, logits + n_out);
        }
    }
    llama_batch_free(batch);

    return res;
}

// of sequences of 96 tokens each, which begin at every 48th
static floats logits_of_sequences(const llama_context_ptr & ctx, const tokens & text) {
    constexpr size_t n = 96;

    floats res;
    for (size_t at = 0; at + n <= text.size(); at += n / 2) {
        llama_memory_clear(llama_get_memory(ctx.get()), true);
        const auto logits = logits_of(ctx.get(), { text.begin() + at, text.begin() + at + n });
        res.insert(res.end(), logits.begin(), logits.end());
    }

    return res;
}

// of a cache with LLAMA_ATTN_ROT_K_OVERRIDE
static std::string name_of(ggml_type type, const char * rotated) {
    return std::string(ggml_type_name(type)) + (*rotated == '1' ? " with upstream's rotation" : "");
}

// the normalized mean squared error of a token's logits: the median over tokens, since quantized weights make much of the
// least difference in some of them
static double nmse(const floats & a, const floats & b) {
    if (a.empty() || a.size() != b.size()) {
        return std::numeric_limits<double>::infinity();
    }
    std::vector<double> errors;
    for (size_t token = 0; token < a.size(); token += n_vocab) {
        double sum = 0.0;
        double err = 0.0;
        for (size_t i = token; i < token + n_vocab; i++) {
            sum += (double) a[i] * a[i];
            err += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
        }
        errors.push_back(err / sum);
    }
    std::nth_element(errors.begin(), errors.begin() + errors.size() / 2, errors.end());

    return errors[errors.size() / 2];
}

//
// means and scales against sums over every position
//

// this model's RoPE, written again: value j of a head at a position, where x is the head at position 0
static double turned(const llama_hparams & hparams,
                     const llama_cparams & cparams,
                     const float *         x,
                     size_t                j,
                     double                pos) {
    const size_t n_rot = hparams.n_rot(0);
    const bool   neox  = hparams.rope_type == LLAMA_ROPE_TYPE_NEOX;
    if (j >= n_rot) {
        return x[j];
    }
    const size_t pair  = neox ? j % (n_rot / 2) : j / 2;
    const size_t a     = neox ? pair : 2 * pair;
    const size_t b     = neox ? pair + n_rot / 2 : 2 * pair + 1;
    const double theta = pos * std::pow((double) cparams.rope_freq_base, -2.0 * (double) pair / (double) n_rot);

    return j == a ? std::cos(theta) * x[a] - std::sin(theta) * x[b] : std::sin(theta) * x[a] + std::cos(theta) * x[b];
}

static void test_average(llama_model * model, const llama_kv_calibration & calibration) {
    const auto ctx = context_of(model, "off", GGML_TYPE_F16);

    for (const uint32_t n_ctx : { 40u, 512u, 3000u }) {
        llama_cparams cparams = ctx->get_cparams();
        cparams.n_ctx_seq     = n_ctx;

        const auto   affines = llama_kv_affines_at(*model, cparams, calibration);
        const auto & layer   = calibration.layers.begin()->second;
        const auto & affine  = affines.layers.begin()->second;
        double       worst   = 0.0;
        double       norm    = 0.0;
        for (size_t j = 0; j < layer.n_embd_head; j++) {
            double sum    = 0.0;
            double weight = 0.0;
            for (uint32_t p = 0; p < n_ctx; p++) {
                // as much as the logarithm grows over it
                const double w = std::log((p + 1 + 64.0) / (p + 64.0));
                sum += w * turned(model->hparams, cparams, layer.k_mean.data(), j, p);
                weight += w;
            }
            worst = std::max(worst, std::fabs(affine.mean[j] - sum / weight));
            norm  = std::max(norm, (double) std::fabs(layer.k_mean[j]));
        }
        at_most(worst / norm, 0.03, "means are those over " + std::to_string(n_ctx) + " positions");
    }
}

// the second moment of Q against sums over every position
static void test_queries(llama_model * model, const llama_kv_calibration & calibration) {
    llama_cparams cparams = context_of(model, "off", GGML_TYPE_F16)->get_cparams();
    cparams.n_ctx_seq     = 512;

    const auto    affines = llama_kv_affines_at(*model, cparams, calibration);
    const auto &  layer   = calibration.layers.begin()->second;
    const auto &  affine  = affines.layers.begin()->second;
    const size_t  n       = layer.n_embd_head;
    const size_t  head    = layer.n_head_kv - 1;
    const float * sq      = &layer.q_sq[head * n];

    std::vector<floats> rows(n, floats(n));  // at position 0
    const int16_t *     corr = &layer.q_corr[head * layer.n_corr()];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            rows[i][j] = rows[j][i] = (float) *corr++ / 32767.0f * std::sqrt(sq[i] * sq[j]);
        }
        rows[i][i] = sq[i];
    }

    // both sides are turned: the rows, and then the columns of what they have become
    std::vector<double> sum(n * n, 0.0);
    double              weight = 0.0;
    for (uint32_t p = 0; p < 512; p++) {
        const double w = std::log((p + 1 + 64.0) / (p + 64.0));
        weight += w;
        std::vector<floats> half(n, floats(n));
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) {
                half[j][i] = (float) turned(model->hparams, cparams, rows[i].data(), j, p);
            }
        }
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) {
                sum[i * n + j] += w * turned(model->hparams, cparams, half[i].data(), j, p);
            }
        }
    }
    double error = 0.0;
    double norm  = 0.0;
    for (size_t i = 0; i < n * n; i++) {
        const double s = (double) affine.scale[head * n + i / n] * affine.scale[head * n + i % n];
        const double x = sum[i] / weight / s;
        error += (x - affine.q_moment[head * n * n + i]) * (x - affine.q_moment[head * n * n + i]);
        norm += x * x;
    }
    at_most(error / norm, 1e-3, "the second moment of queries is that over 512 positions");
}

// the mean squared error of logits with the correlations of Q, and without
static void test_scores(llama_model *                model,
                        const fs::path &             folder,
                        const llama_kv_calibration & calibration,
                        const tokens &               text) {
    auto without = calibration;
    for (auto & [il, layer] : without.layers) {
        layer.q_corr.clear();
    }
    const auto path  = (folder / "with.gguf").string();
    const auto other = (folder / "without.gguf").string();
    llama_kv_calibration_write(calibration, path);
    llama_kv_calibration_write(without, other);
    check(
        llama_kv_calibration_read(other).layers.begin()->second.q_corr.empty() &&
            llama_kv_calibration_read(path).layers.begin()->second.q_corr == calibration.layers.begin()->second.q_corr,
        "correlations of queries may be in a file, or not");

    const auto logits = [&](const std::string & how, ggml_type type, bool flash_attn = true) {
        return logits_of_sequences(context_of(model, how, type, flash_attn), text);
    };
    const auto exact = logits("off", GGML_TYPE_F32, false);
    for (const ggml_type type : { GGML_TYPE_TURBO4, GGML_TYPE_TURBO3, GGML_TYPE_TURBO2 }) {
        for (const char * rotated : { "0", "1" }) {
            test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", rotated);
            const double nearest = nmse(exact, logits(other, type));
            const double scores  = nmse(exact, logits(path, type));
            at_most(scores / nearest, type == GGML_TYPE_TURBO4 ? 0.95 : 0.85,
                    name_of(type, rotated) + " rounded for scores loses less");
        }
    }
    test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", "0");

    check(logits(path, GGML_TYPE_Q4_0) == logits(other, GGML_TYPE_Q4_0), "q4_0 is rounded as it was");
}

// beyond the first layers the first key of a sequence hardly depends on its token
static void test_first(llama_model * model, const llama_kv_calibration & calibration) {
    const auto affines =
        llama_kv_affines_at(*model, context_of(model, "off", GGML_TYPE_F16)->get_cparams(), calibration);
    int n_same   = 0;
    int n_layers = 0;
    for (const auto & [il, affine] : affines.layers) {
        n_layers++;
        n_same += std::all_of(affine.first.begin(), affine.first.end(), [](float x) { return x != 0.0f; });
    }
    check(2 * n_same > n_layers, "the first key is the same in all heads of " + std::to_string(n_same) + " of " +
                                     std::to_string(n_layers) + " layers");
}

//
// files
//

static std::vector<floats *> arrays_of(llama_kv_moments & layer) {
    return {
        &layer.k_mean, &layer.k_sq, &layer.k_cross, &layer.q_sq, &layer.q_cross, &layer.k_first, &layer.k_first_sq
    };
}

static std::vector<char> read_bytes(const fs::path & path) {
    std::ifstream f(path, std::ios::binary);
    return std::vector<char>(std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>());
}

static void write_bytes(const fs::path & path, const std::vector<char> & bytes) {
    std::ofstream f(path, std::ios::binary);
    f.write(bytes.data(), (std::streamsize) bytes.size());
}

static void refused(llama_model * model, const fs::path & path, const std::string & reason, const std::string & what) {
    const auto ctx = context_of(model, path.string(), GGML_TYPE_F16);
    check(!ctx && log_text.find(reason) != std::string::npos, what + " is refused: " + reason);
}

static void test_files(llama_model *                model,
                       const fs::path &             folder,
                       const llama_kv_calibration & good,
                       const fs::path &             path) {
    const auto bad = folder / "bad.gguf";

    refused(model, folder / "none.gguf", "none.gguf", "a file that is not there");
    refused(model, folder, "not a file", "a folder");

    const auto bytes   = read_bytes(path);
    int        n_taken = 0;
    for (size_t n = 0; n < bytes.size(); n += 9973) {
        write_bytes(bad, std::vector<char>(bytes.begin(), bytes.begin() + (long) n));
        n_taken += context_of(model, bad.string(), GGML_TYPE_F16) != nullptr;
    }
    check(n_taken == 0, "a file cut anywhere is refused");

    const auto changed = [&](const char * reason, const char * what, void (*change)(llama_kv_calibration &)) {
        llama_kv_calibration copy = good;
        change(copy);
        llama_kv_calibration_write(copy, bad.string());
        refused(model, bad, reason, what);
    };
    changed("another model", "a file of another model", [](llama_kv_calibration & c) { c.model = "0123456789abcdef"; });
    changed("cannot be", "NaN", [](llama_kv_calibration & c) {
        c.layers.begin()->second.k_mean[3] = std::numeric_limits<float>::quiet_NaN();
    });
    changed("cannot be", "a negative square",
            [](llama_kv_calibration & c) { c.layers.begin()->second.q_sq[3] = -1.0f; });
    changed("correlations", "correlations of too few values",
            [](llama_kv_calibration & c) { c.layers.begin()->second.q_corr.pop_back(); });
    changed("cannot be", "a correlation above one",
            [](llama_kv_calibration & c) { c.layers.begin()->second.q_corr[5] = -32768; });
    changed("values", "an array that is too short",
            [](llama_kv_calibration & c) { c.layers.begin()->second.k_sq.pop_back(); });
    changed("heads of", "a layer of another shape", [](llama_kv_calibration & c) {
        auto & layer = c.layers.begin()->second;
        layer.n_head_kv *= 2;
        for (auto * values : arrays_of(layer)) {
            values->resize(2 * values->size(), 1.0f);
        }
        layer.q_corr.resize(2 * layer.q_corr.size());
    });
    changed("heads of", "a layer that the model does not have",
            [](llama_kv_calibration & c) { c.layers[LLAMA_MAX_LAYERS - 1] = c.layers.begin()->second; });
    changed("list of layers", "a file without layers", [](llama_kv_calibration & c) { c.layers.clear(); });

    llama_kv_calibration zeros = good;
    for (auto & [il, layer] : zeros.layers) {
        for (auto * values : arrays_of(layer)) {
            std::fill(values->begin(), values->end(), 0.0f);
        }
    }
    llama_kv_calibration_write(zeros, bad.string());
    const auto ctx = context_of(model, bad.string(), GGML_TYPE_F16);
    const auto out = logits_of(ctx.get(), { 1, 2, 3 });
    check(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }) && !out.empty(),
          "moments of zero make no value that is not finite");
}

//
// attention
//

static void test_attention(llama_model * model, const std::string & path, const tokens & text) {
    const auto logits = [&](const std::string & how, ggml_type type, bool flash_attn) {
        return logits_of_sequences(context_of(model, how, type, flash_attn), text);
    };
    // quantized weights make much of the least difference: f16 says how much
    const auto   exact    = logits("off", GGML_TYPE_F32, false);
    const double rounding = nmse(exact, logits("off", GGML_TYPE_F16, true));
    at_most(nmse(exact, logits(path, GGML_TYPE_F32, false)), 1.5 * rounding,
            "an exact cache stays exact but for rounding");
    at_most(nmse(exact, logits(path, GGML_TYPE_F16, true)), 1.5 * rounding, "an f16 cache stays as good");

    for (const ggml_type type : { GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_TURBO4, GGML_TYPE_TURBO2 }) {
        for (const char * rotated : { "0", "1" }) {
            test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", rotated);
            const double plain = nmse(exact, logits("off", type, true));
            // of q8_0 with that rotation as little is lost as of f16, calibrated or not: that is not resolved here
            const double most  = type != GGML_TYPE_Q8_0 ? 0.9 : *rotated == '1' ? 1.15 : 1.0;
            at_most(nmse(exact, logits(path, type, true)), most * plain,
                    name_of(type, rotated) + (most > 1.0 ? " loses no more" : " gains"));
        }
    }
    test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", "0");
}

// a part in the middle is forgotten and what follows moves up
static floats after_shift(llama_context * ctx, const tokens & text) {
    const auto mem = llama_get_memory(ctx);
    logits_of(ctx, text);
    llama_memory_seq_rm(mem, 0, 8, 24);
    llama_memory_seq_add(mem, 0, 24, -1, -16);

    return logits_of(ctx, { text.begin(), text.begin() + 16 });
}

static void test_shift(llama_model * model, const std::string & path, const tokens & text) {
    const auto shifted = [&](const std::string & how, ggml_type type, bool flash_attn) {
        return after_shift(context_of(model, how, type, flash_attn).get(), text);
    };
    const auto   exact    = shifted("off", GGML_TYPE_F32, false);
    const double rounding = nmse(exact, shifted("off", GGML_TYPE_F16, true));
    at_most(nmse(exact, shifted(path, GGML_TYPE_F32, false)), 1.5 * rounding, "an exact cache can be shifted");
    at_most(nmse(exact, shifted(path, GGML_TYPE_F16, true)), 2.0 * rounding, "an f16 cache can be shifted");
    at_most(nmse(exact, shifted(path, GGML_TYPE_TURBO4, true)),
            0.9 * nmse(exact, shifted("off", GGML_TYPE_TURBO4, true)), "a turbo4 cache can be shifted and gains");
}

static void test_states(llama_model * model, const std::string & path, const std::string & other, const tokens & text) {
    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_TURBO4 }) {
        const std::string    name = ggml_type_name(type);
        std::vector<uint8_t> state;
        floats               next;
        {
            const auto ctx = context_of(model, path, type);
            logits_of(ctx.get(), text);
            state.resize(llama_state_seq_get_size(ctx.get(), 0));
            llama_state_seq_get_data(ctx.get(), state.data(), state.size(), 0);
            next = logits_of(ctx.get(), { 1, 2, 3 });
        }
        const auto restored = [&](const std::string & how) {
            auto ctx = context_of(model, how, type);
            return llama_state_seq_set_data(ctx.get(), state.data(), state.size(), 0) > 0 ?
                       logits_of(ctx.get(), { 1, 2, 3 }) :
                       floats();
        };
        check(restored(path) == next, name + ": a state is restored under its calibration");
        check(restored("off").empty() && log_text.find("--kv-calibration") != std::string::npos,
              name + ": a calibrated state is refused without");
        check(restored(other).empty() && log_text.find("--kv-calibration") != std::string::npos,
              name + ": a calibrated state is refused under another");

        const auto plain = context_of(model, "off", type);
        logits_of(plain.get(), text);
        state.resize(llama_state_seq_get_size(plain.get(), 0));
        llama_state_seq_get_data(plain.get(), state.data(), state.size(), 0);
        check(restored(path).empty() && log_text.find("--kv-calibration off") != std::string::npos,
              name + ": a state without calibration is refused under one");
    }
}

static void test_auto(llama_model * model, const fs::path & folder) {
    test_set_env("LLAMA_CACHE", (folder / "cache").string());

    std::string first;
    for (const char * expected : { "measured on", "kept in", "cache" }) {
        const auto ctx = context_of(model, "auto", GGML_TYPE_TURBO4);
        first          = first.empty() ? log_text : first;
        check(ctx && first.find(expected) != std::string::npos, std::string("auto says: ") + expected);
    }
    std::vector<std::string> kept;
    for (const auto & entry : fs::recursive_directory_iterator(folder / "cache")) {
        if (entry.is_regular_file()) {
            kept.push_back(entry.path().string());
        }
    }
    check(kept.size() == 1, "auto keeps one file, and nothing beside it");

    const auto taken = [&] {
        model->kv_calib.calibration = nullptr;
        context_of(model, "auto", GGML_TYPE_TURBO4);
        return log_text.find("measured") == std::string::npos && log_text.find("on, K turbo4") != std::string::npos;
    };
    check(taken(), "auto takes what was kept");

    auto older = llama_kv_calibration_read(kept.at(0));
    older.text = "0123456789abcdef";
    llama_kv_calibration_write(older, kept.at(0));
    check(!taken() && log_text.find("of another version") != std::string::npos, "auto measures another text again");
    check(taken(), "auto keeps that instead");

    model->kv_calib.calibration = nullptr;
    write_bytes(folder / "file", { 'x' });
    test_set_env("LLAMA_CACHE", (folder / "file").string());
    check(context_of(model, "auto", GGML_TYPE_TURBO4) && log_text.find("not kept") != std::string::npos,
          "auto works where nothing can be written");

    context_of(model, "auto", GGML_TYPE_F16);
    check(log_text.find("off, K f16 (not quantized)") != std::string::npos, "auto leaves f16 alone");
}

static void test_embedded(llama_model * model, const fs::path & folder, const std::string & path) {
    const auto source = model->kv_calib.path;
    const auto copy   = (folder / "copy.gguf").string();
    const auto again  = (folder / "again.gguf").string();
    check(llama_kv_calibration_embed(source.c_str(), path.c_str(), copy.c_str()) &&
              llama_kv_calibration_embed(copy.c_str(), path.c_str(), again.c_str()) &&
              read_bytes(copy) == read_bytes(again),
          "a calibration is embedded, also in place of another");
    check(!llama_kv_calibration_embed(source.c_str(), path.c_str(), source.c_str()),
          "a model is not overwritten by its copy");

    auto strange  = llama_kv_calibration_read(path);
    strange.model = "0123456789abcdef";
    llama_kv_calibration_write(strange, (folder / "strange.gguf").string());
    check(!llama_kv_calibration_embed(source.c_str(), (folder / "strange.gguf").string().c_str(), again.c_str()),
          "the calibration of another model is not embedded");

    const llama_model_ptr embedded(llama_model_load_from_file(copy.c_str(), llama_model_default_params()));
    const auto            ctx = context_of(embedded.get(), "auto", GGML_TYPE_TURBO4);
    check(ctx && log_text.find("embedded in " + copy) != std::string::npos, "auto takes what is embedded");
    fs::remove(copy);
    fs::remove(again);
}

static void test_described(llama_model * model, const std::string & path) {
    struct seen {
        size_t n_heads  = 0;
        size_t n_better = 0;
        bool   finite   = true;
    } all;

    const auto add = [](const llama_kv_calibration_head * head, void * user_data) {
        auto & all = *(seen *) user_data;
        all.n_heads++;
        all.n_better += head->gain > 1.0f;
        for (uint32_t i = 0; i < head->n_values; ++i) {
            all.finite = all.finite && std::isfinite(head->before[i]) && std::isfinite(head->after[i]);
        }
    };
    const bool done = llama_kv_calibration_describe(model, params_of(GGML_TYPE_F16, true), path.c_str(), add, &all);
    check(done && all.finite && all.n_heads > 0 && all.n_better == all.n_heads, "every head is told of, and gains");
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL\n", argv[0]);
        return 2;
    }
    llama_backend_init();
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN ||
                std::string(text).rfind("kv_cal", 0) == 0) {
                log_text += text;
            }
        },
        nullptr);
    test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", "0");

    const auto folder = fs::temp_directory_path() / ("test-kv-calibration-" + std::to_string(ggml_time_us()));
    fs::create_directories(folder);

    // the model alone: a calibration that stands beside it would be taken
    const auto      alone = folder / "model.gguf";
    std::error_code failed;
    fs::create_symlink(fs::absolute(argv[1]), alone, failed);
    if (failed) {
        fs::copy_file(argv[1], alone);
    }
    const llama_model_ptr model(llama_model_load_from_file(alone.string().c_str(), llama_model_default_params()));
    if (!model) {
        fprintf(stderr, "%s cannot be loaded: %s\n", argv[1], log_text.c_str());
        return 2;
    }

    n_vocab     = (size_t) model->vocab.n_tokens();
    tokens text = model->vocab.tokenize(TEXT, true, false);
    text.resize(96);

    tokens     other_text(text.rbegin(), text.rend());
    const auto path  = folder / "good.gguf";
    const auto other = folder / "other.gguf";
    const auto make  = [&](const tokens & measured, const fs::path & to) {
        return llama_kv_calibration_create(model.get(), params_of(GGML_TYPE_F16, true), measured.data(),
                                           measured.size(), 48, to.string().c_str(), nullptr, nullptr);
    };
    check(make(text, path) && make(other_text, other), "a calibration is measured and written");
    check(!make({ 1 }, folder / "short.gguf"), "a text that is too short is refused");

    const auto calibration = llama_kv_calibration_read(path.string());
    test_average(model.get(), calibration);
    test_queries(model.get(), calibration);
    test_first(model.get(), calibration);
    const tokens judged = model->vocab.tokenize(JUDGED, true, false);
    test_attention(model.get(), path.string(), judged);
    test_scores(model.get(), folder, calibration, judged);
    test_shift(model.get(), path.string(), text);
    test_states(model.get(), path.string(), other.string(), text);
    test_described(model.get(), path.string());
    test_embedded(model.get(), folder, path.string());
    test_auto(model.get(), folder);
    test_files(model.get(), folder, calibration, path);

    fs::remove_all(folder);
    printf("%d of %d checks failed\n", n_failed, n_tests);

    return n_failed == 0 ? 0 : 1;
}
