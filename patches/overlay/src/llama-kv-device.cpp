#include "llama-kv-device.h"

#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <cmath>
#include <string>
#include <vector>

llama_kv_use llama_kv_use_of(const llama_hparams & hparams,
                             uint32_t              il,
                             ggml_type             type_k,
                             ggml_type             type_v,
                             llama_kv_attention    attention) {
    llama_kv_use use;

    use.v_in_k        = hparams.is_mla();
    use.type_k        = type_k;
    use.type_v        = use.v_in_k ? type_k : type_v;
    use.n_embd_head_k = hparams.n_embd_head_k(il);
    use.n_embd_head_v = hparams.n_embd_head_v(il);
    use.n_head        = hparams.n_head(il);
    use.n_head_kv     = hparams.n_head_kv(il);
    use.max_bias      = hparams.f_max_alibi_bias;
    use.softcap       = hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f;
    use.attention     = attention;

    return use;
}

// whether a head is a whole number of blocks; upstream refuses others with a message of its own
static bool fits(const llama_kv_use & use) {
    return use.n_embd_head_k % ggml_blck_size(use.type_k) == 0 && use.n_embd_head_v % ggml_blck_size(use.type_v) == 0;
}

static const int64_t n_cells = 256;

static ggml_tensor * new_cache(ggml_context * ctx, ggml_type type, int64_t n_embd_head, int64_t n_head) {
    return ggml_new_tensor_2d(ctx, type, n_embd_head * n_head, n_cells);
}

static bool can_write(ggml_context * ctx, ggml_backend_dev_t dev, ggml_tensor * cache) {
    ggml_tensor * rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, cache->ne[0], 1);
    ggml_tensor * idxs = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 1);

    return ggml_backend_dev_supports_op(dev, ggml_set_rows(ctx, cache, rows, idxs));
}

// cells x values of each head, as the attention takes them
static ggml_tensor * heads_of(ggml_context * ctx, ggml_tensor * cache, int64_t n_embd_head, int64_t n_head) {
    ggml_tensor * heads = ggml_view_3d(ctx, cache, n_embd_head, n_head, n_cells,
                                       ggml_row_size(cache->type, n_embd_head), cache->nb[1], 0);

    return ggml_permute(ctx, heads, 0, 2, 1, 3);
}

static bool can_attend(ggml_context *       ctx,
                       ggml_backend_dev_t   dev,
                       const llama_kv_use & use,
                       ggml_tensor *        cache_k,
                       ggml_tensor *        cache_v,
                       int64_t              n_tokens) {
    ggml_tensor * k = heads_of(ctx, cache_k, use.n_embd_head_k, use.n_head_kv);
    ggml_tensor * q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, use.n_embd_head_k, use.n_head, n_tokens);

    q = ggml_permute(ctx, q, 0, 2, 1, 3);

    if (use.attention == llama_kv_attention::plain) {
        return ggml_backend_dev_supports_op(dev, ggml_mul_mat(ctx, k, q));
    }

    ggml_tensor * v    = heads_of(ctx, cache_v, use.n_embd_head_v, use.n_head_kv);
    ggml_tensor * mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n_cells, n_tokens);
    ggml_tensor * cur  = ggml_flash_attn_ext(ctx, q, k, v, mask, 1.0f, use.max_bias, use.softcap);
    ggml_flash_attn_ext_set_prec(cur, GGML_PREC_F32);

    return ggml_backend_dev_supports_op(dev, cur);
}

llama_kv_gap llama_kv_find_gap(ggml_backend_dev_t dev, const llama_kv_use & use) {
    if (!fits(use)) {
        return llama_kv_gap::none;
    }

    ggml_init_params params = {
        /*.mem_size   =*/32 * ggml_tensor_overhead(),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };

    ggml_context_ptr ctx{ ggml_init(params) };

    ggml_tensor * k = new_cache(ctx.get(), use.type_k, use.n_embd_head_k, use.n_head_kv);
    ggml_tensor * v = use.v_in_k ? k : new_cache(ctx.get(), use.type_v, use.n_embd_head_v, use.n_head_kv);

    if (!can_write(ctx.get(), dev, k) || !can_write(ctx.get(), dev, v)) {
        return llama_kv_gap::write;
    }
    if (use.attention != llama_kv_attention::unknown) {
        for (int64_t n_tokens : { 1, 512 }) {
            if (!can_attend(ctx.get(), dev, use, k, v, n_tokens)) {
                return llama_kv_gap::attend;
            }
        }
    }
    return llama_kv_gap::none;
}

static bool stays_on_cpu(const llama_kv_use & use, llama_kv_gap gap) {
    const bool turbo = ggml_is_turbo(use.type_k) || ggml_is_turbo(use.type_v);

    return gap == llama_kv_gap::write || (gap == llama_kv_gap::attend && turbo);
}

bool llama_kv_stays_on_cpu(ggml_backend_dev_t dev, const llama_kv_use & use) {
    return stays_on_cpu(use, llama_kv_find_gap(dev, use));
}

//
// the warning
//

static double bits_per_pair(const llama_kv_use & use) {
    const auto bits = [](ggml_type type, int64_t n) {
        return 8.0 * ggml_type_size(type) / ggml_blck_size(type) * n;
    };
    return bits(use.type_k, use.n_embd_head_k) + (use.v_in_k ? 0.0 : bits(use.type_v, use.n_embd_head_v));
}

// The options of the cache nearest in size that the device can run; a larger one before a smaller one as near
static std::string instead(ggml_backend_dev_t dev, const llama_kv_use & use) {
    static const ggml_type pairs[][2] = {
        { GGML_TYPE_F16,    GGML_TYPE_F16    },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0   },
        { GGML_TYPE_Q8_0,   GGML_TYPE_TURBO4 },
        { GGML_TYPE_Q5_0,   GGML_TYPE_Q5_0   },
        { GGML_TYPE_Q4_0,   GGML_TYPE_Q4_0   },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4 },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO3 },
        { GGML_TYPE_TURBO2, GGML_TYPE_TURBO2 },
    };

    std::string res;
    double      nearest = INFINITY;
    for (const auto & pair : pairs) {
        llama_kv_use other = use;
        other.type_k       = pair[0];
        other.type_v       = use.v_in_k ? pair[0] : pair[1];

        const double off = std::fabs(bits_per_pair(other) - bits_per_pair(use));
        if (off < nearest && fits(other) && llama_kv_find_gap(dev, other) == llama_kv_gap::none) {
            nearest = off;
            res     = format("-ctk %s -ctv %s runs on it", ggml_type_name(other.type_k), ggml_type_name(other.type_v));
        }
    }
    if (!res.empty()) {
        return res;
    }

    llama_kv_use plain = use;
    plain.type_k       = GGML_TYPE_F16;
    plain.type_v       = GGML_TYPE_F16;
    plain.attention    = llama_kv_attention::plain;
    return llama_kv_find_gap(dev, plain) == llama_kv_gap::none ?
               "no cache runs on it with flash attention and these heads, -fa off -ctk f16 -ctv f16 does without" :
               "no cache runs on it with these heads: -nkvo asks for the CPU";
}

struct llama_kv_lack {
    ggml_backend_dev_t dev;
    llama_kv_use       use;
    llama_kv_gap       gap;
    int                n_layers;

    bool same(const llama_kv_lack & other) const {
        return dev == other.dev && gap == other.gap && use.n_embd_head_k == other.use.n_embd_head_k &&
               use.n_embd_head_v == other.use.n_embd_head_v && use.n_head == other.use.n_head &&
               use.n_head_kv == other.use.n_head_kv;
    }

    std::string describe() const {
        const std::string what   = gap == llama_kv_gap::write                 ? "to write a cache of" :
                                   use.attention == llama_kv_attention::flash ? "for flash attention over" :
                                                                                "for attention over";
        const std::string heads  = use.n_embd_head_k == use.n_embd_head_v ?
                                       format("%d", (int) use.n_embd_head_k) :
                                       format("%d (K) and %d (V)", (int) use.n_embd_head_k, (int) use.n_embd_head_v);
        const std::string effect = stays_on_cpu(use, gap) ?
                                       "their cache stays in CPU memory and attention runs on the CPU" :
                                       "the CPU attends, and their cache is copied to it for each token";

        return format("%s has no kernel %s K %s, V %s and heads of %s, in %d layer%s: %s; %s",
                      ggml_backend_dev_name(dev), what.c_str(), ggml_type_name(use.type_k), ggml_type_name(use.type_v),
                      heads.c_str(), n_layers, n_layers == 1 ? "" : "s", effect.c_str(), instead(dev, use).c_str());
    }
};

void llama_kv_device_check(const llama_model &   model,
                           const llama_cparams & cparams,
                           ggml_type             type_k,
                           ggml_type             type_v) {
    if (!cparams.offload_kqv) {
        return;
    }

    const auto attention = cparams.auto_fa    ? llama_kv_attention::unknown :
                           cparams.flash_attn ? llama_kv_attention::flash :
                                                llama_kv_attention::plain;

    std::vector<llama_kv_lack> lacks;
    for (uint32_t il = 0; il < model.hparams.n_layer_all; il++) {
        ggml_backend_dev_t dev = model.dev_layer(il);
        if (!dev || !model.hparams.has_kv(il) || model.hparams.n_embd_k_gqa(il) == 0) {
            continue;
        }

        llama_kv_lack lack;
        lack.dev      = dev;
        lack.use      = llama_kv_use_of(model.hparams, il, type_k, type_v, attention);
        lack.gap      = llama_kv_find_gap(dev, lack.use);
        lack.n_layers = 1;
        if (lack.gap == llama_kv_gap::none) {
            continue;
        }

        bool counted = false;
        for (auto & known : lacks) {
            if (known.same(lack)) {
                known.n_layers++;
                counted = true;
            }
        }
        if (!counted) {
            lacks.push_back(lack);
        }
    }

    std::string message;
    for (const auto & lack : lacks) {
        message += (message.empty() ? "" : "; ") + lack.describe();
    }
    if (!message.empty()) {
        LLAMA_LOG_WARN("%s: %s\n", __func__, message.c_str());
    }
}
