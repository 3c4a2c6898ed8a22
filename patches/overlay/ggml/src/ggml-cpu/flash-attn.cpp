#include "flash-attn.h"

#include "flash-attn-kernels.h"
#include "flash-attn-plan.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "kv-row.h"
#include "kv-tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>

namespace {

constexpr int64_t FEW_ROWS = 8;  // float keys: up to here dot products beat a matrix product

constexpr uint16_t F16_NEG_INF = 0xfc00;

// Upstream's kernel for an F16 cache reads it anew for each query row. ARM computes with half floats, eight at a time, which is
// less work for so many rows of a KV head; elsewhere upstream converts them first.
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
constexpr int64_t UPSTREAM_F16_ROWS = 2;
#else
constexpr int64_t UPSTREAM_F16_ROWS = 0;
#endif

// Upstream's kernel computes what these do not know, or refuses it.
bool is_supported(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    const bool few_rows = q->ne[1] * q->ne[2] <= UPSTREAM_F16_ROWS * k->ne[2];
    if (k->type == v->type && (k->type == GGML_TYPE_F32 || (k->type == GGML_TYPE_F16 && few_rows))) {
        return false;
    }

    // known: q, k, v, mask, sinks; scale, bias, softcap, precision, and how many cells the mask shows at most
    if (std::any_of(dst->src + 5, std::end(dst->src), [](const ggml_tensor * t) { return t != nullptr; }) ||
        std::any_of(dst->op_params + 5, std::end(dst->op_params), [](int32_t x) { return x != 0; })) {
        return false;
    }

    for (const ggml_tensor * t : { k, v }) {
        if (t->nb[0] != ggml_type_size(t->type) || (t->type != GGML_TYPE_F32 && !ggml_cpu_get_to_float(t->type))) {
            return false;
        }
    }
    return q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && q->ne[0] == k->ne[0] && k->ne[0] > 0 &&
           k->ne[1] > 0 && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && dst->nb[0] == sizeof(float) &&
           dst->ne[0] == v->ne[0] && dst->ne[2] == q->ne[1] && !ggml_is_empty(dst);
}

// What upstream's kernel does not look at either, and would divide by or read past.
bool fits(const ggml_tensor * dst) {
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * v     = dst->src[2];
    const ggml_tensor * mask  = dst->src[3];
    const ggml_tensor * sinks = dst->src[4];

    const bool mask_fits = !mask || (mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) &&
                                     mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] && !ggml_is_empty(mask));
    const bool sinks_fit =
        !sinks || (sinks->type == GGML_TYPE_F32 && sinks->nb[0] == sizeof(float) && sinks->ne[0] >= q->ne[2]);

    return mask_fits && sinks_fit && k->ne[2] > 0 && q->ne[2] % k->ne[2] == 0 && k->ne[3] > 0 &&
           q->ne[3] % k->ne[3] == 0 && v->ne[1] >= k->ne[1] && dst->ne[1] == q->ne[2] && dst->ne[3] == q->ne[3] &&
           k->ne[0] % ggml_blck_size(k->type) == 0 && v->ne[0] % ggml_blck_size(v->type) == 0;
}

fa_shape get_shape(const ggml_tensor * dst) {
    const auto * const * src = dst->src;
    return { src[1]->ne[0], src[2]->ne[0], src[0]->ne[1], src[0]->ne[2],
             src[0]->ne[3], src[1]->ne[2], src[1]->ne[1], src[3] && src[3]->ne[2] > 1 };
}

// one thread's work
class fa_worker {
  public:
    fa_worker(const ggml_compute_params * params, ggml_tensor * dst, const fa_shape & shape, const fa_plan & plan) :
        dst(dst),
        shape(shape),
        plan(plan) {
        const fa_scratch size(shape, plan);

        float *    base = align(params->wdata);
        float *    p    = base + params->ith * size.thread();
        const auto take = [&p](int64_t n) {
            return (p += n) - n;
        };
        K        = take(size.k);
        V        = take(size.v);
        row      = take(size.row);
        S        = take(size.s);
        bias     = take(size.bias);
        blocks   = p;
        partials = base + params->nth * size.thread();

        if (dv_pad != dv) {
            std::fill(V, V + size.v, 0.0f);
        }

        // the same memory
        k_levels = { (int8_t *) K, K + FA_TILE * dk / 4 };
        v_levels = { (int8_t *) V, V + FA_TILE * dv / 4 };
        select_block(0, 0);
    }

    // `n` blocks from `block` on, at most plan.together, over a range
    void run(int64_t split, int64_t block, int64_t n) {
        for (int64_t i = 0; i < n; i++) {
            select_block(block, i);
            load_queries();
            std::fill(M, M + rows, -INFINITY);
            std::fill(L, L + rows, 0.0f);
            std::fill(acc, acc + rows * dv_pad, 0.0f);
        }
        const fa_registers regs(unpack_k || unpack_v ? plan.rows() : 0, unpack_k ? k_width : v_width);
        const int64_t      end = std::min((split + 1) * plan.split, k->ne[1]);
        for (int64_t cell = split * plan.split; cell < end; cell += FA_CHUNK) {
            for (int64_t i = 0; i < n; i++) {
                select_block(block, i);
                read(regs, cell, std::min(cell + FA_CHUNK, end));
            }
        }
        for (int64_t i = 0; i < n; i++) {
            select_block(block, i);
            put_results(split);
        }
    }

    // joins the ranges of row i of dst
    void join(int64_t i) {
        float m = -INFINITY;
        float l = 0.0f;
        std::fill(acc, acc + dv, 0.0f);

        for (int64_t split = 0; split < plan.n_splits; split++) {
            const float * partial = partials + (split * ggml_nrows(dst) + i) * (2 + dv);
            if (partial[1] == 0.0f) {
                continue;
            }
            const float m_new = std::max(m, partial[0]);
            const float c_old = expf(m - m_new);
            const float c_new = expf(partial[0] - m_new);
            for (int64_t d = 0; d < dv; d++) {
                acc[d] = acc[d] * c_old + partial[2 + d] * c_new;
            }
            l = l * c_old + partial[1] * c_new;
            m = m_new;
        }
        finish(i, m, l, acc);
    }

  private:
    ggml_tensor *    dst;
    const fa_shape & shape;
    const fa_plan &  plan;

    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    const float max_bias = ggml_get_op_params_f32(dst, 1);
    const float softcap  = ggml_get_op_params_f32(dst, 2);
    const float scale    = ggml_get_op_params_f32(dst, 0) / (softcap != 0.0f ? softcap : 1.0f);

    const int64_t dk      = shape.dk;
    const int64_t dv      = shape.dv;
    const int64_t dv_pad  = fa_round_up(dv, FA_PAD);
    const int64_t k_width = ggml_kv_step_width(k->type);  // values that share a step
    const int64_t v_width = ggml_kv_step_width(v->type);

    const ggml_kv_unpack_t unpack_k   = ggml_kv_get_unpack_keys(k->type);    // null: keys are decoded to float
    const ggml_kv_unpack_t unpack_v   = ggml_kv_get_unpack_values(v->type);  // the same for values
    const ggml_to_float_t  to_float_k = ggml_cpu_get_to_float(k->type);
    const ggml_to_float_t  to_float_v = ggml_cpu_get_to_float(v->type);

    float * K;         // [dk][width]
    float * V;         // [n_cells][dv_pad]
    float * row;       // [dk]
    float * S;         // [rows][width]: scores, then weights
    float * bias;      // [tokens][width]: mask of the tile
    float * blocks;    // Q, acc, M and L of each block that is computed side by side
    float * partials;  // [split][row of dst][2 + dv]

    // in the place of K and V
    fa_levels k_levels;  // with unpack_k: of n_cells, steps [dk/k_width][FA_TILE]
    fa_levels v_levels;  // with unpack_v: of n_cells, steps [dv/v_width][FA_TILE]

    // the block
    float *      Q;         // [rows][dk]
    fa_queries   q_levels;  // in its place, with unpack_k: [rows][dk], steps and starts [rows][dk/k_width]
    float *      acc;       // [rows][dv_pad]
    float *      M;         // [rows]: largest score so far
    float *      L;         // [rows]: sum of the weights so far
    int64_t      seq;
    int64_t      head;
    int64_t      token;
    int64_t      tokens;
    int64_t      rows;    // row r is head + r/tokens, token + r%tokens
    const char * k_base;  // cell 0 of the block's KV head
    const char * v_base;

    // the tile
    int32_t cells[FA_TILE];  // those that some row of the block may see, then the last one again up to width
    int64_t n_cells;
    int64_t width;           // n_cells and padding
    bool    biased;          // bias is not all zero

    // the next line of the cache, which FA_PAD floats fill
    static float * align(void * p) {
        constexpr uintptr_t line = FA_PAD * sizeof(float);
        return (float *) (((uintptr_t) p + line - 1) / line * line);
    }

    // block first + i, the i-th of those side by side
    void select_block(int64_t first_block, int64_t i) {
        const fa_scratch size(shape, plan);

        Q        = blocks + i * size.block();
        acc      = Q + size.q;
        M        = acc + size.acc;
        L        = M + size.stat;
        q_levels = get_query_levels();

        const int64_t block          = first_block + i;
        const int64_t n_token_blocks = fa_div_up(shape.tokens, plan.tokens);
        const int64_t group_block    = block / n_token_blocks;
        const int64_t first          = group_block % plan.groups * plan.heads;  // in the GQA group
        const int64_t head_kv        = group_block / plan.groups % shape.heads_kv;

        seq    = group_block / plan.groups / shape.heads_kv;
        head   = head_kv * shape.group() + first;
        token  = block % n_token_blocks * plan.tokens;
        tokens = std::min(plan.tokens, shape.tokens - token);
        rows   = std::min(plan.heads, shape.group() - first) * tokens;

        k_base = (const char *) k->data + head_kv * k->nb[2] + seq / (q->ne[3] / k->ne[3]) * k->nb[3];
        v_base = (const char *) v->data + head_kv * v->nb[2] + seq / (q->ne[3] / v->ne[3]) * v->nb[3];
    }

    fa_queries get_query_levels() const {
        float * steps = Q + plan.rows() * dk / 4;
        return { (int8_t *) Q, steps, (int32_t *) (steps + plan.rows() * dk / k_width) };
    }

    // the cells from `first` on
    void read(const fa_registers & regs, int64_t first, int64_t end) {
        for (int64_t cell = first; cell < end; cell += FA_TILE) {
            if (select_cells(cell, std::min(FA_TILE, end - cell))) {
                score(regs);
                accumulate(regs);
            }
        }
    }

    void put_results(int64_t split) {
        for (int64_t r = 0; r < rows; r++) {
            const int64_t i = dst_row(r);
            if (plan.n_splits == 1) {
                finish(i, M[r], L[r], acc + r * dv_pad);
            } else {
                float * partial = partials + (split * ggml_nrows(dst) + i) * (2 + dv);
                partial[0]      = M[r];
                partial[1]      = L[r];
                memcpy(partial + 2, acc + r * dv_pad, dv * sizeof(float));
            }
        }
    }

    static int32_t float_bits(float x) {
        int32_t bits;
        memcpy(&bits, &x, sizeof(bits));
        return bits;
    }

    // levels within +-127 and their step
    static float quantize(const float * x, int64_t n, int8_t * levels) {
        int32_t top = 0;  // the bits of a float's magnitude order as it does; infinity and NaN are the largest
        for (int64_t i = 0; i < n; i++) {
            top = std::max(top, float_bits(x[i]) & 0x7fffffff);
        }
        if (top == 0 || top >= 0x7f800000) {
            std::fill_n(levels, n, (int8_t) 0);
            return top == 0 ? 0.0f : NAN;
        }
        float amax;
        memcpy(&amax, &top, sizeof(amax));

        const float magic = 12582912.0f;  // 1.5*2^23: the sum's low mantissa bits are the rounded product
        for (int64_t i = 0; i < n; i++) {
            levels[i] = (int8_t) float_bits(127.0f * (x[i] / amax) + magic);
        }
        return amax / 127.0f;
    }

    void load_queries() {
        for (int64_t r = 0; r < rows; r++) {
            const float * x = (const float *) ((const char *) q->data + (token + r % tokens) * q->nb[1] +
                                               (head + r / tokens) * q->nb[2] + seq * q->nb[3]);
            if (unpack_k) {
                for (int64_t b = 0; b < dk / k_width; b++) {
                    int8_t *      levels = q_levels.data + r * dk + b * k_width;
                    const int64_t i      = r * (dk / k_width) + b;
                    q_levels.steps[i]    = scale * quantize(x + b * k_width, k_width, levels);
                    q_levels.starts[i]   = -KV_OFFSET * std::accumulate(levels, levels + k_width, 0);
                }
            } else {
                memcpy(Q + r * dk, x, dk * sizeof(float));
                ggml_vec_scale_f32(dk, Q + r * dk, scale);
            }
        }
    }

    // Choose the cells of the tile that a row of the block may see. Returns false if there are none.
    bool select_cells(int64_t first, int64_t n) {
        uint16_t seen[FA_TILE] = { 0 };
        uint16_t bits          = 0;

        const char * m = nullptr;
        if (mask) {
            m = (const char *) mask->data + token * mask->nb[1] + (head % mask->ne[2]) * mask->nb[2] +
                (seq % mask->ne[3]) * mask->nb[3] + first * sizeof(ggml_fp16_t);
            for (int64_t t = 0; t < tokens; t++) {
                const uint16_t * x = (const uint16_t *) (m + t * mask->nb[1]);
                for (int64_t c = 0; c < n; c++) {
                    seen[c] |= x[c] ^ F16_NEG_INF;
                    bits |= x[c];
                }
            }
        }

        biased  = bits != 0;
        n_cells = biased ? 0 : n;
        std::iota(cells, cells + n_cells, (int32_t) first);
        for (int64_t c = 0; biased && c < n; c++) {
            if (seen[c]) {
                cells[n_cells++] = (int32_t) (first + c);
            }
        }
        width = fa_round_up(n_cells, FA_PAD);
        if (n_cells > 0) {
            std::fill(cells + n_cells, cells + width, cells[n_cells - 1]);
        }

        for (int64_t t = 0; biased && t < tokens; t++) {
            const ggml_fp16_t * x = (const ggml_fp16_t *) (m + t * mask->nb[1]);
            for (int64_t c = 0; c < n_cells; c++) {
                bias[t * width + c] = GGML_CPU_FP16_TO_FP32(x[cells[c] - first]);
            }
        }
        return n_cells > 0;
    }

    static void decode(ggml_to_float_t to_float, const char * x, float * y, int64_t n) {
        if (to_float) {
            to_float(x, y, n);
        } else {
            memcpy(y, x, n * sizeof(float));
        }
    }

    // S = scaled products of queries and keys
    void score(const fa_registers & regs) {
        if (unpack_k) {
            unpack_k(k_base, k->nb[1], cells, n_cells, dk, k_levels.data, k_levels.steps, FA_TILE);
            if (k_width == 32) {
                dot_levels<1>(regs, q_levels, k_levels, rows, width, dk, S);
            } else {
                dot_levels<2>(regs, q_levels, k_levels, rows, width, dk, S);
            }
        } else if (rows <= FEW_ROWS) {
            for (int64_t c = 0; c < n_cells; c++) {
                decode(to_float_k, k_base + cells[c] * k->nb[1], row, dk);
                for (int64_t r = 0; r < rows; r++) {
                    ggml_vec_dot_f32(dk, S + r * width + c, 0, row, 0, Q + r * dk, 0, 1);
                }
            }
        } else {
            std::fill(K, K + dk * width, 0.0f);
            for (int64_t c = 0; c < n_cells; c++) {
                decode(to_float_k, k_base + cells[c] * k->nb[1], row, dk);
                for (int64_t d = 0; d < dk; d++) {
                    K[d * width + c] = row[d];
                }
            }
            std::fill(S, S + rows * width, 0.0f);
            add_products({ S, width }, { Q, dk }, { K, width }, rows, width, dk);
        }
    }

    float slope(int64_t h) const {
        if (max_bias <= 0.0f) {
            return 1.0f;
        }
        const uint32_t n_head_log2 = 1u << (uint32_t) floor(log2(q->ne[2]));
        const float    m0          = powf(2.0f, -(max_bias) / n_head_log2);
        const float    m1          = powf(2.0f, -(max_bias / 2.0f) / n_head_log2);
        return h < n_head_log2 ? powf(m0, h + 1) : powf(m1, 2 * (h - n_head_log2) + 1);
    }

    // S = weights relative to M; returns false if all of them are zero
    bool weigh() {
        bool any = false;
        for (int64_t r = 0; r < rows; r++) {
            float * s = S + r * width;
            if (softcap != 0.0f) {
                soft_cap(s, width, softcap);
            }
            if (biased) {
                const float * b = bias + r % tokens * width;
                const float   f = slope(head + r / tokens);
                for (int64_t c = 0; c < n_cells; c++) {
                    s[c] = b[c] == -INFINITY ? -INFINITY : s[c] + f * b[c];
                }
            }
            std::fill(s + n_cells, s + width, -INFINITY);

            const float m = largest(s, width);
            if (m == -INFINITY) {
                std::fill(s, s + width, 0.0f);
                continue;
            }
            if (m > M[r]) {
                const float c = expf(M[r] - m);
                ggml_vec_scale_f32(dv, acc + r * dv_pad, c);
                L[r] *= c;
                M[r] = m;
            }
            const float sum = exponentiate(s, width, M[r]);
            L[r] += sum;
            any = any || sum != 0.0f;
        }
        return any;
    }

    // acc += weights*values
    void accumulate(const fa_registers & regs) {
        if (!weigh()) {
            return;
        }
        if (unpack_v) {
            unpack_v(v_base, v->nb[1], cells, n_cells, dv, v_levels.data, v_levels.steps, FA_TILE);
            const fa_rows<float>       y{ acc, dv_pad };
            const fa_rows<const float> w{ S, width };
            if (v_width == 32) {
                add_levels<1>(regs, y, w, v_levels, rows, dv, n_cells);
            } else {
                add_levels<2>(regs, y, w, v_levels, rows, dv, n_cells);
            }
            return;
        }
        for (int64_t c = 0; c < n_cells; c++) {
            decode(to_float_v, v_base + cells[c] * v->nb[1], V + c * dv_pad, dv);
        }
        add_products({ acc, dv_pad }, { S, width }, { V, dv_pad }, rows, dv_pad, n_cells);
    }

    // the rows of dst are [seq][token][head]
    int64_t dst_row(int64_t r) const { return (seq * q->ne[1] + token + r % tokens) * q->ne[2] + head + r / tokens; }

    void finish(int64_t i, float m, float l, float * x) {
        if (const ggml_tensor * sinks = dst->src[4]) {
            const float s     = ((const float *) sinks->data)[i % q->ne[2]];
            const float m_new = std::max(m, s);
            const float c     = expf(m - m_new);
            ggml_vec_scale_f32(dv, x, c);
            l = l * c + expf(s - m_new);
        }
        ggml_vec_scale_f32(dv, x, l == 0.0f ? 0.0f : 1.0f / l);
        memcpy((char *) dst->data + i * dst->nb[1], x, dv * sizeof(float));
    }
};

}  // namespace

size_t ggml_flash_attn_kv_work_size(const ggml_tensor * dst, int n_threads) {
    return is_supported(dst) && fits(dst) ? fa_work_size(get_shape(dst), n_threads) * sizeof(float) : 0;
}

bool ggml_compute_forward_flash_attn_kv(const ggml_compute_params * params, ggml_tensor * dst) {
    if (params->use_ref || !is_supported(dst)) {
        return false;
    }
    GGML_ASSERT(fits(dst));

    const fa_shape shape     = get_shape(dst);
    const fa_plan  plan      = fa_make_plan(shape, params->nth);
    const size_t   work_size = fa_scratch(shape, plan).size(params->nth) * sizeof(float);

    // the Spacemit kernels pass on what they do not take, but plan the memory for upstream's path
    if (work_size > params->wsize) {
        return false;
    }

    fa_worker worker(params, dst, shape, plan);

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // where there are enough ranges, a thread takes all blocks of one: the rows of the KV heads share cache lines
    const bool    enough = params->nth == 1 || (plan.n_splits > 1 && plan.n_splits >= params->nth);
    const int64_t step   = enough ? plan.n_blocks : 1;
    for (int64_t first = params->ith * step; first < plan.n_blocks * plan.n_splits;
         first         = ggml_threadpool_chunk_add(params->threadpool, 1) * step) {
        for (int64_t item = first; item < first + step; item += std::min(step, plan.together)) {
            worker.run(item / plan.n_blocks, item % plan.n_blocks, std::min(step, plan.together));
        }
    }
    if (plan.n_splits > 1) {
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < ggml_nrows(dst); i += params->nth) {
            worker.join(i);
        }
    }
    return true;
}
