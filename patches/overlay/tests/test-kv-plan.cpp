// Attention over a quantized cache where the work buffer was planned by somebody else: the buffer types of the CPU backend
// may answer for the size of an operation and leave the operation to us, as Spacemit's does with upstream's formula.

#include "ggml-cpp.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

// upstream's tile sizes
static const size_t n_tile_q  = 64;
static const size_t n_tile_kv = 64;

static size_t upstream_work_size(const ggml_tensor * dst, size_t n_threads) {
    const size_t n_head  = dst->src[0]->ne[2];
    const size_t dk      = dst->src[1]->ne[0];
    const size_t dv      = dst->src[2]->ne[0];
    const size_t tiles   = n_tile_q * (dk + dv + 2 * n_tile_kv) + n_tile_kv * (dk + dv);
    const size_t partial = n_head * n_threads * (2 + dv) + n_threads * (dk + 2 * dv);
    return sizeof(float) * std::max(tiles * n_threads, partial);
}

int main() {
    int n_failed  = 0;
    int n_smaller = 0;

    for (ggml_type type : { GGML_TYPE_TURBO2, GGML_TYPE_TURBO3, GGML_TYPE_TURBO4, GGML_TYPE_Q8_0 }) {
        for (int n_tokens : { 1, 64 }) {
            for (int n_threads : { 1, 2 }) {
                ggml_context_ptr ctx{ ggml_init({ 32u << 20, nullptr, false }) };

                const auto new_f32 = [&](int64_t n, int64_t n_heads) {
                    ggml_tensor * t = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, 128, n, n_heads);
                    for (int64_t i = 0; i < ggml_nelements(t); i++) {
                        ((float *) t->data)[i] = std::sin(0.37f * i + i % 13);
                    }
                    return t;
                };
                ggml_tensor * f32 = new_f32(512, 3);
                ggml_tensor * kv  = ggml_new_tensor_3d(ctx.get(), type, 128, 512, 3);
                ggml_quantize_chunk(type, (const float *) f32->data, kv->data, 0, ggml_nrows(kv), kv->ne[0], nullptr);

                ggml_tensor * cur =
                    ggml_flash_attn_ext(ctx.get(), new_f32(n_tokens, 9), kv, kv, nullptr, 0.09f, 0.0f, 0.0f);
                ggml_cgraph * graph = ggml_new_graph(ctx.get());
                ggml_build_forward_expand(graph, cur);

                ggml_cplan           plan = ggml_graph_plan(graph, n_threads, nullptr);
                std::vector<uint8_t> work(plan.work_size);
                plan.work_data = work.data();
                ggml_graph_compute(graph, &plan);

                const float *            data = (const float *) cur->data;
                const std::vector<float> expected(data, data + ggml_nelements(cur));

                const size_t size = upstream_work_size(cur, n_threads);
                n_smaller += size + 1024 < plan.work_size;
                plan.work_size = std::min(plan.work_size, size);
                ggml_graph_compute(graph, &plan);

                double error = 0.0;
                double norm  = 0.0;
                for (size_t i = 0; i < expected.size(); i++) {
                    error += (data[i] - expected[i]) * (data[i] - expected[i]);
                    norm += expected[i] * expected[i];
                }
                const bool ok = error < 1e-6 * norm;
                n_failed += !ok;
                printf("%s: %s, %d tokens, %d threads, %zu bytes of work: error %.1e\n", ok ? "ok" : "FAILED",
                       ggml_type_name(type), n_tokens, n_threads, plan.work_size, error / norm);
            }
        }
    }
    printf("%d failed, %d plans were larger than upstream's\n", n_failed, n_smaller);
    return n_failed > 0 || n_smaller == 0;
}
