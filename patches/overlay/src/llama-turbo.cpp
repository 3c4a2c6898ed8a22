#include "llama-turbo.h"

#include "ggml-backend.h"
#include "ggml-turbo.h"
#include "llama-impl.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
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

static int64_t env_nrot(const std::string & name, int64_t n_embd_head, bool on) {
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

void llama_attn_rot_log(char side, ggml_type type, const llama_attn_rot_side & rot, int64_t nrot) {
    if (rot.on) {
        LLAMA_LOG_INFO("%s: attn_rot_%c: on, size %d, type %s (%s)\n", "llama_kv_cache", side, (int) nrot,
                       ggml_type_name(type), rot.reason.c_str());
    } else {
        LLAMA_LOG_INFO("%s: attn_rot_%c: off, type %s (%s)\n", "llama_kv_cache", side, ggml_type_name(type),
                       rot.reason.c_str());
    }
}

//
// rotation
//

llama_turbo_rot::pair llama_turbo_rot::get(ggml_backend_buffer_type_t buft, int64_t n, bool no_alloc) {
    const auto it = pairs.find({ buft, n });
    if (it != pairs.end()) {
        return it->second;
    }

    ggml_init_params params = {
        /*.mem_size   =*/2 * ggml_tensor_overhead(),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };

    ggml_context_ptr ctx{ ggml_init(params) };

    pair res;
    res.fwd = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, n);
    res.inv = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, n);
    ggml_format_name(res.fwd, "turbo_rot_%d", (int) n);
    ggml_format_name(res.inv, "turbo_rot_%d_inv", (int) n);

    ggml_backend_buffer_t buf =
        no_alloc ? ggml_backend_buft_alloc_buffer(buft, 0) : ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
    if (!buf) {
        throw std::runtime_error("failed to allocate buffer for the turbo rotation");
    }

    for (ggml_tensor * t : { res.fwd, res.inv }) {
        if (no_alloc) {
            t->buffer = buf;  // as for the cache itself: keeps the scheduler from allocating it
            continue;
        }
        std::vector<float> data(n * n);
        ggml_turbo_rot_fill(data.data(), n, t == res.inv);
        ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
    }

    ctxs_bufs.emplace_back(std::move(ctx), buf);

    return pairs[{ buft, n }] = res;
}

static ggml_tensor * turbo_mul_mat(ggml_context * ctx, ggml_tensor * cur, ggml_tensor * rot, ggml_op_hint hint) {
    if (!rot) {
        return cur;
    }

    const int64_t n = rot->ne[0];

    GGML_ASSERT(cur->ne[0] % n == 0);

    ggml_tensor * res = ggml_is_contiguous(cur) ? cur : ggml_cont(ctx, cur);

    res = ggml_reshape_2d(ctx, res, n, ggml_nelements(res) / n);
    res = ggml_mul_mat(ctx, rot, res);
    ggml_mul_mat_set_hint(res, hint);

    return ggml_reshape_4d(ctx, res, cur->ne[0], cur->ne[1], cur->ne[2], cur->ne[3]);
}

ggml_tensor * llama_turbo_apply(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot::pair & rot) {
    return turbo_mul_mat(ctx, cur, rot.fwd, GGML_HINT_SRC0_IS_TURBO_ROT);
}

ggml_tensor * llama_turbo_undo(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot::pair & rot) {
    return turbo_mul_mat(ctx, cur, rot.inv, GGML_HINT_SRC0_IS_TURBO_ROT_INV);
}

ggml_tensor * llama_turbo_tag(ggml_tensor * view, const llama_turbo_rot::pair & rot) {
    view->src[1] = rot.fwd;
    view->src[2] = rot.inv;
    return view;
}

llama_turbo_rot::pair llama_turbo_find(const ggml_tensor * t) {
    for (; t; t = t->src[0]) {
        switch (t->op) {
            case GGML_OP_VIEW:
                if (t->src[1] && t->src[2]) {
                    return { t->src[1], t->src[2] };
                }
                break;
            case GGML_OP_RESHAPE:
            case GGML_OP_PERMUTE:
            case GGML_OP_TRANSPOSE:
            case GGML_OP_CONT:
            case GGML_OP_CPY:
            case GGML_OP_CONCAT:
            case GGML_OP_GET_ROWS:
                break;
            default:
                return {};
        }
    }
    return {};
}

void llama_turbo_rot_log(char side, ggml_type type, const ggml_tensor * rot) {
    if (rot) {
        LLAMA_LOG_INFO("%s: turbo_rot_%c: on, size %d, type %s\n", "llama_kv_cache", side, (int) rot->ne[0],
                       ggml_type_name(type));
    } else {
        LLAMA_LOG_INFO("%s: turbo_rot_%c: off, type %s\n", "llama_kv_cache", side, ggml_type_name(type));
    }
}
