#include "llama-kv-moments.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "llama-context.h"
#include "llama-cparams.h"
#include "llama-cpp.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-calib-file.h"
#include "llama-kv-calib.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>

//
// RoPE as a table
//

// For n positions what RoPE makes of each value of a head: value a of a pair (a, b) becomes cos*a - sin*b, value b
// becomes sin*a + cos*b. It asks ggml, so that it needs to know no kind of RoPE.
struct rope_table {
    uint32_t             n_embd_head = 0;
    std::vector<int32_t> partner;  // of each value; itself if RoPE leaves it alone
    std::vector<bool>    first;    // whether a value is the first of its pair
    std::vector<float>   cos;      // n * n_embd_head
    std::vector<float>   sin;
};

// RoPE as the model applies it to heads x: n_embd_head, n_head, n_pos
static std::vector<float> rope(const llama_model &          model,
                               const llama_cparams &        cparams,
                               uint32_t                     il,
                               const std::vector<float> &   x,
                               uint32_t                     n_head,
                               const std::vector<int32_t> & pos) {
    const auto &   hparams     = model.hparams;
    const int64_t  n_embd_head = hparams.n_embd_head_k(il);
    const uint32_t n_rot       = hparams.n_rot(il);
    const int64_t  n_nope      = hparams.n_lora_kv > 0 ? n_embd_head - n_rot : 0;
    // for text alone, M-RoPE is NEOX, as for the context shift
    const bool     m_rope = hparams.rope_type == LLAMA_ROPE_TYPE_MROPE || hparams.rope_type == LLAMA_ROPE_TYPE_IMROPE;
    const int      type   = m_rope ? LLAMA_ROPE_TYPE_NEOX : hparams.rope_type;

    const ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    const ggml_context_ptr ctx(ggml_init({ 32 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));
    if (!cpu || !ctx) {
        throw std::runtime_error("no memory to compute RoPE");
    }
    auto * reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu.get()));
    auto   n_threads =
        (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (n_threads) {
        n_threads(cpu.get(), 1);  // too little work to wake others for
    }

    ggml_tensor * heads   = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, n_embd_head, n_head, (int64_t) pos.size());
    ggml_tensor * where   = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, (int64_t) pos.size());
    ggml_tensor * factors = model.get_rope_factors(cparams, (int) il);
    ggml_tensor * ours    = factors ? ggml_dup_tensor(ctx.get(), factors) : nullptr;
    ggml_tensor * part    = ggml_view_3d(ctx.get(), heads, n_embd_head - n_nope, n_head, (int64_t) pos.size(),
                                         heads->nb[1], heads->nb[2], n_nope * heads->nb[0]);
    ggml_tensor * turned =
        ggml_rope_ext(ctx.get(), n_nope ? ggml_cont(ctx.get(), part) : heads, where, ours, (int) n_rot, type,
                      (int) cparams.n_ctx_orig_yarn, model.get_rope_freq_base(cparams, (int) il),
                      model.get_rope_freq_scale(cparams, (int) il), cparams.yarn_ext_factor, cparams.yarn_attn_factor,
                      cparams.yarn_beta_fast, cparams.yarn_beta_slow);

    ggml_cgraph * gf = ggml_new_graph(ctx.get());
    ggml_build_forward_expand(gf, turned);

    const ggml_backend_buffer_ptr buf(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get()));
    if (!buf) {
        throw std::runtime_error("no memory to compute RoPE");
    }
    ggml_backend_tensor_set(heads, x.data(), 0, ggml_nbytes(heads));
    ggml_backend_tensor_set(where, pos.data(), 0, ggml_nbytes(where));
    if (ours) {
        std::vector<uint8_t> copy(ggml_nbytes(factors));
        ggml_backend_tensor_get(factors, copy.data(), 0, copy.size());
        ggml_backend_tensor_set(ours, copy.data(), 0, copy.size());
    }
    if (ggml_backend_graph_compute(cpu.get(), gf) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("RoPE cannot be computed");
    }

    std::vector<float> res = x;
    std::vector<float> out(ggml_nelements(turned));
    ggml_backend_tensor_get(turned, out.data(), 0, ggml_nbytes(turned));
    const size_t n_out = (size_t) (n_embd_head - n_nope);
    for (size_t row = 0; row < out.size() / n_out; ++row) {
        std::copy_n(out.data() + row * n_out, n_out, res.data() + row * n_embd_head + n_nope);
    }

    return res;
}

static bool has_rope(const llama_model & model, uint32_t il) {
    const auto & hparams = model.hparams;

    return hparams.rope_type != LLAMA_ROPE_TYPE_NONE && hparams.has_rope(il) && hparams.n_rot(il) > 0;
}

// layers with the same RoPE
using rope_key = std::tuple<uint32_t, uint32_t, bool, float, float, const ggml_tensor *>;

static rope_key rope_key_of(const llama_model & model, const llama_cparams & cparams, uint32_t il) {
    const auto & hparams = model.hparams;

    return { hparams.n_embd_head_k(il),
             hparams.n_rot(il),
             has_rope(model, il),
             model.get_rope_freq_base(cparams, (int) il),
             model.get_rope_freq_scale(cparams, (int) il),
             model.get_rope_factors(cparams, (int) il) };
}

static rope_table rope_table_of(const llama_model &          model,
                                const llama_cparams &        cparams,
                                uint32_t                     il,
                                const std::vector<int32_t> & pos) {
    const size_t n = model.hparams.n_embd_head_k(il);

    rope_table res;
    res.n_embd_head = (uint32_t) n;
    res.partner.resize(n);
    res.first.assign(n, true);
    res.cos.assign(pos.size() * n, 1.0f);
    res.sin.assign(pos.size() * n, 0.0f);
    for (size_t j = 0; j < n; ++j) {
        res.partner[j] = (int32_t) j;
    }
    if (!has_rope(model, il)) {
        return res;
    }

    // each unit vector at position 1: its partner is where else something appears, with the sign of its place
    std::vector<float> unit(n * n, 0.0f);
    for (size_t j = 0; j < n; ++j) {
        unit[j * n + j] = 1.0f;
    }
    const auto turned = rope(model, cparams, il, unit, (uint32_t) n, { 1 });
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) {
            if (j != i && turned[i * n + j] != 0.0f) {
                if (res.partner[i] != (int32_t) i) {
                    throw std::runtime_error(format("RoPE of layer %u does not turn pairs", il));
                }
                res.partner[i] = (int32_t) j;
                res.first[i]   = i < j;
            }
        }
    }

    // a one in each first place: cosines there, sines in the second
    std::vector<float> probe(pos.size() * n, 0.0f);
    for (size_t p = 0; p < pos.size(); ++p) {
        for (size_t j = 0; j < n; ++j) {
            probe[p * n + j] = res.first[j] ? 1.0f : 0.0f;
        }
    }
    const auto out = rope(model, cparams, il, probe, 1, pos);
    for (size_t p = 0; p < pos.size(); ++p) {
        for (size_t j = 0; j < n; ++j) {
            const size_t a = res.first[j] ? j : (size_t) res.partner[j];
            const size_t b = (size_t) res.partner[a];

            res.cos[p * n + j] = out[p * n + a];
            res.sin[p * n + j] = a == b ? 0.0f : out[p * n + b];
        }
    }

    return res;
}

//
// mean and scale
//

// positions from 0 to n_ctx, evenly in the logarithm: short prompts must not pay for tokens that are not there
static std::vector<int32_t> positions_of(uint32_t n_ctx) {
    const uint32_t n     = std::min<uint32_t>(n_ctx, 4096);
    const double   start = 64.0;  // below it evenly

    std::vector<int32_t> res(n);
    for (uint32_t i = 0; i < n; ++i) {
        const double u = (i + 0.5) / n;

        res[i] = (int32_t) (start * std::expm1(u * std::log1p(n_ctx / start)));
    }

    return res;
}

// averages over positions: of cos, sin, cos^2, sin^2 and cos*sin
struct rope_average {
    rope_table          table;
    std::vector<double> c, s, cc, ss, cs;

    std::vector<float> turns;  // see add_turns
};

static rope_average average_of(rope_table && table) {
    const size_t n     = table.n_embd_head;
    const size_t n_pos = table.cos.size() / n;

    rope_average res;
    for (auto * sum : { &res.c, &res.s, &res.cc, &res.ss, &res.cs }) {
        sum->assign(n, 0.0);
    }
    for (size_t p = 0; p < n_pos; ++p) {
        for (size_t j = 0; j < n; ++j) {
            const double c = table.cos[p * n + j] / (double) n_pos;
            const double s = table.sin[p * n + j] / (double) n_pos;

            res.c[j] += c;
            res.s[j] += s;
            res.cc[j] += c * table.cos[p * n + j];
            res.ss[j] += s * table.sin[p * n + j];
            res.cs[j] += c * table.sin[p * n + j];
        }
    }
    res.table = std::move(table);

    return res;
}

// RoPE makes a*x[j] + b*x[partner] of value j. For each two values the averages of a*a, a*b, b*a and b*b, over every so many
// positions: their sum with a second moment is that moment after RoPE, and as much of one as it was.
static void add_turns(rope_average & rope) {
    const auto & table  = rope.table;
    const size_t n      = table.n_embd_head;
    const size_t n_pos  = table.cos.size() / n;
    const size_t stride = std::max<size_t>(1, n_pos / 256);
    const size_t start  = stride / 2;
    const float  part   = 1.0f / (float) ((n_pos - start + stride - 1) / stride);

    rope.turns.assign(4 * n * n, 0.0f);
    std::vector<float> b(n);
    for (size_t p = start; p < n_pos; p += stride) {
        const float * a = &table.cos[p * n];
        for (size_t j = 0; j < n; ++j) {
            b[j] = (table.first[j] ? -1.0f : 1.0f) * table.sin[p * n + j];
        }
        for (size_t j = 0; j < n; ++j) {
            float *     sum = &rope.turns[4 * n * j];
            const float aj  = part * a[j];
            const float bj  = part * b[j];
            for (size_t k = 0; k < n; ++k) {
                sum[k] += aj * a[k];
                sum[k + n] += aj * b[k];
                sum[k + 2 * n] += bj * a[k];
                sum[k + 3 * n] += bj * b[k];
            }
        }
    }
}

// mean squares of the values of a head after RoPE
static std::vector<double> squares_at(const rope_average & rope, const float * sq, const float * cross) {
    const size_t n = rope.table.n_embd_head;

    std::vector<double> res(n);
    for (size_t j = 0; j < n; ++j) {
        const size_t other = (size_t) rope.table.partner[j];
        const double sign  = rope.table.first[j] ? -2.0 : 2.0;

        res[j] = other == j ? rope.cc[j] * sq[j] :
                              rope.cc[j] * sq[j] + rope.ss[j] * sq[other] + sign * rope.cs[j] * cross[j];
    }

    return res;
}

// What keys of a head are like in the context to serve
struct kv_head {
    std::vector<double> mean;
    std::vector<double> var;     // about the mean that is taken off
    std::vector<double> weight;  // mean squares of what they are multiplied by
    bool                centred;
    const float *       first;
    const float *       first_sq;
};

static kv_head head_of(const rope_average & rope, const llama_kv_moments & moments, size_t at, bool centred) {
    const size_t n = rope.table.n_embd_head;

    kv_head res = { std::vector<double>(n),
                    squares_at(rope, &moments.k_sq[at], &moments.k_cross[at]),
                    squares_at(rope, &moments.q_sq[at], &moments.q_cross[at]),
                    centred,
                    &moments.k_first[at],
                    &moments.k_first_sq[at] };
    for (size_t j = 0; j < n && centred; ++j) {
        const size_t other = (size_t) rope.table.partner[j];
        const double turn  = (rope.table.first[j] ? -1.0 : 1.0) * rope.s[j] * moments.k_mean[at + other];

        res.mean[j] = rope.c[j] * moments.k_mean[at + j] + (other == j ? 0.0 : turn);
        res.var[j] -= res.mean[j] * res.mean[j];
    }

    return res;
}

static void add_head(llama_kv_affine & affine, const kv_head & head) {
    const size_t n  = head.mean.size();
    const size_t at = affine.n_head_kv++ * n;

    affine.n_embd_head = (uint32_t) n;
    for (auto * values : { &affine.mean, &affine.scale, &affine.first }) {
        values->resize(at + n);
    }
    float * scale = &affine.scale[at];
    float * first = &affine.first[at];

    // nothing is taken for more certain, or for less, than a millionth of the head's average
    const auto floor_of = [n](const std::vector<double> & x) {
        double sum = 0.0;
        for (const double value : x) {
            sum += std::max(value, 0.0);
        }
        return 1e-6 * sum / (double) n + 1e-30;
    };
    const double least_var    = floor_of(head.var);
    const double least_weight = floor_of(head.weight);

    // weight/var to the fourth root minimizes (sum weight/s^2) * (sum s^2 var), what white noise in the rotated space does
    std::vector<double> logs(n);
    double              sum = 0.0;
    for (size_t j = 0; j < n; ++j) {
        logs[j] =
            0.25 * (std::log(std::max(head.weight[j], least_weight)) - std::log(std::max(head.var[j], least_var)));
        sum += logs[j];
    }

    double spread = 0.0;
    double far    = 0.0;
    for (size_t j = 0; j < n; ++j) {
        affine.mean[at + j] = (float) head.mean[j];
        scale[j]            = (float) std::exp(logs[j] - sum / (double) n);
        first[j]            = scale[j] * (head.first[j] - affine.mean[at + j]);

        const double var = head.first_sq[j] - (double) head.first[j] * head.first[j];
        spread += scale[j] * scale[j] * std::max(var, 0.0);
        far += (double) first[j] * first[j];
    }
    if (!head.centred || spread > 0.02 * far) {
        std::fill_n(first, n, 0.0f);
    }
}

// the second moment of the queries of a head, which are divided by its scale
static void add_queries(llama_kv_affine &        affine,
                        const rope_average &     rope,
                        const llama_kv_moments & moments,
                        size_t                   head) {
    const size_t    n     = moments.n_embd_head;
    const float *   sq    = &moments.q_sq[head * n];
    const float *   scale = &affine.scale[head * n];
    const int16_t * corr  = &moments.q_corr[head * moments.n_corr()];

    std::vector<float> at0(n * n);
    for (size_t j = 0; j < n; ++j) {
        at0[j * n + j] = sq[j];
        for (size_t k = 0; k < j; ++k) {
            const float product = (float) *corr++ / LLAMA_KV_CORR_ONE * std::sqrt(sq[j]) * std::sqrt(sq[k]);

            at0[j * n + k] = at0[k * n + j] = product;
        }
    }
    for (size_t j = 0; j < n; ++j) {
        const float * turn = &rope.turns[4 * n * j];
        const float * one  = &at0[j * n];
        const float * two  = &at0[(size_t) rope.table.partner[j] * n];
        for (size_t k = 0; k < n; ++k) {
            const size_t other = (size_t) rope.table.partner[k];
            const float  sum =
                turn[k] * one[k] + turn[k + n] * one[other] + turn[k + 2 * n] * two[k] + turn[k + 3 * n] * two[other];

            affine.q_moment.push_back(sum / (scale[j] * scale[k]));
        }
    }
}

static void describe_head(const llama_kv_describe & describe,
                          uint32_t                  il,
                          uint32_t                  head,
                          const kv_head &           rows,
                          const llama_kv_affine &   affine) {
    if (!describe) {
        return;
    }
    const size_t  n     = rows.mean.size();
    const float * scale = &affine.scale[head * n];

    // white noise in the rotated space, as large as the rows are: what it does to a score
    double             weight = 0.0, square = 0.0, weight_after = 0.0, square_after = 0.0;
    std::vector<float> before(n), after(n);
    for (size_t j = 0; j < n; ++j) {
        const double var = std::max(rows.var[j], 0.0);
        const double s2  = (double) scale[j] * scale[j];

        before[j] = (float) (var + rows.mean[j] * rows.mean[j]);
        after[j]  = (float) (var * s2);
        weight += rows.weight[j];
        square += before[j];
        weight_after += rows.weight[j] / s2;
        square_after += after[j];
    }
    const double noise_after = weight_after * square_after;

    describe({ il, head, (uint32_t) n, before.data(), after.data(),
               noise_after > 0.0 ? (float) (weight * square / noise_after) : 1.0f });
}

static void check_shape(const llama_model & model, uint32_t il, const llama_kv_moments & moments) {
    const auto & hparams = model.hparams;
    if (il >= hparams.n_layer_all || moments.n_embd_head != hparams.n_embd_head_k(il) ||
        moments.n_head_kv != hparams.n_head_kv(il)) {
        throw std::runtime_error(format("layer %u has %u heads of %u values, which this model does not have", il,
                                        moments.n_head_kv, moments.n_embd_head));
    }
    GGML_ASSERT(moments.q_corr.empty() || moments.q_corr.size() == moments.n_corr() * moments.n_head_kv);
}

llama_kv_affines llama_kv_affines_at(const llama_model &          model,
                                     const llama_cparams &        cparams,
                                     const llama_kv_calibration & calibration,
                                     const llama_kv_describe &    describe) {
    const auto & hparams = model.hparams;
    const auto   pos     = positions_of(std::max<uint32_t>(cparams.n_ctx_seq, 1));

    std::map<rope_key, rope_average> ropes;

    llama_kv_affines res;
    llama_kv_hash    hash;
    if (model.arch == LLM_ARCH_DEEPSEEK4) {
        return res;  // its attention reads rows of several caches beside each other
    }
    for (const auto & [il, moments] : calibration.layers) {
        check_shape(model, il, moments);

        const auto key = rope_key_of(model, cparams, il);
        auto       it  = ropes.find(key);
        if (it == ropes.end()) {
            it = ropes.emplace(key, average_of(rope_table_of(model, cparams, il, pos))).first;
        }

        const bool queries = !moments.q_corr.empty();
        if (queries && it->second.turns.empty()) {
            add_turns(it->second);
        }

        auto &     affine  = res.layers[il];
        const bool centred = !hparams.attn_soft_cap && model.layers[il].attn_sinks == nullptr;
        for (uint32_t head = 0; head < moments.n_head_kv; ++head) {
            const auto rows = head_of(it->second, moments, head * moments.n_embd_head, centred);
            add_head(affine, rows);
            if (queries) {
                add_queries(affine, it->second, moments, head);
            }
            describe_head(describe, il, head, rows, affine);
        }
        hash.add(&il, sizeof(il));
        for (const auto * values : { &affine.mean, &affine.scale, &affine.first }) {
            hash.add(values->data(), values->size() * sizeof(float));
        }
    }
    res.hash = res.layers.empty() ? 0 : std::max<uint64_t>(hash.value, 1);

    return res;
}

//
// measuring
//

constexpr int32_t N_FIRSTS = 7;  // tokens, beside those of the text, that begin a sequence

// sums over rows and over first rows, in double; laid out as llama_kv_moments
struct kv_sums {
    std::vector<double> mean, sq, cross, first, first_sq;

    std::vector<float> products;  // of values i >= j of Q, n_embd_head^2 for each KV head

    double n       = 0;           // for each KV head
    double n_first = 0;

    uint32_t n_seen = 0;  // tokens of this sequence

    void add_first(const float * token) {
        for (size_t i = 0; i < first.size(); ++i) {
            first[i] += token[i];
            first_sq[i] += (double) token[i] * token[i];
        }
        n_first += 1.0;
    }
};

struct kv_layer_sums {
    kv_sums k, q;
};

struct kv_observer {
    const llama_model * model;
    llama_cparams       cparams;
    uint32_t            n_ctx;

    std::map<uint32_t, kv_layer_sums> sums;
    std::map<rope_key, rope_table>    ropes;

    bool firsts = false;  // each token is the first of its sequence

    std::string error;

    const rope_table & rope_of(uint32_t il) {
        const auto key = rope_key_of(*model, cparams, il);
        auto       it  = ropes.find(key);
        if (it == ropes.end()) {
            std::vector<int32_t> pos(n_ctx);
            for (uint32_t i = 0; i < n_ctx; ++i) {
                pos[i] = (int32_t) i;
            }
            it = ropes.emplace(key, rope_table_of(*model, cparams, il, pos)).first;
        }
        return it->second;
    }

    void add(const ggml_tensor * rows, char side, uint32_t il);
};

// what turns heads at a position back to position 0: value j becomes own[j]*x[j] + other[j]*x[partner[j]]
struct rope_back {
    std::vector<double> own, other;

    void set(const rope_table & rope, uint32_t pos) {
        const size_t n = rope.n_embd_head;
        own.resize(n);
        other.resize(n);
        for (size_t j = 0; j < n; ++j) {
            const double c      = rope.cos[pos * n + j];
            const double s      = rope.sin[pos * n + j];
            // 1 unless RoPE scales as well
            const double square = c * c + s * s;

            own[j]   = c / square;
            other[j] = rope.partner[j] == (int32_t) j ? 0.0 : (rope.first[j] ? s : -s) / square;
        }
    }
};

void kv_observer::add(const ggml_tensor * rows, char side, uint32_t il) {
    const auto &   hparams   = model->hparams;
    const uint32_t n         = hparams.n_embd_head_k(il);
    const uint32_t n_head_kv = hparams.n_head_kv(il);
    const int64_t  n_head    = rows->ne[1];
    const int64_t  n_tokens  = rows->ne[2];
    if (rows->ne[0] != n || n_head % n_head_kv != 0) {
        throw std::runtime_error(format("layer %u: %c is %d heads of %d values for %u heads of %u", il, side,
                                        (int) n_head, (int) rows->ne[0], n_head_kv, n));
    }
    const size_t group = (size_t) n_head / n_head_kv;

    std::vector<float> data(ggml_nelements(rows));
    ggml_backend_tensor_get(rows, data.data(), 0, ggml_nbytes(rows));

    kv_sums & sum = side == 'k' ? sums[il].k : sums[il].q;
    for (auto * values : { &sum.mean, &sum.sq, &sum.cross, &sum.first, &sum.first_sq }) {
        values->resize((size_t) n * n_head_kv, 0.0);
    }

    const bool products = side == 'q' && n <= LLAMA_KV_CORR_MAX;
    sum.products.resize(products ? (size_t) n * n * n_head_kv : 0, 0.0f);

    const rope_table &  rope = rope_of(il);
    rope_back           back;
    std::vector<double> at0(n);
    std::vector<float>  values(n);
    for (int64_t t = 0; t < n_tokens; ++t) {
        const float * token = &data[(size_t) (t * n_head) * n];
        const auto    pos   = firsts ? 0 : sum.n_seen++ % n_ctx;
        if (pos == 0) {
            // the first key is unlike all others; the first query has only itself to attend to
            if (side == 'k') {
                sum.add_first(token);
            }
            continue;
        }
        back.set(rope, pos);
        for (int64_t h = 0; h < n_head; ++h) {
            const float * head = token + h * n;
            for (size_t j = 0; j < n; ++j) {
                at0[j] = back.own[j] * head[j] + back.other[j] * head[rope.partner[j]];
            }

            const size_t at = (size_t) h / group * n;
            for (size_t j = 0; j < n; ++j) {
                const size_t other = (size_t) rope.partner[j];

                sum.mean[at + j] += at0[j];
                sum.sq[at + j] += at0[j] * at0[j];
                sum.cross[at + j] += other == j ? 0.0 : at0[j] * at0[other];
                values[j] = (float) at0[j];
            }
            for (size_t j = 0; j < n && products; ++j) {
                float * row = &sum.products[(at + j) * n];
                for (size_t k = 0; k <= j; ++k) {
                    row[k] += values[j] * values[k];
                }
            }
        }
        sum.n += (double) group;
    }
}

static bool observe_eval(ggml_tensor * t, bool ask, void * user_data) {
    // views of such a tensor have more behind the number
    static const size_t n_prefix = std::strlen(LLAMA_KV_OBSERVED);
    char *              end      = nullptr;
    if (std::strncmp(t->name, LLAMA_KV_OBSERVED, n_prefix) != 0) {
        return false;
    }
    const auto il = (uint32_t) std::strtoul(t->name + n_prefix + 2, &end, 10);
    if (*end != '\0') {
        return false;
    }
    if (ask) {
        return true;
    }

    auto * observer = (kv_observer *) user_data;
    try {
        observer->add(t, t->name[n_prefix], il);
    } catch (const std::exception & err) {
        observer->error = err.what();
        return false;
    }

    return true;
}

static std::vector<float> mean_of(const std::vector<double> & sum, double n) {
    std::vector<float> res(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) {
        res[i] = (float) (sum[i] / n);
    }

    return res;
}

static std::vector<int16_t> correlations_of(const std::vector<float> & products, size_t n) {
    std::vector<int16_t> res;
    for (size_t at = 0; at < products.size(); at += n * n) {
        for (size_t j = 0; j < n; ++j) {
            for (size_t k = 0; k < j; ++k) {
                const float both = std::sqrt(products[at + j * n + j]) * std::sqrt(products[at + k * n + k]);
                const float r    = both > 0.0f ? products[at + j * n + k] / both : 0.0f;

                res.push_back((int16_t) std::lround(LLAMA_KV_CORR_ONE * std::max(-1.0f, std::min(r, 1.0f))));
            }
        }
    }

    return res;
}

std::string llama_kv_text_hash(const std::vector<llama_token> & tokens) {
    llama_kv_hash hash;
    hash.add(tokens.data(), tokens.size() * sizeof(llama_token));

    return hash.str();
}

llama_kv_calibration llama_kv_calibration_measure(llama_model &                      model,
                                                  llama_context_params               params,
                                                  const std::vector<llama_token> &   tokens,
                                                  uint32_t                           n_ctx,
                                                  const std::function<bool(float)> & progress) {
    if (llama_model_has_encoder(&model) || model.arch == LLM_ARCH_DEEPSEEK4) {
        throw std::runtime_error("the K of this architecture cannot be measured");
    }
    const uint32_t n_seq = n_ctx > 0 ? (uint32_t) tokens.size() / n_ctx : 0;
    if (n_ctx < 2 || n_seq == 0) {
        throw std::runtime_error(format("%zu tokens are too few to measure K", tokens.size()));
    }

    kv_observer observer = {};
    observer.model       = &model;
    observer.n_ctx       = n_ctx;

    params.n_ctx                 = n_ctx;
    params.n_batch               = std::max<uint32_t>(n_ctx, N_FIRSTS);
    params.n_ubatch              = params.n_batch;
    params.n_seq_max             = N_FIRSTS;
    params.n_outputs_max         = N_FIRSTS;
    params.n_outputs_max_per_seq = 1;
    params.kv_unified            = true;
    params.type_k                = GGML_TYPE_F16;
    params.type_v                = GGML_TYPE_F16;
    params.embeddings            = false;
    params.cb_eval               = observe_eval;
    params.cb_eval_user_data     = &observer;
    params.ctx_other             = nullptr;
    params.ctx_type              = LLAMA_CONTEXT_TYPE_DEFAULT;
    params.samplers              = nullptr;
    params.n_samplers            = 0;

    const llama_kv_observing here;
    const llama_context_ptr  ctx(llama_init_from_model(&model, params));
    if (!ctx) {
        throw std::runtime_error("no context to measure K in");
    }
    // such a model computes outputs for all tokens of a batch, and has no room for them here
    if (!llama_get_memory(ctx.get())) {
        throw std::runtime_error("the model keeps no K");
    }
    observer.cparams = ctx->get_cparams();

    const auto decode = [&](const llama_batch & batch) {
        llama_memory_clear(llama_get_memory(ctx.get()), true);
        for (auto & [il, sum] : observer.sums) {
            sum.k.n_seen = sum.q.n_seen = 0;
        }
        if (llama_decode(ctx.get(), batch) != 0 || !observer.error.empty()) {
            throw std::runtime_error(observer.error.empty() ? "the text cannot be decoded" : observer.error);
        }
    };

    llama_kv_hash text;
    for (uint32_t s = 0; s < n_seq; ++s) {
        std::vector<llama_token> seq(tokens.begin() + (size_t) s * n_ctx, tokens.begin() + (size_t) (s + 1) * n_ctx);
        if (s > 0 && model.vocab.get_add_bos()) {
            seq[0] = model.vocab.token_bos();
        }
        text.add(seq.data(), seq.size() * sizeof(llama_token));

        decode(llama_batch_get_one(seq.data(), (int32_t) seq.size()));
        if (progress && !progress((float) (s + 1) / (float) n_seq)) {
            throw std::runtime_error("stopped");
        }
    }

    // whether the first key is the same whatever the token: tokens from all over the text, each in a sequence of its own
    if (!model.vocab.get_add_bos()) {
        llama_batch batch = llama_batch_init(N_FIRSTS, 0, 1);
        for (int32_t i = 0; i < N_FIRSTS; ++i) {
            batch.token[i]     = tokens[(size_t) (i + 1) * tokens.size() / (N_FIRSTS + 1)];
            batch.pos[i]       = 0;
            batch.n_seq_id[i]  = 1;
            batch.seq_id[i][0] = i;
            batch.logits[i]    = i + 1 == N_FIRSTS;
        }
        batch.n_tokens  = N_FIRSTS;
        observer.firsts = true;
        const std::unique_ptr<llama_batch, void (*)(llama_batch *)> freed(
            &batch, [](llama_batch * b) { llama_batch_free(*b); });
        decode(batch);
    }

    llama_kv_calibration res;
    res.text     = text.str();
    res.n_tokens = n_seq * n_ctx;
    for (const auto & [il, sum] : observer.sums) {
        if (sum.k.n == 0.0 || sum.q.n == 0.0) {
            continue;
        }
        auto & layer      = res.layers[il];
        layer.n_embd_head = model.hparams.n_embd_head_k(il);
        layer.n_head_kv   = model.hparams.n_head_kv(il);
        layer.k_mean      = mean_of(sum.k.mean, sum.k.n);
        layer.k_sq        = mean_of(sum.k.sq, sum.k.n);
        layer.k_cross     = mean_of(sum.k.cross, sum.k.n);
        layer.q_sq        = mean_of(sum.q.sq, sum.q.n);
        layer.q_cross     = mean_of(sum.q.cross, sum.q.n);
        layer.q_corr      = correlations_of(sum.q.products, layer.n_embd_head);
        layer.k_first     = mean_of(sum.k.first, sum.k.n_first);
        layer.k_first_sq  = mean_of(sum.k.first_sq, sum.k.n_first);
    }
    if (res.layers.empty()) {
        throw std::runtime_error("the model has no K that is kept");
    }

    return res;
}
