#include "llama-kv-device.h"

#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

static llama_kv_use use_of(const llama_model &   model,
                           const llama_hparams & hparams,
                           uint32_t              il,
                           ggml_type             type_k,
                           ggml_type             type_v,
                           llama_kv_attention    attention,
                           uint32_t              n_cells) {
    const bool indexer = hparams.is_indexer_cache;

    llama_kv_use use;

    use.v_in_k        = hparams.is_mla();
    use.type_k        = type_k;
    use.type_v        = use.v_in_k ? type_k : type_v;
    use.n_embd_head_k = hparams.n_embd_head_k(il);
    use.n_embd_head_v = hparams.n_embd_head_v(il);
    use.n_head        = indexer ? hparams.indexer_n_head : hparams.n_head(il);
    use.n_head_kv     = hparams.n_head_kv(il);
    use.sinks         = model.layers[il].attn_sinks != nullptr;
    use.n_cells       = n_cells;
    use.max_bias      = hparams.f_max_alibi_bias;
    use.softcap       = hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f;
    use.attention     = indexer ? llama_kv_attention::indexer : attention;

    return use;
}

// whether a head is a whole number of blocks; upstream refuses others with a message of its own
static bool fits(const llama_kv_use & use) {
    return use.n_embd_head_k % ggml_blck_size(use.type_k) == 0 && use.n_embd_head_v % ggml_blck_size(use.type_v) == 0;
}

//
// what is asked of the device: operations with the shapes that a graph gives them
//

static bool can_write(ggml_context * ctx, ggml_backend_dev_t dev, ggml_tensor * cache, int64_t n_tokens) {
    ggml_tensor * rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, cache->ne[0], n_tokens);
    ggml_tensor * idxs = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, n_tokens);

    return ggml_backend_dev_supports_op(dev, ggml_set_rows(ctx, cache, rows, idxs));
}

// the first cells of each head, as the attention takes them
static ggml_tensor * heads_of(ggml_context * ctx, ggml_tensor * cache, int64_t n_embd_head, int64_t n_head, int64_t n) {
    ggml_tensor * heads =
        ggml_view_3d(ctx, cache, n_embd_head, n_head, n, ggml_row_size(cache->type, n_embd_head), cache->nb[1], 0);

    return ggml_permute(ctx, heads, 0, 2, 1, 3);
}

static bool can_read(ggml_context *       ctx,
                     ggml_backend_dev_t   dev,
                     const llama_kv_use & use,
                     ggml_tensor *        cache_k,
                     ggml_tensor *        cache_v,
                     int64_t              n_tokens,
                     int64_t              n_used) {
    const auto can = [dev](const ggml_tensor * op) {
        return ggml_backend_dev_supports_op(dev, op);
    };
    const auto new_f32 = [ctx](int64_t ne0, int64_t ne1, int64_t ne2) {
        return ggml_new_tensor_3d(ctx, GGML_TYPE_F32, ne0, ne1, ne2);
    };
    ggml_tensor * k    = heads_of(ctx, cache_k, use.n_embd_head_k, use.n_head_kv, n_used);
    ggml_tensor * q    = new_f32(use.n_embd_head_k, use.n_head, n_tokens);
    ggml_tensor * q2   = ggml_permute(ctx, q, 0, 2, 1, 3);
    ggml_tensor * mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n_used, n_tokens);

    if (use.attention == llama_kv_attention::flash) {
        ggml_tensor * v   = heads_of(ctx, cache_v, use.n_embd_head_v, use.n_head_kv, n_used);
        ggml_tensor * cur = ggml_flash_attn_ext(ctx, q2, k, v, mask, 1.0f, use.max_bias, use.softcap);
        ggml_flash_attn_ext_add_sinks(cur, use.sinks ? new_f32(use.n_head, 1, 1) : nullptr);
        ggml_prec_set_acc(cur, GGML_PREC_F32);
        return can(cur);
    }

    const bool product = can(ggml_mul_mat(ctx, k, q2));
    if (use.attention == llama_kv_attention::plain) {
        return product;
    }

    // a model gathers the keys of its indexer, or scores them where they are, with one operation or several
    ggml_tensor * rows = ggml_get_rows(ctx, cache_k, ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_used));
    ggml_tensor * keys = ggml_permute(ctx, k, 0, 2, 1, 3);
    return can(rows) && (product || can(ggml_lightning_indexer(ctx, q, keys, new_f32(use.n_head, n_tokens, 1), mask)));
}

llama_kv_gap llama_kv_find_gap(ggml_backend_dev_t dev, const llama_kv_use & use) {
    if (!fits(use)) {
        return llama_kv_gap::none;
    }

    ggml_context_ptr holder{ ggml_init({ 256 * ggml_tensor_overhead(), nullptr, true }) };
    ggml_context *   ctx = holder.get();

    const auto new_cache = [&](ggml_type type, int64_t n_embd_head) {
        return ggml_new_tensor_2d(ctx, type, n_embd_head * use.n_head_kv, use.n_cells);
    };
    ggml_tensor * k = new_cache(use.type_k, use.n_embd_head_k);
    ggml_tensor * v = use.v_in_k ? k : new_cache(use.type_v, use.n_embd_head_v);

    // decoding one token, or two, which some kernels are made for; a small and a large batch
    const int64_t batches[] = { 1, 2, 32, 512 };

    for (int64_t n_tokens : batches) {
        if (!can_write(ctx, dev, k, n_tokens) || !can_write(ctx, dev, v, n_tokens)) {
            return llama_kv_gap::write;
        }
    }
    for (int64_t n_tokens : batches) {
        for (int64_t n_used : { (int64_t) 256, (int64_t) 1024, use.n_cells }) {
            if (use.attention != llama_kv_attention::unknown &&
                !can_read(ctx, dev, use, k, v, n_tokens, std::min(n_used, use.n_cells))) {
                return llama_kv_gap::read;
            }
        }
    }
    return llama_kv_gap::none;
}

static bool stays_on_cpu(const llama_kv_use & use, llama_kv_gap gap) {
    const bool turbo = ggml_is_turbo(use.type_k) || ggml_is_turbo(use.type_v);

    return gap == llama_kv_gap::write || (gap == llama_kv_gap::read && turbo);
}

ggml_backend_dev_t llama_kv_device(const llama_model &   model,
                                   const llama_hparams & hparams,
                                   uint32_t              il,
                                   ggml_type             type_k,
                                   ggml_type             type_v,
                                   bool                  v_trans,
                                   uint32_t              n_cells) {
    ggml_backend_dev_t dev = model.dev_layer(il);

    const auto attention = v_trans ? llama_kv_attention::plain : llama_kv_attention::flash;
    const auto use       = use_of(model, hparams, il, type_k, type_v, attention, n_cells);

    return stays_on_cpu(use, llama_kv_find_gap(dev, use)) ? ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) :
                                                            dev;
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
                                       "where it has none the CPU attends, and their cache is copied to it each time";

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
        lack.use      = use_of(model, model.hparams, il, type_k, type_v, attention, cparams.n_ctx_seq);
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

//
// types
//

bool llama_kv_types_check(const llama_model & model, llama_context_params & params) {
    for (ggml_type type : { params.type_k, params.type_v }) {
        // upstream's ids end far below those of the turbo types
        if (type < 0 || type >= GGML_TYPE_COUNT || ggml_blck_size(type) == 0) {
            LLAMA_LOG_ERROR("%s: there is no cache type %d\n", __func__, (int) type);
            return false;
        }
    }
    if (!ggml_is_turbo(params.type_k)) {
        return true;
    }

    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO) {
        LLAMA_LOG_INFO("%s: enabling flash_attn for K cache type %s\n", __func__, ggml_type_name(params.type_k));
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }

    // a block cannot straddle heads, whether flash_attn is used or not
    const int blck_size = (int) ggml_blck_size(params.type_k);
    for (uint32_t il = 0; il < model.hparams.n_layer(); ++il) {
        if (model.hparams.n_embd_head_k(il) % blck_size != 0) {
            LLAMA_LOG_ERROR("%s: K cache type %s with block size %d does not divide n_embd_head_k=%u\n", __func__,
                            ggml_type_name(params.type_k), blck_size, model.hparams.n_embd_head_k(il));
            return false;
        }
    }
    return true;
}
