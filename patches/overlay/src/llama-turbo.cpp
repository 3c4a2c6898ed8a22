#include "llama-turbo.h"

#include "ggml-backend.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-moments.h"

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
// calibration of the context that this thread creates
//

static thread_local const llama_kv_affines * scope_affines = nullptr;
static thread_local bool                     observing     = false;

void llama_kv_calib_use(const llama_kv_affines * affines) {
    scope_affines = affines;
}

const llama_kv_affine * llama_kv_calib_layer(uint32_t il) {
    if (!scope_affines) {
        return nullptr;
    }
    const auto it = scope_affines->layers.find(il);

    return it == scope_affines->layers.end() ? nullptr : &it->second;
}

uint64_t llama_kv_calib_hash() {
    return scope_affines ? scope_affines->hash : 0;
}

bool llama_kv_calib_observed() {
    return observing;
}

llama_kv_observing::llama_kv_observing() {
    observing = true;
}

llama_kv_observing::~llama_kv_observing() {
    observing = false;
}

//
// rotation
//

// Hadamard transform of blocks of that width in place, its own inverse; none for 0
static void transform(std::vector<float> & x, size_t width) {
    for (size_t begin = 0; width > 0 && begin < x.size(); begin += width) {
        for (size_t len = 1; len < width; len *= 2) {
            for (size_t i = begin; i < begin + width; ++i) {
                if (((i - begin) & len) == 0) {
                    const float a = x[i];
                    x[i]          = a + x[i + len];
                    x[i + len]    = a - x[i + len];
                }
            }
        }
        for (size_t i = begin; i < begin + width; ++i) {
            x[i] /= std::sqrt((float) width);
        }
    }
}

// the signs of blocks of that width, which divides a head; none for 0
static void multiply_signs(std::vector<float> & x, size_t width) {
    for (size_t i = 0; width > 0 && i < x.size(); ++i) {
        x[i] *= ggml_turbo_sign((int64_t) (i % width));
    }
}

// orthonormal Walsh-Hadamard matrix, its own inverse
static std::vector<float> hadamard_of(int64_t n) {
    std::vector<float> res(n * n);
    for (int64_t i = 0; i < n; i++) {
        res[i * n + i] = 1.0f;
    }
    transform(res, n);

    return res;
}

static std::vector<float> signs_of(int64_t n_embd_head, int64_t width) {
    std::vector<float> res(n_embd_head, 1.0f);
    multiply_signs(res, width);

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

std::vector<ggml_tensor *> llama_turbo_rots::constants(ggml_backend_buffer_type_t           buft,
                                                       bool                                 no_alloc,
                                                       const std::vector<constant_values> & values) {
    ggml_context_ptr ctx{ ggml_init({ values.size() * ggml_tensor_overhead(), nullptr, true }) };

    std::vector<ggml_tensor *> res;
    for (const auto & v : values) {
        res.push_back(
            ggml_new_tensor_2d(ctx.get(), v.type, v.n_row, v.size / (int64_t) ggml_row_size(v.type, v.n_row)));
        ggml_set_name(res.back(), v.name.c_str());
    }

    ggml_backend_buffer_t buf =
        no_alloc ? ggml_backend_buft_alloc_buffer(buft, 0) : ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
    if (!buf) {
        throw std::runtime_error("failed to allocate buffer for the rotation of the KV cache");
    }
    for (size_t i = 0; i < res.size(); ++i) {
        if (no_alloc) {
            res[i]->buffer = buf;  // as for the cache itself: keeps the scheduler from allocating it
        } else {
            ggml_backend_tensor_set(res[i], values[i].data, 0, ggml_nbytes(res[i]));
        }
    }
    ctxs_bufs.emplace_back(std::move(ctx), buf);

    return res;
}

llama_turbo_rot llama_turbo_rots::make(ggml_backend_buffer_type_t buft,
                                       int64_t                    n_embd_head,
                                       int64_t                    width,
                                       bool                       no_alloc) {
    llama_turbo_rot & res = rots[{ buft, n_embd_head, width }];
    if (!res.hadamard) {
        const auto made =
            constants(buft, no_alloc,
                      {
                          { format("turbo_signs_%d", (int) n_embd_head), n_embd_head, signs_of(n_embd_head, width) },
                          { format("turbo_hadamard_%d", (int) width), width, hadamard_of(width) }
        });
        res.signs    = made[0];
        res.hadamard = made[1];
    }

    return res;
}

// Moves the mean of a head by what the codec loses of the first key: that key, which is far from all others and which every
// query attends to, is then stored without error, and the others are off by a constant that softmax does not see.
// n_rot: upstream's rotation, 0 if there is none; width: of the turbo rotation.
static void fix_first(const llama_kv_affine & affine,
                      size_t                  head,
                      ggml_type               type,
                      size_t                  n_rot,
                      size_t                  width,
                      float *                 mean) {
    const size_t       n     = affine.n_embd_head;
    const float *      first = &affine.first[head * n];
    const float *      scale = &affine.scale[head * n];
    const auto *       codec = ggml_get_type_traits(type);
    std::vector<float> x(first, first + n);
    if (!codec->from_float_ref || n % (size_t) codec->blck_size != 0) {
        return;
    }

    transform(x, n_rot);
    multiply_signs(x, width);
    transform(x, width);

    std::vector<uint8_t> row(ggml_row_size(type, (int64_t) n));
    codec->from_float_ref(x.data(), row.data(), (int64_t) n);
    codec->to_float(row.data(), x.data(), (int64_t) n);

    transform(x, width);
    multiply_signs(x, width);
    transform(x, n_rot);

    for (size_t i = 0; i < n; ++i) {
        mean[i] += (first[i] - x[i]) / scale[i];
    }
}

// The factors of each block of a row: the second moment of the queries in the basis in which rows are stored, what it says
// of values of different blocks left out
static std::vector<ggml_turbo_factor> factors_of(const llama_kv_affine & affine, size_t n_rot, size_t width) {
    const size_t n     = affine.n_embd_head;
    const size_t n_row = 64;  // of a block's moment

    std::vector<ggml_turbo_factor> res;
    for (size_t head = 0; head < affine.n_head_kv; ++head) {
        const float *      moment = &affine.q_moment[head * n * n];
        std::vector<float> basis(moment, moment + n * n);
        for (int side = 0; side < 2; ++side) {
            // n is a multiple of the widths
            transform(basis, n_rot);
            multiply_signs(basis, width);
            transform(basis, width);
            std::vector<float> transposed(n * n);
            for (size_t i = 0; i < n * n; ++i) {
                transposed[i % n * n + i / n] = basis[i];
            }
            basis = std::move(transposed);
        }

        std::vector<double> block(n_row * n_row);
        for (size_t at = 0; at < n; at += n_row) {
            for (size_t i = 0; i < n_row * n_row; ++i) {
                block[i] = basis[(at + i / n_row) * n + at + i % n_row];
            }
            res.emplace_back();
            ggml_turbo_make_factor(block.data(), &res.back());
        }
    }

    return res;
}

void llama_turbo_rots::log_calibration(size_t n_layers) const {
    if (hash != 0 && n_factors > 0) {
        LLAMA_LOG_INFO("llama_kv_cache: turbo K rounded for its scores in %zu of %zu layers\n", n_factors, n_layers);
    }
}

void llama_turbo_rots::calibrate(const llama_hparams & hparams,
                                 uint32_t              n_rot,
                                 uint32_t              il,
                                 const ggml_tensor *   rows,
                                 llama_kv_rot &        rots) {
    llama_turbo_rot & rot = rots.k;
    if (hparams.is_indexer_cache) {
        return;
    }
    rot.observed = llama_kv_calib_observed() ? (int32_t) il : -1;

    const llama_kv_affine * affine = llama_kv_calib_layer(il);
    if (!affine) {
        return;
    }
    const bool no_alloc = hparams.no_alloc;
    const auto buft     = ggml_backend_buffer_get_type(rows->buffer);

    // the signs go into the same product, unless upstream's rotation stands between
    const bool         signs = rot.signs && n_rot == 0;
    std::vector<float> mul   = affine->scale;
    std::vector<float> add   = affine->mean;
    for (size_t head = 0; ggml_is_quantized(rows->type) && head < affine->n_head_kv; ++head) {
        fix_first(*affine, head, rows->type, n_rot, (size_t) rot.width(), &add[head * affine->n_embd_head]);
    }
    multiply_signs(mul, signs ? (size_t) rot.width() : 0);
    for (size_t i = 0; i < mul.size(); ++i) {
        add[i] *= -mul[i];
    }
    // of other devices no kernel rounds like that; with MLA a row of K is V as well
    const bool cpu = buft == ggml_backend_cpu_buffer_type();
    if (ggml_is_turbo(rows->type) && cpu && !hparams.is_mla() && !affine->q_moment.empty() &&
        affine->n_embd_head % (uint32_t) ggml_blck_size(rows->type) == 0 &&
        rows->ne[0] == (int64_t) affine->n_embd_head * affine->n_head_kv) {
        const auto values = factors_of(*affine, n_rot, (size_t) rot.width());

        rot.factors = constants(buft, no_alloc,
                                {
                                    { format("kv_factors-%u", il), values }
        })[0];
        n_factors++;
    }

    const auto made = constants(buft, no_alloc,
                                {
                                    { format("kv_calibration_mul-%u", il), affine->n_embd_head, mul },
                                    { format("kv_calibration_add-%u", il), affine->n_embd_head, add }
    });

    rot.mul   = made[0];
    rot.add   = made[1];
    rot.signs = signs ? nullptr : rot.signs;
    hash      = llama_kv_calib_hash();

    if (n_rot > 0) {
        ggml_tensor *& matrix = upstreams[{ buft, n_rot }];
        matrix                = matrix ? matrix :
                                         constants(buft, no_alloc,
                                                   {
                                                       { "upstream_hadamard", n_rot, hadamard_of(n_rot) }
        })[0];
        rot.upstream          = matrix;
    }
    if (hparams.is_mla()) {
        rots.v = rot;
    }
}

// values for rows of n: a prefix of a head, a head, which is repeated, or several heads beside each other
static ggml_tensor * values_for(ggml_context * ctx, ggml_tensor * values, const ggml_tensor * cur) {
    const int64_t n = cur->ne[0];
    if (values->ne[1] > 1 && n == values->ne[0]) {
        GGML_ASSERT(cur->ne[1] == values->ne[1]);
        return values;
    }
    GGML_ASSERT(n < values->ne[0] ? values->ne[1] == 1 : n % ggml_nelements(values) == 0);

    return n == values->ne[0] ? values : ggml_view_1d(ctx, values, std::min(n, ggml_nelements(values)), 0);
}

// n heads of queries read each KV head
static ggml_tensor * query_values_for(ggml_context * ctx, ggml_tensor * cur, ggml_tensor * values) {
    const int64_t n = cur->ne[1] / values->ne[1];
    GGML_ASSERT(cur->ne[0] == values->ne[0] && cur->ne[1] == n * values->ne[1] && cur->ne[3] == 1);

    ggml_tensor * groups =
        ggml_view_4d(ctx, cur, cur->ne[0], n, values->ne[1], cur->ne[2], cur->nb[1], n * cur->nb[1], cur->nb[2], 0);
    ggml_tensor * each = ggml_reshape_3d(ctx, values, values->ne[0], 1, values->ne[1]);

    return ggml_reshape_3d(ctx, ggml_div(ctx, groups, each), cur->ne[0], cur->ne[1], cur->ne[2]);
}

static ggml_tensor * observe(ggml_context * ctx, ggml_tensor * cur, char side, int32_t il) {
    cur = ggml_cont(ctx, cur);
    ggml_format_name(cur, LLAMA_KV_OBSERVED "%c-%d", side, il);

    return cur;
}

// the basis that upstream's rotation leaves or makes: its matrix is its own inverse
static ggml_tensor * turn_upstream(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    return rot.upstream ? llama_mul_mat_hadamard(ctx, cur, rot.upstream) : cur;
}

static ggml_tensor * rotate(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    cur = rot.signs ? ggml_mul(ctx, cur, values_for(ctx, rot.signs, cur)) : cur;

    return rot.hadamard ? llama_mul_mat_hadamard(ctx, cur, rot.hadamard) : cur;
}

ggml_tensor * llama_turbo_apply(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    if (rot.observed >= 0) {
        cur = observe(ctx, cur, 'k', rot.observed);
    }
    if (rot.mul) {
        cur = turn_upstream(ctx, cur, rot);
        cur = ggml_mul(ctx, cur, values_for(ctx, rot.mul, cur));
        cur = ggml_add(ctx, cur, values_for(ctx, rot.add, cur));
        cur = turn_upstream(ctx, cur, rot);
    }

    return rotate(ctx, cur, rot);
}

ggml_tensor * llama_turbo_store(ggml_context *          ctx,
                                ggml_tensor *           cache,
                                ggml_tensor *           rows,
                                ggml_tensor *           idxs,
                                const llama_turbo_rot & rot) {
    return rot.factors ? ggml_turbo_set_rows(ctx, cache, rows, idxs, rot.factors) :
                         ggml_set_rows(ctx, cache, rows, idxs);
}

static ggml_tensor * turn_query(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    if (rot.observed >= 0) {
        cur = observe(ctx, cur, 'q', rot.observed);
    }
    if (rot.mul) {
        cur = turn_upstream(ctx, cur, rot);
        cur = query_values_for(ctx, cur, rot.mul);
        cur = turn_upstream(ctx, cur, rot);
    }

    return rotate(ctx, cur, rot);
}

ggml_tensor * llama_turbo_query(ggml_context * ctx, ggml_tensor * cur, const llama_kv_rot & rot) {
    return rot.q_turned ? cur : turn_query(ctx, cur, rot.k);
}

ggml_tensor * llama_turbo_turn_q(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * cur, const llama_kv_rot & rot) {
    cur = turn_query(ctx, cur, rot.k);
    ggml_build_forward_expand(gf, cur);

    return cur;
}

ggml_tensor * llama_turbo_undo(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot) {
    cur = rot.hadamard ? llama_mul_mat_hadamard(ctx, cur, rot.hadamard) : cur;
    cur = rot.signs ? ggml_mul(ctx, cur, values_for(ctx, rot.signs, cur)) : cur;
    if (rot.mul) {
        cur = turn_upstream(ctx, cur, rot);
        cur = ggml_sub(ctx, cur, values_for(ctx, rot.add, cur));
        cur = ggml_div(ctx, cur, values_for(ctx, rot.mul, cur));
        cur = turn_upstream(ctx, cur, rot);
    }

    return cur;
}

void llama_kv_rot_layer::show() const {
    GGML_ASSERT(!owed && "rows of a turbo cache were read without their rotation");
    owed = rot.k.hadamard || rot.v.hadamard || rot.k.mul;
}

llama_kv_rot llama_kv_rot_layer::take() const {
    owed = false;
    return rot;
}

llama_kv_rot llama_kv_rot_of_both(const llama_kv_rot & a, const llama_kv_rot & b) {
    GGML_ASSERT(a.k.width() == b.k.width() && a.v.width() == b.v.width() && a.k.mul == b.k.mul);
    return a;
}

void llama_turbo_require(const ggml_tensor * k, const ggml_tensor * v, const llama_kv_rot & rot) {
    GGML_ASSERT((!ggml_is_turbo(k->type) || rot.k.hadamard) && "rows of a turbo cache without their rotation");
    GGML_ASSERT((!ggml_is_turbo(v->type) || rot.v.hadamard) && "rows of a turbo cache without their rotation");
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
