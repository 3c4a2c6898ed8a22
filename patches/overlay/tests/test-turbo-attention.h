#pragma once

// Attention over a quantized cache on the CPU: its plan, the operands and shapes that its kernels leave to upstream's, and that
// batches do not matter.

#include "../ggml/src/ggml-cpu/flash-attn-plan.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#ifndef _WIN32
#    include <sys/wait.h>
#    include <unistd.h>
#endif

// The memory asked for does for every smaller number of threads, and no less would.
static int64_t turbo_plan_faults(const fa_shape & shape) {
    int64_t n_faults = 0;
    int64_t most     = 0;
    for (int64_t n = 1; n <= 128; n++) {
        const fa_plan plan = fa_make_plan(shape, n);

        most = std::max(most, fa_scratch(shape, plan).size(n));
        n_faults += fa_work_size(shape, n) != most;

        // every row and cell is in one block and one range
        n_faults += plan.groups * plan.heads < shape.group() || (plan.groups - 1) * plan.heads >= shape.group();
        n_faults += plan.n_splits * plan.split < shape.cells || (plan.n_splits - 1) * plan.split >= shape.cells;
    }
    return n_faults;
}

static int64_t turbo_plan_faults(int64_t * n_shapes) {
    int64_t n_faults = 0;
    *n_shapes        = 0;
    for (int64_t dk : { 64, 80, 128, 192, 256, 576 }) {
        for (int64_t tokens : { 1, 2, 3, 7, 8, 16, 63, 64, 65, 128, 200, 512 }) {
            for (int64_t heads_kv : { 1, 2, 3, 8 }) {
                for (int64_t group : { 1, 2, 3, 4, 7, 8, 16, 128 }) {
                    for (int64_t cells : { 1, 64, 255, 257, 512, 1000, 4096, 33000, 70000 }) {
                        for (bool mask_per_head : { false, true }) {
                            const int64_t  seqs  = 1 + (tokens + cells) % 3;
                            const fa_shape shape = {
                                dk, dk == 576 ? 512 : dk, tokens, heads_kv * group, seqs, heads_kv, cells, mask_per_head
                            };
                            n_faults += turbo_plan_faults(shape);
                            ++*n_shapes;
                        }
                    }
                }
            }
        }
    }
    return n_faults;
}

// One attention over a turbo4 cache; `change` makes of the node and its operands what a graph from elsewhere might hold.
// Its rows, which are ones before. `use_ref`: by upstream's kernel, row by row.
static std::vector<float> turbo_attention(const std::function<void(ggml_tensor *)> & change, bool use_ref = false) {
    const int64_t width = 64, tokens = 3, heads = 4, cells = 300;

    ggml_context_ptr ctx(ggml_init({ 16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));
    ggml_tensor *    q    = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, width, tokens, heads);
    ggml_tensor *    k    = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_TURBO4, width, cells, heads / 2);
    ggml_tensor *    v    = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_TURBO4, width, cells, heads / 2);
    ggml_tensor *    mask = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, cells, tokens);
    ggml_tensor *    out  = ggml_flash_attn_ext(ctx.get(), q, k, v, mask, 0.125f, 0.0f, 0.0f);

    static ggml_backend_dev_t     dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const ggml_backend_ptr        cpu(ggml_backend_dev_init(dev, nullptr));
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get()));

    std::mt19937                    gen(7);
    std::normal_distribution<float> normal;
    for (ggml_tensor * t : { q, k, v }) {
        std::vector<float>   x(ggml_nelements(t));
        std::vector<uint8_t> bytes(ggml_nbytes(t));
        for (float & value : x) {
            value = normal(gen);
        }
        ggml_quantize_chunk(t->type, x.data(), bytes.data(), 0, 1, x.size(), nullptr);
        ggml_backend_tensor_set(t, bytes.data(), 0, bytes.size());
    }
    ggml_backend_tensor_memset(mask, 0, 0, ggml_nbytes(mask));
    std::vector<float> rows(ggml_nelements(out), 1.0f);
    ggml_backend_tensor_set(out, rows.data(), 0, ggml_nbytes(out));

    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(dev);
    auto *             set_use_ref =
        (void (*)(ggml_backend_t, bool)) ggml_backend_reg_get_proc_address(reg, "ggml_backend_cpu_set_use_ref");
    auto * set_n_threads =
        (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    set_use_ref(cpu.get(), use_ref);
    set_n_threads(cpu.get(), 1);

    ggml_cgraph * gf = ggml_new_graph(ctx.get());
    ggml_build_forward_expand(gf, out);
    const ggml_tensor whole = *out;
    change(out);
    GGML_ASSERT(ggml_backend_graph_compute(cpu.get(), gf) == GGML_STATUS_SUCCESS);
    ggml_backend_tensor_get(&whole, rows.data(), 0, rows.size() * sizeof(float));
    return rows;
}

// Attention of some tokens to a cache by one thread, as a prompt asks for it: token t sees all cells but the last tokens - 1 - t.
struct turbo_prompt {
    ggml_type type_k, type_v;
    int64_t   width, group;
    float     softcap;

    static constexpr int64_t heads_kv = 2, cells = 333, tokens = 64;

    int64_t row_size() const { return width * group * heads_kv; }

    // the rows of tokens first..first + n - 1
    std::vector<float> rows(int64_t first, int64_t n) const {
        ggml_context_ptr ctx(ggml_init({ 16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));
        ggml_tensor *    q    = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, width, group * heads_kv, n);
        ggml_tensor *    k    = ggml_new_tensor_3d(ctx.get(), type_k, width, heads_kv, cells);
        ggml_tensor *    v    = ggml_new_tensor_3d(ctx.get(), type_v, width, heads_kv, cells);
        ggml_tensor *    mask = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, cells, n);
        ggml_tensor *    out  = ggml_flash_attn_ext(
            ctx.get(), ggml_permute(ctx.get(), q, 0, 2, 1, 3), ggml_permute(ctx.get(), k, 0, 2, 1, 3),
            ggml_permute(ctx.get(), v, 0, 2, 1, 3), mask, 1.0f / std::sqrt((float) width), 0.0f, softcap);
        ggml_cgraph * gf = ggml_new_graph(ctx.get());
        ggml_build_forward_expand(gf, out);

        static ggml_backend_dev_t     dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        const ggml_backend_ptr        cpu(ggml_backend_dev_init(dev, nullptr));
        const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get()));
        auto *                        set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(dev), "ggml_backend_set_n_threads");
        set_n_threads(cpu.get(), 1);

        const std::vector<float> queries = normal(row_size() * tokens, 1);
        ggml_backend_tensor_set(q, queries.data() + first * row_size(), 0, ggml_nbytes(q));
        for (ggml_tensor * t : { k, v }) {
            const std::vector<float> x = normal(ggml_nelements(t), t == k ? 2 : 3);
            std::vector<uint8_t>     bytes(ggml_nbytes(t));
            ggml_quantize_chunk(t->type, x.data(), bytes.data(), 0, 1, x.size(), nullptr);
            ggml_backend_tensor_set(t, bytes.data(), 0, bytes.size());
        }
        std::vector<ggml_fp16_t> hidden(n * cells, ggml_fp32_to_fp16(0.0f));
        for (int64_t t = 0; t < n; t++) {
            std::fill(hidden.begin() + (t + 1) * cells - (tokens - 1 - first - t), hidden.begin() + (t + 1) * cells,
                      ggml_fp32_to_fp16(-INFINITY));
        }
        ggml_backend_tensor_set(mask, hidden.data(), 0, ggml_nbytes(mask));

        GGML_ASSERT(ggml_backend_graph_compute(cpu.get(), gf) == GGML_STATUS_SUCCESS);
        std::vector<float> result(ggml_nelements(out));
        ggml_backend_tensor_get(out, result.data(), 0, ggml_nbytes(out));
        return result;
    }

    static std::vector<float> normal(int64_t n, unsigned seed) {
        std::mt19937                    gen(seed);
        std::normal_distribution<float> value;
        std::vector<float>              x(n);
        for (float & xi : x) {
            xi = value(gen);
        }
        return x;
    }

    // of the rows of the last tokens, computed a few at a time, those that are not the same to the bit as all at once
    int64_t differences(int64_t n) const {
        const std::vector<float> all      = rows(0, tokens);
        int64_t                  n_differ = 0;
        for (int64_t first = tokens - 8; first + n <= tokens; first += n) {
            const std::vector<float> few = rows(first, n);
            for (int64_t t = 0; t < n; t++) {
                n_differ +=
                    memcmp(&few[t * row_size()], &all[(first + t) * row_size()], row_size() * sizeof(float)) != 0;
            }
        }
        return n_differ;
    }
};

// What a prompt computes does not depend on how it is cut in batches.
static void test_attention_batches(const std::function<void(bool, const std::string &)> & check) {
    const std::pair<ggml_type, ggml_type> types[] = {
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4 },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO2 },
        { GGML_TYPE_Q8_0,   GGML_TYPE_TURBO4 },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0   },
        { GGML_TYPE_Q4_0,   GGML_TYPE_IQ4_NL },
        { GGML_TYPE_Q5_0,   GGML_TYPE_Q4_0   },
    };
    for (const auto & [type_k, type_v] : types) {
        int64_t n_differ = 0;
        for (const turbo_prompt & prompt : {
                 turbo_prompt{ type_k, type_v, 64,  1, 0.0f  },
                 turbo_prompt{ type_k, type_v, 64,  3, 30.0f },
                 turbo_prompt{ type_k, type_v, 192, 7, 0.0f  }
        }) {
            for (int64_t n : { 1, 3, 8 }) {
                n_differ += prompt.differences(n);
            }
        }
        check(n_differ == 0,
              std::string("attention of a token is the same to the bit alone, with 2, 7 and 63 others: ") +
                  ggml_type_name(type_k) + "/" + ggml_type_name(type_v) + ", " + std::to_string(n_differ) +
                  " rows differ");
    }
}

#ifndef _WIN32
// ends with GGML_ABORT, rather than by a fault of the CPU or not at all
static bool turbo_attention_aborts(const std::function<void(ggml_tensor *)> & change) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        setenv("GGML_NO_BACKTRACE", "1", 1);
        turbo_attention(change);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
#endif

static void test_attention(const std::function<void(bool, const std::string &)> & check) {
    int64_t       n_shapes = 0;
    const int64_t n_faults = turbo_plan_faults(&n_shapes);
    check(n_faults == 0,
          "attention's memory does for any smaller number of threads, without waste: " + std::to_string(n_shapes) +
              " shapes, up to 128 threads, " + std::to_string(n_faults) + " faults");

    test_attention_batches(check);

    const auto same = [](ggml_tensor *) {
    };
    const auto tiles = turbo_attention(same);
    const auto rows  = turbo_attention(same, true);
    check(tiles != rows, "attention in tiles can be told from upstream's by its last bits");
    check(turbo_attention([](ggml_tensor * out) { out->op_params[4] = 17; }) == tiles,
          "attention knows the number of cells that a mask shows at most");
    check(turbo_attention([](ggml_tensor * out) { out->op_params[5] = 1; }) == rows,
          "attention with a parameter that is not known is upstream's");
    check(turbo_attention([](ggml_tensor * out) { out->src[5] = out->src[3]; }) == rows,
          "attention with a source that is not known is upstream's");

    check(turbo_attention([](ggml_tensor * out) { out->src[0]->ne[1] = out->src[3]->ne[1] = out->ne[2] = 0; }) ==
              std::vector<float>(rows.size(), 1.0f),
          "attention of no tokens writes nothing");
    check(turbo_attention([](ggml_tensor * out) {
              out->src[1]->ne[1] = out->src[2]->ne[1] = out->src[3]->ne[0] = 0;
          }) == std::vector<float>(rows.size(), 0.0f),
          "attention over no cells is zero");
#ifndef _WIN32
    const std::pair<const char *, std::function<void(ggml_tensor *)>> misfits[] = {
        { "no KV heads",               [](ggml_tensor * out) { out->src[1]->ne[2] = out->src[2]->ne[2] = 0; }       },
        { "heads that do not divide",  [](ggml_tensor * out) { out->src[0]->ne[2] = out->ne[1] = 3; }               },
        { "keys wider than queries",   [](ggml_tensor * out) { out->src[0]->ne[0]               = 32; }             },
        { "an output of other tokens", [](ggml_tensor * out) { out->ne[2]                     = 2; }                },
        { "an output of other heads",  [](ggml_tensor * out) { out->ne[1]                      = 8; }               },
        { "fewer values than keys",    [](ggml_tensor * out) { out->src[2]->ne[1]                = 100; }           },
        { "a mask of too few cells",   [](ggml_tensor * out) { out->src[3]->ne[0]               = 100; }            },
        { "a mask of too few tokens",  [](ggml_tensor * out) { out->src[3]->ne[1]              = 2; }               },
        { "a mask of another type",    [](ggml_tensor * out) { out->src[3]->type                 = GGML_TYPE_F32; } },
        { "sinks of too few heads",    [](ggml_tensor * out) { out->src[4]                       = out->src[3]; }   },
    };
    for (const auto & [what, change] : misfits) {
        check(turbo_attention_aborts(change), std::string("attention refuses ") + what);
    }
#endif
}
