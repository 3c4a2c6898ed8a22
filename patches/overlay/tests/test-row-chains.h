#pragma once

// What the CPU computes in one pass is bit for bit what it computes operation by operation, and it does so at all: results
// between are then not written.

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "ggml.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

struct row_chain_case {
    ggml_type type;  // of the cache
    int64_t   n_head_kv;
    int64_t   n_head;
    int64_t   head;
    int64_t   width;  // of the rotation, 0: none
    int64_t   n_tokens;
    int       n_threads;
    bool      calibrated;
    bool      strided;  // rows are a part of longer ones
};

// K and V on their way into a cache, Q, and what comes back
struct row_chain_graph {
    ggml_context_ptr           ctx;
    ggml_cgraph *              gf = nullptr;
    std::vector<ggml_tensor *> inputs, between, results;
};

static row_chain_graph row_chain_build(const row_chain_case & c, bool single) {
    row_chain_graph g;
    g.ctx.reset(ggml_init({ 128 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));
    ggml_context * ctx = g.ctx.get();

    const auto input = [&](ggml_type type, std::vector<int64_t> ne) {
        g.inputs.push_back(ggml_new_tensor(ctx, type, (int) ne.size(), ne.data()));
        ggml_set_input(g.inputs.back());
        return g.inputs.back();
    };
    const auto rows = [&](int64_t n_head) {
        ggml_tensor * t = input(GGML_TYPE_F32, { c.head * n_head + (c.strided ? 32 : 0), c.n_tokens });
        return ggml_view_3d(ctx, t, c.head, n_head, c.n_tokens, c.head * sizeof(float), t->nb[1], 0);
    };
    const auto op = [&](ggml_tensor * t) {
        if (single) {
            ggml_set_output(t);
        }
        g.between.push_back(t);
        return t;
    };
    ggml_tensor * matrix   = c.width > 0 ? input(GGML_TYPE_F32, { c.width, c.width }) : nullptr;
    ggml_tensor * idxs     = input(GGML_TYPE_I64, { c.n_tokens });
    const auto    hadamard = [&](ggml_tensor * x) {
        if (!matrix) {
            return x;
        }
        ggml_tensor * flat = ggml_reshape_2d(ctx, x, c.width, ggml_nelements(x) / c.width);
        ggml_tensor * y    = op(ggml_mul_mat(ctx, matrix, flat));
        ggml_mul_mat_set_hint(y, GGML_HINT_SRC0_IS_HADAMARD);
        return ggml_reshape_3d(ctx, y, x->ne[0], x->ne[1], x->ne[2]);
    };
    const auto result = [&](ggml_tensor * t) {
        g.results.push_back(t);
        ggml_set_output(t);
        ggml_build_forward_expand(g.gf, t);
    };
    g.gf = ggml_new_graph(ctx);

    ggml_tensor * mul = input(GGML_TYPE_F32, { c.head, c.n_head_kv });
    ggml_tensor * add = input(GGML_TYPE_F32, { c.head, c.n_head_kv });
    for (int side = 0; side < 2; ++side) {
        ggml_tensor * cache = input(c.type, { c.head * c.n_head_kv, 2 * c.n_tokens });
        ggml_tensor * x     = op(ggml_mul(ctx, rows(c.n_head_kv), mul));
        x                   = hadamard(c.calibrated ? op(ggml_add(ctx, x, add)) : x);
        x                   = ggml_view_2d(ctx, x, c.head * c.n_head_kv, c.n_tokens, x->nb[2], 0);
        if (side == 0 && c.calibrated && ggml_is_turbo(c.type)) {
            const int64_t n_blocks = c.head * c.n_head_kv / 64;
            ggml_tensor * factors  = input(GGML_TYPE_I8, { (int64_t) sizeof(ggml_turbo_factor), n_blocks });
            result(ggml_turbo_set_rows(ctx, cache, x, idxs, factors));
        } else {
            result(ggml_set_rows(ctx, cache, x, idxs));
        }
    }

    const int64_t n_group = c.n_head / c.n_head_kv;
    ggml_tensor * q       = rows(c.n_head);
    q = ggml_view_4d(ctx, q, c.head, n_group, c.n_head_kv, c.n_tokens, q->nb[1], n_group * q->nb[1], q->nb[2], 0);
    q = op(ggml_div(ctx, q, ggml_reshape_3d(ctx, mul, c.head, 1, c.n_head_kv)));
    result(hadamard(ggml_reshape_3d(ctx, q, c.head, c.n_head, c.n_tokens)));

    if (matrix && !c.strided) {
        ggml_tensor * out = hadamard(rows(c.n_head_kv));
        out               = c.calibrated ? op(ggml_sub(ctx, out, add)) : out;
        result(ggml_mul(ctx, out, mul));
    }

    return g;
}

// Of random second moments, made once: that takes longer than to round by them
static const std::vector<ggml_turbo_factor> & row_chain_factors() {
    static const std::vector<ggml_turbo_factor> factors = [] {
        std::vector<ggml_turbo_factor>  res(16);
        std::mt19937                    gen(1);
        std::normal_distribution<float> normal;
        for (auto & factor : res) {
            double x[64], a[64 * 64];
            for (double & v : x) {
                v = normal(gen);
            }
            for (int j = 0; j < 64 * 64; ++j) {
                a[j] = x[j / 64] * x[j % 64];
            }
            ggml_turbo_make_factor(a, &factor);
        }
        return res;
    }();

    return factors;
}

// The bytes of all results. apart: each tensor has memory of its own, and *written is how many results of operations somebody wrote.
static std::vector<uint8_t> row_chain_compute(ggml_backend_t         cpu,
                                              const row_chain_case & c,
                                              bool                   single,
                                              bool                   apart,
                                              size_t *               written = nullptr) {
    const row_chain_graph g = row_chain_build(c, single);

    const ggml_gallocr_ptr        galloc(ggml_gallocr_new(ggml_backend_get_default_buffer_type(cpu)));
    const ggml_backend_buffer_ptr buf(apart ? ggml_backend_alloc_ctx_tensors(g.ctx.get(), cpu) : nullptr);
    if (!apart) {
        ggml_gallocr_alloc_graph(galloc.get(), g.gf);
    }

    std::mt19937                    gen(7);
    std::normal_distribution<float> normal;
    for (ggml_tensor * t : g.inputs) {
        std::vector<uint8_t> data(ggml_nbytes(t));
        for (int64_t i = 0; i < ggml_nelements(t) && t->type == GGML_TYPE_F32; ++i) {
            ((float *) data.data())[i] = normal(gen);
        }
        for (int64_t i = 0; i < t->ne[1] && t->type == GGML_TYPE_I8; ++i) {
            ((ggml_turbo_factor *) data.data())[i] = row_chain_factors()[gen() % row_chain_factors().size()];
        }
        for (int64_t i = 0; i < t->ne[0] && t->type == GGML_TYPE_I64; ++i) {
            ((int64_t *) data.data())[i] = 2 * t->ne[0] - 1 - 2 * i;
        }
        if (t->data) {  // not all are in every graph
            memcpy(t->data, data.data(), data.size());
        }
    }
    if (apart) {
        for (ggml_tensor * t : g.between) {
            memset(t->data, 0xff, ggml_nbytes(t));  // NaN
        }
    }
    auto * reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    auto   set_n_threads =
        (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    set_n_threads(cpu, c.n_threads);
    ggml_backend_graph_compute(cpu, g.gf);

    std::vector<uint8_t> res;
    for (const ggml_tensor * t : g.results) {
        res.insert(res.end(), (const uint8_t *) t->data, (const uint8_t *) t->data + ggml_nbytes(t));
    }
    for (const ggml_tensor * t : g.between) {
        if (written) {
            *written += std::isnan(*(const float *) t->data) ? 0 : 1;
        }
    }

    return res;
}

static void test_row_chains(void (*check)(bool, const std::string &)) {
    const ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));

    int n_cases = 0, n_different = 0, n_written = 0;
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_TURBO4 }) {
        for (const auto & [n_head_kv, n_head, head, width] : std::vector<std::array<int64_t, 4>>{
                 { 3, 9,  64,  64  },
                 { 1, 8,  256, 128 },
                 { 8, 8,  128, 0   },
                 { 2, 14, 192, 64  }
        }) {
            for (int64_t n_tokens : { 1, 2, 7, 65 }) {
                for (int flags = 0; flags < 4; ++flags) {
                    row_chain_case c      = { type, n_head_kv,        n_head,          head, width, n_tokens,
                                              1,    (flags & 1) != 0, (flags & 2) != 0 };
                    const auto     single = row_chain_compute(cpu.get(), c, true, true);
                    for (int n_threads : { 1, 2, 3, 16 }) {
                        // sixteen are more than a token has heads, and wait for each other on few cores
                        if (n_threads == 16 && n_tokens > 1) {
                            continue;
                        }
                        c.n_threads = n_threads;

                        size_t     written = 0;
                        const auto packed  = row_chain_compute(cpu.get(), c, false, false);
                        const auto apart   = row_chain_compute(cpu.get(), c, false, true, &written);

                        n_cases++;
                        n_different += single != packed || single != apart;
                        n_written += written != 1;  // the queries
                    }
                }
            }
        }
    }
    check(n_different == 0, std::to_string(n_cases - n_different) + " of " + std::to_string(n_cases) +
                                " graphs computed in one pass have the values of the single operations");
    check(n_written == 0, "results between operations are not written");
}
