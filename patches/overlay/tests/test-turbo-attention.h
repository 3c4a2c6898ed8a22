#pragma once

// Attention over a quantized cache on the CPU: its plan, and the operands and shapes that its kernels leave to upstream's.

#include "../ggml/src/ggml-cpu/flash-attn-plan.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
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
