#include "llama-kv-calib.h"

#include "llama-context.h"
#include "llama-cparams.h"
#include "llama-cpp.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-calib-file.h"
#include "llama-kv-calibration.h"
#include "llama-kv-moments.h"
#include "llama-model.h"
#include "llama-vocab.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace fs = std::filesystem;

// what is measured if there is nothing else: prose, code, figures, a dialogue and some other languages, so that no kind
// of text stands alone
static const char * const LLAMA_KV_BUILT_IN_TEXT =
#include "llama-kv-calib-text.inc"
    ;
static const size_t LLAMA_KV_BUILT_IN_TOKENS = 448;

//
// how
//

static std::mutex how_mutex;

struct kv_calib_how {
    std::string value = "off";
    bool        told  = false;  // by the environment or the program
};

static kv_calib_how & how_now() {
    static kv_calib_how how = [] {
        const char * env = std::getenv("LLAMA_ARG_KV_CALIBRATION");
        return env && *env ? kv_calib_how{ env, true } : kv_calib_how();
    }();

    return how;
}

bool llama_kv_calibration_set(const char * how) {
    if (!how || !*how) {
        return false;
    }

    const std::lock_guard<std::mutex> lock(how_mutex);
    how_now() = { how, true };

    return true;
}

bool llama_kv_calibration_set_default(const char * how) {
    if (!how || !*how) {
        return false;
    }

    const std::lock_guard<std::mutex> lock(how_mutex);
    if (!how_now().told) {
        how_now().value = how;
    }

    return true;
}

const char * llama_kv_calibration_get(void) {
    static thread_local std::string copy;

    const std::lock_guard<std::mutex> lock(how_mutex);
    copy = how_now().value;

    return copy.c_str();
}

//
// what this thread creates
//

llama_kv_calib_scope::llama_kv_calib_scope(const llama_model & model, const llama_cparams & cparams, ggml_type type_k) {
    const llama_kv_calib & calib = model.kv_calib;
    if (llama_kv_calib_observed()) {
        return;
    }
    if (!calib.calibration) {
        LLAMA_LOG_INFO("kv_calibration: off, K %s (%s)\n", ggml_type_name(type_k), calib.source.c_str());
        return;
    }

    affines = std::make_unique<llama_kv_affines>(llama_kv_affines_at(model, cparams, *calib.calibration));
    LLAMA_LOG_INFO("kv_calibration: on, K %s, %zu layers, hash %016llx, for %u positions (%s)\n",
                   ggml_type_name(type_k), affines->layers.size(), (unsigned long long) affines->hash,
                   cparams.n_ctx_seq, calib.source.c_str());
    llama_kv_calib_use(affines.get());
}

llama_kv_calib_scope::~llama_kv_calib_scope() {
    llama_kv_calib_use(nullptr);
}

//
// where from
//

static fs::path cache_directory() {
    const auto env = [](const char * name) -> fs::path {
        const char * value = std::getenv(name);
        return value && *value ? fs::u8path(value) : fs::path();
    };

    fs::path res = env("LLAMA_CACHE");
    if (!res.empty()) {
        return res;
    }
#if defined(_WIN32)
    res = env("LOCALAPPDATA");
#elif defined(__APPLE__)
    res = env("HOME");
    res = res.empty() ? res : res / "Library" / "Caches";
#else
    res = env("XDG_CACHE_HOME");
    if (res.empty() && !env("HOME").empty()) {
        res = env("HOME") / ".cache";
    }
#endif
    return res.empty() ? res : res / "llama.cpp";
}

static std::vector<llama_token> built_in_tokens(const llama_model & model) {
    if (model.vocab.get_type() == LLAMA_VOCAB_TYPE_NONE) {
        throw std::runtime_error("the model has no vocabulary");
    }

    auto res = model.vocab.tokenize(LLAMA_KV_BUILT_IN_TEXT, true, false);
    if (res.size() > LLAMA_KV_BUILT_IN_TOKENS) {
        res.resize(LLAMA_KV_BUILT_IN_TOKENS);
    }

    return res;
}

static std::shared_ptr<const llama_kv_calibration> share(llama_kv_calibration && calibration) {
    return std::make_shared<const llama_kv_calibration>(std::move(calibration));
}

// measured now, and kept in kept if that is not empty
static void measure(llama_model &                model,
                    const llama_context_params & params,
                    const fs::path &             kept,
                    const std::string &          fingerprint) {
    llama_kv_calib & calib = model.kv_calib;

    const int64_t t_start = ggml_time_us();
    const auto    tokens  = built_in_tokens(model);
    auto          res     = llama_kv_calibration_measure(model, params, tokens, (uint32_t) tokens.size(), nullptr);
    res.model             = fingerprint;
    calib.source =
        format("measured on %zu tokens in %.2f s", tokens.size(), 1e-6 * (double) (ggml_time_us() - t_start));
    if (!kept.empty()) {
        try {
            fs::create_directories(kept.parent_path());
            llama_kv_calibration_write(res, kept.u8string());
            calib.source += ", kept in " + kept.u8string();
        } catch (const std::exception & err) {
            calib.source += format(", not kept: %s", err.what());
        }
    }
    calib.calibration = share(std::move(res));
}

static void find_auto(llama_model & model, const llama_context_params & params) {
    llama_kv_calib & calib = model.kv_calib;

    const std::string & path        = calib.path;
    const auto          file        = path.empty() ? nullptr : std::make_unique<llama_kv_model_file>(path);
    const std::string   fingerprint = file ? file->fingerprint() : "";
    const auto          beside      = fs::u8path(path).replace_extension(".kvcal.gguf");
    const auto          folder      = cache_directory();
    const auto kept = path.empty() || folder.empty() ? fs::path() : folder / "kv-calibration" / (fingerprint + ".gguf");

    std::vector<std::pair<fs::path, const char *>> places;
    if (file && file->embeds()) {
        places.emplace_back(fs::u8path(path), "embedded in ");
    }
    if (!path.empty() && fs::exists(beside)) {
        places.emplace_back(beside, "");
    }
    if (!kept.empty() && fs::exists(kept)) {
        places.emplace_back(kept, "");
    }
    for (const auto & [place, prefix] : places) {
        try {
            auto found = llama_kv_calibration_read(place.u8string());
            if (*prefix == '\0' && found.model != fingerprint) {
                throw std::runtime_error(format("%s is of another model", place.u8string().c_str()));
            }
            if (place == kept && found.text != llama_kv_text_hash(built_in_tokens(model))) {
                throw std::runtime_error(format("%s is of another version", place.u8string().c_str()));
            }
            calib.calibration = share(std::move(found));
            calib.source      = prefix + place.u8string();
            return;
        } catch (const std::exception & err) {
            LLAMA_LOG_WARN("kv_calibration: not used: %s\n", err.what());
        }
    }
    measure(model, params, kept, fingerprint);
}

// the model that a named file has served in this process: others are then served as with auto
static std::string served;

// false if the file is for the other model of this process
static bool find_in(llama_kv_calib & calib, const std::string & path) {
    auto              found       = llama_kv_calibration_read(path);
    const std::string fingerprint = calib.path.empty() ? "" : llama_kv_model_file(calib.path).fingerprint();
    if (found.model != fingerprint) {
        if (!served.empty() && served != fingerprint) {
            return false;
        }
        throw std::runtime_error(format("%s is of another model than %s", path.c_str(),
                                        calib.path.empty() ? "this one" : calib.path.c_str()));
    }
    served            = fingerprint;
    calib.calibration = share(std::move(found));
    calib.source      = path;

    return true;
}

bool llama_kv_calib_find(llama_model & model, const llama_context_params & params) {
    llama_kv_calib & calib = model.kv_calib;
    if (llama_kv_calib_observed()) {
        return true;
    }

    const std::string how   = llama_kv_calibration_get();
    const bool        named = how != "off" && how != "auto";
    const auto        none  = [&](const char * why) {
        calib = { calib.path, nullptr, why, "" };
        return true;
    };
    if (how == "off") {
        return none("asked for");
    }
    if (calib.fixed) {
        return true;
    }
    if (!named && !ggml_is_quantized(params.type_k)) {
        return none("not quantized");
    }
    if (model.hparams.no_alloc || model.hparams.vocab_only) {
        return none("nothing is computed");
    }
    if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        if (named) {
            LLAMA_LOG_ERROR("kv_calibration: %s cannot be used with --split-mode tensor\n", how.c_str());
            return false;
        }
        return none("not with --split-mode tensor");
    }
    if (calib.calibration && !named && calib.how == how) {
        return true;
    }

    try {
        calib.calibration = nullptr;
        if (!named || !find_in(calib, how)) {
            find_auto(model, params);
        }
        calib.how = how;
    } catch (const std::exception & err) {
        if (named) {
            LLAMA_LOG_ERROR("kv_calibration: %s\n", err.what());
            return false;
        }
        LLAMA_LOG_WARN("kv_calibration: %s\n", err.what());
        return none("not measured");
    }

    return true;
}

//
// what is made on purpose
//

static bool logged(const std::function<void()> & work) {
    try {
        work();
        return true;
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("kv_calibration: %s\n", err.what());
        return false;
    }
}

bool llama_kv_calibration_create(llama_model *           model,
                                 llama_context_params    params,
                                 const llama_token *     tokens,
                                 size_t                  n_tokens,
                                 uint32_t                n_ctx,
                                 const char *            path,
                                 llama_progress_callback progress,
                                 void *                  progress_user_data) {
    return logged([&] {
        const std::vector<llama_token> text(tokens, tokens + n_tokens);

        auto calibration = llama_kv_calibration_measure(
            *model, params, text, n_ctx, [&](float done) { return !progress || progress(done, progress_user_data); });
        calibration.model = llama_kv_model_file(model->kv_calib.path).fingerprint();
        llama_kv_calibration_write(calibration, path);
    });
}

bool llama_kv_calibration_describe(llama_model *                      model,
                                   llama_context_params               params,
                                   const char *                       path,
                                   llama_kv_calibration_head_callback callback,
                                   void *                             user_data) {
    return logged([&] {
        const auto calibration = llama_kv_calibration_read(path);
        if (calibration.model != llama_kv_model_file(model->kv_calib.path).fingerprint()) {
            throw std::runtime_error(format("%s is of another model", path));
        }

        const llama_kv_observing here;
        const llama_context_ptr  ctx(llama_init_from_model(model, params));
        if (!ctx) {
            throw std::runtime_error("no context of that size");
        }
        llama_kv_affines_at(*model, ctx->get_cparams(), calibration,
                            [&](const llama_kv_calibration_head & head) { callback(&head, user_data); });
    });
}

bool llama_kv_calibration_origin(const char * path, char model[17], char text[17], uint32_t * n_tokens) {
    return logged([&] {
        const auto calibration = llama_kv_calibration_read(path);
        snprintf(model, 17, "%s", calibration.model.c_str());
        snprintf(text, 17, "%s", calibration.text.c_str());
        *n_tokens = calibration.n_tokens;
    });
}

bool llama_kv_calibration_embed(const char * model, const char * calibration, const char * copy) {
    return logged([&] { llama_kv_model_file(model).copy_with(llama_kv_calibration_read(calibration), copy); });
}
