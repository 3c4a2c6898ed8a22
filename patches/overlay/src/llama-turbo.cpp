#include "llama-turbo.h"

#include "ggml-backend.h"
#include "llama-hparams.h"
#include "llama-impl.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

//
// gate
//

static bool parse_int(const std::string & text, long & value) {
    char * end = nullptr;
    errno      = 0;
    value      = std::strtol(text.c_str(), &end, 10);
    return !text.empty() && !std::isspace((unsigned char) text[0]) && *end == '\0' && errno == 0;
}

// unset and empty are 0
static long env_int(const std::string & name, bool words) {
    const char * env  = std::getenv(name.c_str());
    std::string  text = env ? env : "";
    if (text.empty()) {
        return 0;
    }

    long value = 0;
    if (parse_int(text, value)) {
        return value;
    }

    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char * word : { "true", "on", "yes" }) {
        if (words && text == word) {
            return 1;
        }
    }
    for (const char * word : { "false", "off", "no" }) {
        if (words && text == word) {
            return 0;
        }
    }

    throw std::runtime_error(format("%s='%s' is neither an integer%s", name.c_str(), env,
                                    words ? " nor one of true, false, on, off, yes, no" : ""));
}

static uint32_t env_nrot(const std::string & name, int64_t n_embd_head, bool on) {
    const long nrot = env_int(name, false);
    if (nrot == 0) {
        return 0;
    }
    if (nrot < 64 || (nrot & (nrot - 1)) != 0) {
        throw std::runtime_error(format("%s=%ld is not a power of two of at least 64", name.c_str(), nrot));
    }
    if (on && n_embd_head % nrot != 0) {
        throw std::runtime_error(
            format("%s=%ld does not divide the head size %d", name.c_str(), nrot, (int) n_embd_head));
    }
    return nrot;
}

llama_attn_rot_side llama_attn_rot_gate(char side, ggml_type type, int64_t n_embd_head) {
    const std::string prefix = std::string("LLAMA_ATTN_ROT_") + (char) std::toupper(side);

    // every variable is read and checked, also those that turn out not to matter
    const bool disable = env_int("LLAMA_ATTN_ROT_DISABLE", true) != 0;
    const bool wanted  = env_int(prefix + "_OVERRIDE", true) != 0;

    llama_attn_rot_side res;

    if (disable) {
        res.reason = "blocked by LLAMA_ATTN_ROT_DISABLE";
    } else if (!wanted) {
        res.reason = "default";
    } else if (!ggml_is_quantized(type)) {
        res.reason =
            format("%s_OVERRIDE ignored: cache type %s is not quantized", prefix.c_str(), ggml_type_name(type));
    } else if (n_embd_head == 0) {
        res.reason = format("%s_OVERRIDE ignored: this cache does not store that side", prefix.c_str());
    } else if (n_embd_head < 0) {
        res.reason = format("%s_OVERRIDE ignored: the head size differs between layers", prefix.c_str());
    } else if (n_embd_head % 64 != 0) {
        res.reason =
            format("%s_OVERRIDE ignored: head size %d is not a multiple of 64", prefix.c_str(), (int) n_embd_head);
    } else {
        res.on     = true;
        res.reason = prefix + "_OVERRIDE";
    }

    res.nrot = env_nrot(prefix + "_NROT", n_embd_head, res.on);

    return res;
}

uint32_t llama_attn_rot_size(char side, ggml_type type, const llama_attn_rot_side & gate, uint32_t n_rot) {
    if (gate.on && gate.nrot > 0 && n_rot > 0) {
        n_rot = gate.nrot;
    }

    const char * reason = gate.on == (n_rot > 0) ? gate.reason.c_str() :
                          gate.on                ? "ignored: not for this model's heads" :
                                                   "required by the indexer";

    if (n_rot > 0) {
        LLAMA_LOG_INFO("%s: attn_rot_%c: on, size %u, type %s (%s)\n", "llama_kv_cache", side, n_rot,
                       ggml_type_name(type), reason);
    } else {
        LLAMA_LOG_INFO("%s: attn_rot_%c: off, type %s (%s)\n", "llama_kv_cache", side, ggml_type_name(type), reason);
    }

    return n_rot;
}

//
// rotation
//

// orthonormal Walsh-Hadamard matrix, its own inverse
static std::vector<float> hadamard_of(int64_t n) {
    std::vector<float> res(n * n);

    const float scale = 1.0f / std::sqrt((float) n);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            bool odd = false;
            for (int64_t bits = i & j; bits; bits &= bits - 1) {
                odd = !odd;
            }
            res[i * n + j] = odd ? -scale : scale;
        }
    }

    return res;
}

static std::vector<float> signs_of(int64_t n_embd_head, int64_t width) {
    std::vector<float> res(n_embd_head);

    for (int64_t i = 0; i < n_embd_head; i++) {
        res[i] = ggml_turbo_sign(i % width);
    }

    return res;
}

static void log_rotation(char side, ggml_type type, int64_t width) {
    if (width > 0) {
        LLAMA_LOG_INFO("llama_kv_cache: turbo_rot_%c: on, size %d, type %s\n", side, (int) width, ggml_type_name(type));
    } else {
        LLAMA_LOG_INFO("llama_kv_cache: turbo_rot_%c: off, type %s\n", side, ggml_type_name(type));
    }
}

llama_kv_rot llama_turbo_rots::get(const llama_hparams &      hparams,
                                   uint32_t                   il,
                                   ggml_type                  type_k,
                                   ggml_type                  type_v,
                                   ggml_backend_buffer_type_t buft) {
    // with MLA the attention reads V from the head of K, so the rotation has to fit both
    const bool    is_mla = hparams.is_mla();
    const int64_t head_k = hparams.n_embd_head_k(il);
    const int64_t head_v = hparams.n_embd_head_v(il);

    llama_kv_rot res;
    if (!hparams.is_indexer_cache && ggml_is_turbo(type_k)) {
        res.k = make(buft, head_k,
                     is_mla ? std::min<int64_t>(64, ggml_turbo_rot_width(head_k)) : ggml_turbo_rot_width(head_k),
                     hparams.no_alloc);
    }
    if (is_mla) {
        res.v = res.k;
    } else if (!hparams.is_indexer_cache && ggml_is_turbo(type_v)) {
        res.v = make(buft, head_v, ggml_turbo_rot_width(head_v), hparams.no_alloc);
    }

    if (!logged) {
        log_rotation('k', type_k, res.k.width());
        log_rotation('v', type_v, is_mla ? 0 : res.v.width());
        logged = true;
    }

    return res;
}

llama_turbo_rot llama_turbo_rots::make(ggml_backend_buffer_type_t buft,
                                       int64_t                    n_embd_head,
                                       int64_t                    width,
                                       bool                       no_alloc) {
    llama_turbo_rot & res = rots[{ buft, n_embd_head, width }];
    if (res.signs) {
        return res;
    }

    ggml_init_params params = {
        /*.mem_size   =*/2 * ggml_tensor_overhead(),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };

    ggml_context_ptr ctx{ ggml_init(params) };

    ggml_tensor * signs    = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_F32, n_embd_head);
    ggml_tensor * hadamard = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, width, width);
    ggml_format_name(signs, "turbo_signs_%d", (int) n_embd_head);
    ggml_format_name(hadamard, "turbo_hadamard_%d", (int) width);

    ggml_backend_buffer_t buf =
        no_alloc ? ggml_backend_buft_alloc_buffer(buft, 0) : ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
    if (!buf) {
        throw std::runtime_error("failed to allocate buffer for the turbo rotation");
    }

    if (no_alloc) {
        // as for the cache itself: keeps the scheduler from allocating them
        signs->buffer    = buf;
        hadamard->buffer = buf;
    } else {
        ggml_backend_tensor_set(signs, signs_of(n_embd_head, width).data(), 0, ggml_nbytes(signs));
        ggml_backend_tensor_set(hadamard, hadamard_of(width).data(), 0, ggml_nbytes(hadamard));
    }

    ctxs_bufs.emplace_back(std::move(ctx), buf);

    res.signs    = signs;
    res.hadamard = hadamard;

    return res;
}

// signs for rows of n values: a prefix of a head, or a head, which ggml_mul repeats
static ggml_tensor * signs_for(ggml_context * ctx, const llama_turbo_rot & rot, int64_t n) {
    GGML_ASSERT(n % rot.width() == 0 && (n < rot.signs->ne[0] || n % rot.signs->ne[0] == 0));

    return n < rot.signs->ne[0] ? ggml_view_1d(ctx, rot.signs, n, 0) : rot.signs;
}

ggml_tensor * llama_turbo_apply(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    if (!rot.signs) {
        return cur;
    }

    cur = ggml_mul(ctx, cur, signs_for(ctx, rot, cur->ne[0]));

    return llama_mul_mat_hadamard(ctx, cur, rot.hadamard);
}

ggml_tensor * llama_turbo_undo(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    if (!rot.signs) {
        return cur;
    }

    cur = llama_mul_mat_hadamard(ctx, cur, rot.hadamard);

    return ggml_mul(ctx, cur, signs_for(ctx, rot, cur->ne[0]));
}

void llama_kv_rot_layer::show() const {
    GGML_ASSERT(!owed && "rows of a turbo cache were read without their rotation");
    owed = rot.k.signs || rot.v.signs;
}

llama_kv_rot llama_kv_rot_layer::take() const {
    owed = false;
    return rot;
}

llama_kv_rot llama_kv_rot_of_both(const llama_kv_rot & a, const llama_kv_rot & b) {
    GGML_ASSERT(a.k.width() == b.k.width() && a.v.width() == b.v.width());
    return a;
}

void llama_turbo_require(const ggml_tensor * k, const ggml_tensor * v, const llama_kv_rot & rot) {
    GGML_ASSERT((!ggml_is_turbo(k->type) || rot.k.signs) && "rows of a turbo cache without their rotation");
    GGML_ASSERT((!ggml_is_turbo(v->type) || rot.v.signs) && "rows of a turbo cache without their rotation");
}

ggml_tensor * llama_turbo_rope_rows(ggml_context *                                      ctx,
                                    ggml_tensor *                                       rows,
                                    ggml_tensor *                                       rot,
                                    const llama_turbo_rot &                             turbo,
                                    int64_t                                             n_nope,
                                    const std::function<ggml_tensor *(ggml_tensor *)> & rope) {
    ggml_tensor * cur = ggml_cast(ctx, rows, GGML_TYPE_F32);

    cur = llama_turbo_undo(ctx, cur, turbo);
    cur = rot ? llama_mul_mat_hadamard(ctx, cur, rot) : cur;

    if (n_nope > 0) {
        const auto part = [&](int64_t i0, int64_t i1) {
            return ggml_view_3d(ctx, cur, i1 - i0, cur->ne[1], cur->ne[2], cur->nb[1], cur->nb[2], i0 * cur->nb[0]);
        };
        cur = ggml_concat(ctx, part(0, n_nope), rope(part(n_nope, cur->ne[0])), 0);
    } else {
        cur = rope(cur);
    }

    cur = rot ? llama_mul_mat_hadamard(ctx, cur, rot) : cur;

    return llama_turbo_apply(ctx, cur, turbo);
}
